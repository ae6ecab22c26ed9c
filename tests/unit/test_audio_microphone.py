"""The microphone, with a device that exists only here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rechka.audio import microphone
from rechka.audio import microphone as microphone_function
from rechka.errors import BadSamples, NoMicrophone
from rechka.testing.audio import tone

module = sys.modules[microphone_function.__module__]


class PortAudioError(Exception):
    pass


class FakeDevice:
    """Plays a tone into the callback as soon as recording starts."""

    PortAudioError = PortAudioError

    def __init__(self, *, own_rate: int = 48000, rates: tuple[int, ...] = (48000,), blocks: int = 20) -> None:
        self.own_rate, self.rates, self.blocks = own_rate, rates, blocks
        self.open = 0

    def query_devices(self, device: Any, kind: str) -> dict[str, float]:
        assert kind == "input"
        if not self.rates:
            raise PortAudioError("Error querying device -1")
        return {"default_samplerate": float(self.own_rate)}

    def check_input_settings(self, device: Any, *, channels: int, dtype: str, samplerate: int) -> None:
        if samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")

    def InputStream(self, *, samplerate: int, blocksize: int, callback: Callable[..., None], **rest: Any) -> Any:
        wave = (tone(440, self.blocks * blocksize / samplerate, samplerate) * 32768).astype(np.int16)
        device = self

        class Stream:
            def __enter__(self) -> None:
                device.open += 1
                buffer = np.zeros((blocksize, 1), np.int16)
                for at in range(0, len(wave), blocksize):
                    buffer[:, 0] = wave[at : at + blocksize]  # PortAudio uses its buffer again
                    callback(buffer, blocksize, None, None)

            def __exit__(self, *error: object) -> None:
                device.open -= 1

        return Stream()


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    return lambda device: monkeypatch.setitem(sys.modules, "sounddevice", device)


@pytest.mark.parametrize("rates", [(48000,), (8000, 48000)])
def test_gives_what_it_hears_at_the_wanted_rate(plug_in: Callable[[Any], None], rates: tuple[int, ...]) -> None:
    device = FakeDevice(rates=rates)
    plug_in(device)
    chunks = iter(microphone(8000))
    heard, at = [], 0
    while at < 8000:
        (chunk,) = next(chunks)
        assert (chunk.sample_rate, chunk.start) == (8000, at)
        assert len(chunk.samples) <= 1000
        heard.append(chunk.samples)
        at = chunk.end
    assert device.open == 1
    chunks.close()  # type: ignore[attr-defined]
    assert device.open == 0
    assert np.abs(np.concatenate(heard)[100:8000] - tone(440, 1.0, 8000)[100:]).max() < 1e-2


def test_what_nobody_reads_is_counted(plug_in: Callable[[Any], None], caplog: pytest.LogCaptureFixture) -> None:
    plug_in(FakeDevice(blocks=350))
    source = microphone(48000)
    next(iter(source))
    assert source.dropped == 50 * 4800
    assert "too slow: 5.0 s" in caplog.text


def test_a_device_that_falls_silent(plug_in: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(FakeDevice(blocks=3))
    monkeypatch.setattr(module, "STALL_S", 0.01)
    with pytest.raises(NoMicrophone, match="given nothing"):
        list(microphone(48000))


def test_no_device(plug_in: Callable[[Any], None]) -> None:
    plug_in(FakeDevice(rates=()))
    with pytest.raises(NoMicrophone, match="no microphone can be opened") as caught:
        microphone()
    assert "python -m sounddevice" in caught.value.remedy


def test_a_device_that_cannot_be_opened(plug_in: Callable[[Any], None]) -> None:
    device = FakeDevice()

    def busy(**settings: Any) -> None:
        raise PortAudioError("Device unavailable")

    device.InputStream = busy  # type: ignore[method-assign, assignment]
    plug_in(device)
    with pytest.raises(NoMicrophone, match="Device unavailable"):
        next(iter(microphone()))


def test_no_library(plug_in: Callable[[Any], None]) -> None:
    plug_in(None)
    with pytest.raises(NoMicrophone) as caught:
        microphone()
    assert caught.value.remedy == 'pip install "rechka[mic]"'


def test_no_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(NoMicrophone, match="PortAudio") as caught:
        microphone()
    assert "libportaudio2" in caught.value.remedy


def test_an_impossible_rate(plug_in: Callable[[Any], None]) -> None:
    plug_in(SimpleNamespace())
    with pytest.raises(BadSamples):
        microphone(0)
