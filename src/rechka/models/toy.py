"""The toy family: tones to letters, no weights, exact expected text. It makes the whole system testable in seconds.

Each letter of the vocabulary is a tone (`rechka.testing.say` plays them). A frame whose loudest bin is a letter's bin
emits that letter; a quiet frame emits the blank. Otherwise the toy has the habits of a real streaming model, T-one's by
default: steps of 300 ms with frames of 30 ms, a start during which it hears nothing, letters that come out late, and a
state. So it also shows how to write a family: a frozen `spec`, `initial_state`, `step`, and `load`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rechka.errors import BadCard, BadSamples
from rechka.types import F32, Frames, LogProbs, ModelSpec, State, Tokens

TOKENS = Tokens((*"абвгдеёжзийклмнопрстуфхцчшщъыьэюя", " ", ""), blank=34)
"""Thirty-three letters, the space and the blank, in T-one's order."""

SAMPLE_RATE = 8000
HOP = 240
FIRST_BIN, BINS_PER_TOKEN = 9, 3
LOUD = 0.15  # root mean square of a frame that is heard; a tone of amplitude 0.5 over a good third of the frame
WINNER = 0.98  # probability of the frame's token; the others share the rest


def frequency(token: int) -> float:
    """Hertz of a token's tone: from 300 to 3600, in steps of 100, each in the middle of a bin of a frame's spectrum."""
    return (FIRST_BIN + BINS_PER_TOKEN * token) * SAMPLE_RATE / HOP


def load(
    files: Mapping[str, Path], params: Mapping[str, Any], *, device: str = "cpu", threads: int | None = None
) -> ToyModel | ToyPhraseModel:
    """The toy as a card asks for it: no files; ``params`` may set chunk, shift, pad and lag, in samples.

    With ``whole = true`` it reads whole phrases: then it knows pad, lag and max_len.

    Raises:
        BadCard: an unknown parameter, or one that is not a whole number of frames.
    """
    whole = params.get("whole") is True
    known = {"whole", "pad", "lag", "max_len"} if whole else {"chunk", "shift", "pad", "lag"}
    if unknown := set(params) - known:
        raise BadCard(
            f"the toy model has no parameter {sorted(unknown)}", remedy=f"it knows {', '.join(sorted(known))}"
        )
    if whole:
        return ToyPhraseModel(**{key: value for key, value in params.items() if key != "whole"})
    return ToyModel(**params)


@dataclass(frozen=True, slots=True)
class ToyState:
    """Frames heard so far, and the letters that were heard but not yet emitted, one id per frame."""

    frame: int
    late: tuple[int, ...]


class ToyModel:
    """Tones to letters.

    Args:
        chunk: samples that a step reads.
        shift: samples by which it advances; the rest of the chunk is look-ahead, which the toy does not need.
        pad: it is deaf for so many samples at the start of a stream.
        lag: it emits each letter so many samples late.
    """

    def __init__(self, chunk: int = 2400, shift: int | None = None, pad: int = 2400, lag: int = 2640) -> None:
        shift = chunk if shift is None else shift
        if any(value % HOP or value < 0 for value in (chunk, shift, pad, lag)) or not 0 < shift <= chunk:
            raise BadCard(
                f"chunk {chunk}, shift {shift}, pad {pad} and lag {lag} must be whole frames of {HOP} samples, "
                "with shift above 0 and not above chunk"
            )
        self.spec = ModelSpec(SAMPLE_RATE, HOP, chunk, shift, pad, lag, None, TOKENS, LogProbs)

    def initial_state(self) -> State:
        """Nothing heard, nothing to say."""
        return ToyState(0, (TOKENS.blank,) * (self.spec.lag // HOP))

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """One step of each stream; see ``AcousticModel``.

        Raises:
            BadSamples: a chunk of the wrong length.
        """
        frames: list[Frames] = []
        after: list[State] = []
        for samples, state in zip(audio, states, strict=True):
            out, new = self._step(samples, state)
            frames.append(out)
            after.append(new)
        return frames, after

    def _step(self, samples: F32, state: ToyState) -> tuple[LogProbs, ToyState]:
        chunk, shift = self.spec.chunk or 0, self.spec.shift or 1
        extra = len(samples) - chunk
        if extra < 0 or extra % shift:
            raise BadSamples(
                f"chunk must hold {chunk} samples at {SAMPLE_RATE} Hz plus any number of {shift}, got {len(samples)}",
                remedy="let Stream.feed() do the chunking",
            )
        heard = self._hear(samples[: extra + shift])
        deaf = min(max(self.spec.pad // HOP - state.frame, 0), len(heard))
        queue = (*state.late, *([TOKENS.blank] * deaf), *heard[deaf:])
        emitted, late = queue[: len(heard)], queue[len(heard) :]
        return LogProbs(_won_by(emitted), state.frame), ToyState(state.frame + len(heard), late)

    @staticmethod
    def _hear(samples: F32) -> list[int]:
        """The token of each frame."""
        frames = np.asarray(samples, dtype=np.float64).reshape(-1, HOP)
        loud = np.sqrt((frames**2).mean(axis=1)) >= LOUD
        bins = FIRST_BIN + BINS_PER_TOKEN * np.arange(TOKENS.blank)
        loudest = np.abs(np.fft.rfft(frames, axis=1)[:, bins]).argmax(axis=1)
        return [int(token) for token in np.where(loud, loudest, TOKENS.blank)]


class ToyPhraseModel:
    """Tones to letters, whole phrases at once, as offline models read them.

    Args:
        pad: silence that it wants around every phrase, samples; it is deaf for so many at the start.
        lag: it emits each letter so many samples late.
        max_len: samples of the longest phrase; None for no limit.
    """

    def __init__(self, pad: int = 0, lag: int = 0, max_len: int | None = None) -> None:
        if any(value % HOP or value < 0 for value in (pad, lag)) or lag > pad:
            raise BadCard(f"pad {pad} and lag {lag} must be whole frames of {HOP} samples, lag not above pad")
        self.spec = ModelSpec(SAMPLE_RATE, HOP, None, None, pad, lag, max_len, TOKENS, LogProbs)

    def initial_state(self) -> State:
        """A phrase needs none."""
        return None

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """Each phrase whole; see ``AcousticModel``.

        Raises:
            BadSamples: a phrase that is too long.
        """
        frames: list[Frames] = []
        for samples in audio:
            if self.spec.max_len is not None and len(samples) > self.spec.max_len:
                raise BadSamples(f"a phrase may have {self.spec.max_len} samples, got {len(samples)}")
            heard = ToyModel._hear(np.pad(samples, (0, -len(samples) % HOP)))
            deaf, late = self.spec.pad // HOP, self.spec.lag // HOP
            heard = [TOKENS.blank] * min(deaf, len(heard)) + heard[deaf:]
            frames.append(LogProbs(_won_by(([TOKENS.blank] * late + heard)[: len(heard)])))
        return frames, list(states)


def _won_by(tokens: Sequence[int]) -> F32:
    """Log-probabilities (T, V) in which these tokens win."""
    values = np.full((len(tokens), len(TOKENS)), np.log((1.0 - WINNER) / (len(TOKENS) - 1)), dtype=np.float32)
    values[np.arange(len(tokens)), list(tokens)] = np.log(WINNER)
    return values
