"""A shuffled, endless or single pass over shards that can be split over consumers and resumed without a row lost.

Shards come in a seeded order, a few are open at a time and read in turn, and a bounded buffer mixes their rows. The
state holds positions and the keys of the buffered rows, not the rows: resuming reads just those again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rechka.data.shards import Row, Shard
from rechka.errors import DataError, UsageError

Key = tuple[int, int]


class RowStream:
    """Rows of shards in a random order that depends on the seed alone.

    Args:
        shards: where from.
        seed: of the order.
        shuffle: rows in the mixing buffer; 0 keeps the order of shards and rows.
        interleave: shards open at a time.
        epochs: passes; None for no end.
        consumer, num_consumers: which part is this one's (rank times workers plus worker, and ranks times workers).
            Shards are dealt out if there are at least as many as consumers, rows (number modulo consumers) else, so
            that no consumer goes empty and no row is seen twice.

    Rows that cannot be read are skipped and counted in ``bad``.

    Raises:
        UsageError: numbers out of their range.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        seed: int = 0,
        shuffle: int = 1000,
        interleave: int = 4,
        epochs: int | None = 1,
        consumer: int = 0,
        num_consumers: int = 1,
    ) -> None:
        if not 0 <= consumer < num_consumers or shuffle < 0 or interleave < 1:
            raise UsageError(
                f"expected 0 <= consumer < num_consumers, shuffle >= 0 and interleave >= 1, got consumer {consumer} of "
                f"{num_consumers}, shuffle {shuffle}, interleave {interleave}"
            )
        self._shards = list(shards)
        self._seed, self._shuffle, self._epochs = seed, shuffle, epochs
        self._interleave = interleave if shuffle else 1
        self._consumer, self._num_consumers = consumer, num_consumers
        self._epoch, self._next_shard, self._turn = 0, 0, 0
        self._open: list[tuple[int, int]] = []
        self._readers: list[Iterator[Row | None]] = []
        self._buffer: list[Row] = []
        self._rng = np.random.default_rng([seed, consumer])
        self._draining = False
        self.bad: Counter[int] = Counter()
        """Unreadable rows per shard so far, those before a state that was restored included."""

    # The state ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as plain values for JSON."""
        return {
            "epoch": self._epoch, "next_shard": self._next_shard, "turn": self._turn,
            "open": [list(item) for item in self._open], "draining": self._draining,
            "buffer": [[row.shard, row.number] for row in self._buffer], "rng": self._rng.bit_generator.state,
            "consumer": [self._consumer, self._num_consumers],
            "bad": [[shard, count] for shard, count in self.bad.items()],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of a stream with the same arguments.

        Raises:
            UsageError: the state is another consumer's.
            DataError: a buffered row is no longer where it was.
        """
        if list(state["consumer"]) != [self._consumer, self._num_consumers]:
            raise UsageError(
                f"the state is of consumer {state['consumer']}, this one is {[self._consumer, self._num_consumers]}",
                remedy="resume with as many workers as before",
            )
        self._epoch, self._next_shard, self._turn = state["epoch"], state["next_shard"], state["turn"]
        self._draining = state["draining"]
        self.bad = Counter({int(shard): int(count) for shard, count in state.get("bad", [])})
        self._open = [(int(shard), int(row)) for shard, row in state["open"]]
        self._readers = [self._shards[shard].rows(row) for shard, row in self._open]
        self._rng.bit_generator.state = state["rng"]
        self._buffer = self._read_again([(int(shard), int(row)) for shard, row in state["buffer"]])

    def _read_again(self, keys: Sequence[Key]) -> list[Row]:
        """The rows of keys, each shard read once from the first wanted row to the last."""
        found: dict[Key, Row] = {}
        for shard in {shard for shard, _ in keys}:
            wanted = {row for number, row in keys if number == shard}
            first, last = min(wanted), max(wanted)
            for place, row in enumerate(self._shards[shard].rows(first), first):
                if place in wanted and row is not None:
                    found[shard, place] = row
                if place >= last:
                    break
        missing = [key for key in keys if key not in found]
        if missing:
            shard, place = missing[0]
            raise DataError(
                f"row {place + 1} of {self._shards[shard].place} is no longer there", remedy="the data must not change"
            )
        return [found[key] for key in keys]

    # Reading --------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Row]:
        while True:
            row = self._next()
            if row is None:
                return
            yield row

    def _next(self) -> Row | None:
        while self._epochs is None or self._epoch < self._epochs:
            while not self._draining and len(self._buffer) < max(1, self._shuffle):
                row = self._read()
                if row is None:
                    self._draining = True
                else:
                    self._buffer.append(row)
            if self._buffer:
                place = int(self._rng.integers(len(self._buffer))) if self._shuffle else 0
                self._buffer[place], self._buffer[-1] = self._buffer[-1], self._buffer[place]
                return self._buffer.pop()
            self._epoch, self._next_shard, self._turn, self._draining = self._epoch + 1, 0, 0, False
        return None

    def _read(self) -> Row | None:
        """The next row of the open shards, in turn; None at the epoch's end."""
        while True:
            while len(self._open) < self._interleave and self._next_shard < len(self._mine()):
                shard = self._mine()[self._next_shard]
                self._next_shard += 1
                self._open.append((shard, 0))
                self._readers.append(self._shards[shard].rows())
            if not self._open:
                return None
            turn = self._turn = self._turn % len(self._open)
            shard, number = self._open[turn]
            row = next(self._readers[turn], _END)
            if row is _END:
                del self._open[turn], self._readers[turn]
                continue
            self._open[turn] = (shard, number + 1)
            self._turn += 1
            if not self._by_shard and number % self._num_consumers != self._consumer:
                continue
            if row is None:
                self.bad[shard] += 1
                continue
            return row  # type: ignore[return-value]

    @property
    def _by_shard(self) -> bool:
        return len(self._shards) >= self._num_consumers

    def _mine(self) -> list[int]:
        """This consumer's shards in the order of the epoch."""
        number = len(self._shards)
        order = np.random.default_rng([self._seed, self._epoch]).permutation(number) if self._shuffle else range(number)
        mine = [int(i) for i in order]
        return mine[self._consumer :: self._num_consumers] if self._by_shard else mine


_END = object()
