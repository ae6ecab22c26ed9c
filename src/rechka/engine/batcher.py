"""Who is stepped next: gathers items that are ready, oldest first, until a batch is full or the oldest waited enough.

Knows nothing of audio. Items are in one of four states: idle, waiting, out (a worker has them), out and offered again.
An item that is offered again after its step goes to the end of the queue, so that a stream with much to do waits its
turn among the others.

Two queues: live items come first; bulk items (files) fill the gaps, and get every second batch when they have waited
longer than ``patience_s``. Of several workers one always keeps away from bulk items, so that live ones never wait for
a long step of a file to end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class Batcher(Generic[Item]):
    """A queue between those who have work and the workers. Thread-safe.

    Args:
        max_batch: items of one batch.
        max_wait_s: how long the oldest waiting item waits for company.
        workers: threads that will call ``take``.
        patience_s: how long bulk items may be passed over.
        observe: told how long the oldest item of each live batch has waited, in the worker's thread.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        max_batch: int = 16,
        max_wait_s: float = 0.005,
        workers: int = 1,
        patience_s: float = 0.5,
        observe: Callable[[float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_batch = max(1, max_batch)
        self.max_wait_s = max_wait_s
        self.workers = max(1, workers)
        self.patience_s = patience_s
        self._observe = observe
        self._clock = clock
        self._live: dict[Item, float] = {}  # item -> since when it waits; dicts keep the order of insertion
        self._bulk: dict[Item, float] = {}
        self._out: dict[Item, bool] = {}  # item -> it was offered again meanwhile
        self._out_bulk: dict[Item, int] = {}  # bulk item that is out -> number of its batch
        self._is_bulk: set[Item] = set()
        self._batches = 0
        self._ages: deque[tuple[float, float]] = deque(maxlen=256)  # (when, age) of the oldest live item of each batch
        self._idle = 0
        self._last_was_live = False
        self._closed = False
        self._changed = threading.Condition()

    def offer(self, item: Item, *, bulk: bool = False) -> None:
        """There is something to do for ``item``; offering it again changes nothing."""
        with self._changed:
            if self._closed:
                return
            if bulk:
                self._is_bulk.add(item)
            if item in self._out:
                self._out[item] = True
                return
            queue = self._bulk if bulk else self._live
            if item not in queue:
                queue[item] = self._clock()
                self._changed.notify()

    def take(self) -> list[Item] | None:
        """The next batch, waiting for one; None once the batcher is closed. Every item must be released."""
        with self._changed:
            self._idle += 1
            try:
                while not self._closed:
                    queue = self._choose()
                    if queue is None:
                        self._changed.wait()
                        continue
                    left = next(iter(queue.values())) + self.max_wait_s - self._clock()
                    if len(queue) >= self.max_batch or left <= 0:
                        return self._pop(queue)
                    self._changed.wait(left)
                return None
            finally:
                self._idle -= 1

    def release(self, item: Item, *, again: bool) -> bool:
        """A worker is done with ``item``.

        Args:
            item: from ``take``.
            again: there is more to do for it; so it is also if it was offered meanwhile.
        Returns:
            Whether it waits again.
        """
        with self._changed:
            offered = self._out.pop(item, False)
            bulk = item in self._is_bulk
            self._out_bulk.pop(item, None)
            if not (again or offered) or self._closed:
                self._is_bulk.discard(item)
                self._changed.notify_all()
                return False
            (self._bulk if bulk else self._live)[item] = self._clock()
            self._changed.notify_all()
            return True

    def discard(self, item: Item) -> None:
        """Take an item out of the queue; one that is out comes back by ``release``."""
        with self._changed:
            self._live.pop(item, None)
            self._bulk.pop(item, None)
            if item in self._out:
                self._out[item] = False
            else:
                self._is_bulk.discard(item)

    def busy(self, item: Item) -> bool:
        """Whether ``item`` waits or is out."""
        with self._changed:
            return item in self._live or item in self._bulk or item in self._out

    def age(self) -> float:
        """Seconds that the oldest live item has waited; 0 if none waits."""
        with self._changed:
            return self._age(self._live)

    def pressure(self, window_s: float = 2.0) -> float:
        """The longest that a live item has waited during the last ``window_s`` seconds, or waits now."""
        with self._changed:
            since = self._clock() - window_s
            return max([self._age(self._live), *(age for when, age in self._ages if when >= since)])

    def waiting(self) -> tuple[int, int]:
        """Live and bulk items that wait."""
        return len(self._live), len(self._bulk)

    def close(self) -> None:
        """Nothing is given out any more; all ``take`` return None."""
        with self._changed:
            self._closed = True
            self._live.clear()
            self._bulk.clear()
            self._changed.notify_all()

    def _age(self, queue: dict[Item, float]) -> float:
        oldest = next(iter(queue.values()), None)
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest)

    def _choose(self) -> dict[Item, float] | None:
        """The queue to serve, or None if nothing may be taken now."""
        bulk = bool(self._bulk) and (self.workers == 1 or len(set(self._out_bulk.values())) < self.workers - 1)
        if self._live and bulk and self._last_was_live and self._age(self._bulk) > self.patience_s:
            return self._bulk
        if self._live:
            return self._live
        return self._bulk if bulk else None

    def _pop(self, queue: dict[Item, float]) -> list[Item]:
        # On a CPU two half batches on two idle cores are done in half the time.
        size = min(self.max_batch, -(-len(queue) // max(1, self._idle)))
        self._batches += 1
        if queue is self._live:
            age = self._age(queue)
            self._ages.append((self._clock(), age))
            if self._observe is not None:
                self._observe(age)
        items = list(queue)[:size]
        for item in items:
            del queue[item]
            self._out[item] = False
            if queue is self._bulk:
                self._out_bulk[item] = self._batches
        self._last_was_live = queue is self._live
        if self._live or self._bulk:
            self._changed.notify()
        return items
