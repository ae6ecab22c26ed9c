"""Two speech synthesisers through their C libraries, RHVoice 1.8 and espeak-ng 1.51, and a toy.

Declarations follow the public headers RHVoice.h and speak_lib.h of those versions. Neither library may be used by two
engines of one process at once: a process makes one of each.
"""

from __future__ import annotations

import ctypes as c
import os
import tempfile
from ctypes.util import find_library
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rechka.errors import DataError, MissingExtra, UsageError
from rechka.text.normalize import scoring
from rechka.train.synth.voices import ESPEAK, Voice
from rechka.types import F32

RHVOICE_LIBRARY = "RECHKA_RHVOICE_LIBRARY"
"""Environment variable: path of libRHVoice, for a library that is not installed system-wide."""
RHVOICE_DATA = "RECHKA_RHVOICE_DATA"
"""Environment variable: folder with RHVoice's ``languages`` and ``voices``."""
_DATA_PATHS = ("/usr/share/RHVoice", "/usr/local/share/RHVoice")
_DEBIAN = "on Debian: apt install librhvoice5 rhvoice-russian (component non-free)"
_LOW_RATE = 13_600
"""Up to this output rate 16 kHz synthesis is enough: 16000 times the smallest factor, 0.85."""


class Engine(Protocol):
    """Text in, samples out."""

    def speak(self, text: str, voice: Voice, *, rate: float, pitch: float) -> tuple[F32, int]:
        """Samples (n,) in [-1, 1] and their rate; ``rate`` and ``pitch`` are factors of the voice's own.

        Raises:
            DataError: the engine made nothing of this text.
        """
        ...


# --- RHVoice ---

_SetRate = c.CFUNCTYPE(c.c_int, c.c_int, c.c_void_p)
_Play = c.CFUNCTYPE(c.c_int, c.POINTER(c.c_short), c.c_uint, c.c_void_p)


class _Callbacks(c.Structure):
    _fields_ = (
        ("set_sample_rate", _SetRate),
        ("play_speech", _Play),
        ("unused", c.c_void_p * 7),  # marks, words, sentences, sounds, end: not wanted
    )


class _InitParams(c.Structure):
    _fields_ = (
        ("data_path", c.c_char_p),
        ("config_path", c.c_char_p),
        ("resource_paths", c.c_void_p),
        ("callbacks", _Callbacks),
        ("options", c.c_uint),
    )


class _SynthParams(c.Structure):
    _fields_ = (
        ("voice_profile", c.c_char_p),
        ("absolute_rate", c.c_double),
        ("absolute_pitch", c.c_double),
        ("absolute_volume", c.c_double),
        ("relative_rate", c.c_double),
        ("relative_pitch", c.c_double),
        ("relative_volume", c.c_double),
        ("punctuation_mode", c.c_int),
        ("punctuation_list", c.c_char_p),
        ("capitals_mode", c.c_int),
        ("flags", c.c_int),
    )


_DONT_CLIP_RATE = 1


def rhvoice_data() -> Path:
    """The folder of RHVoice's languages and voices.

    Raises:
        MissingExtra: it is not there.
    """
    named = os.environ.get(RHVOICE_DATA)
    for path in map(Path, [named] if named else _DATA_PATHS):
        if (path / "languages" / "Russian").is_dir():
            return path
    raise MissingExtra(
        f"RHVoice's Russian data is not in {named or ' or '.join(_DATA_PATHS)}",
        remedy=f"{_DEBIAN}, or set {RHVOICE_DATA}",
    )


def _rhvoice_library() -> Any:
    name = os.environ.get(RHVOICE_LIBRARY) or find_library("RHVoice") or "libRHVoice.so.5"
    try:
        lib = c.CDLL(name)
    except OSError as error:
        raise MissingExtra(
            f"the RHVoice library cannot be loaded: {error}", remedy=f"{_DEBIAN}, or set {RHVOICE_LIBRARY}"
        ) from error
    lib.RHVoice_new_tts_engine.restype = c.c_void_p
    lib.RHVoice_new_tts_engine.argtypes = [c.POINTER(_InitParams)]
    lib.RHVoice_delete_tts_engine.argtypes = [c.c_void_p]
    lib.RHVoice_delete_tts_engine.restype = None
    lib.RHVoice_new_message.restype = c.c_void_p
    lib.RHVoice_new_message.argtypes = [
        c.c_void_p, c.c_char_p, c.c_uint, c.c_int, c.POINTER(_SynthParams), c.c_void_p,
    ]  # fmt: skip
    lib.RHVoice_delete_message.argtypes = [c.c_void_p]
    lib.RHVoice_delete_message.restype = None
    lib.RHVoice_speak.argtypes = [c.c_void_p]
    return lib


class RHVoice:
    """RHVoice: statistical parametric voices, 24 kHz, or 16 kHz when the wanted rate is low enough.

    Args:
        sample_rate: the rate that the caller will resample to.
    Raises:
        MissingExtra: the library or its Russian data is not installed.
    """

    def __init__(self, sample_rate: int = 8000) -> None:
        self._data = rhvoice_data()
        self._lib = _rhvoice_library()
        self._pieces: list[bytes] = []
        self._rate = 0
        callbacks = _Callbacks(_SetRate(self._set_rate), _Play(self._play))
        self._callbacks = callbacks  # the library keeps the pointers: they must live as long as the engine
        with tempfile.TemporaryDirectory(prefix="rechka-rhvoice-") as folder:
            quality = "min" if sample_rate <= _LOW_RATE else "max"
            Path(folder, "RHVoice.conf").write_text(f"quality={quality}\n", "utf-8")
            params = _InitParams(os.fsencode(self._data), os.fsencode(folder), None, callbacks, 0)
            self._engine = self._lib.RHVoice_new_tts_engine(c.byref(params))
        if not self._engine:
            raise MissingExtra(f"RHVoice could not start with the data in {self._data}", remedy=_DEBIAN)

    def _set_rate(self, rate: int, _user: object) -> int:
        self._rate = rate
        return 1

    def _play(self, samples: Any, count: int, _user: object) -> int:
        self._pieces.append(c.string_at(samples, 2 * count))
        return 1

    def speak(self, text: str, voice: Voice, *, rate: float, pitch: float) -> tuple[F32, int]:
        """See :class:`Engine`."""
        if not (self._data / "voices" / voice.name).is_dir():
            raise MissingExtra(f"the RHVoice voice {voice.name} is not installed", remedy=_DEBIAN)
        params = _SynthParams(voice.name.encode(), 0, 0, 0, rate, pitch, 1.0, 0, None, 0, _DONT_CLIP_RATE)
        data = text.encode("utf-8")
        self._pieces.clear()
        message = self._lib.RHVoice_new_message(self._engine, data, len(data), 0, c.byref(params), None)
        if not message:
            raise DataError(f"RHVoice refused the text {text[:80]!r}")
        try:
            if not self._lib.RHVoice_speak(message):
                raise DataError(f"RHVoice could not speak {text[:80]!r}")
        finally:
            self._lib.RHVoice_delete_message(message)
        return _samples(self._pieces, text), self._rate


# --- espeak-ng ---

_SynthCallback = c.CFUNCTYPE(c.c_int, c.POINTER(c.c_short), c.c_int, c.c_void_p)
_SYNCHRONOUS, _UTF8, _RATE, _PITCH = 2, 1, 1, 3
_WORDS_A_MINUTE = 165
_SLOWEST, _FASTEST = 80, 450


class Espeak:
    """espeak-ng: formant synthesis, 22.05 kHz, with variants that change the speaker.

    Raises:
        MissingExtra: the library or its data is not installed.
    """

    def __init__(self) -> None:
        remedy = "on Debian: apt install libespeak-ng1 espeak-ng-data"
        try:
            self._lib = c.CDLL(find_library("espeak-ng") or "libespeak-ng.so.1")
        except OSError as error:
            raise MissingExtra(f"the espeak-ng library cannot be loaded: {error}", remedy=remedy) from error
        self._lib.espeak_Synth.argtypes = [
            c.c_char_p, c.c_size_t, c.c_uint, c.c_int, c.c_uint, c.c_uint, c.c_void_p, c.c_void_p,
        ]  # fmt: skip
        self._rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 200, None, 0)
        if self._rate <= 0:
            raise MissingExtra("espeak-ng could not start: its data is not installed", remedy=remedy)
        self._pieces: list[bytes] = []
        self._callback = _SynthCallback(self._take)  # must live as long as the library may call it
        self._lib.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: Any, count: int, _events: object) -> int:
        if samples and count > 0:
            self._pieces.append(c.string_at(samples, 2 * count))
        return 0

    def speak(self, text: str, voice: Voice, *, rate: float, pitch: float) -> tuple[F32, int]:
        """See :class:`Engine`. espeak has a pitch scale of its own: 50 is the voice's, an octave is about 75 steps."""
        name = f"ru{voice.name.removeprefix(ESPEAK)}"
        if self._lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise UsageError(f"espeak-ng has no voice {name}", remedy="leave the variant out")
        words = min(max(round(_WORDS_A_MINUTE * rate), _SLOWEST), _FASTEST)
        self._lib.espeak_SetParameter(_RATE, words, 0)
        self._lib.espeak_SetParameter(_PITCH, min(max(round(50 + 75 * np.log2(pitch)), 0), 99), 0)
        data = text.encode("utf-8")
        self._pieces.clear()
        if self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None) != 0:
            raise DataError(f"espeak-ng could not speak {text[:80]!r}")
        return _samples(self._pieces, text), self._rate


class Toy:
    """Letters as pairs of tones, 60 ms each: no speech, but a model can learn it and no package is needed."""

    RATE = 16_000

    def speak(self, text: str, voice: Voice, *, rate: float, pitch: float) -> tuple[F32, int]:
        """See :class:`Engine`."""
        letters = [ord(char) - ord("а") for char in scoring(text)]
        time = np.arange(round(0.06 * self.RATE / rate)) / self.RATE
        silence = np.zeros_like(time)
        tones = [
            np.sin(2 * np.pi * pitch * (300 + 90 * (letter % 8)) * time)
            + np.sin(2 * np.pi * pitch * (1300 + 250 * (letter // 8)) * time)
            if letter >= 0
            else silence
            for letter in letters
        ]
        samples: F32 = (0.4 * np.concatenate([silence, *tones, silence])).astype(np.float32)
        return samples, self.RATE


def open_engine(name: str, sample_rate: int) -> Engine:
    """The engine of that name (see :class:`rechka.train.synth.voices.Voice`).

    Raises:
        MissingExtra: it is not installed.
    """
    if name == "toy":
        return Toy()
    return RHVoice(sample_rate) if name == "rhvoice" else Espeak()


def _samples(pieces: list[bytes], text: str) -> F32:
    audio = np.frombuffer(b"".join(pieces), dtype="<i2")
    if not audio.any():
        raise DataError(f"the synthesiser made no sound of {text[:80]!r}")
    return audio.astype(np.float32) / 32768.0


def check_engines(voices: tuple[Voice, ...]) -> None:
    """Fail early, in the parent process, when an engine or a voice of the run is not installed.

    Raises:
        MissingExtra: what is missing and the packages that hold it.
    """
    if any(voice.engine == "rhvoice" for voice in voices):
        data = rhvoice_data()
        _rhvoice_library()
        missing = [v.name for v in voices if v.engine == "rhvoice" and not (data / "voices" / v.name).is_dir()]
        if missing:
            raise MissingExtra(f"RHVoice voices not installed: {', '.join(missing)}", remedy=_DEBIAN)
    if any(voice.engine == "espeak" for voice in voices) and find_library("espeak-ng") is None:
        raise MissingExtra(
            "espeak-ng is not installed",
            remedy="on Debian: apt install libespeak-ng1 espeak-ng-data, or name the voices without espeak-ng",
        )
