"""What the server says of itself beside its streams: how late the event loop is, memory, processor time."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from rechka.engine.metrics import Registry

EVERY_S = 0.05
"""How often the event loop is asked how late it is."""
RECENT_S = 10.0
MAX_MISSED = 200
"""Missed wake-ups that are counted after one stop: a machine that slept must not spend its first second counting."""
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STATM = Path("/proc/self/statm")


class LagWatch:
    """Wakes up at fixed times and counts how late it was.

    A loop that stands still for a second misses many of these times, and each of them is counted: a sleeper that only
    began its next sleep afterwards would see one late time among many good ones.

    Args:
        metrics: where to count.
        clock: seconds, monotonic.
    """

    def __init__(self, metrics: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[tuple[float, float]] = deque()
        self._lag = metrics.histogram("rechka_loop_lag_seconds", "How late the event loop wakes up.", BOUNDS)
        metrics.gauge(
            "rechka_loop_lag_recent_seconds", f"The worst of the last {RECENT_S:g} seconds.", lambda: self.worst
        )

    @property
    def worst(self) -> float:
        """The longest lag of the last seconds."""
        since = self._clock() - RECENT_S
        return max((lag for when, lag in list(self._recent) if when >= since), default=0.0)

    def woke(self, due: float) -> float:
        """Awake now, having wanted to be at ``due``; when to wake up next."""
        now = self._clock()
        late = max(0.0, now - due)
        while self._recent and self._recent[0][0] < now - RECENT_S:
            self._recent.popleft()
        self._recent.append((now, late))
        for missed in range(min(MAX_MISSED, int(late / EVERY_S) + 1)):
            self._lag.observe(late - missed * EVERY_S)
        return due + (int(late / EVERY_S) + 1) * EVERY_S

    async def run(self) -> None:
        """Until it is cancelled."""
        due = self._clock() + EVERY_S
        while True:
            await asyncio.sleep(max(0.0, due - self._clock()))
            due = self.woke(due)


def count_process(metrics: Registry) -> None:
    """Memory and processor time, under the names that Prometheus' own clients use, where the system tells them."""
    metrics.gauge("process_cpu_seconds_total", "Processor time, user and system.", time.process_time, grows=True)
    if STATM.exists():
        page = os.sysconf("SC_PAGE_SIZE")
        metrics.gauge(
            "process_resident_memory_bytes", "Memory in use.", lambda: int(STATM.read_text("ascii").split()[1]) * page
        )
