"""Pulling a model: resumed after a cut, checked, put in place in one step, one pull at a time.

A file is written to a hidden ``.NAME.IDENTITY.part`` beside its place. A cut leaves that behind and the next pull goes
on from there. Only when size and sha256 are right is it renamed, so a file under its own name is always whole.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from rechka.errors import ChecksumMismatch, DiskFull, HubError, Offline, RechkaError, UsageError
from rechka.hub.card import CardFile
from rechka.hub.locking import exclusive
from rechka.hub.registry import LOCK_FILE, Entry, Lock, Locked
from rechka.hub.remote import Hub, RemoteFile, Transient

Progress = Callable[[str, int, "int | None"], None]
"""Called with a file's role, the bytes that are there, and its whole length if known."""

BLOCK = 1 << 18
"""Bytes per read: large enough to be fast, small enough for a lively progress bar on a slow line."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did: ``fetched`` and ``kept`` are roles of files that came now and that were there already."""

    entry: Entry
    revision: str
    fetched: tuple[str, ...]
    kept: tuple[str, ...]


def pull(
    entry: Entry,
    *,
    extra: Iterable[str] = (),
    update: bool = False,
    hub: Hub | None = None,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
) -> Pulled:
    """Bring the required files of a model, and the optional ones named in ``extra``, onto the disk.

    Without ``update`` a file that is there with the right size is kept and the Hub is not asked; files that come later
    come from the same commit as the first ones. With ``update`` the Hub is asked again, and only what differs is
    fetched.

    Args:
        entry: from ``registry.find``.
        extra: roles of optional files.
        hub: default: as the environment sets it.
        progress: see ``Progress``.
        waiting: called once if another pull of this model is under way.
    Raises:
        UsageError: an unknown role, or a card that names no repository.
        HubError: the download did not succeed; what came so far is kept.
        ChecksumMismatch: the Hub's file is not the card's file, or it was damaged on the way.
    """
    roles = _roles(entry, list(extra))
    if not update and not _wanted(entry, roles, lock := entry.lock()):
        return Pulled(entry, lock.revision if lock else "", (), tuple(roles))
    if not entry.card.repo:
        raise UsageError(
            f"model {entry.card.name!r} has no repository to pull from",
            remedy=f"put its files into {entry.folder}" if entry.origin != "embedded" else "reinstall rechka",
        )
    hub = hub or Hub.from_environment()
    if hub.offline:
        raise Offline(
            f"model {entry.card.name!r} is not pulled, because the network is switched off",
            remedy="unset RECHKA_OFFLINE and HF_HUB_OFFLINE, or copy the model's folder here by hand",
        )
    with storage(entry.folder):
        entry.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(entry.folder / ".pull.lock", waiting=waiting):
            return _pull(entry, roles, update, hub, progress)


def _roles(entry: Entry, extra: list[str]) -> list[str]:
    for role in extra:
        if role not in entry.card.files:
            known = ", ".join(role for role, file in entry.card.files.items() if file.optional)
            raise UsageError(
                f"model {entry.card.name!r} has no file {role!r}", remedy=f"its optional files: {known or 'none'}"
            )
    return [role for role, file in entry.card.files.items() if not file.optional or role in extra]


def _wanted(entry: Entry, roles: list[str], lock: Lock | None) -> list[str]:
    """Roles whose file is not there, has not the size it should have, or comes from where the card points no more."""
    if lock is not None and not lock.fits(entry.card):
        return roles
    wanted = []
    for role in roles:
        path, size = entry.path(role), entry.expected(role, lock).size
        if not path.is_file() or (size is not None and path.stat().st_size != size):
            wanted.append(role)
    return wanted


def _pull(entry: Entry, roles: list[str], update: bool, hub: Hub, progress: Progress | None) -> Pulled:
    """``pull`` while the lock is held: nobody else changes the folder now."""
    card = entry.card
    lock = None if update else entry.lock()
    wanted = roles if update else _wanted(entry, roles, lock)  # again: another pull may just have ended
    if lock is None or not lock.fits(card):
        lock = Lock(card.repo, card.revision, card.revision, hub.endpoint)
    fetched, kept = [], [role for role in roles if role not in wanted]
    for role in wanted:
        path, target = card.files[role].path, entry.path(role)
        remote = _persist(hub, partial(hub.describe, card.repo, lock.revision or "main", path))
        expected = _agree(entry, role, remote)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _fault(target, expected, remote) is None:
            kept.append(role)
        else:
            fetch(hub, remote, target, expected, partial(progress, role) if progress else None)
            fetched.append(role)
        digest = Locked(path, target.stat().st_size, expected.sha256 or sha256_of(target))
        # Pinned with the first file, and written after each: a later pull goes on from exactly here.
        lock = replace(lock, revision=remote.commit or lock.revision, files={**lock.files, role: digest})
        write_whole(entry.folder / LOCK_FILE, lock.to_json().encode())
    return Pulled(entry, lock.revision, tuple(fetched), tuple(kept))


def _persist(hub: Hub, attempt: Callable[[], T], arrived: Callable[[], int] = int) -> T:
    """``attempt``, and again after each failure that may pass, until the Hub's pauses are used up without progress."""
    failures, most = 0, arrived()
    while True:
        try:
            return attempt()
        except Transient as error:  # noqa: PERF203 - trying again is what the loop is for
            if (now := arrived()) > most:
                failures, most = 0, now
            if failures == len(hub.pauses_s):
                raise
            logger.info("%s; trying again", error.message)
            time.sleep(max(hub.pauses_s[failures], error.retry_after))
            failures += 1


def _agree(entry: Entry, role: str, remote: RemoteFile) -> CardFile:
    """What the file must be: the card's size and sha256, else the Hub's. Told apart before anything is downloaded."""
    file = entry.card.files[role]
    for what in ("sha256", "size"):
        ours, theirs = getattr(file, what), getattr(remote, what)
        if ours is not None and theirs is not None and ours != theirs:
            raise ChecksumMismatch(
                f"{remote.url} has {what} {theirs}, the card of {entry.card.name!r} says {ours}",
                remedy="the repository has changed or the mirror is not faithful: update rechka, or correct the card",
            )
    return replace(file, size=file.size if file.size is not None else remote.size, sha256=file.sha256 or remote.sha256)


def fetch(
    hub: Hub,
    remote: RemoteFile,
    target: Path,
    expected: CardFile,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Download one file to ``target``: resumed, checked against ``expected``, renamed into place when it is right.

    Raises:
        HubError, ChecksumMismatch: as ``pull``.
    """
    part = target.with_name(f".{target.name}.{remote.identity}.part")
    for stale in target.parent.glob(f".{target.name}.*.part"):
        if stale != part or not remote.identity or expected.size is None:
            stale.unlink()  # of another version, or of one that cannot be told apart
    resumed = part.exists()
    _transfer(hub, remote.url, part, expected.size, progress)
    if (fault := _fault(part, expected, remote)) and resumed:
        logger.warning("%s: %s after it was resumed; downloading it anew", target.name, fault)
        part.unlink()
        _transfer(hub, remote.url, part, expected.size, progress)
        fault = _fault(part, expected, remote)
    if fault:
        part.unlink()
        raise ChecksumMismatch(
            f"{remote.url} arrived with {fault}; it was thrown away",
            remedy="run it again; if it stays so, the mirror or a proxy on the way changes the file",
        )
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, target)


def _transfer(
    hub: Hub, url: str, part: Path, size: int | None, progress: Callable[[int, int | None], None] | None
) -> None:
    """Make ``part`` as long as the file, going on after each failure that may pass."""
    _persist(hub, partial(_receive, hub, url, part, size, progress), partial(_length, part))


def _receive(
    hub: Hub, url: str, part: Path, size: int | None, progress: Callable[[int, int | None], None] | None
) -> None:
    """One request: append what comes to ``part``."""
    start = _length(part)
    if size is None or start > size:
        start = 0  # a length to compare with is what makes going on safe
    if start and start == size:
        return
    _check_room(part, size, start)
    with hub.open(url, start) as body, part.open("ab") as file:
        file.truncate(body.start)
        done, total = body.start, body.total if size is None else size
        while block := body.read(BLOCK):
            _write(file, block)
            done += len(block)
            if total is not None and done > total:
                raise HubError(f"{url} gives more than the {total} bytes it should have")
            if progress:
                progress(done, total)
    if total is not None and done < total:
        raise Transient(
            f"{url} broke off after {done} of {total} bytes", remedy="run it again: what was downloaded is kept"
        )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _write(file: IO[bytes], block: bytes) -> None:
    file.write(block)


def _check_room(part: Path, size: int | None, start: int) -> None:
    if size is not None and (free := shutil.disk_usage(part.parent).free) < size - start:
        raise DiskFull(
            f"{part.parent} has room for {free} bytes, {size - start} are needed",
            remedy="make room, or set RECHKA_HOME to a folder on another disk",
        )


def _fault(path: Path, expected: CardFile, remote: RemoteFile) -> str | None:
    """What is wrong with a file, or None. Without a known sum only its length is compared."""
    size = path.stat().st_size
    if expected.size is not None and size != expected.size:
        return f"{size} bytes instead of {expected.size}"
    if expected.sha256:
        found = sha256_of(path)
        return None if found == expected.sha256 else f"sha256 {found} instead of {expected.sha256}"
    if expected.md5:
        found = _digest(path, hashlib.md5(usedforsecurity=False))
        return None if found == expected.md5 else f"md5 {found} instead of {expected.md5}"
    if remote.git_sha1:  # small files are kept in git itself, and the Hub tells git's name for the content
        found = _digest(path, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False))
        return None if found == remote.git_sha1 else f"git sha1 {found} instead of {remote.git_sha1}"
    return None


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's content."""
    return _digest(path, hashlib.sha256())


def _digest(path: Path, state: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file so that readers see the old content or the new one, nothing between."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        _write(file, data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


@contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turns the disk's own errors into ours; those of the Hub pass."""
    try:
        yield
    except RechkaError:
        raise
    except OSError as error:
        place = error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                f"{place}: {error.strerror}; what was downloaded so far is kept",
                remedy="make room and run it again, or set RECHKA_HOME to a folder on another disk",
            ) from None
        raise HubError(
            f"{place}: {error.strerror or error}", remedy="set RECHKA_HOME to a folder that can be written"
        ) from None
