"""Used quota in the store: a restart does not forget it, and servers that share a store share it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from rechka.errors import QuotaExceeded
from rechka.server.auth import Auth, Usage
from rechka.server.keys import Key

Use = Callable[[str, Mapping[str, float]], Awaitable[dict[str, float]]]


class Ledger:
    """Keeps what keys use today in step with the store.

    Args:
        auth: counts in memory.
        use: ``Store.use``.
    """

    def __init__(self, auth: Auth, use: Use) -> None:
        self._auth, self._use = auth, use
        self._day = auth.today()
        self._written: dict[str, float] = {}  # of what is in memory, so much is in the store
        self._turn = asyncio.Lock()

    async def sync(self) -> None:
        """Write what is new here, take in what is new elsewhere."""
        # Whoever waits may be cancelled, the store goes on: what it writes must be noted, or it is written once more.
        await asyncio.shield(asyncio.ensure_future(self._sync()))

    async def _sync(self) -> None:
        async with self._turn:
            await self._write()

    async def _write(self) -> None:
        day = self._auth.today()
        if day != self._day:
            self._day, self._written = day, {}
        mine = {name: usage for name, usage in self._auth.usages().items() if name and usage.day == day}
        new = {name: usage.audio_s - self._written.get(name, 0.0) for name, usage in mine.items()}
        totals = await self._use(day.isoformat(), {name: seconds for name, seconds in new.items() if seconds > 0})
        if self._auth.today() != day:
            return
        for name, total in totals.items():
            before = self._written.get(name, 0.0) + max(0.0, new.get(name, 0.0))
            self._auth.recall(name, total - before)
            self._written[name] = total

    def note(self, name: str, seconds: float) -> None:
        """A job's audio is in the store already."""
        if name:
            self._auth.recall(name, seconds)
            self._written[name] = self._written.get(name, 0.0) + seconds


class JobMeter:
    """Counts a job's audio once, when it is done, however often it was begun; refuses it when the day's is used up."""

    def __init__(self, key: Key | None, usage: Usage) -> None:
        self._limit = None if key is None else key.audio_s_per_day
        self._usage = usage
        self.seconds = 0.0

    def audio(self, seconds: float) -> None:
        """Audio is about to be recognised.

        Raises:
            QuotaExceeded: more than the key has for today.
        """
        self.seconds += seconds
        if self._limit is not None and self._usage.add(0.0) + self.seconds > self._limit:
            raise QuotaExceeded(
                f"the key has used its {self._limit:g} s of audio for today", remedy="retry tomorrow (UTC)"
            )

    def end(self) -> None:
        """Nothing: jobs take no stream of their key's."""
