"""Protocol buffers read by hand, with seeks: a few fields of large files that need no library and no memory.

The file may come from anywhere: every length is checked against what is left, and the number of fields is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

MAX_FIELDS = 1_000_000
MAX_TEXT = 1 << 16


class FieldReader:
    """Reads fields of messages from a file; its place in the file is that of the next field.

    Everything raises ValueError for what is no message.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_FIELDS

    def messages(self, end: int) -> Iterator[tuple[int, int]]:
        """Number and end of every field of the message up to ``end`` that may itself be a message or a text."""
        for number, kind, value in self.fields(end):
            if kind == 2:
                yield number, self._file.tell() + value

    def texts(self, end: int, wanted: tuple[int, ...]) -> dict[int, str]:
        """Some text fields of the message up to ``end``."""
        return {n: self.text(value) for n, kind, value in self.fields(end) if kind == 2 and n in wanted}

    def fields(self, end: int) -> Iterator[tuple[int, int, int]]:
        """Field number, wire type, and value or length; the reader then goes on behind the field."""
        while self._file.tell() < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {MAX_FIELDS} fields")
            tag = self.varint(end)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                yield number, kind, self.varint(end)
                continue
            if kind not in (1, 2, 5):
                raise ValueError(f"a field of wire type {kind}")
            value = self.varint(end) if kind == 2 else {1: 8, 5: 4}[kind]
            after = self._file.tell() + value
            if after > end:
                raise ValueError("it ends in the middle of a field")
            yield number, kind, value
            self._file.seek(after)

    def varints(self, size: int) -> Iterator[int]:
        """The numbers of a packed field of ``size`` bytes."""
        end = self._file.tell() + size
        while self._file.tell() < end:
            yield self.varint(end)

    def varint(self, end: int) -> int:
        """A number that ends before ``end``."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte or self._file.tell() > end:
                raise ValueError("it ends in the middle of a field")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise ValueError("a number of more than ten bytes")

    def text(self, size: int) -> str:
        """A text of ``size`` bytes; bytes that are no UTF-8 are replaced."""
        return self._file.read(min(size, MAX_TEXT)).decode("utf-8", "replace")
