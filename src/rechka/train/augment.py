"""What rooms, lines, noise and other people do to speech, in the domain of log band energies.

Everything works on (T, 15) natural-log energies at 100 frames a second, where powers of independent sounds add and a
filter is an offset. Each effect is drawn from one seeded generator, so a batch is a function of its seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rechka.features import bands
from rechka.types import F32

NATS_PER_DB = np.log(10.0) / 10.0
"""An energy ratio of one decibel in natural log."""


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How often (probabilities) and how strongly.

    Attributes:
        clean: share of recordings that only get a level and silence around them.
        speed, warp: range of tempo (1 +- speed) and of the mel axis (vocal tract length, 1 +- warp).
        noise, babble, reverb, line: probability of each effect.
        smooth: probability of losing the two finest cepstra, as recordings that were stored as cepstra have.
        time_masks, band_masks: SpecAugment (Park et al. 2019): number of masks.
        mask_every: one more time mask for each so many seconds; 0: none.
        mask_frames, mask_bands: masks are shorter than this (frames of 10 ms) and narrower than this.
    """

    clean: float = 0.25
    speed: float = 0.13
    warp: float = 0.1
    noise: float = 0.5
    babble: float = 0.1
    reverb: float = 0.3
    line: float = 0.6
    smooth: float = 0.3
    time_masks: int = 2
    band_masks: int = 2
    mask_every: float = 0.0
    mask_frames: int = 25
    mask_bands: int = 4


def _projection() -> F32:
    k = np.arange(13)
    basis = np.sqrt(2 / bands.BANDS) * np.cos(np.pi * k[:, None] * (np.arange(bands.BANDS) + 0.5) / bands.BANDS)
    basis[0] *= np.sqrt(0.5)
    return (basis.T @ basis).astype(np.float32)


_SMOOTH = _projection()


def resample_time(x: F32, factor: float) -> F32:
    """(T, 15) played ``factor`` times as fast, by linear interpolation between frames."""
    position = np.arange(0, len(x) - 1, factor, dtype=np.float32)
    low = np.minimum(position.astype(np.int64), len(x) - 2)  # rounding may reach the last frame
    part = (position - low)[:, None]
    return x[low] * (1 - part) + x[low + 1] * part


def warp_bands(x: F32, factor: float) -> F32:
    """(T, 15) with the band axis stretched about its lower end; edges repeat the last band."""
    position = np.clip(np.arange(bands.BANDS) * factor, 0, bands.BANDS - 1.001)
    low = position.astype(np.int64)
    part = (position - low).astype(np.float32)
    return x[:, low] * (1 - part) + x[:, low + 1] * part


def _curve(rng: np.random.Generator, spread_db: float) -> F32:
    """(15,) a smooth random filter with the given spread."""
    knots = rng.normal(0.0, spread_db * NATS_PER_DB, 5)
    return np.interp(np.arange(bands.BANDS), np.linspace(0, bands.BANDS - 1, 5), knots).astype(np.float32)


def level(x: F32) -> float:
    """Mean log energy of the loud tenth of the frames: the level of the speech."""
    loud = np.sort(x.mean(axis=1))
    return float(loud[-max(1, len(loud) // 10) :].mean())


def _noise(rng: np.random.Generator, frames: int) -> F32:
    """(T, 15) log energy of a noise around zero: coloured, slowly swelling, with the scatter of a short spectrum."""
    colour = _curve(rng, 5.0) + np.linspace(0.0, rng.normal(-1.0, 1.5), bands.BANDS).astype(np.float32)
    knots = frames // 50 + 2  # the loudness turns about twice a second
    swell = np.interp(np.arange(frames), 50 * np.arange(knots), rng.normal(0, rng.uniform(0.1, 1.0), knots))
    scatter = np.log(rng.gamma(rng.uniform(1.0, 6.0), size=(frames, bands.BANDS)) + 1e-3)
    return (colour - colour.mean() + swell[:, None] + scatter).astype(np.float32)


def _smear(x: F32, seconds: float, gain_db: float) -> F32:
    """A late reverberation tail: decayed energy of the frames before, ``gain_db`` below the direct sound."""
    from scipy.signal import lfilter

    decay = 10.0 ** (-6.0 / (seconds * 100.0))  # energy falls by 60 dB in ``seconds``
    tail = lfilter([0.0, 0.0, 1.0 - decay], [1.0, -decay], np.exp(x), axis=0)
    return np.logaddexp(x, np.log(tail + 1e-3) + gain_db * NATS_PER_DB).astype(np.float32)


def utterance(x: F32, rng: np.random.Generator, options: AugmentOptions, other: F32 | None) -> tuple[F32, bool]:
    """One recording made different.

    Args:
        x: (T, 15) log energies.
        other: another recording, for babble.
    Returns:
        (T', 15) with silence around it and any level, and whether masks may follow.
    """
    clean = rng.random() < options.clean
    if not clean:
        if options.speed and rng.random() < 0.7:
            x = resample_time(x, 1 + rng.uniform(-options.speed, options.speed))
        if options.warp and rng.random() < 0.6:
            x = warp_bands(x, 1 + rng.uniform(-options.warp, options.warp))
    quiet = float(np.percentile(x, 2)) - rng.uniform(0.0, 4.0)
    lead, trail = int(rng.uniform(0, 45)), int(rng.uniform(14, 45))
    x = np.pad(x, ((lead, trail), (0, 0)), constant_values=quiet)
    loud = level(x)
    if not clean:
        if rng.random() < options.reverb:
            x = _smear(x, rng.uniform(0.1, 0.6), rng.uniform(-20.0, -4.0))
        if rng.random() < options.line:
            x = x + _curve(rng, 4.0)
        if other is not None and rng.random() < options.babble:
            turn = np.resize(np.roll(other, int(rng.integers(len(other))), axis=0), x.shape)
            x = np.logaddexp(x, turn - level(other) + loud - rng.uniform(8.0, 25.0) * NATS_PER_DB)
        if rng.random() < options.noise:
            ratio = rng.uniform(8.0, 40.0) * NATS_PER_DB
            x = np.logaddexp(x, _noise(rng, len(x)) + loud - ratio)
        if rng.random() < 0.3:
            low = np.arange(bands.BANDS) < rng.integers(1, 4)  # a handset or a narrow line loses the lowest bands
            x = x - (np.linspace(rng.uniform(1.0, 5.0), 0.0, bands.BANDS) * low).astype(np.float32)
        if rng.random() < options.smooth:
            x = x @ _SMOOTH
    x = x - loud + rng.uniform(11.5, 18.5)
    return np.logaddexp(x, np.log(bands.FLOOR)).astype(np.float32), not clean


def silence(rng: np.random.Generator, frames: int) -> F32:
    """(T, 15) a recording without speech: noise at any level over the floor."""
    return np.logaddexp(_noise(rng, frames) + rng.uniform(4.0, 14.0), np.log(bands.FLOOR)).astype(np.float32)


def finish(batch: F32) -> F32:
    """(B, T, 15) log energies to features: running mean removed, scaled; equal to ``features.bands.remove_mean``."""
    from scipy.signal import lfilter

    prior = bands.PRIOR_FRAMES * bands.DECAY ** np.arange(1, batch.shape[1] + 1)[:, None]
    total = lfilter([1.0], [1.0, -bands.DECAY], batch.astype(np.float64), axis=1) + prior * bands.PRIOR_MEAN
    weight = (1.0 - bands.DECAY ** np.arange(1, batch.shape[1] + 1)[:, None]) / (1.0 - bands.DECAY) + prior
    return ((batch - total / weight) * bands.SCALE).astype(np.float32)


def masks(features: F32, frames: NDArray[np.int64], rng: np.random.Generator, options: AugmentOptions) -> None:
    """SpecAugment in place on (B, T, 15): spans of time and of bands set to zero."""
    for row, count in zip(features, frames, strict=True):
        more = int(count / (100 * options.mask_every)) if options.mask_every else 0
        for _ in range(options.time_masks + more):
            width = int(rng.integers(0, options.mask_frames))
            start = int(rng.integers(0, max(1, count - width)))
            row[start : start + width] = 0.0
        for _ in range(options.band_masks):
            width = int(rng.integers(0, options.mask_bands))
            start = int(rng.integers(0, bands.BANDS - width))
            row[:, start : start + width] = 0.0
