"""One at a time, between threads and between processes: a lock on a file, released by the system on a crash."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_TAKEN = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK})


@contextmanager
def exclusive(path: Path, *, waiting: Callable[[], None] | None = None, poll_s: float = 0.2) -> Iterator[None]:
    """Hold the lock on ``path``, waiting for whoever holds it. The file stays: removing it would let two in.

    Args:
        path: created if it is not there.
        waiting: called once if the lock is taken.
        poll_s: how often it is tried again.
    Raises:
        OSError: the file cannot be made, or the file system knows no locks.
    """
    with path.open("ab") as file:
        told = False
        while True:
            try:
                _try_lock(file)
                break
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            if not told and waiting is not None:
                waiting()
                told = True
            time.sleep(poll_s)
        yield  # closing the file releases the lock
