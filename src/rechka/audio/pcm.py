"""Raw samples from bytes: 16-bit little-endian PCM and G.711, whole or packet by packet.

Source: ITU-T Recommendation G.711. A-law codes hold 13-bit, mu-law codes 14-bit samples, here shifted up to 16 bits as
everybody does. The tables are computed from its segments, because Python 3.13 no longer has audioop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rechka.errors import UsageError
from rechka.types import F32

Encoding: TypeAlias = Literal["s16le", "alaw", "mulaw"]
ENCODINGS: tuple[Encoding, ...] = ("s16le", "alaw", "mulaw")

SCALE_16 = np.float32(1 / 32768)
"""Integers of 16 bits to [-1, 1)."""


def _alaw_table() -> NDArray[np.int16]:
    code = np.arange(256) ^ 0x55  # even bits are sent inverted
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _mulaw_table() -> NDArray[np.int16]:
    code = ~np.arange(256) & 0xFF  # all bits are sent inverted
    exponent, mantissa = (code >> 4) & 7, code & 15
    magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


ALAW = _alaw_table()
"""(256,) int16 sample of each A-law code."""
MULAW = _mulaw_table()
"""(256,) int16 sample of each mu-law code."""
_ALAW_F32: F32 = ALAW * SCALE_16
_MULAW_F32: F32 = MULAW * SCALE_16


def decode_alaw(data: bytes) -> F32:
    """G.711 A-law bytes as (n,) samples in [-1, 1], one per byte."""
    return _ALAW_F32[np.frombuffer(data, dtype=np.uint8)]


def decode_mulaw(data: bytes) -> F32:
    """G.711 mu-law bytes as (n,) samples in [-1, 1], one per byte."""
    return _MULAW_F32[np.frombuffer(data, dtype=np.uint8)]


def decode_s16le(data: bytes) -> F32:
    """16-bit little-endian bytes as (n / 2,) samples in [-1, 1); an odd last byte is left out."""
    whole = np.frombuffer(data, dtype="<i2", count=len(data) // 2)
    return whole.astype(np.float32) * SCALE_16


_DECODERS: dict[str, tuple[Callable[[bytes], F32], int]] = {
    "s16le": (decode_s16le, 2),
    "alaw": (decode_alaw, 1),
    "mulaw": (decode_mulaw, 1),
}


class PcmDecoder:
    """Decodes packets of any length; a byte that is half a sample waits for the next packet.

    Args:
        encoding: ``"s16le"``, ``"alaw"`` or ``"mulaw"``.

    Raises:
        UsageError: another encoding.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in _DECODERS:
            raise UsageError(f"raw audio is one of {', '.join(ENCODINGS)}, got {encoding!r}")
        self._decode, self.width = _DECODERS[encoding]
        self._rest = b""

    @property
    def pending(self) -> int:
        """Bytes that wait for the other half of their sample: 0 or 1."""
        return len(self._rest)

    def push(self, data: bytes) -> F32:
        """(n,) samples in [-1, 1] that these bytes complete."""
        data = self._rest + bytes(data)
        whole = len(data) - len(data) % self.width
        self._rest = data[whole:]
        return self._decode(data[:whole])
