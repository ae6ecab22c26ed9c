"""A look at the data before a run: how much there is, what the model cannot write, the dev sets, the noises."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from rechka.data import Decoded, Row, RowStream, find_shards, places
from rechka.data.decode import read_samples
from rechka.errors import DataError, RechkaError
from rechka.train.finetune.config import DataOptions, DevSet
from rechka.train.finetune.feed import MAX_DECODED_S, REMEDY, told
from rechka.train.finetune.learners import Learner
from rechka.types import F32

log = logging.getLogger(__name__)

FIRST = 200
"""Rows whose texts are checked where a whole look is not needed."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """A recording of a dev set: samples, what was said, and who said it."""

    samples: F32
    text: str
    speaker: str


def survey(options: DataOptions, learner: Learner, *, whole: bool) -> float:
    """Seconds of usable recordings in ``options.train``; 0 if only the beginning was looked at.

    Lengths come from the header of a file where it tells them, else from decoding it.

    Raises:
        DataError: nothing usable, or more unusable texts than ``options.max_bad`` allows.
    """
    counts: Counter[str] = Counter()
    seconds, last = 0.0, ""
    rows = RowStream(find_shards(options.train), shuffle=0)
    for row in rows if whole else islice(rows, FIRST):
        try:
            ids = learner.targets.encode(row.text)
        except DataError as error:
            counts["text"] += 1
            last = f"{row.name}: {error.message}"
            continue
        if not ids:
            counts["empty text"] += 1
            continue
        counts["readable"] += 1
        if whole and options.min_s <= (length := _length(row, learner.sample_rate)) <= options.max_s:
            counts["of fitting length"] += 1
            seconds += length
    total = counts["readable"] + counts["text"]
    if counts["text"] > options.max_bad * total:
        raise DataError(
            f"the model cannot write {counts['text']} of {total} texts, more than {options.max_bad:.0%}; last: {last}",
            remedy=REMEDY,
        )
    if not counts["readable"] or (whole and not seconds):
        raise DataError(f"{', '.join(options.train)}: nothing to train on: {told(counts)}", remedy=REMEDY)
    return seconds


def _length(row: Row, sample_rate: int) -> float:
    """Seconds of a row; 0 if it cannot be read."""
    import soundfile

    if row.duration_s is not None:
        return row.duration_s
    try:
        if isinstance(row.audio, bytes) or not places.is_url(row.audio):
            return float(soundfile.info(io.BytesIO(row.audio) if isinstance(row.audio, bytes) else row.audio).duration)
    except (soundfile.SoundFileError, OSError, RuntimeError):
        log.debug("%s: no header that libsndfile reads", row.name)
    try:
        return len(read_samples(row, sample_rate, MAX_DECODED_S)) / sample_rate
    except RechkaError as error:
        log.warning("left out: %s: %s", row.name, error)
        return 0.0


def read_dev(entry: DevSet, learner: Learner, threads: int) -> list[Spoken]:
    """The recordings of a dev set, decoded, shortest first.

    Raises:
        DataError: none can be read, or none has a text.
    """
    decoded = Decoded(
        RowStream(find_shards(entry.sources), shuffle=0), sample_rate=learner.sample_rate, threads=threads, max_bad=0.5
    )
    found = [
        Spoken(example.samples, example.text, example.speaker)
        for example in islice(decoded, entry.items)
        if example.text.strip() and len(example.samples)
    ]
    if not found:
        raise DataError(f"the dev set {entry.name!r} has no readable recording with a text", remedy="check its sources")
    return sorted(found, key=lambda item: len(item.samples))


def read_noises(patterns: Sequence[str], sample_rate: int, most_s: float = 3600.0) -> list[F32]:
    """Recordings of noise at a rate, at most an hour of them.

    Raises:
        DataError: a pattern that matches nothing; AudioError: a file that is no audio.
    """
    found: list[F32] = []
    total = 0
    for pattern in patterns:
        for number, place in enumerate(places.expand(pattern)):
            samples = read_samples(Row(0, number, "", place, name=place), sample_rate, most_s)
            if len(samples) and float(np.abs(samples).max()) > 0.0:
                found.append(samples)
                total += len(samples)
            if total > most_s * sample_rate:
                return found
    return found
