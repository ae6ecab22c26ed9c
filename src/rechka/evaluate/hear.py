"""Run a model over a manifest and keep all that a report may ask about: texts, words, errors, times, loudness."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rechka.data.listen import ahead
from rechka.errors import RechkaError
from rechka.evaluate.manifest import Record
from rechka.evaluate.wer import Counts, pair_counts, raw_counts
from rechka.types import F32, AudioChunk, Word

if TYPE_CHECKING:
    from rechka.protocols import AudioSource
    from rechka.recognizers import Asr

log = logging.getLogger(__name__)

SNR_FRAME_S = 0.02
SNR_RANGE_DB = 80.0
"""Histogram of frame loudness: from this far below full scale up to full scale, in half decibels."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One recording of a manifest and what a model made of it.

    Attributes:
        record: the recording and its reference text.
        text: what was recognised; empty if nothing was, or after an error.
        words: with times and confidence.
        error: why there is no text, or None.
        seconds: of audio.
        snr_db: speech over background, estimated (see ``Loudness``); None if there is not enough to tell.
        counts: word and letter edits in scoring form.
        raw: the same of the texts as they are written, case and punctuation included.
        delays: per word, seconds of audio between its end and the first partial or final that held it; empty unless
            the model was run live.
    """

    record: Record
    text: str
    words: tuple[Word, ...] = ()
    error: RechkaError | None = None
    seconds: float = 0.0
    snr_db: float | None = None
    counts: tuple[Counts, Counts] = field(default=(Counts(0, 0, 0, 0), Counts(0, 0, 0, 0)))
    raw: tuple[Counts, Counts] = field(default=(Counts(0, 0, 0, 0), Counts(0, 0, 0, 0)))
    delays: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A model's pass over a manifest. ``wall_s`` covers reading, recognition and decoding, not loading the model."""

    model: str
    heard: tuple[Heard, ...]
    wall_s: float

    @property
    def audio_s(self) -> float:
        """Seconds of audio that were recognised."""
        return sum(item.seconds for item in self.heard)

    @property
    def rtf(self) -> float | None:
        """Real-time factor: wall-clock seconds per second of audio; None without audio."""
        return self.wall_s / self.audio_s if self.audio_s else None


class Loudness:
    """Signal-to-noise ratio of one recording, estimated blindly while its audio goes by.

    The loudness of 20 ms frames goes into a histogram. Background is its tenth percentile, speech the power mean of
    the frames above the median. An estimate for sorting recordings, not a measurement: steady noise lowers it as it
    should, but a recording without pauses looks noisier than it is.
    """

    def __init__(self) -> None:
        self._bins = np.zeros(int(2 * SNR_RANGE_DB) + 1, np.int64)
        self._rest: F32 = np.zeros(0, np.float32)

    def push(self, samples: F32, sample_rate: int) -> None:
        """Add samples."""
        size = int(SNR_FRAME_S * sample_rate)
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // size * size
        self._rest = joined[whole:]
        power = np.square(joined[:whole].reshape(-1, size), dtype=np.float64).mean(axis=1)
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        np.add.at(self._bins, np.clip(2 * (decibels + SNR_RANGE_DB), 0, len(self._bins) - 1).astype(int), 1)

    @property
    def snr_db(self) -> float | None:
        """Decibels; None for less than half a second of audio, or for silence."""
        total = int(self._bins.sum())
        if total < 25:
            return None
        levels = np.arange(len(self._bins)) / 2 - SNR_RANGE_DB
        part = np.cumsum(self._bins) / total
        background = float(levels[np.searchsorted(part, 0.1)])
        loud = np.where(part >= 0.5, self._bins, 0)
        speech = float(10 * np.log10((loud * 10 ** (levels / 10)).sum() / loud.sum()))
        return round(speech - background, 1) if speech > -SNR_RANGE_DB + 1 else None


@dataclass
class _Listened:
    """An ``AudioSource`` that is heard on its way to the model."""

    source: AudioSource
    loudness: Loudness

    @property
    def sample_rate(self) -> int:
        return self.source.sample_rate

    @property
    def channels(self) -> int:
        return self.source.channels

    @property
    def duration(self) -> float | None:
        return self.source.duration

    @property
    def truncated(self) -> bool:
        return self.source.truncated

    def __iter__(self) -> Iterator[tuple[AudioChunk, ...]]:
        for chunks in self.source:
            self.loudness.push(chunks[0].samples, chunks[0].sample_rate)
            yield chunks


def hear(
    asr: Asr,
    records: Iterable[Record],
    *,
    live: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> Run:
    """Recognise the recordings of a manifest.

    Args:
        asr: the model.
        records: what to recognise, read as far as needed; a record without text is taken for silence.
        live: stream each recording in packets of 100 ms with partials, as a call would come, and measure delays in
            seconds of audio; slower than files side by side.
        progress: called with the number of recordings and the seconds of audio done.
    """
    started = time.perf_counter()
    heard: list[Heard] = []
    results = _live(asr, records) if live else _files(asr, records)
    done_s = 0.0
    for item in results:
        heard.append(item)
        done_s += item.seconds
        if item.error is not None:
            log.warning("%s: %s", item.record.audio, item.error)
        if progress is not None:
            progress(len(heard), done_s)
    return Run(asr.name, tuple(heard), time.perf_counter() - started)


def judged(record: Record, text: str, **values: Any) -> Heard:
    """What was heard, counted against the record's text."""
    reference = record.text or ""
    return Heard(record, text, counts=pair_counts(reference, text), raw=raw_counts(reference, text), **values)


def _fetched(records: Iterable[Record]) -> Iterator[tuple[Record, Any]]:
    """Records with what is to be opened for each; fetched ahead where that takes time, and forgotten afterwards."""

    def fetch(record: Record) -> Any:
        return record.audio if record.source is None else record.source()

    for record, made in ahead(records, fetch):
        yield replace(record, source=None), made


def _opened(fetched: Any, asr: Asr) -> AudioSource:
    from rechka.audio import open_source

    if isinstance(fetched, RechkaError):
        raise fetched
    source: AudioSource = open_source(fetched, sample_rate=asr.spec.sample_rate)
    return source


def _files(asr: Asr, records: Iterable[Record]) -> Iterator[Heard]:
    waiting: deque[tuple[Record, Loudness]] = deque()

    def sources() -> Iterator[Any]:
        for record, fetched in _fetched(records):
            waiting.append((record, Loudness()))
            try:
                yield _Listened(_opened(fetched, asr), waiting[-1][1])
            except RechkaError as error:
                yield error  # the recogniser gives it back in its place

    for result in asr.transcribe_many(sources()):
        record, meter = waiting.popleft()
        if isinstance(result, RechkaError):
            yield judged(record, "", error=result, seconds=0.0)
        else:
            yield judged(record, result.text, words=result.words, seconds=result.duration, snr_db=meter.snr_db)


def _live(asr: Asr, records: Iterable[Record]) -> Iterator[Heard]:
    from rechka.evaluate.latency import run_live

    for record, fetched in _fetched(records):
        meter = Loudness()
        try:
            source = _Listened(_opened(fetched, asr), meter)
            words, delays, seconds = run_live(asr, source)
        except RechkaError as error:
            yield judged(record, "", error=error, seconds=0.0)
            continue
        text = " ".join(word.text for word in words)
        yield judged(record, text, words=words, seconds=seconds, snr_db=meter.snr_db, delays=delays)
