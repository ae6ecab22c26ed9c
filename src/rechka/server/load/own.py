"""A server of our own to measure, as a process of its own, as it would run anyway."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence

from rechka.errors import WorkerLost

START_S = 300.0
"""Loading and warming up; a large model from a slow disk takes its time."""
STOP_S = 15.0
LIMITS = ("--max-streams", "100000", "--max-connections", "200000", "--requests-per-minute", "0")
"""The server's own limits must not be what is found."""


@contextlib.contextmanager
def own_server(more: Sequence[str] = ()) -> Iterator[str]:
    """The address of ``rechka serve`` on a free port of this machine.

    Args:
        more: further arguments; RECHKA_* variables have their say too.

    Raises:
        WorkerLost: it does not start.
    """
    command = [sys.executable, "-m", "rechka", "serve", "--host", "127.0.0.1", "--port", "0", "--grace-s", "1"]
    command += ["--log-level", "warning", *LIMITS, *more]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        try:
            yield _wait(process, said.fileno())
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], said: int) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        text = _text(said)
        if (found := re.search(r" on (http://\S+:\d+);", text)) and _ready(found.group(1)):
            return found.group(1)
        time.sleep(0.1)
    lines = _text(said).strip().splitlines() or ["it said nothing"]
    raise WorkerLost(f"rechka serve did not start: {lines[-1]}", remedy="try `rechka serve` with the same options")


def _text(said: int) -> str:
    return os.pread(said, 1 << 20, 0).decode("utf-8", "replace")


def _ready(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=5) as reply:
        return bool(reply.status == 200)
    return False
