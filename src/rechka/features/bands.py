"""Telephone-band log mel energies with the running mean removed: the front end of the embedded model.

Fifteen bands from 200 to 3500 Hz, the front end of the VoxForge Russian cepstra (CMU Sphinx ``mfc`` files), so that
waveforms and those features can train one model. Frame t ends with sample 80 (t + 1): nothing looks ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rechka.types import F32

SAMPLE_RATE = 8000
STEP = 80
"""Samples per frame: 100 frames a second."""
WINDOW = 205
"""Sphinx: 0.025625 s at 8 kHz."""
FFT = 512
BANDS = 15
LOW_HZ, HIGH_HZ = 200.0, 3500.0
PREEMPHASIS = 0.97
CONTEXT = WINDOW - STEP
"""Samples before a frame's own 80 that its window covers."""
INT16 = 32768.0
"""Sphinx computes on 16-bit sample values; so do we, so that the two agree without a gain."""
FLOOR = 100.0
"""Added to each band's power: white noise at -77 dB of full scale, under the noise of a telephone line."""
SCALE = 0.4
"""Brings the mean-free log energies to a spread of about one."""

MEAN_SECONDS = 4.0
PRIOR_SECONDS = 0.5
DECAY = 1.0 - 1.0 / (MEAN_SECONDS * SAMPLE_RATE / STEP)
PRIOR_FRAMES = PRIOR_SECONDS * SAMPLE_RATE / STEP


def filter_bank() -> F32:
    """(FFT // 2 + 1, BANDS) triangles, equally spaced on the mel scale 2595 log10(1 + f / 700), each of area one.

    Edges are rounded to FFT bins as Sphinx does.
    """

    def mel(hz: float) -> float:
        return float(2595.0 * np.log10(1.0 + hz / 700.0))

    edges_mel = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), BANDS + 2)
    width = SAMPLE_RATE / FFT
    edges = np.round((700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)) / width) * width
    hz = np.arange(FFT // 2 + 1) * width
    bank = np.zeros((len(hz), BANDS), np.float64)
    for band in range(BANDS):
        low, centre, high = edges[band : band + 3]
        rise, fall = (hz - low) / (centre - low), (high - hz) / (high - centre)
        bank[:, band] = np.maximum(0.0, np.minimum(rise, fall)) * (2.0 / (high - low))
    return bank.astype(np.float32)


_BANK = filter_bank()
_HAMMING = np.hamming(WINDOW).astype(np.float32)

PRIOR_MEAN: F32 = np.array(
    [14.5, 15.2, 15.2, 14.5, 14.0, 13.5, 13.0, 12.8, 12.8, 12.8, 12.9, 13.0, 13.0, 12.9, 12.6], np.float32
)
"""What the running mean starts from: close to the mean of clean speech at a usual level (Tux Paint recordings)."""


@dataclass(frozen=True, slots=True)
class BandState:
    """What a stream of frames remembers.

    Attributes:
        tail: (CONTEXT + 1,) last samples, scaled to 16 bits; one more than the window needs, for the pre-emphasis.
        total: (BANDS,) decayed sum of frames, the prior included.
        weight: decayed count of frames, the prior included.
    """

    tail: F32
    total: F32
    weight: float

    @classmethod
    def initial(cls) -> BandState:
        """Silence before, and the prior mean."""
        return cls(np.zeros(CONTEXT + 1, np.float32), PRIOR_MEAN * np.float32(PRIOR_FRAMES), PRIOR_FRAMES)


def log_bands(samples: F32, tail: F32) -> F32:
    """Log band energies of whole frames.

    Args:
        samples: (80 T,) in [-1, 1].
        tail: (CONTEXT + 1,) samples before them, in 16-bit values.
    Returns:
        (T, BANDS) natural log.
    """
    signal = np.concatenate([tail, samples * np.float32(INT16)])
    emphasised = signal[1:] - np.float32(PREEMPHASIS) * signal[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, WINDOW)[::STEP]
    spectrum = np.fft.rfft(frames * _HAMMING, FFT).astype(np.complex64)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(power @ _BANK + np.float32(FLOOR)).astype(np.float32)


def remove_mean(bands: F32, total: F32, weight: float) -> tuple[F32, F32, float]:
    """Each frame minus the decayed mean of itself and all frames before it, times SCALE.

    Args:
        bands: (T, BANDS).
        total, weight: decayed sum and count before the first frame.
    Returns:
        (T, BANDS) and the new sum and count. Frames are folded in one by one, so any split gives the same numbers.
    """
    out = np.empty_like(bands)
    total = total.copy()
    decay = np.float32(DECAY)
    for t, row in enumerate(bands):
        total *= decay
        total += row
        weight = weight * DECAY + 1.0
        out[t] = row - total / np.float32(weight)
    out *= np.float32(SCALE)
    return out, total, weight


def push(samples: F32, state: BandState) -> tuple[F32, BandState]:
    """The features of the next samples: incremental, equal to one call over all of them.

    Args:
        samples: (80 T,) in [-1, 1] at 8 kHz.
        state: after the samples before.
    Returns:
        (T, BANDS) features and the state after them.
    Raises:
        ValueError: the number of samples is no multiple of 80.
    """
    if len(samples) % STEP:
        raise ValueError(f"samples must come in multiples of {STEP}, got {len(samples)}")
    if not len(samples):
        return np.zeros((0, BANDS), np.float32), state
    bands = log_bands(samples, state.tail)
    features, total, weight = remove_mean(bands, state.total, state.weight)
    tail = np.concatenate([state.tail, samples * np.float32(INT16)])[-(CONTEXT + 1) :]
    return features, BandState(tail, total, weight)
