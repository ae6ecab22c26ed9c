"""Voice activity: speech is heard, silence and noise are not, and it does not matter how the audio was cut."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.backends.ort import OrtBackend
from rechka.errors import BadModelFile, IncompatibleParts
from rechka.segmentation.vad import SILERO_FILE, EnergyVad, SileroVad, Vad, VadStream, speech_probability
from rechka.testing import FakeBackend, chunkings
from rechka.types import F32

PROMPT = Path(__file__).parents[2] / "examples/prompt.wav"


@cache
def backend() -> OrtBackend:
    return OrtBackend(SILERO_FILE, threads=1)


def make(kind: str, rate: int) -> Vad:
    return SileroVad(backend(), rate) if kind == "silero" else EnergyVad(rate)


@cache
def prompt(rate: int) -> F32:
    samples, found = soundfile.read(PROMPT, dtype="float32")
    resampled: F32 = soxr.resample(samples, found, rate).astype(np.float32)
    return resampled


def noise(seconds: float, rate: int, level: float) -> F32:
    return (np.random.default_rng(0).normal(size=round(seconds * rate)) * level).astype(np.float32)


KINDS = [("silero", 8000), ("silero", 16000), ("energy", 8000), ("energy", 16000), ("energy", 22050)]


@pytest.mark.parametrize(("kind", "rate"), KINDS)
def test_speech_is_heard(kind: str, rate: int) -> None:
    """Silence, the bundled recording, silence: most of the recording is speech, nothing around it is."""
    vad = make(kind, rate)
    audio = np.concatenate([np.zeros(2 * rate, np.float32), prompt(rate), np.zeros(2 * rate, np.float32)])
    found = speech_probability(vad, audio) > 0.5
    times = np.arange(len(found)) * vad.window / rate
    spoken = (times > 2.0) & (times < 2.0 + len(prompt(rate)) / rate)
    assert found[spoken].mean() > 0.7
    assert found[times < 1.9].sum() == 0
    assert found[times > 2.5 + len(prompt(rate)) / rate].sum() == 0


@pytest.mark.parametrize(("kind", "rate"), KINDS)
@pytest.mark.parametrize("level", [0.0, 0.001, 0.03])
def test_silence_and_noise_are_not_speech(kind: str, rate: int, level: float) -> None:
    """Steady noise; the energy detector needs five seconds to know it when it is loud."""
    vad = make(kind, rate)
    found = speech_probability(vad, noise(12, rate, level))
    settled = found[round(6 * rate / vad.window) :]
    assert (settled > 0.5).mean() < 0.01


@pytest.mark.parametrize(("kind", "rate"), KINDS)
def test_speech_in_noise_is_heard(kind: str, rate: int) -> None:
    vad = make(kind, rate)
    audio = noise(16, rate, 0.003)
    first = 8 * rate
    audio[first : first + len(prompt(rate))] += prompt(rate)
    found = speech_probability(vad, audio) > 0.5
    times = np.arange(len(found)) * vad.window / rate
    spoken = (times > 8.0) & (times < 8.0 + len(prompt(rate)) / rate)
    assert found[spoken].mean() > 0.6
    assert found[(times > 6.0) & (times < 7.9)].mean() < 0.02


@settings(max_examples=15)
@given(data=st.data(), kind=st.sampled_from(KINDS[:3]), gain=st.floats(0.05, 1.0))
def test_any_chunking_and_any_batch_give_the_same(data: st.DataObject, kind: tuple[str, int], gain: float) -> None:
    vad = make(*kind)
    audio = prompt(kind[1])[: kind[1]] * np.float32(gain)
    whole = speech_probability(vad, audio)
    stream, first = VadStream(vad), 0
    pieces = []
    for size in data.draw(chunkings(len(audio))):
        pieces.append(stream.push(audio[first : first + size]))
        first += size
    np.testing.assert_array_equal(np.concatenate([*pieces, stream.flush()]), whole)
    others = [audio[::-1].copy(), np.zeros(100, np.float32), np.zeros(0, np.float32)]
    together, _ = vad.step([others[0], audio, *others[1:]], [vad.initial_state() for _ in range(4)])
    np.testing.assert_allclose(together[1], whole[: len(together[1])], atol=1e-5)
    assert [len(p) for p in together[2:]] == [100 // vad.window, 0]


def test_a_flushed_stream_has_every_sample() -> None:
    stream = VadStream(EnergyVad(8000))
    assert len(stream.push(np.zeros(159, np.float32))) == 0
    assert len(stream.flush()) == 1
    assert len(stream.flush()) == 0


def test_silero_gets_its_context() -> None:
    """Each window goes in behind the last 64 samples of the one before; the state travels."""

    def graph(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {"output": feeds["input"][:, :1], "stateN": feeds["state"] + 1}

    fake = FakeBackend(
        graph,
        {"input": ((None, None), np.float32), "state": ((2, None, 128), np.float32), "sr": ((), np.int64)},
        ["output", "stateN"],
    )
    vad = SileroVad(fake, 16000)
    audio = np.arange(1536, dtype=np.float32)
    [found], [state] = vad.step([audio], [vad.initial_state()])
    assert found.tolist() == [0, 448, 960]
    assert state.network[0, 0] == 3
    assert [call["input"].shape for call in fake.calls] == [(1, 576)] * 3
    assert fake.calls[0]["sr"] == 16000


def test_what_silero_cannot_do() -> None:
    with pytest.raises(IncompatibleParts, match="22050"):
        SileroVad(backend(), 22050)
    with pytest.raises(BadModelFile, match="stateN"):
        SileroVad(FakeBackend(lambda feeds: {}, {}, []), 16000)
