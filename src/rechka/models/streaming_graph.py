"""Encoders that read a chunk and hand their states on as named inputs and outputs, as icefall exports them.

Which inputs are states, where their batch axis is and what they begin with is read from the graph: the first input is
the features, every other comes back as the output ``new_<name>`` (or, with other names, in the same order), the axis
without a fixed size is the batch, and all begin with zeros. A counter of the frames processed, which has no output, is
kept by us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile
from rechka.protocols import Backend
from rechka.types import F32

MAX_FRAMES = 4096
"""Feature frames of one chunk; icefall's largest are below 300."""
_COUNTER = "processed_lens"


@dataclass(frozen=True, slots=True)
class Slot:
    """A state: the input that takes it, the output that gives it, its shape for one stream, and its batch axis."""

    source: str
    target: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axis: int


NetworkState: TypeAlias = tuple[tuple[NDArray[Any], ...], int]
"""A stream's arrays, in the order of the slots and with a batch axis of one, and its chunks so far."""


class StreamingGraph:
    """A streaming encoder on a backend. Holds no stream's state.

    Args:
        backend: the graph; its metadata tell ``T`` and ``decode_chunk_len``.
    Raises:
        BadModelFile: metadata, inputs or outputs that are not of this form.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        names = list(backend.inputs)
        if not names or len(backend.inputs[names[0]][0]) != 3:
            raise BadModelFile(
                f"a streaming encoder reads features (N, T, 80) first; this graph reads {', '.join(names)}",
                remedy="give the card the family that the file belongs to",
            )
        self.features = names[0]
        self.shift = _number(backend.metadata, "decode_chunk_len")
        self.length = _number(backend.metadata, "T")
        fixed = backend.inputs[self.features][0][1]
        if not 0 < self.shift <= self.length or fixed not in (None, self.length):
            raise BadModelFile(
                f"the encoder tells T = {self.length} and decode_chunk_len = {self.shift}, and reads {fixed} frames"
            )
        self.output = backend.outputs[0]
        self._counter, self._slots = self._find_slots(names[1:])
        self._single = backend.inputs[self.features][0][0] == 1

    def _find_slots(self, names: Sequence[str]) -> tuple[str | None, tuple[Slot, ...]]:
        outputs = list(self._backend.outputs[1:])
        counter = _COUNTER if _COUNTER in names and f"new_{_COUNTER}" not in outputs else None
        if counter is not None and len(outputs) == len(names):
            counter = None
        states = [name for name in names if name != counter]
        by_name = [f"new_{name}" for name in states]
        targets = by_name if set(by_name) <= set(outputs) else outputs
        if not states or len(targets) != len(states):
            raise BadModelFile(
                f"the encoder takes the states {', '.join(states) or 'none'} and gives {', '.join(outputs) or 'none'}; "
                "each must come back",
                remedy="give the card the family that the file belongs to",
            )
        return counter, tuple(self._slot(*pair) for pair in zip(states, targets, strict=True))

    def _slot(self, source: str, target: str) -> Slot:
        shape, dtype = self._backend.inputs[source]
        free = [axis for axis, size in enumerate(shape) if size is None]
        if not free:  # exported for one stream
            free = [axis for axis, size in enumerate(shape) if size == 1][:1]
        if len(free) != 1:
            raise BadModelFile(f"the state {source} has the shape {list(shape)}; one axis must be the batch")
        sizes = tuple(1 if axis == free[0] else int(size) for axis, size in enumerate(shape))
        if int(np.prod(sizes, dtype=np.int64)) > 1 << 28:
            raise BadModelFile(f"the state {source} of shape {list(shape)} is too large")
        return Slot(source, target, sizes, dtype, free[0])

    def initial(self) -> NetworkState:
        """The state of a stream that has heard nothing."""
        return tuple(np.zeros(slot.shape, slot.dtype) for slot in self._slots), 0

    def run(self, features: F32, states: Sequence[NetworkState]) -> tuple[F32, list[NetworkState]]:
        """One chunk of each stream.

        Args:
            features: (N, T, 80).
            states: of the N streams; not modified.
        Returns:
            (N, frames, E) and the new states.
        """
        if self._single and len(states) > 1:
            parts = [self.run(features[i : i + 1], [state]) for i, state in enumerate(states)]
            return np.concatenate([out for out, _ in parts]), [after for _, (after,) in parts]
        feeds: dict[str, NDArray[Any]] = {
            self.features: features.astype(self._backend.inputs[self.features][1], copy=False)
        }
        for place, slot in enumerate(self._slots):
            arrays = [state[0][place] for state in states]
            feeds[slot.source] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=slot.axis)
        if self._counter is not None:
            counts = [state[1] * self.shift for state in states]
            feeds[self._counter] = np.array(counts, self._backend.inputs[self._counter][1])
        out = self._backend.run(feeds)
        parts_of = [_rows(out[slot.target], slot, len(states)) for slot in self._slots]
        after = [(tuple(rows[i] for rows in parts_of), state[1] + 1) for i, state in enumerate(states)]
        frames = out[self.output]
        if frames.ndim != 3 or len(frames) != len(states):
            raise BadModelFile(f"the encoder gives frames of shape {list(frames.shape)}, expected (N, T, E)")
        return frames.astype(np.float32, copy=False), after


def _rows(array: NDArray[Any], slot: Slot, count: int) -> list[NDArray[Any]]:
    """The streams' parts of a state, copied, so that a stream does not keep its neighbours' alive."""
    wanted = tuple(count if axis == slot.axis else size for axis, size in enumerate(slot.shape))
    if array.shape != wanted:
        raise BadModelFile(
            f"the state {slot.source} comes back with the shape {list(array.shape)}, expected {list(wanted)}"
        )
    if count == 1:
        return [array]
    return [part.copy() for part in np.split(array, count, axis=slot.axis)]


def _number(metadata: Mapping[str, str], key: str) -> int:
    text = metadata.get(key, "")
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= MAX_FRAMES:
        raise BadModelFile(
            f"the encoder's metadata must tell {key} as a number from 1 to {MAX_FRAMES}, got {text[:40]!r}",
            remedy="export it with icefall's export-onnx-streaming script, which writes it",
        )
    return int(text)
