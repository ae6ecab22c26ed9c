"""An engine that works without a pause, and its memory meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rechka.testing.engines import running_engine
from rechka.testing.toy import say

if TYPE_CHECKING:
    from rechka.engine import Engine
    from rechka.recognizers import Asr

STATM = Path("/proc/self/statm")
PACKETS = (1, 2, 5, 3)
"""Sizes of packets in chunks, in turn."""


def resident_bytes() -> int:
    """Memory of this process; Linux only."""
    return int(STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak_engine(
    chunks: int,
    *,
    asr: Asr | None = None,
    streams: int = 16,
    session_chunks: int = 2000,
    readings: int = 100,
    workers: int = 2,
    told: Callable[[int, int], None] | None = None,
) -> list[tuple[int, int]]:
    """Push so many chunks through an engine, as fast as it takes them, and look at the memory.

    Half of the streams are one session from the first chunk to the last; the others end theirs after about
    ``session_chunks``, some politely, some by leaving, and open the next. What is said has phrases and pauses.

    Args:
        chunks: of all streams together.
        asr: a model that reads chunks; by default the toy, whose chunk costs next to nothing.
        streams: sessions at the same time.
        session_chunks: length of those that end.
        readings: of the memory.
        workers: threads.
        told: of every reading at once.
    Returns:
        (chunks fed, resident bytes) of every reading.
    Raises:
        AssertionError: a step failed.
    """
    found: list[tuple[int, int]] = []

    async def main() -> None:
        async with running_engine(asr, workers=workers, max_wait_ms=0.0, inbox_s=5.0, max_queue_age_s=1e9) as engine:
            counter = _Counter(chunks, max(1, chunks // readings), found, told)
            await asyncio.gather(*(_speak(engine, counter, i, session_chunks) for i in range(streams)))
            if failed := engine._failures.value():
                raise AssertionError(f"{failed:.0f} steps failed, see the log")

    asyncio.run(main())
    return found


class _Counter:
    def __init__(
        self, total: int, every: int, found: list[tuple[int, int]], told: Callable[[int, int], None] | None
    ) -> None:
        self.left, self.done, self._every, self._found, self._told = total, 0, every, found, told

    def add(self, count: int) -> None:
        """So many chunks were fed."""
        before, self.done = self.done, self.done + count
        self.left -= count
        if before // self._every != self.done // self._every:
            self._found.append((self.done, resident_bytes()))
            if self._told is not None:
                self._told(*self._found[-1])


async def _speak(engine: Engine, counter: _Counter, number: int, session_chunks: int) -> None:
    spec = engine.asr.spec
    chunk = spec.chunk or spec.sample_rate // 10
    samples = say("привет мир как дела", before_s=0.4, after_s=1.1, sample_rate=spec.sample_rate)
    speech = np.tile((samples * 32767).astype("<i2"), -(-chunk * max(PACKETS) // len(samples)) + 1)
    period = len(samples)
    lengths = itertools.cycle((session_chunks, session_chunks // 7 + 1, session_chunks * 2))
    while counter.left > 0:
        limit = counter.left if number % 2 else next(lengths)
        async with await engine.open() as session:
            reading = asyncio.create_task(_drain(session))
            at = number * 997 % period
            for size in itertools.cycle(PACKETS):
                if limit <= 0 or counter.left <= 0:
                    break
                await session.feed(speech[at : at + size * chunk].tobytes())
                at = (at + size * chunk) % period
                limit -= size
                counter.add(size)
            if number % 4:
                session.finish()
                await reading
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _drain(session: object) -> None:
    async for _ in session:  # type: ignore[attr-defined]
        pass
