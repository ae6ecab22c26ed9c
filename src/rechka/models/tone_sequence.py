"""T-one on a server that keeps the streams' states: samples go there, log-probabilities come back, and nothing else."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from rechka.backends.triton import TritonBackend
from rechka.errors import BadModelFile
from rechka.features.tone import SAMPLE_RATE
from rechka.models.tone import CHUNK, HOP, LAG, TOKENS, to_integers
from rechka.types import F32, Frames, LogProbs, ModelSpec, State

SIDE_BY_SIDE = 64
"""Requests on their way at the same time; the server puts together those that meet."""
REMEMBERED = 4096
"""Streams whose last answer is kept, so that a step that is asked for twice happens once."""


@dataclass(frozen=True, slots=True)
class SequenceState:
    """A stream: its number on the server, and how many frames came back. It can not be gone back to but by one step."""

    sequence: int
    frame: int


class SequenceTone:
    """T-one as ``rechka export --to triton --sequences`` writes it. Thread-safe.

    Args:
        backend: the server's model.
    Raises:
        BadModelFile: the server's model is no T-one with states of its own.
    """

    def __init__(self, backend: TritonBackend) -> None:
        if set(backend.inputs) != {"signal"} or backend.outputs != ("logprobs",):
            raise BadModelFile(
                f"{backend.model} on {backend.address} should map signal to logprobs; it maps "
                f"{', '.join(backend.inputs)} to {', '.join(backend.outputs)}",
                remedy="write its repository with rechka export --to triton --sequences",
            )
        self.spec = ModelSpec(SAMPLE_RATE, HOP, CHUNK, CHUNK, CHUNK, LAG, None, TOKENS, LogProbs)
        self._backend = backend
        shape, self._dtype = backend.inputs["signal"]
        self._one_pass = shape[1] is None
        self._pool = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="rechka-triton")
        self._last: OrderedDict[int, tuple[SequenceState, int, F32]] = OrderedDict()
        self._lock = threading.Lock()

    def initial_state(self) -> State:
        """A new stream. The server hears of it with its first step, and forgets it when it has been silent for long."""
        return SequenceState(secrets.randbits(63) | 1, 0)

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """The next chunks of each stream; see ``AcousticModel``.

        A step that failed for one stream may be asked for again: the others get what they got before.

        Raises:
            BadSamples: a length that is no multiple of 2400, or samples that are no numbers.
            RemoteFailed: the server does not answer or refuses.
        """
        signals = [to_integers(samples) for samples in audio]
        waiting: list[Future[F32]] = [
            self._pool.submit(self._stream, signal.astype(self._dtype, copy=False), state)
            for signal, state in zip(signals, states, strict=True)
        ]
        found = [future.exception() or future.result() for future in waiting]  # all come to their end
        for one in found:
            if isinstance(one, BaseException):
                raise one
        frames: list[Frames] = []
        after: list[State] = []
        for state, values in zip(states, found, strict=True):
            assert isinstance(values, np.ndarray)
            frames.append(LogProbs(values, state.frame))
            after.append(SequenceState(state.sequence, state.frame + len(values)))
        return frames, after

    def _stream(self, signal: Any, state: SequenceState) -> F32:
        with self._lock:
            last = self._last.get(state.sequence)
        if last is not None and last[:2] == (state, len(signal)):
            return last[2]
        step = len(signal) if self._one_pass else CHUNK
        rows = [
            self._backend.infer_in_sequence(
                {"signal": signal[None, begin : begin + step, None]},
                state.sequence,
                start=state.frame == 0 and begin == 0,
                end=False,
            )["logprobs"][0]
            for begin in range(0, len(signal), step)
        ]
        values: F32 = np.concatenate(rows, dtype=np.float32)
        with self._lock:
            self._last[state.sequence] = (state, len(signal), values)
            self._last.move_to_end(state.sequence)
            while len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
        return values
