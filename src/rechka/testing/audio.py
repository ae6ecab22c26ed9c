"""Audio for tests: tones, small wav files, and file objects that misbehave."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rechka.types import F32

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def tone(frequency: float, seconds: float, sample_rate: int, *, level: float = 0.5) -> F32:
    """A sine from phase zero: (n,) samples of amplitude ``level``."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    wave: F32 = (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32)
    return wave


def wav_header(sample_rate: int, *, channels: int = 1, tag: int = 1, bits: int = 16, data_bytes: int = 0) -> bytes:
    """A wav header that claims ``data_bytes`` of samples; ``tag`` 1 is PCM, 3 float, 6 A-law, 7 mu-law."""
    align = channels * bits // 8
    form = struct.pack(
        "<HHIIHH", tag, channels, sample_rate & 0xFFFFFFFF, sample_rate * align & 0xFFFFFFFF, align, bits
    )
    riff = min(36 + data_bytes, 0xFFFFFFFF)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", data_bytes)


def wav_bytes(samples: F32, sample_rate: int) -> bytes:
    """A 16-bit wav of (n,) or (n, channels) samples in [-1, 1]."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    data = np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2").tobytes()
    return wav_header(sample_rate, channels=channels, data_bytes=len(data)) + data


class OneWay:
    """A pipe: bytes that can be read once, in pieces of the given sizes, over and over."""

    def __init__(self, data: bytes, sizes: Sequence[int] = (1000,)) -> None:
        self._file = io.BytesIO(data)
        self._sizes = [max(1, size) for size in sizes]
        self._calls = 0

    def read(self, size: int = -1) -> bytes:
        """The next piece, at most ``size`` bytes."""
        piece = self._sizes[self._calls % len(self._sizes)]
        self._calls += 1
        return self._file.read(piece if size < 0 else min(size, piece))


class ShortReads(io.BytesIO):
    """A rewindable file that never gives more than ``most`` bytes at once, as raw files and sockets may."""

    def __init__(self, data: bytes, most: int = 7) -> None:
        super().__init__(data)
        self._most = most

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``most`` bytes."""
        return super().read(self._most if size is None or size < 0 else min(size, self._most))


class FailsAt(io.BytesIO):
    """A rewindable file that raises ``error`` for every read beyond byte ``position``."""

    def __init__(self, data: bytes, position: int, error: BaseException | None = None) -> None:
        super().__init__(data)
        self._position = position
        self._error = OSError("the disk is gone") if error is None else error

    def read(self, size: int | None = -1) -> bytes:
        """Bytes, or the error."""
        if self.tell() >= self._position:
            raise self._error
        return super().read(size)


class LongWav(io.RawIOBase):
    """A wav of any length that exists nowhere: a header, then one second of noise again and again.

    Args:
        seconds: of audio.
        sample_rate: of its 16-bit mono samples.
        rewindable: whether it can seek; without, it is a pipe whose header does not know the length.
    """

    def __init__(self, seconds: int, sample_rate: int = 16000, *, rewindable: bool = True) -> None:
        super().__init__()
        noise = np.random.default_rng(0).integers(-3000, 3000, sample_rate).astype("<i2")
        self._second = noise.tobytes()
        size = len(self._second) * seconds
        self._header = wav_header(sample_rate, data_bytes=size if rewindable else 0xFFFFFFFF)
        self._size = len(self._header) + size
        self._rewindable = rewindable
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """As was asked for."""
        return self._rewindable

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move within the virtual file."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Position within the virtual file."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Bytes of the header or the noise; fewer than asked for at seams."""
        left = self._size - self._at
        size = left if size < 0 else min(size, left)
        if self._at < len(self._header):
            part = self._header[self._at : self._at + size]
        else:
            start = (self._at - len(self._header)) % len(self._second)
            part = self._second[start : start + size]
        self._at += len(part)
        return part


def damaged(data: bytes) -> SearchStrategy[bytes]:
    """Hypothesis strategy: ``data`` cut, with bytes changed (mostly in headers), with parts left out or doubled."""
    from hypothesis import strategies as st  # a test tool; the package itself runs without it

    place = st.one_of(st.integers(0, min(200, len(data))), st.integers(0, len(data)))
    edit = st.tuples(st.sampled_from(["change", "cut", "drop", "double"]), place, st.binary(min_size=1, max_size=8))

    def apply(edits: list[tuple[str, int, bytes]]) -> bytes:
        out = data
        for kind, at, new in edits:
            if kind == "change":
                out = out[:at] + new + out[at + len(new) :]
            elif kind == "cut":
                out = out[: len(out) - at]
            elif kind == "drop":
                out = out[:at] + out[at + 32 * new[0] :]
            else:
                out = out[:at] + out[at : at + 32 * new[0]] + out[at:]
        return out

    return st.lists(edit, min_size=1, max_size=5).map(apply)
