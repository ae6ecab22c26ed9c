"""The resampler against sines, against soxr, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from rechka.audio import Resampler
from rechka.audio.resample import _kernel
from rechka.errors import BadSamples, StreamClosed
from rechka.testing.audio import tone

RATES = [
    (16000, 8000),
    (48000, 8000),
    (44100, 8000),
    (11025, 8000),
    (22050, 8000),
    (24000, 8000),
    (32000, 8000),
    (8000, 16000),
    (44100, 16000),
    (22255, 8000),  # no small ratio: rounded phases
]


def convert(samples: np.ndarray, in_rate: int, out_rate: int) -> np.ndarray:
    resampler = Resampler(in_rate, out_rate)
    return np.concatenate([resampler.push(samples), resampler.flush()])


def inner(samples: np.ndarray, rate: int) -> np.ndarray:
    """Without the edges, where a tone begins and ends abruptly."""
    return samples[rate // 50 : -rate // 50]


def db(ratio: float) -> float:
    return 20 * float(np.log10(max(ratio, 1e-9)))


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_tones_in_the_pass_band_come_out_as_they_are_and_on_time(in_rate: int, out_rate: int) -> None:
    low = min(in_rate, out_rate)
    for frequency in (50.0, 1000.0, 0.425 * low, 0.45 * low):
        out = convert(tone(frequency, 1.0, in_rate, level=1.0), in_rate, out_rate)
        expected = tone(frequency, 1.0, out_rate, level=1.0)
        assert len(out) == len(expected)
        assert db(np.abs(inner(out - expected, out_rate)).max()) < -65


@pytest.mark.parametrize(("in_rate", "out_rate"), [rates for rates in RATES if rates[0] > rates[1]])
def test_tones_that_the_output_cannot_hold_are_gone(in_rate: int, out_rate: int) -> None:
    for frequency in np.linspace(0.5 * out_rate, 0.495 * in_rate, 17):
        out = convert(tone(float(frequency), 0.5, in_rate, level=1.0), in_rate, out_rate)
        rms = np.sqrt(np.mean(inner(out, out_rate) ** 2)) * np.sqrt(2)
        assert db(rms) < -68, frequency


def test_images_of_upsampling_are_gone() -> None:
    out = convert(tone(3000.0, 1.0, 8000, level=1.0), 8000, 16000)
    spectrum = np.abs(np.fft.rfft(inner(out, 16000) * np.hanning(len(inner(out, 16000)))))
    frequencies = np.fft.rfftfreq(len(inner(out, 16000)), 1 / 16000)
    assert db(spectrum[frequencies > 4100].max() / spectrum.max()) < -68


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_speech_band_noise_agrees_with_soxr(in_rate: int, out_rate: int) -> None:
    low = min(in_rate, out_rate)
    noise = np.random.default_rng(1).standard_normal(in_rate).astype(np.float32)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(in_rate, 1 / in_rate) > 0.45 * low] = 0
    band = (np.fft.irfft(spectrum, in_rate) * 0.1).astype(np.float32)
    ours, oracle = convert(band, in_rate, out_rate), soxr.resample(band, in_rate, out_rate, "HQ")
    assert abs(len(ours) - len(oracle)) <= 1
    size = min(len(ours), len(oracle))
    difference = inner(ours[:size] - oracle[:size], out_rate)
    level = np.sqrt(np.mean(inner(oracle, out_rate) ** 2))
    assert db(np.sqrt(np.mean(difference**2)) / level) < -60


def test_a_constant_stays_constant() -> None:
    for in_rate, out_rate in RATES:
        out = inner(convert(np.full(in_rate, 0.5, np.float32), in_rate, out_rate), out_rate)
        assert np.abs(out - 0.5).max() < 1e-5


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
def test_holds_back_no_more_than_it_says(in_rate: int, out_rate: int) -> None:
    resampler = Resampler(in_rate, out_rate)
    assert resampler.lag_s < 0.0065
    pushed = given = 0
    for size in (1, 100, 333, 4000, 20):
        pushed += size
        given += len(resampler.push(np.zeros(size, np.float32)))
        assert given / out_rate >= pushed / in_rate - resampler.lag_s - 1 / out_rate
    assert given + len(resampler.flush()) == -(-pushed * out_rate // in_rate)


def test_nothing_in_nothing_out() -> None:
    for out_rate in (8000, 16000, 7999):
        resampler = Resampler(16000, out_rate)
        assert len(resampler.push(np.zeros(0, np.float32))) == 0
        assert len(resampler.flush()) == 0


def test_one_sample_gives_its_share() -> None:
    assert len(convert(np.ones(1, np.float32), 8000, 16000)) == 2
    assert len(convert(np.ones(1, np.float32), 48000, 8000)) == 1


def test_equal_rates_pass_through_without_delay() -> None:
    samples = np.arange(5, dtype=np.float32)
    resampler = Resampler(8000, 8000)
    out = resampler.push(samples)
    assert np.array_equal(out, samples)
    assert out is not samples
    assert resampler.lag_s == 0


def test_no_samples_after_flush() -> None:
    resampler = Resampler(16000, 8000)
    resampler.flush()
    with pytest.raises(StreamClosed):
        resampler.push(np.zeros(1, np.float32))


@pytest.mark.parametrize("rate", [0, -8000, 999, 10**9, 8000.5, float("nan"), float("inf"), True, "8000", None])
def test_rates_that_are_none(rate: object) -> None:
    with pytest.raises(BadSamples, match="whole number from 1000 to 768000"):
        Resampler(rate, 8000)  # type: ignore[arg-type]


def test_tables_stay_small_for_every_ratio() -> None:
    for in_rate in (1000, 7999, 44101, 767999, 768000):
        for out_rate in (8000, 16000):
            kernel = _kernel(in_rate, out_rate)
            assert kernel._table.size <= 1 << 21  # type: ignore[attr-defined]
