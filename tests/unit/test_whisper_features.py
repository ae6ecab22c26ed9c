"""The log-mel windows of Whisper: the definition, windows apart from one another, memory that does not grow."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from rechka.errors import BadSamples
from rechka.features.whisper import FRAMES, N_FFT, WINDOW, WhisperMel, filter_bank
from rechka.types import F32


def noise(size: int, seed: int = 0, level: float = 0.1) -> F32:
    return (level * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def by_definition(samples: F32, num_mels: int) -> np.ndarray:
    """Section 3.1 word for word, in double precision, frame by frame."""
    padded = np.pad(samples.astype(np.float64), (0, WINDOW - len(samples)))
    mirrored = np.concatenate([padded[200:0:-1], padded, padded[-2:-202:-1]])
    taper = 0.5 * (1 - np.cos(2 * np.pi * np.arange(400) / 400))  # Hann, periodic
    power = np.empty((201, 3001))
    for frame in range(3001):
        power[:, frame] = np.abs(np.fft.rfft(mirrored[frame * 160 : frame * 160 + 400] * taper)) ** 2
    power = power[:, :-1]  # the last frame is dropped
    logs = np.log10(np.maximum(filter_bank(num_mels).astype(np.float64) @ power, 1e-10))
    return (np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("size", [1, 16000, WINDOW])
def test_features_are_those_of_the_definition(num_mels: int, size: int) -> None:
    samples = noise(size)
    found = WhisperMel(num_mels)(samples)
    assert found.shape == (num_mels, FRAMES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_definition(samples, num_mels), atol=1e-4)


@pytest.mark.parametrize("num_mels", [80, 128])
def test_the_bank_has_triangles_of_equal_area_on_slaneys_scale(num_mels: int) -> None:
    bank = filter_bank(num_mels)
    assert bank.shape == (num_mels, N_FFT // 2 + 1)
    hertz = np.linspace(0, 8000, 201)
    peaks = hertz[bank.argmax(axis=1)]
    assert (np.diff(peaks) >= 0).all()
    assert bank.min() == 0.0
    wide = bank[num_mels // 2 :]  # narrow ones are sampled too coarsely to have their area
    np.testing.assert_allclose(wide.sum(axis=1) * 40.0, 1.0, atol=0.1)
    if num_mels == 80:  # 45.245 mels over 81 steps; 200/3 Hz a mel below 1000 Hz
        step = (15 + np.log(8) / (np.log(6.4) / 27)) / 81 * 200 / 3
        assert abs(peaks[10] - 11 * step) <= 40


def test_a_window_knows_nothing_of_the_others() -> None:
    """A loud event sets the floor of its own window only: memory and result do not depend on the file."""
    mel = WhisperMel()
    quiet, loud = noise(WINDOW, level=1e-4), noise(WINDOW, 1, level=0.9)
    alone = mel(quiet)
    mel(loud)
    np.testing.assert_array_equal(mel(quiet), alone)
    assert mel(quiet).max() - mel(quiet).min() <= 2.0 + 1e-6  # eight decades, over four


def test_silence_is_a_constant() -> None:
    np.testing.assert_allclose(WhisperMel()(np.zeros(0, np.float32)), (-10 + 4) / 4, atol=1e-6)


def test_hours_need_no_more_memory_than_a_minute() -> None:
    """Nothing is kept from one window to the next, so the ninth needs what the first did."""
    mel = WhisperMel()
    mel(noise(WINDOW))

    def peak(count: int) -> int:
        tracemalloc.start()
        for seed in range(count):
            mel(noise(WINDOW, seed))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    short, long = peak(1), peak(9)
    assert long < 1.1 * short
    assert long < 40e6  # faster-whisper: three thousand million bytes an hour


@pytest.mark.parametrize("samples", [np.zeros(WINDOW + 1, np.float32), np.zeros((2, 100), np.float32)])
def test_what_is_no_window_is_refused(samples: F32) -> None:
    with pytest.raises(BadSamples, match="at most 480000"):
        WhisperMel()(samples)
