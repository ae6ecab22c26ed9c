"""Wav headers and PCM samples, read by ourselves where a library cannot: from pipes, and where no length was written.

Source: the RIFF/WAVE format as in Microsoft's and IBM's Multimedia Programming Interface, and WAVEFORMATEXTENSIBLE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from rechka.audio.container import is_placeholder
from rechka.audio.pcm import decode_alaw, decode_mulaw
from rechka.types import F32

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_ENCODINGS = {
    (_PCM, 8): "u8",
    (_PCM, 16): "s16",
    (_PCM, 24): "s24",
    (_PCM, 32): "s32",
    (_FLOAT, 32): "f32",
    (_FLOAT, 64): "f64",
    (_ALAW, 8): "alaw",
    (_MULAW, 8): "mulaw",
}
_WIDTHS = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8, "alaw": 1, "mulaw": 1}


@dataclass(frozen=True, slots=True)
class WavFormat:
    """What a wav header says.

    Attributes:
        encoding: ``u8``, ``s16``, ``s24``, ``s32``, ``f32``, ``f64``, ``alaw`` or ``mulaw``, little-endian.
        sample_rate: samples per second.
        channels: per frame.
        data_start: position of the first sample in the file.
        data_bytes: length of the samples; None if the header was written before it was known.
    """

    encoding: str
    sample_rate: int
    channels: int
    data_start: int
    data_bytes: int | None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return _WIDTHS[self.encoding] * self.channels

    def decode(self, data: bytes) -> F32:
        """Whole frames as (n, channels) samples."""
        return samples(data, self.encoding).reshape(-1, self.channels)


def parse_wav(head: bytes) -> WavFormat | None:
    """The format of a little-endian wav file of PCM whose data begins within ``head``; None for anything else."""
    found = _find_chunks(head)
    fmt = None if found is None else _parse_fmt(found[0])
    if found is None or fmt is None:
        return None
    _, start, size = found
    return WavFormat(*fmt, data_start=start, data_bytes=None if is_placeholder(size) else size)


def plain_header(head: bytes) -> tuple[bytes, int] | None:
    """The shortest header for the same data, and where the data begins; None if it is not within ``head``.

    FFmpeg believes the length of every other chunk: a few bytes can make it ask for gigabytes.
    """
    found = _find_chunks(head)
    if found is None:
        return None
    fmt, start, size = found
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(len(body) + size, 0xFFFFFFFF)) + body, start


def _find_chunks(head: bytes) -> tuple[bytes, int, int] | None:
    """The ``fmt`` chunk (at most its first 64 bytes), and where the data begins and how long it claims to be."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    fmt: bytes | None = None
    at = 12
    while at + 8 <= len(head):
        name, size = head[at : at + 4], struct.unpack_from("<I", head, at + 4)[0]
        if name == b"data":
            return None if fmt is None else (fmt, at + 8, size)
        if name == b"fmt ":
            fmt = head[at + 8 : at + 8 + min(size, 64)]
        at += 8 + size + size % 2
    return None


def _parse_fmt(chunk: bytes) -> tuple[str, int, int] | None:
    if len(chunk) < 16:
        return None
    tag, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        tag = struct.unpack_from("<H", chunk, 24)[0]
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None or channels == 0 or align != _WIDTHS[encoding] * channels:
        return None
    return encoding, rate, channels


def samples(data: bytes, encoding: str) -> F32:
    """Little-endian bytes of one of ``WavFormat``'s encodings as (n,) samples; integers are scaled to [-1, 1)."""
    if encoding == "alaw":
        return decode_alaw(data)
    if encoding == "mulaw":
        return decode_mulaw(data)
    if encoding == "u8":
        return (np.frombuffer(data, dtype=np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if encoding == "s24":
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4").astype(np.float32) / np.float32(2**31)
    array = np.frombuffer(data, dtype={"s16": "<i2", "s32": "<i4", "f32": "<f4", "f64": "<f8"}[encoding])
    if encoding in ("f32", "f64"):
        with np.errstate(over="ignore"):  # becomes infinite, which is refused later
            return array.astype(np.float32)
    return array.astype(np.float32) / np.float32(2 ** (8 * array.itemsize - 1))
