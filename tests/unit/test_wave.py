"""Distortions of samples: levels, bands, codecs and lost packets are what they say, and a function of their seed."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="training needs scipy")
from rechka.audio.pcm import decode_alaw, decode_mulaw
from rechka.testing import say
from rechka.testing.audio import tone
from rechka.train import wave

SPEECH = say("добрый день", before_s=0.2, after_s=0.2)


def energy(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).mean())


def decibels(ratio: float) -> float:
    return 10 * float(np.log10(ratio))


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW"])
def test_g711_codes_are_those_of_libsndfile(subtype: str) -> None:
    integers = np.random.default_rng(0).normal(0, 8000, 4000).clip(-32000, 32000).astype(np.int16)
    x = (integers / 32768).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, integers, 8000, format="RAW", subtype=subtype)
    encode, decode = {"ULAW": (wave.encode_mulaw, decode_mulaw), "ALAW": (wave.encode_alaw, decode_alaw)}[subtype]
    ours, theirs = decode(encode(x)), decode(file.getvalue())
    assert (np.abs(ours - x) <= np.abs(theirs - x) + 1e-6).all()  # the nearest value; theirs is at best as near
    np.testing.assert_array_equal(decode(encode(ours)), ours)


def test_every_codec_keeps_length_and_place() -> None:
    assert {wave.alaw, wave.mulaw} <= set(wave.codecs())
    for codec in wave.codecs():
        out = codec(SPEECH)
        assert len(out) == len(SPEECH)
        assert int(np.argmax(np.correlate(out, SPEECH, "full"))) == len(SPEECH) - 1, codec.__name__
        assert np.corrcoef(out, SPEECH)[0, 1] > 0.7, codec.__name__


@pytest.mark.parametrize("snr", [0.0, 12.0, 30.0])
def test_noise_is_so_many_decibels_below_the_speech(snr: float) -> None:
    noise = np.random.default_rng(1).normal(0, 0.3, 3000).astype(np.float32)
    added = wave.add_noise(SPEECH, noise, snr, 8000) - SPEECH
    assert decibels(wave.level(SPEECH, 8000) ** 2 / energy(added)) == pytest.approx(snr, abs=0.3)


def test_level_does_not_depend_on_pauses() -> None:
    x = tone(440, 1.0, 8000)
    assert wave.level(np.pad(x, (0, 7000)), 8000) == pytest.approx(wave.level(x, 8000), rel=0.01)


def test_a_telephone_passes_its_band_only() -> None:
    rng = np.random.default_rng(0)
    for hertz, passes in ((60, False), (1000, True), (5000, False)):
        x = tone(hertz, 1.0, 16000, level=0.3)
        out = wave.telephone(x, rng, 16000)[2000:-2000]
        assert len(wave.telephone(x, rng, 16000)) == len(x)
        assert (energy(out) > 0.3 * energy(x)) is passes, hertz


def test_speed_changes_length_and_pitch() -> None:
    out = wave.speed(tone(500, 1.0, 8000), 1.25)
    assert len(out) == pytest.approx(6400, abs=5)
    assert np.abs(np.fft.rfft(out[:6400])).argmax() * 8000 / 6400 == pytest.approx(625, abs=2)


def test_lost_packets_are_as_many_as_asked_and_come_in_bursts() -> None:
    x = np.ones(8000 * 60, np.float32)
    out = wave.lose_packets(x, np.random.default_rng(3), 0.1, 8000).reshape(-1, 160)
    lost = (out < 0.75).all(axis=1)
    assert lost.mean() == pytest.approx(0.1, abs=0.03)
    starts = sum(b and not a for a, b in pairwise(lost))
    assert lost.sum() / starts == pytest.approx(2.0, abs=0.4)


def test_gsm_and_opus_are_among_the_telephones_lines_where_libsndfile_has_them() -> None:
    names = {codec.__name__ for codec in wave.codecs()}
    here = soundfile.available_subtypes()
    assert ("gsm" in names) == ("GSM610" in here)
    assert ("opus" in names) == ("OPUS" in here)


@pytest.mark.parametrize("db", [3.0, 9.0])
def test_clipping_cuts_peaks_and_leaves_the_rest(db: float) -> None:
    out = wave.clipped(SPEECH, db)
    top = np.abs(SPEECH).max() * 10 ** (-db / 20)
    assert np.abs(out).max() == pytest.approx(top, rel=1e-5)
    quiet = np.abs(SPEECH) < 0.999 * top
    assert quiet.any()
    assert not quiet.all()
    np.testing.assert_allclose(out[quiet], SPEECH[quiet], rtol=1e-5)
    silence = np.zeros(10, np.float32)
    np.testing.assert_array_equal(wave.clipped(silence, db), silence)


def test_a_room_keeps_the_direct_sound_in_place() -> None:
    out = wave.reverberate(SPEECH, np.random.default_rng(5), 8000)
    assert int(np.argmax(np.correlate(out, SPEECH, "full"))) == len(SPEECH) - 1
    assert wave.level(out, 8000) == pytest.approx(wave.level(SPEECH, 8000), rel=0.01)


EVERYTHING = wave.WaveOptions(clean=0.0, noise=1.0, reverb=1.0, telephone=1.0, loss=1.0, clip=1.0, gain_db=20.0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30), n=st.integers(0, 3000), rate=st.sampled_from([8000, 16000]), quiet=st.booleans())
def test_anything_stays_audio_of_its_length(seed: int, n: int, rate: int, quiet: bool) -> None:
    x = np.zeros(n, np.float32) if quiet else np.random.default_rng(seed).normal(0, 0.5, n).astype(np.float32)
    one, two = (wave.distort(x, np.random.default_rng(seed), rate, EVERYTHING) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == x.shape
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert np.abs(one).max(initial=0.0) <= 1.0


def test_clean_means_untouched_and_noise_files_are_used() -> None:
    options = wave.WaveOptions(clean=1.0)
    assert wave.distort(SPEECH, np.random.default_rng(0), 8000, options) is SPEECH
    noisy = wave.WaveOptions(
        clean=0.0, noise=1.0, noise_db=(0.0, 0.0), reverb=0.0, telephone=0.0, clip=0.0, gain_db=0.0
    )
    hum = tone(3950, 0.5, 8000)
    heard = [wave.distort(SPEECH, np.random.default_rng(seed), 8000, noisy, [hum]) - SPEECH for seed in range(9)]
    peaks = [np.abs(np.fft.rfft(x)).argmax() * 8000 / len(x) for x in heard]
    assert sum(3900 < peak < 4000 for peak in peaks) >= 5
