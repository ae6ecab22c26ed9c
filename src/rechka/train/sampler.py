"""Which recordings a step sees: weighted sources, each shuffled without replacement, batches of about equal length.

Everything is a function of the seed and of a small position that a checkpoint stores, so a resumed run sees exactly the
batches an undisturbed one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WINDOW_BATCHES = 24
"""Batches that are drawn together and sorted by length: little padding, still well mixed."""


@dataclass(slots=True)
class Position:
    """Where a run stands: windows finished, batches taken from the current one, and per source (epoch, next index)."""

    window: int = 0
    taken: int = 0
    sources: dict[str, list[int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"window": self.window, "taken": self.taken, "sources": {k: list(v) for k, v in self.sources.items()}}


@dataclass(frozen=True, slots=True)
class Source:
    """A set of recordings: lengths in frames, and its share of the audio seen."""

    name: str
    frames: Sequence[int]
    weight: float


Batch = list[tuple[str, int]]
"""(source name, index) of each member."""


class Sampler:
    """An endless sequence of batches.

    Args:
        sources: where from; weights need not sum to one.
        batch_frames: frames of 10 ms in a batch, padding included.
        ranks: batches come in groups of this many, of about equal length, one for each worker.
        seed: of everything.
        position: where to go on.
    """

    def __init__(
        self, sources: Sequence[Source], batch_frames: int, ranks: int, seed: int, position: Position | None = None
    ) -> None:
        self._sources = {source.name: source for source in sources if len(source.frames)}
        self._batch_frames = batch_frames
        self._ranks = ranks
        self._seed = seed
        self.position = position or Position()
        self._orders: dict[tuple[str, int], np.ndarray[Any, Any]] = {}
        self._window, self._after = self._draw()

    def next_group(self) -> list[Batch]:
        """One batch for each rank."""
        if self.position.taken >= len(self._window):
            self.position.window += 1
            self.position.taken = 0
            self.position.sources = self._after
            self._window, self._after = self._draw()
        group = self._window[self.position.taken]
        self.position.taken += 1
        return group

    def _draw(self) -> tuple[list[list[Batch]], dict[str, list[int]]]:
        rng = np.random.default_rng([self._seed, self.position.window])
        names = list(self._sources)
        # A source's share is of the audio, so a draw is the less likely the longer its recordings are.
        mean = np.array([np.mean(self._sources[name].frames) for name in names])
        chance = np.array([self._sources[name].weight for name in names]) / mean
        chance /= chance.sum()
        cursor = {name: list(self.position.sources.get(name, [0, 0])) for name in names}
        budget = self._batch_frames * self._ranks * WINDOW_BATCHES
        members: list[tuple[int, str, int]] = []
        while budget > 0:
            name = names[int(rng.choice(len(names), p=chance))]
            index = self._take(name, cursor[name])
            frames = self._sources[name].frames[index]
            members.append((frames, name, index))
            budget -= frames
        members.sort(key=lambda member: member[0] * rng.uniform(0.9, 1.1))
        batches: list[Batch] = [[]]
        longest = 0
        for frames, name, index in members:
            longest = max(longest, frames)
            if batches[-1] and longest * (len(batches[-1]) + 1) > self._batch_frames:
                batches.append([])
                longest = frames
            batches[-1].append((name, index))
        groups = [batches[i : i + self._ranks] for i in range(0, len(batches) - self._ranks + 1, self._ranks)]
        return [groups[i] for i in rng.permutation(len(groups))], cursor

    def _take(self, name: str, cursor: list[int]) -> int:
        epoch, index = cursor
        count = len(self._sources[name].frames)
        if index >= count:
            epoch, index = epoch + 1, 0
        key = (name, epoch)
        if key not in self._orders:
            for old in [k for k in self._orders if k[0] == name]:
                del self._orders[old]
            stable = [ord(letter) for letter in name]
            self._orders[key] = np.random.default_rng([self._seed, epoch, *stable]).permutation(count)
        cursor[:] = [epoch, index + 1]
        return int(self._orders[key][index])
