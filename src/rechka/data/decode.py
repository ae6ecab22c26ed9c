"""Rows to samples: decoded by a few threads ahead of need, damaged ones skipped, counted and bounded."""

from __future__ import annotations

import io
import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from rechka.data import places
from rechka.data.shards import Row
from rechka.data.stream import RowStream
from rechka.errors import DataError, RechkaError
from rechka.types import F32

log = logging.getLogger(__name__)

SOON = 50
"""The share of damaged rows is judged from this many rows on."""


@dataclass(frozen=True, slots=True)
class Example:
    """A recording ready for training: (n,) samples at ``sample_rate``, and its text."""

    samples: F32
    sample_rate: int
    text: str
    speaker: str
    name: str


def source_of(row: Row) -> Any:
    """What ``rechka.open_source`` takes for a row: a path, bytes, or the samples of a part of a file and their rate.

    Raises:
        DataError: not there, or too large.
    """
    audio = row.audio
    if isinstance(audio, bytes):
        return audio
    if places.is_url(audio):
        content = read_bytes(audio)
        return content if row.start_s is None else _part(io.BytesIO(content), row)
    return audio if row.start_s is None else _part(audio, row)


def read_bytes(place: str) -> bytes:
    """The content of a file of bounded size.

    Raises:
        DataError: it cannot be read, or is larger than ``MAX_REMOTE_BYTES``.
    """
    try:
        with places.open_binary(place) as file:
            content = file.read(MAX_REMOTE_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read {place}: {error}", remedy="check the connection and the rights") from error
    if len(content) > MAX_REMOTE_BYTES:
        raise DataError(f"{place!r:.200} is larger than {MAX_REMOTE_BYTES} bytes")
    return content


def read_samples(row: Row, sample_rate: int, max_s: float) -> F32:
    """(n,) mono samples of a row.

    Raises:
        AudioError, DataError: damaged, too long, or not there.
    """
    from rechka.audio import open_source

    source = open_source(source_of(row), sample_rate=sample_rate)
    parts, total = [np.zeros(0, np.float32)], 0
    for chunks in source:
        parts.append(chunks[0].samples)
        total += len(parts[-1])
        if total > max_s * sample_rate:
            raise DataError(f"{row.name}: longer than {max_s:g} s", remedy="cut it, or raise max_s")
    if source.truncated:
        raise DataError(f"{row.name}: the recording breaks off before its end")
    return np.concatenate(parts)


MAX_REMOTE_BYTES = 512 * 1024 * 1024


def _part(file: str | io.BytesIO, row: Row) -> tuple[F32, int]:
    """A part of a long file, sought rather than read through."""
    import soundfile

    try:
        with soundfile.SoundFile(file) as opened:
            opened.seek(min(round((row.start_s or 0.0) * opened.samplerate), opened.frames))
            frames = -1 if row.duration_s is None else round(row.duration_s * opened.samplerate)
            samples = opened.read(frames, dtype="float32", always_2d=True)
            return samples.mean(axis=1), opened.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"cannot read a part of {row.name}: {error}") from error


class Decoded:
    """Examples of a row stream, a bounded number of them decoded ahead.

    Args:
        rows: the stream; this object owns it from now on.
        sample_rate: of the samples.
        threads: that decode.
        ahead: examples decoded or in work before they are asked for.
        max_bad: share of damaged rows above which the pass is given up.
        max_s: longest recording.

    ``state`` belongs to the last example that was taken: what was only decoded ahead will come again.
    """

    def __init__(
        self,
        rows: RowStream,
        *,
        sample_rate: int,
        threads: int = 2,
        ahead: int = 16,
        max_bad: float = 0.05,
        max_s: float = 60.0,
    ) -> None:
        self._rows, self._sample_rate, self._max_s = rows, sample_rate, max_s
        self._threads, self._ahead, self._max_bad = threads, ahead, max_bad
        self._state = rows.state()
        self.num_good = 0
        self.num_bad = 0
        self.reasons: deque[str] = deque(maxlen=20)
        """What the last damaged rows suffered from."""

    def state(self) -> dict[str, Any]:
        """For ``RowStream.restore`` of a new stream."""
        return self._state

    def __iter__(self) -> Iterator[Example]:
        waiting: deque[tuple[Row, dict[str, Any], Future[F32]]] = deque()
        rows = iter(self._rows)
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                while True:
                    while len(waiting) < self._ahead and (row := next(rows, None)) is not None:
                        job = pool.submit(read_samples, row, self._sample_rate, self._max_s)
                        waiting.append((row, self._rows.state(), job))
                    if not waiting:
                        return
                    row, state, job = waiting.popleft()
                    error = job.exception()
                    if error is not None and not isinstance(error, RechkaError):
                        raise error
                    self._state = state
                    if error is None:
                        self.num_good += 1
                        yield Example(job.result(), self._sample_rate, row.text, row.speaker, row.name)
                    else:
                        self._count(row, error)
            finally:
                for _, _, job in waiting:
                    job.cancel()

    def _count(self, row: Row, error: BaseException) -> None:
        self.num_bad += 1
        self.reasons.append(f"{row.name}: {error}")
        log.warning("left out: %s", self.reasons[-1])
        bad = self.num_bad + sum(self._rows.bad.values())
        seen, share = self.num_good + bad, 100 * self._max_bad
        if seen >= SOON and bad > self._max_bad * seen:
            raise DataError(
                f"{bad} of {seen} recordings are damaged, more than {share:g} %; last: {self.reasons[-1]}",
                remedy="see what rechka data check says, or raise max_bad",
            )
