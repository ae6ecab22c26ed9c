"""One planned utterance as samples, and as a file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from rechka.errors import DataError, OutputError
from rechka.train.synth.engines import Engine, open_engine
from rechka.train.synth.manifest import Record
from rechka.train.synth.plan import Utterance
from rechka.train.synth.voices import VOICES
from rechka.types import F32

_FASTEST_LETTERS = 35.0
"""Letters and spaces a second of speech. More means that words were skipped: the fastest voice has 17 at tempo 1."""
_SLOWEST_LETTERS = 1.5
_EDGE = 0.01
"""Of the peak: quieter blocks at the edges are the engine's own silence."""


def trim(samples: F32, sample_rate: int) -> F32:
    """(n,) without the silence at both ends: blocks of 10 ms whose peak is 40 dB below the loudest; 30 ms are kept."""
    block = sample_rate // 100
    whole = len(samples) // block * block
    if not whole:
        return samples
    peaks = np.abs(samples[:whole]).reshape(-1, block).max(axis=1)
    loud = np.flatnonzero(peaks > _EDGE * peaks.max())
    start = max(0, int(loud[0]) - 3) * block
    return samples[start : (int(loud[-1]) + 4) * block]


class Renderer:
    """Makes utterances; owns one engine of each kind, opened when first needed.

    Args:
        sample_rate: of the result.
        engines: engines by name, instead of the real ones.
    """

    def __init__(self, sample_rate: int, engines: dict[str, Engine] | None = None) -> None:
        self.sample_rate = sample_rate
        self._engines: dict[str, Engine] = dict(engines or {})

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            self._engines[name] = open_engine(name, self.sample_rate)
        return self._engines[name]

    def _speech(self, sentence: str, utterance: Utterance) -> F32:
        import soxr

        voice = VOICES[utterance.voice]
        rate = utterance.tempo / utterance.factor
        samples, native = self._engine(voice.engine).speak(sentence, voice, rate=rate, pitch=utterance.pitch)
        # Read as if it had been recorded faster or slower: that moves formants and pitch together.
        resampled: F32 = soxr.resample(trim(samples, native), native * utterance.factor, self.sample_rate, "MQ")
        return resampled

    def samples(self, utterance: Utterance) -> F32:
        """The utterance (n,), float32, its peak equal to the planned volume.

        Raises:
            DataError: nothing was heard, or its length does not fit its letters.
        """
        pieces = [self._silence(utterance.lead)]
        speech = 0.0
        for number, sentence in enumerate(utterance.sentences):
            if number:
                pieces.append(self._silence(utterance.pause))
            said = self._speech(sentence, utterance)
            speech += len(said) / self.sample_rate
            pieces.append(said)
        pieces.append(self._silence(utterance.trail))
        pace = len(utterance.text) / max(speech, 1e-3)
        if not _SLOWEST_LETTERS <= pace <= _FASTEST_LETTERS:
            raise DataError(f"{pace:.1f} letters a second in {utterance.text[:80]!r}")
        samples = np.concatenate(pieces)
        return samples * np.float32(utterance.volume / np.abs(samples).max())

    def _silence(self, seconds: float) -> F32:
        return np.zeros(round(seconds * self.sample_rate), dtype=np.float32)

    def write(self, utterance: Utterance, folder: Path) -> Record:
        """Make the utterance and put it under ``folder``, whole or not at all.

        Raises:
            DataError: see :meth:`samples`.
            OutputError: the file cannot be written.
        """
        import soundfile

        samples = self.samples(utterance)
        path = folder / utterance.path
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(part, samples, self.sample_rate, format="FLAC", subtype="PCM_16")
            os.replace(part, path)
        except (OSError, soundfile.SoundFileError) as error:
            with suppress(OSError):  # it may never have come to be
                part.unlink()
            raise OutputError(f"cannot write {path}: {error}") from error
        return Record(
            id=utterance.id,
            audio_filepath=utterance.path,
            duration=round(len(samples) / self.sample_rate, 4),
            text=utterance.text,
            speaker=utterance.speaker,
            voice=utterance.voice,
            licence=VOICES[utterance.voice].licence,
            tempo=utterance.tempo,
            pitch=utterance.pitch,
            factor=utterance.factor,
            source=utterance.source,
        )
