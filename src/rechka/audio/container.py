"""What kind of audio some bytes are, told by the bytes themselves and never by a file's name.

Also what a container promises about its own length, to notice files that were cut.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

HEAD = 1 << 16
"""Bytes of a file that ``sniff`` looks at."""
_SCAN = 1 << 14
"""How far an MPEG recording that was cut at its front may be from its first whole frame."""

_STARTS = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b".snd", "au"),
    (b"caff", "caf"),
    (b"RF64", "wav"),
    (b"riff\x2e\x91\xcf\x11", "w64"),
    (b"#!AMR", "amr"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"styp", b"wide", b"free", b"skip")

SOUNDFILE_KINDS = frozenset({"wav", "w64", "flac", "ogg", "mp3", "aiff", "au", "caf"})
"""Kinds that soundfile reads; the others need PyAV."""


@dataclass(frozen=True, slots=True)
class Found:
    """A kind of container, and where in the bytes it starts."""

    kind: str
    start: int = 0


def sniff(head: bytes) -> Found | None:
    """The container that ``head``, the first bytes behind any tag, belongs to; None if it is no known audio."""
    for magic, kind in _STARTS:
        if head.startswith(magic):
            return Found(kind)
    form = head[8:12]
    if head[:4] in (b"RIFF", b"RIFX") and form == b"WAVE":
        return Found("wav")
    if head[:4] == b"FORM" and form in (b"AIFF", b"AIFC"):
        return Found("aiff")
    if head[4:8] in _MP4_BOXES:
        return Found("mp4")
    if _is_adts(head):
        return Found("aac")
    start = _mpeg_start(head)
    return None if start is None else Found("mp3", start)


def tag_bytes(head: bytes) -> int:
    """Length of the ID3v2 tag that ``head`` begins with, which may be long beyond it for a picture; 0 without a tag."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def declared_bytes(head: bytes) -> int | None:
    """Length that a wav, aiff or au header claims for its whole file; None if it does not tell or not yet know."""
    if len(head) < 28:
        return None
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        return int(struct.unpack_from("<Q", head, 20)[0]) + 8
    if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
        size = int(struct.unpack_from("<I" if head[:4] == b"RIFF" else ">I", head, 4)[0])
        return None if is_placeholder(size) else size + 8
    if head[:4] == b".snd":
        offset, size = struct.unpack_from(">II", head, 4)
        return None if is_placeholder(size) else int(offset) + int(size)
    return None


def is_placeholder(size: int) -> bool:
    """A 32-bit length that a program writes when it does not know the length yet: zero or about 2 or 4 GB."""
    return size == 0 or 0x7FFF0000 <= size <= 0x80000000 or size >= 0xFFFF0000


def ogg_has_end(file: BinaryIO) -> bool:
    """Whether the last page of an Ogg file carries the end-of-stream flag (RFC 3533, header type 4)."""
    size = file.seek(0, 2)
    file.seek(max(0, size - (1 << 16) - 512))  # a page has at most 65 307 bytes
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return False
    num_segments = tail[at + 26]
    lacing = tail[at + 27 : at + 27 + num_segments]
    whole = len(lacing) == num_segments and at + 27 + num_segments + sum(lacing) <= len(tail)
    return whole and bool(tail[at + 5] & 4)


def mp3_knows_length(head: bytes) -> bool:
    """Whether an MP3 carries a Xing or Info frame, which counts its frames."""
    return b"Xing" in head or b"Info" in head or b"VBRI" in head


def _is_adts(head: bytes) -> bool:
    """AAC in ADTS frames: twelve bits of sync, layer zero, a sample-rate index in its table."""
    return len(head) >= 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and (head[2] >> 2) & 15 < 13


_BITRATES = {  # kbit/s by (MPEG-1?, layer), ISO/IEC 11172-3 and 13818-3
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG1_RATES = (44100, 48000, 32000)


def _mpeg_frame(data: bytes, at: int) -> int:
    """Length in bytes of the MPEG audio frame at ``at``; 0 if there is none."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return 0
    version, layer = (data[at + 1] >> 3) & 3, 4 - ((data[at + 1] >> 1) & 3)
    rate_code, bitrate_code = (data[at + 2] >> 2) & 3, data[at + 2] >> 4
    if version == 1 or layer == 4 or rate_code == 3 or bitrate_code in (0, 15):
        return 0
    first = version == 3
    rate = _MPEG1_RATES[rate_code] >> (0 if first else 1 if version == 2 else 2)
    bitrate = _BITRATES[first, layer][bitrate_code - 1] * 1000
    padding = (data[at + 2] >> 1) & 1
    if layer == 1:
        return (12 * bitrate // rate + padding) * 4
    return (72 if layer == 3 and not first else 144) * bitrate // rate + padding


def _mpeg_start(head: bytes) -> int | None:
    """Where MPEG audio frames begin: at once, or after the rest of a frame that was cut, proven by three in a row."""
    if _mpeg_frame(head, 0):
        return 0
    at = head.find(b"\xff", 0, _SCAN)
    while at >= 0:
        second = at + _mpeg_frame(head, at)
        third = second + _mpeg_frame(head, second)
        if at < second < third and _mpeg_frame(head, third):
            return at
        at = head.find(b"\xff", at + 1, _SCAN)
    return None
