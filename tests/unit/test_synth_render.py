"""One utterance as samples: what engines say, resampled, framed by silence, at the planned level."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rechka.errors import DataError, MissingExtra, OutputError
from rechka.train.synth import engines
from rechka.train.synth.plan import Utterance
from rechka.train.synth.render import Renderer, trim
from rechka.train.synth.voices import VOICES, Voice
from rechka.types import F32

UTTERANCE = Utterance(
    id="3-000042", sentences=("раз два три четыре пять",), voice="toy", speaker="toy-01", tempo=1.0, pitch=1.0,
    factor=1.0, volume=0.5, lead=0.3, pause=0.0, trail=0.2, source="x.txt",
)  # fmt: skip


class Sine:
    """A tone whose pitch and length follow the request, with silence of its own at both ends."""

    HERTZ, SECONDS, RATE = 400.0, 2.0, 16_000

    def speak(self, text: str, voice: Voice, *, rate: float, pitch: float) -> tuple[F32, int]:
        time = np.arange(int(self.SECONDS / rate * self.RATE)) / self.RATE
        tone = 0.9 * np.sin(2 * np.pi * self.HERTZ * pitch * time)
        return np.pad(tone, 5000).astype(np.float32), self.RATE


def render(utterance: Utterance) -> F32:
    return Renderer(8000, {"toy": Sine()}).samples(utterance)


def hertz(samples: F32) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * 8000 / len(samples))


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.18])
@pytest.mark.parametrize("tempo", [0.8, 1.3])
def test_the_factor_shifts_frequencies_and_leaves_the_tempo(factor: float, tempo: float) -> None:
    samples = render(dataclasses.replace(UTTERANCE, factor=factor, tempo=tempo, pitch=1.1))
    speech = trim(samples, 8000)
    assert hertz(speech) == pytest.approx(400 * 1.1 * factor, rel=0.01)
    assert len(speech) / 8000 == pytest.approx(2.0 / tempo, abs=0.09)


def test_silence_and_level_are_those_of_the_plan() -> None:
    samples = render(UTTERANCE)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=1e-4)
    assert not samples[: int(0.3 * 8000)].any()
    assert not samples[-int(0.2 * 8000) :].any()
    assert len(samples) / 8000 == pytest.approx(2.5, abs=0.09)  # the engine's own silence is gone but for 30 ms a side


def test_two_sentences_have_the_pause_between_them() -> None:
    utterance = dataclasses.replace(UTTERANCE, sentences=(*UTTERANCE.sentences, "шесть семь восемь девять"), pause=0.8)
    samples = render(utterance)
    middle = len(samples[2400:-1600]) // 2 + 2400
    assert not samples[middle - 3000 : middle + 3000].any()
    assert len(samples) / 8000 == pytest.approx(0.5 + 4 + 0.8, abs=0.15)


def test_speech_that_does_not_fit_its_letters_is_refused() -> None:
    with pytest.raises(DataError, match="letters a second"):
        render(dataclasses.replace(UTTERANCE, sentences=("раз два три " * 10,)))
    with pytest.raises(DataError, match="letters a second"):
        render(dataclasses.replace(UTTERANCE, sentences=("а",)))


def test_silence_from_the_engine_is_refused() -> None:
    with pytest.raises(DataError, match="no sound"):
        engines._samples([b"\0\0" * 100], "текст")


def test_a_recording_is_written_whole_as_16_bit_flac(tmp_path: Path) -> None:
    record = Renderer(8000).write(UTTERANCE, tmp_path)
    info = soundfile.info(tmp_path / record.audio_filepath)
    assert (info.samplerate, info.channels, info.format, info.subtype) == (8000, 1, "FLAC", "PCM_16")
    assert record.duration == pytest.approx(info.duration, abs=1e-4)
    assert (record.text, record.licence, record.source) == ("раз два три четыре пять", "CC0-1.0", "x.txt")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["3-000042.flac"]
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="cannot write"):
        Renderer(8000).write(UTTERANCE, tmp_path / "taken")


def test_a_missing_synthesiser_names_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(engines.RHVOICE_DATA, str(tmp_path))
    with pytest.raises(MissingExtra, match=r"rhvoice-russian \(component non-free\), or set RECHKA_RHVOICE_DATA"):
        engines.check_engines((VOICES["anna"],))
    (tmp_path / "languages" / "Russian").mkdir(parents=True)
    monkeypatch.setenv(engines.RHVOICE_LIBRARY, str(tmp_path / "absent.so"))
    with pytest.raises(MissingExtra, match=r"cannot be loaded.*librhvoice5"):
        engines.check_engines((VOICES["anna"],))
    monkeypatch.setattr(engines, "find_library", lambda name: None)
    with pytest.raises(MissingExtra, match=r"libespeak-ng1"):
        engines.check_engines((VOICES["espeak-ng+m1"],))


def installed(voice: str) -> bool:
    try:
        engines.check_engines((VOICES[voice],))
    except MissingExtra:
        return False
    return True


@pytest.mark.parametrize("voice", ["anna", "aleksandr", "espeak-ng+m1"])
def test_real_engines_follow_rate_and_make_plausible_speech(voice: str) -> None:
    if not installed(voice):
        pytest.skip("the synthesiser is not installed")
    renderer = Renderer(8000)
    sentence = "Здравствуйте, подскажите, пожалуйста, когда приедет мастер?"
    plain = dataclasses.replace(UTTERANCE, sentences=(sentence,), voice=voice)
    usual, fast = (trim(renderer.samples(dataclasses.replace(plain, tempo=tempo)), 8000) for tempo in (1.0, 1.3))
    assert 8 < len(sentence) / (len(usual) / 8000) < 20
    assert len(usual) / len(fast) == pytest.approx(1.3, rel=0.1)
    shifted = trim(renderer.samples(dataclasses.replace(plain, factor=1.15)), 8000)
    assert len(shifted) == pytest.approx(len(usual), rel=0.08)
    assert not np.array_equal(usual[:4000], shifted[:4000])
