"""T-one whose streams' states stay on the device that computes: samples go there, log-probabilities come back.

A stream's state here is a handle. It can be gone back to by one step only, the last, which is then answered from
memory: that is what a caller needs whose batch failed for another stream's sake.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rechka.errors import UsageError
from rechka.features.tone import SAMPLE_RATE
from rechka.models.tone import CHUNK, HOP, LAG, TOKENS, to_integers
from rechka.types import F32, Frames, LogProbs, ModelSpec, State

if TYPE_CHECKING:
    from rechka.backends.torch import TorchArena


class Place:
    """One stream's place on the device, as long as anybody holds a state of it.

    Attributes:
        slot: where it is, in a list that the finaliser can read; empty while it is nowhere.
        saved: what it remembers, while others have its slot.
        heard: chunks that it has heard.
        begin: frame at which its last step began, and
        rows: the log-probabilities of that step so far.
    """

    __slots__ = ("__weakref__", "begin", "heard", "rows", "saved", "slot")

    def __init__(self) -> None:
        self.slot: list[int] = []
        self.saved: list[Any] | None = None
        self.heard = 0
        self.begin = 0
        self.rows: list[F32] = []


@dataclass(frozen=True, slots=True)
class SlotState:
    """A stream after ``frame`` frames."""

    place: Place
    frame: int


class SlotTone:
    """T-one on an arena of slots. Thread-safe.

    Any number of streams may be open: those that were not stepped for longest give their slots to those that are, and
    their states wait in the machine's memory.

    Args:
        arena: weights and slots.
    """

    def __init__(self, arena: TorchArena) -> None:
        self.spec = ModelSpec(SAMPLE_RATE, HOP, CHUNK, CHUNK, CHUNK, LAG, None, TOKENS, LogProbs)
        self._arena = arena
        self._per_chunk = CHUNK // HOP
        self._lock = threading.Lock()
        self._free = deque(range(arena.num_slots))
        # Finalisers run anywhere, also under the lock: they only append here, which needs none.
        self._returned: deque[int] = deque()
        self._owners: OrderedDict[int, weakref.ref[Place]] = OrderedDict()  # the longest idle first

    def initial_state(self) -> State:
        """A new stream; it takes a slot with its first step."""
        place = Place()
        weakref.finalize(place, _give_back, place.slot, self._returned).atexit = False
        return SlotState(place, 0)

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """The next chunks of each stream; see ``AcousticModel``.

        Raises:
            BadSamples: a length that is no multiple of 2400, or samples that are no numbers.
            UsageError: a state that the stream has left behind by more than one step.
        """
        signals = [to_integers(samples).astype(np.int16) for samples in audio]
        with self._lock:
            for signal, state in zip(signals, states, strict=True):
                self._enter(state, len(signal) // CHUNK)
            if len({id(state.place) for state in states}) != len(states):
                raise UsageError("a stream can be stepped once at a time")
            while waiting := self._waiting(signals, states):
                self._advance(*waiting)
            frames: list[Frames] = []
            after: list[State] = []
            for state in states:
                values = np.concatenate(state.place.rows)
                frames.append(LogProbs(values, state.frame))
                after.append(SlotState(state.place, state.frame + len(values)))
            return frames, after

    def _enter(self, state: SlotState, chunks: int) -> None:
        """Begin a step, or go on with the one that began at this state and was not taken."""
        place = state.place
        if state.frame == place.heard * self._per_chunk:
            place.begin, place.rows = state.frame, []
        elif state.frame != place.begin or chunks * self._per_chunk < sum(map(len, place.rows)):
            raise UsageError(
                f"the stream is at frame {place.heard * self._per_chunk} and cannot go back to frame {state.frame}",
                remedy="step a stream with the state that its last step returned",
            )

    def _waiting(self, signals: Sequence[Any], states: Sequence[SlotState]) -> tuple[list[Place], Any] | None:
        """Streams and samples of the next run, the longest that any of them has work for; None if all is done."""
        left = []
        for signal, state in zip(signals, states, strict=True):
            done = sum(map(len, state.place.rows)) // self._per_chunk
            if len(signal) > done * CHUNK:
                left.append((state.place, signal[done * CHUNK :]))
        if not left:
            return None
        most = max(len(signal) for _, signal in left) // CHUNK
        size = max(chunks for chunks in self._arena.runs if chunks <= most)
        chosen = [pair for pair in left if len(pair[1]) >= size * CHUNK]
        chosen = chosen[: min(self._arena.largest(size), self._arena.num_slots)]
        return [place for place, _ in chosen], np.stack([signal[: size * CHUNK] for _, signal in chosen])

    def _advance(self, places: Sequence[Place], signal: Any) -> None:
        slots = self._seat(places)
        found = self._arena.run(slots, [place.heard for place in places], signal)
        for place, rows in zip(places, found, strict=True):
            place.rows.append(rows)
            place.heard += signal.shape[1] // CHUNK

    def _seat(self, places: Sequence[Place]) -> list[int]:
        """A slot for each of the streams; those that have none get a free one or that of an idle stream."""
        for place in places:
            if place.slot:
                self._owners.move_to_end(place.slot[0])
        for place in places:
            if place.slot:
                continue
            slot = self._take()
            if place.saved is not None:
                self._arena.restore(slot, place.saved)
                place.saved = None
            place.slot.append(slot)
            self._owners[slot] = weakref.ref(place)
        return [place.slot[0] for place in places]

    def _take(self) -> int:
        """A free slot, or that of the stream that was not stepped for longest."""
        while True:
            while self._returned:
                slot = self._returned.popleft()
                self._owners.pop(slot, None)
                self._free.append(slot)
            if self._free:
                return self._free.popleft()
            slot, reference = next(iter(self._owners.items()))
            owner = reference()
            if owner is None:  # its finaliser is about to return the slot
                self._owners.move_to_end(slot)
                continue
            del self._owners[slot]
            owner.saved = self._arena.save(slot)
            owner.slot.clear()
            return slot


def _give_back(slot: list[int], returned: deque[int]) -> None:
    """A stream is gone."""
    if slot:
        returned.append(slot.pop())
