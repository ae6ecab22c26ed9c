"""The files that the authors of a model publish and that have to be converted: fetched to ``originals/NAME``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rechka.errors import Offline, UsageError
from rechka.hub.card import CardFile, Original
from rechka.hub.download import Progress, fetch, storage
from rechka.hub.locking import exclusive
from rechka.hub.registry import Entry, home
from rechka.hub.remote import Hub, RemoteFile


def folder_of(entry: Entry) -> Path:
    """Where the originals of a model lie or would lie."""
    return home() / "originals" / entry.card.name


def pull_originals(
    entry: Entry,
    *,
    hub: Hub | None = None,
    progress: Progress | None = None,
    waiting: Callable[[], None] | None = None,
) -> dict[str, Path]:
    """Role -> path of a model's originals, fetched unless they are there: resumed after a cut, checked, then renamed.

    Args:
        entry: from ``registry.find``.
        hub: only its patience and whether the network may be used; no token goes to the authors' server.
        progress, waiting: as in ``download.pull``.
    Raises:
        UsageError: the card names no originals.
        HubError: the download did not succeed; what came so far is kept.
        ChecksumMismatch: the file is not the card's.
    """
    originals = entry.card.originals
    if not originals:
        raise UsageError(f"the card of {entry.card.name!r} names no checkpoint", remedy="see: rechka models list")
    folder = folder_of(entry)
    paths = {role: folder / original.name for role, original in originals.items()}
    if all(path.is_file() for path in paths.values()):
        return paths
    hub = replace(hub or Hub.from_environment(), token="")
    if hub.offline:
        raise Offline(
            f"the checkpoint of {entry.card.name!r} is not fetched, because the network is switched off",
            remedy=f"unset RECHKA_OFFLINE and HF_HUB_OFFLINE, or put {', '.join(map(str, paths.values()))} there",
        )
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".pull.lock", waiting=waiting):
            for role, path in paths.items():
                if not path.is_file():
                    _fetch(hub, originals[role], path, partial(progress, role) if progress else None)
    return paths


def _fetch(hub: Hub, original: Original, path: Path, progress: Callable[[int, int | None], None] | None) -> None:
    size = original.size
    if size is None:
        with hub.open(original.url) as body:  # for its length only: with it a broken download can go on
            size = body.total
    known = original.sha256 or original.md5 or ""
    remote = RemoteFile(original.url, commit=known, size=size, sha256=original.sha256, git_sha1=None)
    fetch(hub, remote, path, CardFile(path.name, size=size, sha256=original.sha256, md5=original.md5), progress)
