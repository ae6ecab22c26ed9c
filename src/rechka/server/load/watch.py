"""What the server says of itself meanwhile, from its ``/metrics``."""

from __future__ import annotations

import asyncio
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

EVERY_S = 1.0
TIMEOUT_S = 10.0
MAX_BYTES = 4 << 20
MIN_SAMPLES = 5
"""A slope through fewer points says nothing."""
SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? ([-+0-9.eInfNa]+)$")

Samples = Mapping[str, float]
"""Name of a metric, of a histogram's bucket with its bound (``name_bucket:0.05``) -> value; series are added up."""


def http_address(url: str) -> str:
    """Where a server's other addresses begin, given any of its addresses."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return f"{ {'ws': 'http', 'wss': 'https'}.get(parts.scheme, parts.scheme) }://{parts.netloc}"


def parse(text: str) -> dict[str, float]:
    """Samples of Prometheus' text format; what cannot be read is passed over."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = SAMPLE.match(line)
        if match is None:
            continue
        name, labels, value = match.groups()
        bound = re.search(r'le="([^"]+)"', labels or "")
        key = f"{name}:{bound.group(1)}" if bound else name
        try:
            found[key] = found.get(key, 0.0) + float(value)
        except ValueError:
            continue
    return found


def quantile(before: Samples, after: Samples, name: str, q: float) -> float | None:
    """The value that a share ``q`` of what a histogram counted between two readings did not exceed.

    Interpolated within the bucket, as Prometheus does. None if nothing was counted.
    """
    start = f"{name}_bucket:"
    bounds = sorted(
        (math.inf if key.endswith("+Inf") else float(key[len(start) :]), after[key] - before.get(key, 0.0))
        for key in after
        if key.startswith(start)
    )
    if not bounds or bounds[-1][1] <= 0:
        return None
    wanted, low, below = q * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - below) / max(count - below, 1e-9)
        low, below = bound, count
    return low


def slope(times: Sequence[float], values: Sequence[float]) -> float | None:
    """Units per second of the straight line through some points, least squares; None if there are too few."""
    if len(times) < MIN_SAMPLES or max(times) <= min(times):
        return None
    return float(np.polyfit(np.asarray(times) - times[0], values, 1)[0])


@dataclass
class Watch:
    """Reads the metrics every second while it is entered.

    Args:
        url: of the server.
        key: with the scope ``metrics``; without one such a server's inner life stays unknown.
    """

    url: str
    key: str | None = None
    readings: list[tuple[float, Samples]] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def read(self) -> Samples | None:
        """The metrics now, None if the server does not tell them. They are kept."""
        samples = await asyncio.to_thread(self._fetch)
        if samples is not None:
            self.readings.append((time.monotonic(), samples))
        return samples

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def between(self, begin: float, end: float) -> list[tuple[float, Samples]]:
        """Readings of a time."""
        return [reading for reading in self.readings if begin <= reading[0] <= end]

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.read()
            due += EVERY_S

    def _fetch(self) -> Samples | None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        request = urllib.request.Request(f"{http_address(self.url)}/metrics", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return parse(reply.read(MAX_BYTES).decode("utf-8", "replace"))
        except (OSError, ValueError):  # no key, a busy server, none at all: the calls themselves tell
            return None
