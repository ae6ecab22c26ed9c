"""Waiting for what another thread or process does, for tests that must not depend on how fast the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

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
