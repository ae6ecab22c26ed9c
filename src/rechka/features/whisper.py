"""Log-mel spectrograms of 30-second windows: the front end of Whisper, 80 bands up to large-v2, 128 from large-v3 on.

Every window is computed for itself from its own samples, so memory and results do not depend on how long the recording
is, nor on what else is in it: an hour costs as much memory as half a minute. Implementations that take the whole file
at once differ in two ways: their loudest moment, which sets the floor, is that of the file, and windows see a few
samples of their neighbours. transformers computes as we do.

Source: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022, and the published code.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rechka.errors import BadSamples
from rechka.types import F32

SAMPLE_RATE = 16000
N_FFT = 400
HOP = 160
WINDOW_S = 30
WINDOW = WINDOW_S * SAMPLE_RATE
"""Samples of a window."""
FRAMES = WINDOW // HOP
"""Mel frames of a window; the encoder halves them to 1500 positions of 20 ms."""
POSITION = 2 * HOP
"""Samples per encoder position, and per time stamp."""
LOWEST_POWER = 1e-10
RANGE = 8.0
"""Decades below the loudest value of the window at which the spectrogram ends."""
BLOCK = 500
"""Frames that are transformed at once; a window in one piece would need six times the memory."""


class WhisperMel:
    """The front end for a number of bands.

    Args:
        num_mels: 80 or 128 in published models.
    """

    def __init__(self, num_mels: int = 80) -> None:
        self.num_mels = num_mels
        self._bank = filter_bank(num_mels)
        self._taper = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)

    def __call__(self, samples: F32) -> F32:
        """Features (num_mels, 3000) of samples (n,) at 16 kHz in [-1, 1], silence being put behind them up to 30 s.

        Raises:
            BadSamples: more than 30 seconds, or another shape.
        """
        if samples.ndim != 1 or len(samples) > WINDOW:
            raise BadSamples(
                f"a window must be mono and hold at most {WINDOW} samples, got shape {samples.shape}",
                remedy="cut the audio first; the recogniser does so",
            )
        half = N_FFT // 2
        padded = np.zeros(WINDOW, np.float32)
        padded[: len(samples)] = samples
        padded = np.pad(padded, half, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:FRAMES]
        out = np.empty((self.num_mels, FRAMES), np.float32)
        for first in range(0, FRAMES, BLOCK):
            spectrum = np.fft.rfft(windows[first : first + BLOCK] * self._taper, axis=1)
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
            out[:, first : first + BLOCK] = self._bank @ power.T
        np.log10(np.maximum(out, LOWEST_POWER, out=out), out=out)
        np.maximum(out, out.max() - RANGE, out=out)
        out += 4.0
        out /= 4.0
        return out


@lru_cache(maxsize=4)
def filter_bank(num_mels: int) -> F32:
    """(num_mels, 201) triangles from 0 to 8000 Hz, equally spaced on Slaney's mel scale, each of area one.

    Source: Slaney, "Auditory toolbox", 1998: linear below 1000 Hz, logarithmic above.
    """
    top = SAMPLE_RATE / 2
    edges = _hertz(np.linspace(0.0, _mel(top), num_mels + 2))
    widths = np.diff(edges)
    slopes = edges[:, None] - np.linspace(0.0, top, N_FFT // 2 + 1)[None, :]
    bank = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]))
    bank *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    found: F32 = bank.astype(np.float32)
    found.flags.writeable = False
    return found


_LINEAR = 3.0 / 200.0
"""Mels per hertz below the break."""
_BREAK_HZ = 1000.0
_STEP = np.log(6.4) / 27.0
"""Natural-log frequency per mel above it."""


def _mel(hertz: float) -> float:
    if hertz < _BREAK_HZ:
        return hertz * _LINEAR
    return float(_BREAK_HZ * _LINEAR + np.log(hertz / _BREAK_HZ) / _STEP)


def _hertz(mels: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    knee = _BREAK_HZ * _LINEAR
    return np.where(mels < knee, mels / _LINEAR, _BREAK_HZ * np.exp(_STEP * (mels - knee)))
