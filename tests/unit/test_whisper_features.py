"""Log-mel windows: against the definition, and flat in memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from rechka.errors import BadSamples
from rechka.features.whisper import FRAMES, HOP, N_FFT, WINDOW, WhisperMel, filter_bank
from rechka.types import F32


def noise(seconds: float, seed: int = 0) -> F32:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


def by_definition(samples: F32, num_mels: int) -> np.ndarray:
    """A frame at a time, in double precision: centred periodic Hann window, power, bands, decibels, floor."""
    padded = np.zeros(WINDOW)
    padded[: len(samples)] = samples
    padded = np.pad(padded, N_FFT // 2, mode="reflect")
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    bank = filter_bank(num_mels).astype(float)
    columns = [bank @ (np.abs(np.fft.rfft(padded[i * HOP : i * HOP + N_FFT] * taper)) ** 2) for i in range(FRAMES)]
    logs = np.log10(np.maximum(np.stack(columns, axis=1), 1e-10))
    return (np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0


@pytest.mark.parametrize("num_mels", [80, 128])
def test_equals_its_definition(num_mels: int) -> None:
    samples = noise(3.0)
    found = WhisperMel(num_mels)(samples)
    assert found.shape == (num_mels, 3000)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(samples, num_mels), atol=1e-4)


@pytest.mark.parametrize("num_mels", [80, 128])
def test_the_filters_are_slaneys(num_mels: int) -> None:
    bank = filter_bank(num_mels)
    hertz = np.linspace(0, 8000, N_FFT // 2 + 1)
    peaks = hertz[bank.argmax(axis=1)]
    assert (np.diff(peaks) >= 0).all()
    assert (bank >= 0).all()
    assert bank[:, 0].max() == 0
    # Bands are equally wide below 1000 Hz and grow by a constant factor above; each has the area one.
    high = hertz[bank[-1] > 0]
    low, top = high[0], high[-1]
    assert 7000 < low < top < 8000
    wide = bank[num_mels // 2 :].sum(axis=1) * (hertz[1] - hertz[0])
    np.testing.assert_allclose(wide, 1.0, atol=0.1)


def test_a_tone_stands_in_its_band() -> None:
    time = np.arange(WINDOW) / 16000
    found = WhisperMel()(np.sin(2 * np.pi * 1000.0 * time).astype(np.float32))
    band = int(found[:, 1500].argmax())
    assert filter_bank(80)[band, 25] > 0  # 1000 Hz is bin 25 of 40 Hz each
    assert found.max() - found.min() == pytest.approx(2.0, abs=1e-5)  # the floor, eight decades below


def test_the_floor_is_that_of_the_window() -> None:
    quiet, loud = 1e-3 * noise(30.0), noise(30.0, 1)
    mel = WhisperMel()
    np.testing.assert_array_equal(mel(quiet), mel(quiet))
    assert mel(quiet).max() < mel(loud).max() - 0.5
    assert mel(np.zeros(0, np.float32)).max() == pytest.approx((-10 + 4) / 4)  # nothing at all: the least power


def test_too_long_or_not_mono() -> None:
    with pytest.raises(BadSamples, match="at most 480000 samples"):
        WhisperMel()(np.zeros(WINDOW + 1, np.float32))
    with pytest.raises(BadSamples, match="mono"):
        WhisperMel()(np.zeros((2, 100), np.float32))


def test_hours_take_the_memory_of_one_window() -> None:
    mel = WhisperMel()
    window = noise(30.0)
    mel(window)
    tracemalloc.start()
    try:
        for _ in range(3):
            mel(window)
        few = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        for _ in range(12):
            mel(window)
        many = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert many <= few * 1.02
    assert few < 24e6  # the whole window's spectrum at once would take more than this by itself
