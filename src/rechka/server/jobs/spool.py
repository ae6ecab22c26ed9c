"""Audio of jobs on the disk, and the marks by which servers of one machine see that another one died.

FOLDER/spool-id          names this folder: only its servers can run the jobs whose audio is here
FOLDER/audio/JOB         audio of a job; JOB is our own name for it, never the client's
FOLDER/audio/WORKER.JOB.part   on its way
FOLDER/workers/WORKER    locked while its server lives; the system unlocks it when the server dies, however it dies
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
import time
from pathlib import Path
from typing import IO

from rechka.errors import OutputError, StorageFull
from rechka.hub.locking import exclusive

try:
    import fcntl
except ImportError:  # Windows: only leases tell there who died
    fcntl = None  # type: ignore[assignment]

RETRY_S = 60.0
STRAY_S = 600.0
"""A file that belongs to no job is removed when it is this old: its job may be about to be written."""
NAME = re.compile(r"job_[0-9a-f]{32}")


class Spool:
    """One server's view of the folder.

    Args:
        folder: made if it is missing.
        max_bytes: of all audio together.

    Raises:
        OutputError: the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self._audio, self._workers = folder, folder / "audio", folder / "workers"
        self._max_bytes = max_bytes
        self._left = 0
        self._taking = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._audio.mkdir(mode=0o700, exist_ok=True)
            self._workers.mkdir(mode=0o700, exist_ok=True)
            self.id = _identity(folder / "spool-id")
            self.worker = f"{self.id}-{secrets.token_hex(6)}"
            self._mark = self._lock()
        except OSError as error:
            raise OutputError(
                f"cannot keep jobs in {folder}: {error.strerror or error}",
                remedy="set data_dir to a folder of your own",
            ) from None

    def _lock(self) -> IO[str]:
        """The mark of this server, which lives from now on."""
        mark = self._workers / self.worker
        if fcntl is None:
            return mark.open("x")
        # Locked before others can see it: an open mark is that of a dead server, and they lock it to find out.
        hidden = self.folder / f".{self.worker}"
        file = hidden.open("x")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(mark)
        return file

    def close(self) -> None:
        """This server goes."""
        with contextlib.suppress(OSError):
            (self._workers / self.worker).unlink()
        self._mark.close()

    def begin(self, job: str) -> Writer:
        """A place for the audio of a new job.

        Raises:
            StorageFull: there is none.
        """
        with self._taking:
            self._measure()
            if self._left <= 0:
                raise _full()
        return Writer(self, job)

    def take(self, size: int) -> None:
        """Room for so many bytes more; all that write at the same time share what is left.

        Raises:
            StorageFull: there is none.
        """
        with self._taking:
            if size > self._left:
                self._measure()  # other audio may be gone since
            if size > self._left:
                raise _full()
            self._left -= size

    def _measure(self) -> None:
        self._left = self._max_bytes - sum(_size(entry) for entry in os.scandir(self._audio))

    def path(self, job: str) -> Path:
        """Where the audio of a job is."""
        return self._audio / job

    def part(self, job: str) -> Path:
        """Where it is on its way."""
        return self._audio / f"{self.worker}.{job}.part"

    def remove(self, job: str) -> None:
        """The audio of a job is not needed any more; nothing happens if ``job`` is no name of a job."""
        if NAME.fullmatch(job):
            with contextlib.suppress(OSError):
                self.path(job).unlink(missing_ok=True)

    def old(self) -> list[str]:
        """Jobs with audio that has been here for a while."""
        before = time.time() - STRAY_S
        found = [entry for entry in os.scandir(self._audio) if NAME.fullmatch(entry.name)]
        return [entry.name for entry in found if _time(entry) < before]

    def dead(self) -> list[str]:
        """Workers of this folder that are no more; see ``bury``."""
        if fcntl is None:
            return []
        found = []
        for entry in os.scandir(self._workers):
            if entry.name == self.worker:
                continue
            with contextlib.suppress(OSError), open(entry.path) as mark:  # locked: it lives
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(entry.name)
        return found

    def bury(self, worker: str) -> None:
        """Its jobs are given back; remove what it left."""
        for entry in os.scandir(self._audio):
            if entry.name.startswith(f"{worker}."):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
        with contextlib.suppress(OSError):
            (self._workers / worker).unlink()


class Writer:
    """Audio on its way into the spool; blocking. Either ``keep`` or ``drop`` is its end."""

    def __init__(self, spool: Spool, job: str) -> None:
        self._spool, self._job = spool, job
        self._path = spool.part(job)
        self.size = 0
        try:
            self._file: IO[bytes] = self._path.open("xb")
        except OSError as error:
            raise _full(error) from None

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            StorageFull: the disk is full, or the spool.
        """
        self._spool.take(len(data))
        try:
            self._file.write(data)
        except OSError as error:
            raise _full(error) from None
        self.size += len(data)

    def keep(self) -> None:
        """It is complete: from now on it outlives the server, and a power cut.

        Raises:
            StorageFull: as above.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.rename(self._spool.path(self._job))
            _sync(self._path.parent)
        except OSError as error:
            raise _full(error) from None

    def drop(self) -> None:
        """It is not needed, wherever it is."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._spool.remove(self._job)


def _identity(path: Path) -> str:
    with exclusive(path.with_name(".lock")):
        if not path.exists() or path.stat().st_size == 0:  # empty: whoever made it was killed before it wrote
            path.write_text(secrets.token_hex(8), "ascii")
        found = path.read_text("ascii", "replace")
    if not re.fullmatch(r"[0-9a-f]{16}", found):
        raise OSError(errno.EINVAL, f"{path.name} is not ours")
    return found


def _sync(folder: Path) -> None:
    if fcntl is None:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # removed meanwhile
        return 0


def _time(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return time.time()


def _full(error: OSError | None = None) -> StorageFull:
    why = "all room for the audio of jobs is taken" if error is None else f"no room on the disk: {error.strerror}"
    return StorageFull(why, remedy="try again later", retry_after_s=RETRY_S)
