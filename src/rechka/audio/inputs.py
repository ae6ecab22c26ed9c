"""What a user may give as a recording, in one shape: bytes that can be read from their start, again and again.

A pipe cannot be rewound. If its format can be decoded on the fly (raw and PCM wav) it is; everything else is first
copied into a temporary file of bounded size, which vanishes with its source.
"""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from rechka.errors import AudioNotFound, AudioTooLong, BrokenAudio, UsageError

MAX_SPOOL_BYTES = 2 << 30
"""Largest temporary copy of a pipe."""
_PIECE = 1 << 20


class Feed:
    """A file for the decoding libraries: whole reads, a part of the file, errors kept for later.

    soundfile and PyAV call back into ``read`` from C, where an exception would be printed and lost. So an error looks
    like the end of the file to them, and ``check`` raises it afterwards.

    Args:
        file: binary, seekable.
        start: position in it that counts as zero.
        end: position in it where it seems to end; None for its own end.
        prefix: bytes that seem to stand before ``start``, at zero.
        owned: whether ``close`` closes the file.
    """

    def __init__(
        self, file: IO[bytes], start: int = 0, *, end: int | None = None, prefix: bytes = b"", owned: bool
    ) -> None:
        self._file = file
        self._prefix = prefix
        self._start = start - len(prefix)
        self._end = end
        self._owned = owned
        self._position = 0
        self.error: BaseException | None = None
        self.name = ""  # PyAV asks for it

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; fewer only at the end."""
        parts = [self._prefix[self._position :][: size if size >= 0 else None]]
        left = size - len(parts[0]) if size >= 0 else -1
        try:
            at = self._start + self._position + len(parts[0])
            self._file.seek(max(0, at))
            if self._end is not None:
                left = max(0, self._end - at) if left < 0 else min(left, max(0, self._end - at))
            while left and not self.error:
                part = self._file.read(left)
                if not part:
                    break
                parts.append(part)
                left = left - len(part) if left >= 0 else -1
        except BaseException as error:  # noqa: BLE001 - re-raised by check(), on our side of the C library
            self.error = error
        data = b"".join(parts)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; positions before the start are the start."""
        try:
            if whence == 2:
                end = self._file.seek(0, 2)
                offset += (end if self._end is None else min(end, self._end)) - self._start
            elif whence == 1:
                offset += self._position
        except BaseException as error:  # noqa: BLE001 - as above
            self.error = error
        self._position = max(0, offset)
        return self._position

    def tell(self) -> int:
        """Position of the next read."""
        return self._position

    def check(self, name: str) -> None:
        """Raise what a read met.

        Raises:
            BrokenAudio: reading failed.
        """
        if self.error is None:
            return
        if not isinstance(self.error, Exception):
            raise self.error  # an interrupt
        raise BrokenAudio(
            f"{name} could not be read further than byte {self._position}: {self.error or type(self.error).__name__}",
            remedy="try again, or copy the file to this machine first",
        ) from self.error

    def close(self) -> None:
        """Close the file if it is ours."""
        if self._owned:
            self._file.close()


class Input:
    """Bytes that can be read again from their start.

    Args:
        name: for messages.
        opener: gives a binary seekable file.
        start: position in it where the audio begins.
        owned: whether a file that ``opener`` gave is to be closed after use.
    """

    def __init__(self, name: str, opener: Callable[[], IO[bytes]], *, start: int = 0, owned: bool) -> None:
        self.name = name
        self._opener = opener
        self._start = start
        self._owned = owned

    def open(self, start: int = 0, *, end: int | None = None, prefix: bytes = b"") -> Feed:
        """A feed of the bytes from ``start`` to ``end``, with ``prefix`` before them; close it after use."""
        stop = None if end is None else self._start + end
        return Feed(self._opener(), self._start + start, end=stop, prefix=prefix, owned=self._owned)


class Pipe:
    """A stream of bytes that can be read once, with a look at its beginning.

    Args:
        file: has ``read``, perhaps ``read1`` for what is there without waiting for more.
        name: for messages.
    """

    def __init__(self, file: Any, name: str) -> None:
        self.name = name
        self._read = getattr(file, "read1", file.read)
        self._head = b""

    def peek(self, size: int) -> bytes:
        """The first ``size`` bytes, fewer only at the end; they stay in the pipe."""
        while len(self._head) < size:
            part = self._more(size - len(self._head))
            if not part:
                break
            self._head += part
        return self._head[:size]

    def read(self, size: int) -> bytes:
        """From 1 to ``size`` bytes, or none at the end.

        Raises:
            BrokenAudio: reading failed.
        """
        if self._head:
            part, self._head = self._head[:size], self._head[size:]
            return part
        return self._more(size)

    def _more(self, size: int) -> bytes:
        try:
            part = self._read(size)
        except (OSError, ValueError) as error:
            raise BrokenAudio(f"{self.name} could not be read: {error}", remedy="try again") from error
        if isinstance(part, str):
            raise UsageError(f"{self.name} is open as text", remedy='open it in binary mode: open(path, "rb")')
        return bytes(part or b"")

    def spool(self, limit: int = MAX_SPOOL_BYTES) -> Input:
        """All of it in a temporary file.

        Raises:
            AudioTooLong: more than ``limit`` bytes.
            BrokenAudio: reading failed, or there is no room.
        """
        file = tempfile.TemporaryFile(prefix="rechka-")  # noqa: SIM115 - lives as long as the Input
        try:
            self._copy(file, limit)
        except BaseException:
            file.close()
            raise
        spooled = Input(self.name, lambda: file, owned=False)
        weakref.finalize(spooled, file.close)
        return spooled

    def _copy(self, file: IO[bytes], limit: int) -> None:
        size = 0
        while part := self.read(_PIECE):
            size += len(part)
            if size > limit:
                raise AudioTooLong(
                    f"{self.name} is longer than {limit} bytes, the most that is copied from a pipe",
                    remedy="save it to a file and give its path",
                )
            try:
                file.write(part)
            except OSError as error:
                raise BrokenAudio(
                    f"{self.name} cannot be copied to {tempfile.gettempdir()}: {error.strerror or error}",
                    remedy="make room there, point TMPDIR elsewhere, or give a path instead of a pipe",
                ) from error


def to_input(source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]) -> Input | Pipe:
    """A path, bytes or file object as ``Input``; as ``Pipe`` if it cannot be rewound.

    Raises:
        AudioNotFound: no such file, a folder, or no permission.
        UsageError: a file that is open as text.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return Input("the audio", lambda: io.BytesIO(data), owned=True)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source))
    if isinstance(source, io.TextIOBase):
        raise UsageError("the file object is open as text", remedy='open it in binary mode: open(path, "rb")')
    name = getattr(source, "name", None)
    name = name if isinstance(name, str) and name else "the audio"
    start = _position(source)
    return Pipe(source, name) if start is None else Input(name, lambda: source, start=start, owned=False)


def _from_path(path: Path) -> Input | Pipe:
    def opener() -> IO[bytes]:
        try:
            return path.open("rb")
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise _not_found(path, error) from error

    file = opener()
    if file.seekable():
        file.close()
        return Input(str(path), opener, owned=True)
    pipe = Pipe(file, str(path))  # a named pipe: a second open would cut its writer off
    weakref.finalize(pipe, file.close)
    return pipe


def _not_found(path: Path, error: OSError | ValueError) -> AudioNotFound:
    if isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and os.path.isdir(path)):
        return AudioNotFound(f"{path} is a folder, not a file", remedy="name the files in it")
    if isinstance(error, PermissionError):
        return AudioNotFound(f"{path} may not be read by this user", remedy="change its permissions")
    if "://" in str(path) or str(path).startswith(("http:", "https:")):
        return AudioNotFound(f"{path} is an address, not a path", remedy="download it first, then give the file")
    if isinstance(error, FileNotFoundError):
        return AudioNotFound(f"there is no file {path}", remedy="check the path")
    return AudioNotFound(f"{str(path)!r} cannot be opened: {error}", remedy="check the path")


def _position(file: Any) -> int | None:
    """Where a file object stands, or None if it cannot be rewound to there."""
    try:
        if not file.seekable():
            return None
    except AttributeError:
        if not hasattr(file, "seek"):
            return None
    try:
        position = int(file.tell())
        file.seek(position)
    except (OSError, AttributeError, ValueError, TypeError):
        return None
    return position
