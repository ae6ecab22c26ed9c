"""Files here or anywhere fsspec reaches: opening, listing, and names joined to folders."""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from rechka.errors import DataError, DataNotFound, MissingExtra, RechkaError

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_BRACES = 100_000
PIECE_BYTES = 1 << 16
"""What is asked of a file elsewhere at once, unless more is wanted."""


def is_url(place: str) -> bool:
    """Whether a place is a URL (``s3://...``, ``memory://...``) rather than a path."""
    return "://" in place


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtra(f"{url} needs fsspec", remedy='pip install "rechka[data]"') from error
    try:
        return cast("tuple[Any, str]", url_to_fs(url))
    except (ImportError, ValueError) as error:
        raise DataError(
            f"cannot reach {url}: {error}", remedy="install the fsspec package for this protocol"
        ) from error


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Filesystems raise whatever their libraries do: here it is an OSError, or an error of ours."""
    try:
        yield
    except (OSError, RechkaError):
        raise
    except Exception as error:
        raise OSError(f"{place}: {type(error).__name__}: {error}") from error


class _Remote(io.RawIOBase):
    """A file of a filesystem of fsspec; errors of reading are OSErrors."""

    def __init__(self, place: str, file: Any) -> None:
        self._place, self._file = place, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with _told(self._place):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _told(self._place):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def open_binary(place: str) -> IO[bytes]:
    """Open a file for reading bytes.

    Raises:
        DataError: it cannot be opened.
        MissingExtra: a URL without fsspec.
    """
    try:
        if not is_url(place):
            return open(place, "rb")
        with _told(place):
            system, path = _filesystem(place)
            file = system.open(path, "rb")
        return cast("IO[bytes]", io.BufferedReader(_Remote(place, file), PIECE_BYTES))
    except OSError as error:
        remedy = "check the name and the rights"
        raise DataNotFound.or_unreadable(error, f"cannot read {place}: {error}", remedy=remedy) from error


def expand(place: str) -> list[str]:
    """The files that a name with ``*``, ``?`` or ``{000..099}`` stands for, sorted; a plain name stands for itself.

    Raises:
        DataError: a pattern that matches nothing, or a range that is too long.
    """
    braces = _BRACES.search(place)
    if braces:
        first, last = int(braces[1]), int(braces[2])
        if not 0 <= last - first < _MAX_BRACES:
            raise DataError(f"a range must rise and hold at most {_MAX_BRACES} files, got {braces[0]}")
        width = len(braces[1]) if braces[1].startswith("0") else 0
        names = [f"{number:0{width}d}" for number in range(first, last + 1)]
        return [full for name in names for full in expand(place[: braces.start()] + name + place[braces.end() :])]
    if not any(mark in place for mark in "*?"):
        return [place]
    if is_url(place):
        system, path = _filesystem(place)
        try:
            with _told(place):
                found = [system.unstrip_protocol(name) for name in system.glob(path)]
        except OSError as error:
            raise DataError(f"cannot list {place}: {error}", remedy="check the name and the network") from error
    else:
        found = glob.glob(place, recursive=True)
    if not found:
        raise DataError(f"nothing matches {place}")
    return sorted(found)


def children(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files directly in a folder with one of the suffixes, sorted; empty if it is no folder."""
    if is_url(folder):
        system, path = _filesystem(folder)
        if not system.isdir(path):
            return []
        names = [system.unstrip_protocol(name) for name in system.ls(path, detail=False)]
    else:
        if not os.path.isdir(folder):
            return []
        try:
            names = [str(child) for child in Path(folder).iterdir() if os.path.isfile(child)]
        except OSError as error:
            raise DataError(f"cannot list {folder}: {error.strerror}", remedy="check its permissions") from error
    return sorted(name for name in names if name.lower().endswith(suffixes))


def exists(place: str) -> bool:
    """Whether a file is there."""
    if not is_url(place):
        return os.path.isfile(place)
    system, path = _filesystem(place)
    return bool(system.isfile(path))


def beside(place: str, name: str) -> str:
    """A name that a manifest gives, relative to the manifest's folder; absolute names and URLs stay."""
    if is_url(name) or Path(name).is_absolute():
        return name
    folder = place.rpartition("/")[0] if is_url(place) else str(Path(place).parent)
    return f"{folder}/{name}" if is_url(place) else str(Path(folder) / name)
