"""T-one's front end as two tables: windowed DFT of a pre-emphasised frame, and the mel filter bank.

Per frame of 20 ms every 10 ms, in Kaldi's order: pre-emphasis inside the frame, symmetric Hann window, DFT, power, mel
filters, natural log. No centring, no dither, no mean removal. A chunk needs the 80 samples before it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rechka.types import F32

SAMPLE_RATE = 8000
WINDOW = 160
"""Samples per frame, also the length of the DFT."""
HOP = 80
CONTEXT = WINDOW - HOP
"""Samples before a chunk that its first frame needs."""
NUM_MELS = 64
PREEMPHASIS = 0.97
SCALE = 32767.0
"""Integer samples are divided by this, not by 32768."""
LOG_GUARD = 2.0**-24
"""Added to the mel power before the logarithm."""


@lru_cache(maxsize=4)
def dft_table(window: int = WINDOW, preemphasis: float = PREEMPHASIS) -> F32:
    """Pre-emphasis, Hann window and DFT as one matrix (window, 2 * bins): real parts, then imaginary.

    There are window/2 + 1 bins. Computed in float64 and rounded once. ``frames @ table`` is the spectrum.
    """
    emphasis = np.eye(window) - preemphasis * np.eye(window, k=-1)
    emphasis[0, 0] = 1.0 - preemphasis  # the first sample of a frame has no neighbour and is emphasised against itself
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))
    bins = np.arange(window // 2 + 1)[:, None]
    wave = np.exp(-2j * np.pi * bins * np.arange(window)[None, :] / window)
    folded = wave @ (taper[:, None] * emphasis)
    return _frozen(np.concatenate([folded.real, folded.imag]).T)


@lru_cache(maxsize=4)
def mel_table(num_mels: int = NUM_MELS, bins: int = WINDOW // 2 + 1, sample_rate: int = SAMPLE_RATE) -> F32:
    """Mel filters (bins, num_mels): Slaney's scale and area norm, 0 Hz to half the sample rate."""
    top = sample_rate / 2
    edges = _mel_to_hz(np.linspace(0.0, float(_hz_to_mel(np.float64(top))), num_mels + 2))
    width = np.diff(edges)
    slopes = edges[None, :] - np.linspace(0.0, top, bins)[:, None]
    falling = slopes[:, 2:] / width[1:]
    rising = -slopes[:, :-2] / width[:-1]
    return _frozen(np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2])))


def _frozen(table: NDArray[np.float64]) -> F32:
    rounded = np.ascontiguousarray(table, dtype=np.float32)
    rounded.setflags(write=False)
    return rounded


# Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz, 27 steps per factor 6.4 above.
_HZ_PER_MEL = 200.0 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _hz_to_mel(hz: np.float64) -> np.float64:
    return _KNEE_MEL + np.log(hz / _KNEE_HZ) / _LOG_STEP if hz >= _KNEE_HZ else hz / _HZ_PER_MEL


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    curved = _KNEE_HZ * np.exp(_LOG_STEP * (mel - _KNEE_MEL))
    return np.asarray(np.where(mel >= _KNEE_MEL, curved, _HZ_PER_MEL * mel))
