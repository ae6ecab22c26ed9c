"""Stand-ins for parts: a backend that computes with a function, a model that reads from a script, a plain decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rechka.protocols import Array
from rechka.types import F32, Frames, Hypothesis, LogProbs, ModelSpec, State, Tokens


class FakeBackend:
    """A backend whose outputs come from a Python function; it records what it was asked.

    Args:
        function: named arrays in, named arrays out.
        inputs: shape (None where dynamic) and dtype of every input.
        outputs: names of the outputs.
        metadata: what the model file would say.
    """

    def __init__(
        self,
        function: Callable[[Mapping[str, Array]], dict[str, Array]],
        inputs: Mapping[str, tuple[Any, Any]],
        outputs: Sequence[str],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.function = function
        self.inputs: dict[str, tuple[Any, np.dtype[Any]]] = {
            name: (shape, np.dtype(dtype)) for name, (shape, dtype) in inputs.items()
        }
        self.outputs = tuple(outputs)
        self.metadata = dict(metadata or {})
        self.calls: list[dict[str, Array]] = []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; the shapes and types of the inputs must be the declared ones."""
        assert set(feeds) == set(self.inputs), f"expected inputs {sorted(self.inputs)}, got {sorted(feeds)}"
        for name, (shape, dtype) in self.inputs.items():
            array = feeds[name]
            assert array.dtype == dtype, f"{name} must be {dtype}, got {array.dtype}"
            assert len(array.shape) == len(shape), f"{name} must have shape {shape}, got {array.shape}"
            assert all(want is None or want == got for want, got in zip(shape, array.shape, strict=True)), (
                f"{name} must have shape {shape}, got {array.shape}"
            )
        self.calls.append(dict(feeds))
        return self.function(feeds)


class ScriptedModel:
    """A model that emits given frames whatever it hears, ten per step of 2400 samples at 8000 Hz, then blanks.

    Args:
        script: the token that wins each frame, or log-probabilities (T, V).
        tokens: vocabulary.
        winner: probability of that token, if tokens were given; the others share the rest.
        pad: as in ``ModelSpec``, samples.
        lag: as in ``ModelSpec``, samples.
    """

    def __init__(
        self, script: Sequence[int] | Array, tokens: Tokens, *, winner: float = 0.98, pad: int = 0, lag: int = 0
    ) -> None:
        self.spec = ModelSpec(8000, 240, 2400, 2400, pad, lag, None, tokens, LogProbs)
        self.size, self.blank, self.winner = len(tokens), tokens.blank, winner
        script = np.asarray(script)
        self.values = script.astype(np.float32) if script.ndim == 2 else self._won_by(script)

    def _won_by(self, ids: Array) -> F32:
        rest = (1.0 - self.winner) / (self.size - 1)
        values = np.full((len(ids), self.size), np.log(rest), dtype=np.float32)
        values[np.arange(len(ids)), ids.astype(np.int64)] = np.log(self.winner)
        return values

    def initial_state(self) -> State:
        """The index of the next frame."""
        return 0

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """The next frames of each stream."""
        frames: list[Frames] = [
            self._frames(state, len(samples) // self.spec.hop) for samples, state in zip(audio, states, strict=True)
        ]
        return frames, [state + len(piece) for state, piece in zip(states, frames, strict=True)]

    def _frames(self, start: int, count: int) -> LogProbs:
        known = self.values[start : start + count]
        after = self._won_by(np.full(count - len(known), self.blank))
        return LogProbs(np.concatenate([known, after]), start)


@dataclass(frozen=True, slots=True)
class ScriptedBeam:
    """Tokens with their frames and log-probabilities, and the last frame's token."""

    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    last: int = -1
    score: float = 0.0


class ScriptedDecoder:
    """Best path, written the slow and obvious way, that can be told to keep back its last letters and to fail.

    Args:
        blank: id of the blank.
        unsure: so many last tokens are not declared stable.
        fail_at: raise ``RuntimeError`` when this frame comes.
    """

    consumes: type[Frames] = LogProbs

    def __init__(self, blank: int, *, unsure: int = 0, fail_at: int | None = None) -> None:
        self.blank = blank
        self.unsure = unsure
        self.fail_at = fail_at
        self.calls: list[list[tuple[int, int]]] = []

    def begin(self) -> ScriptedBeam:
        """An empty beam."""
        return ScriptedBeam()

    def advance(self, beams: Sequence[ScriptedBeam], frames: Sequence[Frames], /) -> list[ScriptedBeam]:
        """Each beam moved on; what was asked is noted in ``calls`` as (first frame, frames) of each beam."""
        self.calls.append([(piece.start, len(piece)) for piece in frames])
        return [self._advance(beam, piece) for beam, piece in zip(beams, frames, strict=True)]

    def _advance(self, beam: ScriptedBeam, piece: Frames) -> ScriptedBeam:
        tokens, frames, logprobs = list(beam.tokens), list(beam.frames), list(beam.logprobs)
        last, score = beam.last, beam.score
        for index, row in enumerate(piece.values, piece.start):
            if index == self.fail_at:
                raise RuntimeError(f"scripted failure at frame {index}")
            token = int(row.argmax())
            score += float(row[token])
            if token not in (last, self.blank):
                tokens.append(token)
                frames.append(index)
                logprobs.append(float(row[token]))
            last = token
        return ScriptedBeam(tuple(tokens), tuple(frames), tuple(logprobs), last, score)

    def best(self, beam: ScriptedBeam, /) -> Hypothesis:
        """The one hypothesis."""
        return Hypothesis(beam.tokens, beam.frames, beam.logprobs, beam.score)

    def nbest(self, beam: ScriptedBeam, n: int, /) -> list[Hypothesis]:
        """The one hypothesis, if any is asked for."""
        return [self.best(beam)][:n]

    def stable(self, beam: ScriptedBeam, /) -> int:
        """All tokens but the last ``unsure``."""
        return max(0, len(beam.tokens) - self.unsure)
