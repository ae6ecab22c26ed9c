"""MPEG audio frames: where they begin, and how many there are.

libsndfile believes the frame count of an MP3's Xing header, and without one guesses it from the first frames. A
recording of variable bit rate without that header, or two recordings joined, would lose their end. So frames are
counted here, and where the header is missing or wrong, one with the right count is put before the audio.

Source: ISO/IEC 11172-3 and 13818-3 for frames; the Xing header as LAME writes it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

_SCAN = 1 << 14
"""How far a recording that was cut at its front may be from its first whole frame."""
_PIECE = 1 << 18
_BITRATES = {  # kbit/s by (MPEG-1?, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG1_RATES = (44100, 48000, 32000)


class Readable(Protocol):
    """What is needed of a file."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes."""
        ...

    def seek(self, offset: int, /) -> int:
        """Move to ``offset``."""
        ...


@dataclass(frozen=True, slots=True)
class Count:
    """What counting the frames of an MP3 found.

    Attributes:
        frames: that are there, the header's own not counted.
        declared: that the header promises; None without a header.
        header_bytes: length of the header's frame; 0 without.
        header: a frame that promises what is there, to be put in the place of the old one.
    """

    frames: int
    declared: int | None
    header_bytes: int
    header: bytes

    @property
    def right(self) -> bool:
        """Whether the recording's own header will do."""
        return self.declared is not None and abs(self.declared - self.frames) <= 1

    @property
    def cut(self) -> bool:
        """Whether there is less than was promised."""
        return self.declared is not None and self.frames < self.declared - 1


@lru_cache(maxsize=4096)
def frame_bytes(second: int, third: int) -> int:
    """Length of a frame by the second and third byte of its header; 0 if they are none."""
    version, layer = (second >> 3) & 3, 4 - ((second >> 1) & 3)
    rate_code, bitrate_code = (third >> 2) & 3, third >> 4
    if second & 0xE0 != 0xE0 or version == 1 or layer == 4 or rate_code == 3 or bitrate_code in (0, 15):
        return 0
    first = version == 3
    rate = _MPEG1_RATES[rate_code] >> (0 if first else 1 if version == 2 else 2)
    bitrate = _BITRATES[first, layer][bitrate_code - 1] * 1000
    padding = (third >> 1) & 1
    if layer == 1:
        return (12 * bitrate // rate + padding) * 4
    return (72 if layer == 3 and not first else 144) * bitrate // rate + padding


def _frame_at(data: bytes, at: int) -> int:
    if at + 4 > len(data) or data[at] != 0xFF:
        return 0
    return frame_bytes(data[at + 1], data[at + 2])


def find_start(head: bytes) -> int | None:
    """Where MPEG frames begin: at once, or after the rest of a frame that was cut, proven by three in a row."""
    if _frame_at(head, 0):
        return 0
    at = head.find(b"\xff", 0, _SCAN)
    while at >= 0:
        second = at + _frame_at(head, at)
        third = second + _frame_at(head, second)
        if at < second < third and _frame_at(head, third):
            return at
        at = head.find(b"\xff", at + 1, _SCAN)
    return None


def count(file: Readable) -> Count | None:
    """Count the frames of an MP3 whose first frame is at position zero; None for layers I and II."""
    file.seek(0)
    head = file.read(1 << 12)
    size = _frame_at(head, 0)
    if not size or (head[1] >> 1) & 3 != 1:
        return None
    declared = _declared(head[:size])
    header_bytes = 0 if declared is None else size
    frames = _count_from(file, header_bytes, (head[1] & 0xFE, head[2] & 0x0C))
    return Count(frames, declared, header_bytes, _header(head, frames))


def _count_from(file: Readable, start: int, kind: tuple[int, int]) -> int:
    """Number of frames of one ``kind`` (version and layer, rate) from ``start``; damage between them is skipped."""
    frames = 0
    base, at = start, 0
    file.seek(start)
    data = file.read(_PIECE)
    while data:
        size = 0
        if at + 4 <= len(data) and data[at] == 0xFF and (data[at + 1] & 0xFE, data[at + 2] & 0x0C) == kind:
            size = frame_bytes(data[at + 1], data[at + 2])
        if size:
            frames += 1
            at += size
        elif at + 4 <= len(data):
            found = data.find(b"\xff", at + 1)
            at = len(data) - 3 if found < 0 else found
        if at + 4 > len(data):
            base, at = base + at, 0
            file.seek(base)
            data = file.read(_PIECE)
            if len(data) < 4:
                break
    return frames


def _side_bytes(head: bytes) -> int:
    """Header and side information of a layer III frame, before which a Xing header cannot begin."""
    mono, first = head[3] >> 6 == 3, (head[1] >> 3) & 3 == 3
    return 4 + ((17 if mono else 32) if first else (9 if mono else 17))


def _declared(frame: bytes) -> int | None:
    """Frames that a Xing, Info or VBRI header promises."""
    at = _side_bytes(frame)
    if frame[at : at + 4] in (b"Xing", b"Info"):
        has_count = len(frame) >= at + 12 and frame[at + 7] & 1
        return int(struct.unpack_from(">I", frame, at + 8)[0]) if has_count else 0
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return int(struct.unpack_from(">I", frame, 50)[0])
    return None


def _header(head: bytes, frames: int) -> bytes:
    """A silent frame like the first one, without checksum, with a Xing header for ``frames``."""
    second, at = head[1] | 1, _side_bytes(head)
    for bitrate_code in range(1, 15):
        third = bitrate_code << 4 | head[2] & 0x0C
        size = frame_bytes(second, third)
        if size >= at + 12:
            break
    start = bytes([0xFF, second, third, head[3]])
    return (start.ljust(at, b"\0") + b"Xing" + struct.pack(">II", 1, frames)).ljust(size, b"\0")
