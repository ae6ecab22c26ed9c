"""The microphone as an audio source, through sounddevice (the extra ``mic``) and PortAudio."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.audio.pcm import SCALE_16
from rechka.audio.resample import Resampler, checked_rate
from rechka.errors import NoMicrophone
from rechka.types import AudioChunk

logger = logging.getLogger(__name__)

BLOCK_S = 0.1
"""Length of a block from the device."""
QUEUE_S = 30.0
"""Audio that waits at most while the recogniser is busy; beyond, the newest is lost: a microphone cannot wait."""
STALL_S = 5.0
"""A device that gives nothing for so long was unplugged."""


def microphone(sample_rate: int = 8000, *, device: int | str | None = None) -> Microphone:
    """The default microphone, or another by number or name.

    Args:
        sample_rate: of the chunks; a device that does not know the rate is resampled.
        device: number or part of the name, as ``python -m sounddevice`` lists them; None for the default.

    Raises:
        NoMicrophone: no capture device, or sounddevice is not installed.
        BadSamples: an impossible rate.
    """
    return Microphone(checked_rate(sample_rate), device=device)


class Microphone:
    """An ``AudioSource`` without an end: iterate, and stop when you have heard enough.

    Chunks hold about 100 ms. Recording begins with iteration and ends with it.
    """

    channels = 1
    duration: float | None = None
    truncated = False

    def __init__(self, sample_rate: int, *, device: int | str | None = None) -> None:
        self._library = _import_sounddevice()
        self._device = device
        self.sample_rate = sample_rate
        self.dropped = 0
        """Samples at the device's rate that were lost because nobody read in time."""
        self._device_rate = self._choose_rate()

    def __iter__(self) -> Iterator[tuple[AudioChunk, ...]]:
        """What is heard from now on.

        Raises:
            NoMicrophone: the device cannot be opened, or has gone.
        """
        resampler = Resampler(self._device_rate, self.sample_rate)
        start = 0
        for block in self._record():
            samples = resampler.push(block * SCALE_16)
            if len(samples):
                yield (AudioChunk(samples, self.sample_rate, start),)
                start += len(samples)

    def _record(self) -> Iterator[NDArray[np.int16]]:
        blocks: queue.Queue[NDArray[np.int16]] = queue.Queue(maxsize=round(QUEUE_S / BLOCK_S))

        def heard(data: Any, frames: int, time: Any, status: Any) -> None:
            """Runs in PortAudio's thread: must neither wait nor raise."""
            try:
                blocks.put_nowait(data[:, 0].copy())
            except queue.Full:
                self.dropped += frames

        try:
            stream = self._library.InputStream(
                samplerate=self._device_rate,
                blocksize=round(BLOCK_S * self._device_rate),
                device=self._device,
                channels=1,
                dtype="int16",
                callback=heard,
            )
        except (self._library.PortAudioError, ValueError) as error:
            raise _unusable(error) from error
        reported = 0
        with stream:
            while True:
                try:
                    block = blocks.get(timeout=STALL_S)
                except queue.Empty:
                    raise NoMicrophone(
                        f"the microphone has given nothing for {STALL_S:g} s", remedy="plug it in and start again"
                    ) from None
                if self.dropped > reported:
                    reported = self.dropped
                    logger.warning("the recogniser is too slow: %.1f s of audio lost", reported / self._device_rate)
                yield block

    def _choose_rate(self) -> int:
        """The wanted rate if the device can have it, else the device's own."""
        try:
            info = self._library.query_devices(self._device, "input")
            own = int(info["default_samplerate"])
        except (self._library.PortAudioError, ValueError) as error:
            raise _unusable(error) from error
        try:
            self._library.check_input_settings(self._device, channels=1, dtype="int16", samplerate=self.sample_rate)
        except (self._library.PortAudioError, ValueError):
            return own
        return self.sample_rate


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise NoMicrophone(
            "a microphone needs the library sounddevice, which is not installed", remedy='pip install "rechka[mic]"'
        ) from error
    except OSError as error:  # sounddevice is there, PortAudio is not
        raise NoMicrophone(
            f"sounddevice cannot load PortAudio: {error}", remedy="install it: apt install libportaudio2"
        ) from error
    return sounddevice


def _unusable(error: Exception) -> NoMicrophone:
    return NoMicrophone(
        f"no microphone can be opened: {error}", remedy="python -m sounddevice lists what the machine has"
    )
