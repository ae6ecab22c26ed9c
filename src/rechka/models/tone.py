"""The T-one family: streaming Conformer-CTC for 8 kHz telephone speech, on ONNX Runtime.

Runs the graph as published (``signal`` int32 [batch, 2400, 1] and ``state`` [batch, 219729] in, ``logprobs`` and
``state_next`` out, state in float16 or float32) and the graphs that ``rechka.export`` writes, whose block form reads
any whole number of chunks in one pass. Streams that stand at different points and bring different amounts of audio
share runs; what a stream gets does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from rechka.backends import REMOTE, open_backend
from rechka.errors import BadCard, BadModelFile, BadSamples
from rechka.features.tone import SAMPLE_RATE, SCALE
from rechka.protocols import Backend
from rechka.types import F32, Frames, LogProbs, ModelSpec, State, Tokens

if TYPE_CHECKING:
    from rechka.models.tone_sequence import SequenceTone

TOKENS = Tokens((*"абвгдеёжзийклмнопрстуфхцчшщъыьэюя", " ", ""), blank=34)
"""The published vocabulary: thirty-three letters, the space, the blank."""

HOP = 240
"""Samples per output frame: 30 ms."""
CHUNK = 2400
"""Samples per step: 300 ms. The attention's chunks are built into the weights."""
LAG = 2640
"""How late letters are emitted, 0.33 s: the mean measured by T-one's authors, rounded as they do."""
MAX_CHUNKS = 20
"""Chunks that one run of the block form computes, over all its streams; twenty measured fastest, thirty no better."""


@dataclass(frozen=True, slots=True)
class ToneState:
    """One stream's state: the graph's own (S,), and how many frames were emitted."""

    values: NDArray[Any]
    frame: int


def load(
    files: Mapping[str, Path], params: Mapping[str, Any], *, device: str = "cpu", threads: int | None = None
) -> ToneModel | SequenceTone:
    """The model of a card.

    Args:
        files: ``model`` is the ONNX graph.
        params: ``max_chunks``, if other than the default.
    Raises:
        BadCard: no model file, or an unknown parameter.
        BadModelFile: a graph of another family.
    """
    if "model" not in files:
        raise BadCard("a card of the family 'tone' needs the file role 'model'", remedy="add [files.model] to the card")
    unknown = sorted(set(params) - {"max_chunks"})
    if unknown:
        raise BadCard(f"the family 'tone' has no parameter {', '.join(unknown)}", remedy="it knows max_chunks")
    backend = open_backend(files, device=device, threads=threads)
    if device.startswith(REMOTE) and set(backend.inputs) == {"signal"}:
        from rechka.backends.triton import TritonBackend
        from rechka.models.tone_sequence import SequenceTone

        return SequenceTone(cast("TritonBackend", backend))
    return ToneModel(backend, **params)


class ToneModel:
    """T-one on a backend. Holds no stream's state; thread-safe if the backend is.

    Args:
        backend: the graph.
        max_chunks: chunks per run over all streams; at least one per stream is always computed.
    Raises:
        BadModelFile: inputs or outputs that are not T-one's.
        BadCard: ``max_chunks`` below one.
    """

    def __init__(self, backend: Backend, max_chunks: int = MAX_CHUNKS) -> None:
        if max_chunks < 1:
            raise BadCard(f"max_chunks must be at least 1, got {max_chunks}")
        inputs = backend.inputs
        if set(inputs) != {"signal", "state"} or set(backend.outputs) != {"logprobs", "state_next"}:
            raise BadModelFile(
                f"a T-one graph maps signal and state to logprobs and state_next; this one maps "
                f"{', '.join(inputs)} to {', '.join(backend.outputs)}",
                remedy="give the card the family that the file belongs to",
            )
        (signal, self._signal_dtype), (state, self._state_dtype) = inputs["signal"], inputs["state"]
        if len(signal) != 3 or signal[1] not in (None, CHUNK) or len(state) != 2 or state[1] is None:
            raise BadModelFile(
                f"T-one reads signal [batch, {CHUNK} or any, 1] and state [batch, size]; "
                f"this graph reads {list(signal)} and {list(state)}"
            )
        self._backend = backend
        self._state_size = int(state[1])
        self._max_chunks = max_chunks
        self.one_pass = signal[1] is None
        """Whether the graph takes several chunks in one run."""
        self.spec = ModelSpec(SAMPLE_RATE, HOP, CHUNK, CHUNK, CHUNK, LAG, None, TOKENS, LogProbs)

    def initial_state(self) -> State:
        """Silence so far."""
        return ToneState(np.zeros(self._state_size, self._state_dtype), 0)

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """The next chunks of each stream; see ``AcousticModel``.

        Args:
            audio: per stream (k * 2400,) samples in [-1, 1] for some whole k >= 1; louder samples are clipped.
            states: per stream what the last step returned; not modified.
        Raises:
            BadSamples: a length that is no multiple of 2400, or samples that are no numbers.
        """
        signals = [to_integers(samples) for samples in audio]
        values: list[NDArray[Any]] = [state.values for state in states]
        rows: list[list[F32]] = [[] for _ in signals]
        done = 0
        active = [i for i, signal in enumerate(signals) if len(signal)]
        while active:
            count = self._chunks(len(active), min(len(signals[i]) - done for i in active) // CHUNK)
            end = done + count * CHUNK
            out = self._backend.run(
                {
                    "signal": np.stack([signals[i][done:end] for i in active])[:, :, None].astype(
                        self._signal_dtype, copy=False
                    ),
                    "state": np.stack([values[i] for i in active]),
                }
            )
            for row, i in enumerate(active):
                rows[i].append(out["logprobs"][row])
                # A copy, so that a stream does not keep its neighbours' states alive.
                values[i] = out["state_next"][row].copy()
            done = end
            active = [i for i in active if len(signals[i]) > done]
        frames: list[Frames] = []
        after: list[State] = []
        for state, value, parts in zip(states, values, rows, strict=True):
            logprobs = np.concatenate(parts, dtype=np.float32)
            frames.append(LogProbs(logprobs, state.frame))
            after.append(ToneState(value, state.frame + len(logprobs)))
        return frames, after

    def _chunks(self, streams: int, available: int) -> int:
        """Chunks per stream in the next run."""
        return min(available, max(1, self._max_chunks // streams)) if self.one_pass else 1


def to_integers(samples: F32) -> NDArray[np.int32]:
    """Samples in [-1, 1] to integers as the graph wants them: 32767 is full scale."""
    if samples.ndim != 1 or len(samples) == 0 or len(samples) % CHUNK:
        raise BadSamples(
            f"T-one reads a whole number of chunks of {CHUNK} samples at {SAMPLE_RATE} Hz, got shape {samples.shape}",
            remedy="let Stream.feed() do the chunking",
        )
    if not np.isfinite(samples).all():
        raise BadSamples("samples must be numbers in [-1, 1], got NaN or infinity", remedy="check the audio source")
    return np.asarray(np.rint(np.clip(samples, -1.0, 1.0) * SCALE), np.int32)
