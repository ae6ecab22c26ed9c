"""Kaldi's log-mel filter bank as icefall trains with it and sherpa-onnx computes it: the front end of zipformers.

Eighty bands at 16 kHz, 25 ms every 10 ms. Frame t is centred on sample 160 t + 80 (``snip_edges`` off): where it
reaches over an end of the audio, the audio is mirrored. Per frame, in Kaldi's order: mean removal, pre-emphasis inside
the frame, Povey's window, DFT of 512 points, power, mel triangles, natural log. No dither; samples stay in [-1, 1].

Source: Kaldi ``feat/feature-window.cc``, ``feat/mel-computations.cc``; the settings are those of icefall's recipes
(``high_freq`` 400 Hz below half the sample rate).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rechka.types import F32

SAMPLE_RATE = 16000
HOP = 160
"""Samples per frame: 10 ms."""
WINDOW = 400
"""Samples that a frame sees: 25 ms."""
LEAD = WINDOW // 2 - HOP // 2
"""A frame begins so many samples before its own hop."""
REACH = WINDOW - LEAD
"""A frame ends so many samples after the beginning of its hop."""
NUM_BANDS = 80
LOW_HZ, HIGH_HZ = 20.0, 7600.0
PREEMPHASIS = 0.97
FFT = 512
FLOOR = float(np.finfo(np.float32).eps)
"""A band's power is at least this before the logarithm."""
BLOCK = 1000
"""Frames computed at once, which bounds the memory for recordings of any length."""


@lru_cache(maxsize=1)
def povey_window() -> F32:
    """(WINDOW,) a symmetric Hann window to the power 0.85."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))
    window: F32 = (hann**0.85).astype(np.float32)
    window.setflags(write=False)
    return window


@lru_cache(maxsize=1)
def mel_table() -> F32:
    """(FFT // 2 + 1, NUM_BANDS) triangles, equally spaced and straight on the scale 1127 ln(1 + f / 700), height 1."""

    def mel(hz: float) -> float:
        return float(1127.0 * np.log1p(hz / 700.0))

    edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), NUM_BANDS + 2)
    points = 1127.0 * np.log1p(np.arange(FFT // 2 + 1) * (SAMPLE_RATE / FFT) / 700.0)[:, None]
    rise = (points - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - points) / np.diff(edges)[1:]
    table: F32 = np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)
    table.setflags(write=False)
    return table


def num_frames(samples: int) -> int:
    """Frames of so many samples: those whose centre lies within them, rounded to the nearest hop."""
    return (samples + HOP // 2) // HOP


def fbank(samples: F32) -> F32:
    """The features of a whole recording.

    Args:
        samples: (n,) in [-1, 1] at 16 kHz.
    Returns:
        (num_frames(n), NUM_BANDS) natural log.
    """
    count = num_frames(len(samples))
    if not count:
        return np.zeros((0, NUM_BANDS), np.float32)
    behind = max(0, (count - 1) * HOP + REACH - len(samples))
    return _log_bands(np.pad(samples, (LEAD, behind), mode="symmetric"), count)


@dataclass(frozen=True, slots=True)
class FbankState:
    """What a stream of features remembers.

    Attributes:
        tail: samples from the beginning of the next frame on; that of the first frame is mirrored once it can be.
        samples: in all so far.
        frames: given out so far.
    """

    tail: F32
    samples: int
    frames: int

    @classmethod
    def initial(cls) -> FbankState:
        """Nothing heard."""
        return cls(np.zeros(0, np.float32), 0, 0)


def push(samples: F32, state: FbankState) -> tuple[F32, FbankState]:
    """The frames that the next samples complete: incremental, equal to ``fbank`` of all of them.

    Args:
        samples: (n,) in [-1, 1] at 16 kHz, any n.
        state: after the samples before; not modified.
    Returns:
        (T, NUM_BANDS) features, perhaps none, and the state after them.
    """
    total = state.samples + len(samples)
    count = max(0, (total - REACH) // HOP + 1) - state.frames
    joined = np.concatenate([state.tail, samples])
    if count <= 0:
        return np.zeros((0, NUM_BANDS), np.float32), FbankState(joined, total, state.frames)
    if not state.frames:
        joined = np.pad(joined, (LEAD, 0), mode="symmetric")
    features = _log_bands(joined, count)
    return features, FbankState(joined[count * HOP :].copy(), total, state.frames + count)


def flush(state: FbankState) -> F32:
    """The frames that reach over the end of the audio, (T, NUM_BANDS)."""
    count = num_frames(state.samples) - state.frames
    if not count:
        return np.zeros((0, NUM_BANDS), np.float32)
    ahead = 0 if state.frames else LEAD
    behind = max(0, (count - 1) * HOP + WINDOW - ahead - len(state.tail))
    return _log_bands(np.pad(state.tail, (ahead, behind), mode="symmetric"), count)


def _log_bands(signal: F32, count: int) -> F32:
    """Log energies of ``count`` frames, the first of which begins with the first sample."""
    views = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    out = np.empty((count, NUM_BANDS), np.float32)
    window, table = povey_window(), mel_table()
    for first in range(0, count, BLOCK):
        frames = views[first : min(first + BLOCK, count)]
        frames = frames - frames.mean(axis=1, keepdims=True)
        shaped = np.empty_like(frames)
        shaped[:, 1:] = frames[:, 1:] - np.float32(PREEMPHASIS) * frames[:, :-1]
        shaped[:, 0] = np.float32(1.0 - PREEMPHASIS) * frames[:, 0]
        shaped *= window
        spectrum = np.fft.rfft(shaped, FFT)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)
        np.log(np.maximum(power @ table, np.float32(FLOOR)), out=out[first : first + len(frames)])
    return out
