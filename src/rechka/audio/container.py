"""What kind of audio some bytes are, told by the bytes themselves and never by a file's name.

Also what a container promises about its own length, to notice files that were cut.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rechka.audio import mpeg

HEAD = 1 << 16
"""Bytes of a file that ``sniff`` looks at."""

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
    start = mpeg.find_start(head)
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


def ogg_links(file: mpeg.Readable) -> tuple[list[int], bool]:
    """Where the recordings in an Ogg file begin, several if it is chained, and whether the last one is whole.

    Source: RFC 3533, whose page header tells the begin (flag 2) and the end (flag 4) of a stream.
    """
    links: list[int] = []
    at, inside, ended = 0, False, False
    while True:
        file.seek(at)
        page = file.read(27 + 255)
        if len(page) < 27:
            return links, ended and not page
        if page[:4] != b"OggS":
            skip = page.find(b"OggS", 1)
            at += skip if skip > 0 else len(page) - 3
            continue
        begins = bool(page[5] & 2)
        if begins and (inside or not links):
            links.append(at)
        inside, ended = not begins, bool(page[5] & 4)
        size = 27 + page[26] + sum(page[27 : 27 + page[26]])
        file.seek(at + size - 1)
        if not file.read(1):
            return links, False
        at += size


def _is_adts(head: bytes) -> bool:
    """AAC in ADTS frames: twelve bits of sync, layer zero, a sample-rate index in its table."""
    return len(head) >= 3 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and (head[2] >> 2) & 15 < 13
