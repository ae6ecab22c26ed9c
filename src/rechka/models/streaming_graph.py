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


@dataclass(frozen=True, slots=True, eq=False)
class Stacked:
    """States of several streams in one array per slot, and the streams' chunks so far."""

    arrays: tuple[NDArray[Any], ...]
    chunks: tuple[int, ...]


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

    def stack(self, states: Sequence[NetworkState]) -> Stacked:
        """The states of streams that go on together."""
        chunks = tuple(count for _, count in states)
        if len(states) == 1:
            return Stacked(states[0][0], chunks)
        columns = zip(self._slots, *(arrays for arrays, _ in states), strict=True)
        return Stacked(tuple(np.concatenate(parts, axis=slot.axis) for slot, *parts in columns), chunks)

    def unstack(self, batch: Stacked) -> list[NetworkState]:
        """Each stream's states, copied, so that a stream does not keep its neighbours' alive."""
        count = len(batch.chunks)
        if count == 1:
            return [(batch.arrays, batch.chunks[0])]
        split = [np.split(array, count, axis=slot.axis) for slot, array in zip(self._slots, batch.arrays, strict=True)]
        return [(tuple(parts[i].copy() for parts in split), batch.chunks[i]) for i in range(count)]

    def run(self, features: F32, batch: Stacked) -> tuple[F32, Stacked]:
        """One chunk of each stream.

        Args:
            features: (N, T, 80).
            batch: states of the N streams; not modified.
        Returns:
            (N, frames, E) and the new states.
        """
        if self._single and len(batch.chunks) > 1:
            alone = [self.run(features[i : i + 1], self.stack([s])) for i, s in enumerate(self.unstack(batch))]
            after = self.stack([state for _, one in alone for state in self.unstack(one)])
            return np.concatenate([out for out, _ in alone]), after
        feeds = {slot.source: array for slot, array in zip(self._slots, batch.arrays, strict=True)}
        feeds[self.features] = features.astype(self._backend.inputs[self.features][1], copy=False)
        if self._counter is not None:
            frames = [count * self.shift for count in batch.chunks]
            feeds[self._counter] = np.array(frames, self._backend.inputs[self._counter][1])
        out = self._backend.run(feeds)
        arrays = tuple(out[slot.target] for slot in self._slots)
        for slot, array, before in zip(self._slots, arrays, batch.arrays, strict=True):
            if array.shape != before.shape:
                raise BadModelFile(
                    f"the state {slot.source} comes back with the shape {list(array.shape)}, "
                    f"expected {list(before.shape)}"
                )
        values = out[self.output]
        if values.ndim != 3 or len(values) != len(batch.chunks):
            raise BadModelFile(f"the encoder gives frames of shape {list(values.shape)}, expected (N, T, E)")
        return values.astype(np.float32, copy=False), Stacked(arrays, tuple(count + 1 for count in batch.chunks))


def _number(metadata: Mapping[str, str], key: str) -> int:
    text = metadata.get(key, "")
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= MAX_FRAMES:
        raise BadModelFile(
            f"the encoder's metadata must tell {key} as a number from 1 to {MAX_FRAMES}, got {text[:40]!r}",
            remedy="export it with icefall's export-onnx-streaming script, which writes it",
        )
    return int(text)
