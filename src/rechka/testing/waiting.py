"""Waiting for what another thread or task does, for tests that must not depend on how fast the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

PATIENCE_S = 120.0
"""Far beyond what anything in a test takes: whoever waits so long waits for something that never happens."""

T = TypeVar("T")


def wait_until(true: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Ask again and again until the answer is true, and return that answer.

    Args:
        true: what is waited for.
        seconds: how long.
    Raises:
        AssertionError: it did not happen; with the last answer.
    """
    until = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > until:
            raise AssertionError(f"it did not happen within {seconds:g} s; last seen: {found!r}")
        time.sleep(0.02)
    return found


async def ends_when_cancelled(
    reading: Coroutine[Any, Any, Any], reader: asyncio.StreamReader, data: bytes, turns: int
) -> bool:
    """Whether a task that waits for data is cancelled although data come ``turns`` turns of the loop before.

    Args:
        reading: reads from ``reader`` until its end.
        reader: still empty.
        data: that come.
        turns: from 0 on; a handful of them covers every place where the two can meet.
    """
    task = asyncio.create_task(reading)
    for _ in range(6):
        await asyncio.sleep(0)
    reader.feed_data(data)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    reader.feed_eof()
    await asyncio.wait({task})
    return task.cancelled()
