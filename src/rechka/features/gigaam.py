"""GigaAM's log-mel front end: 64 HTK mel bands of the power spectrum every 10 ms, natural log, nothing normalised.

Two layouts exist. v1, v2 and emotion: windows of 400 samples around their instant, the signal mirrored at both ends.
v3 and multilingual: windows of 320 samples that begin at it, no padding, and a window and filter bank that are stored
in the checkpoint rounded to bfloat16; take them from there (``tables``) where they can be had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rechka.errors import BadModelFile
from rechka.types import F32

SAMPLE_RATE = 16000
NUM_MELS = 64
HOP = 160
LOW, HIGH = np.float32(1e-9), np.float32(1e9)
"""Band powers are clamped to this range before the logarithm."""
BLOCK = 1024
"""Frames that are transformed together: memory for longer input does not grow with it."""
_MAX_TABLES = 1 << 22


@dataclass(frozen=True, eq=False)
class LogMel:
    """A front end.

    Attributes:
        window: (n_fft,) taper.
        fb: (n_fft // 2 + 1, 64) filter bank.
        center: frame t is centred at sample 160 t, and the signal mirrored at its ends; else it begins there.
        hop: samples per frame.
    """

    window: F32
    fb: F32
    center: bool
    hop: int = HOP

    def __post_init__(self) -> None:
        bins = self.n_fft // 2 + 1
        if self.window.ndim != 1 or self.fb.ndim != 2 or self.fb.shape[0] != bins or not 0 < self.hop <= self.n_fft:
            raise BadModelFile(
                f"a window of shape {self.window.shape} does not fit a filter bank of shape {self.fb.shape} and a hop "
                f"of {self.hop}",
                remedy="the front end's file belongs to another model",
            )

    @property
    def n_fft(self) -> int:
        """Samples per window."""
        return len(self.window)

    @property
    def shortest(self) -> int:
        """Samples that one frame needs at least; shorter input has to be padded."""
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def num_frames(self, samples: int) -> int:
        """Frames for an input of that many samples, not less than ``shortest``."""
        return samples // self.hop + 1 if self.center else (samples - self.n_fft) // self.hop + 1

    def __call__(self, samples: F32) -> F32:
        """Features (T, 64) of the samples (n,) in [-1, 1], n at least ``shortest``; T is ``num_frames(n)``."""
        return np.concatenate(list(self.blocks([samples])))

    def blocks(self, pieces: Iterable[F32]) -> Iterator[F32]:
        """The features of audio that comes in pieces of any size, in blocks (t, 64) of at most ``BLOCK`` frames.

        The same as one call over all of it; memory depends on the size of the pieces only.
        """
        half = self.n_fft // 2 if self.center else 0
        kept = np.zeros(0, np.float32)
        mirrored = not half
        for piece in pieces:
            kept = np.concatenate([kept, np.asarray(piece, np.float32)])
            if not mirrored:
                if len(kept) <= half:
                    continue
                kept, mirrored = np.concatenate([kept[half:0:-1], kept]), True
            # What the mirror at the end will need stays.
            ready = max(0, (len(kept) - self.n_fft) // self.hop + 1)
            yield from self._frames(kept, ready)
            kept = kept[ready * self.hop :]
        if half and mirrored:
            kept = np.concatenate([kept, kept[-2 : -half - 2 : -1]])
            yield from self._frames(kept, max(0, (len(kept) - self.n_fft) // self.hop + 1))

    def _frames(self, samples: F32, count: int) -> Iterator[F32]:
        """The first ``count`` frames of what was already mirrored."""
        if not count:
            return
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.n_fft)[:: self.hop]
        for first in range(0, count, BLOCK):
            spectrum = np.fft.rfft(windows[first : min(first + BLOCK, count)] * self.window, axis=1)
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
            yield np.log(np.clip(power @ self.fb, LOW, HIGH))


def log_mel(n_fft: int = 400, *, center: bool = True, hop: int = HOP, rounded: bool = False) -> LogMel:
    """A front end with computed tables: periodic Hann window, HTK mel triangles without area norm, 0 to 8000 Hz.

    Args:
        n_fft: samples per window.
        center: see ``LogMel``.
        hop: samples per frame.
        rounded: round both tables to bfloat16, as v3 checkpoints store them.
    """
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)
    bank = _filter_bank(n_fft // 2 + 1)
    tables = [table.astype(np.float32) for table in (window, bank)]
    if rounded:
        tables = [to_bfloat16(table) for table in tables]
    return LogMel(tables[0], tables[1], center, hop)


def read_log_mel(path: Path, *, center: bool, hop: int = HOP) -> LogMel:
    """The front end whose tables a converted model carries: an ``.npz`` file with ``window`` and ``fb``.

    Raises:
        BadModelFile: not such a file, or tables that do not fit one another.
    """
    try:
        if path.stat().st_size > _MAX_TABLES:
            raise ValueError(f"it is larger than {_MAX_TABLES} bytes")
        with np.load(path, allow_pickle=False) as tables:
            window, bank = (np.asarray(tables[name], np.float32) for name in ("window", "fb"))
        if not (np.isfinite(window).all() and np.isfinite(bank).all()):
            raise ValueError("its tables hold values that are no numbers")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise BadModelFile(
            f"{path} is no front end: {error}", remedy="it should be an .npz file with the arrays window and fb"
        ) from None
    return LogMel(window, bank, center, hop)


def to_bfloat16(values: F32) -> F32:
    """Rounded to the nearest bfloat16, ties to even; still float32. No NaN among the values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def _filter_bank(bins: int) -> F32:
    top = SAMPLE_RATE / 2
    mels = np.linspace(0.0, 2595.0 * np.log10(1.0 + top / 700.0), NUM_MELS + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    width = np.diff(edges)
    slopes = edges[None, :] - np.linspace(0.0, top, bins)[:, None]
    bank: F32 = np.maximum(0.0, np.minimum(slopes[:, 2:] / width[1:], -slopes[:, :-2] / width[:-1])).astype(np.float32)
    return bank
