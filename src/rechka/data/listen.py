"""What a recording is like, found by decoding all of it in bounded memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rechka.data.decode import source_of
from rechka.data.shards import Row
from rechka.errors import DataError, RechkaError
from rechka.types import F32

MAX_S = 4 * 3600.0
"""A longer recording is refused: it cannot be one utterance."""
FULL_SCALE = 0.999
CLIP_RUN = 3
"""So many samples in a row at full scale are clipped; a single loud one is not."""

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Sound:
    """What was heard.

    Attributes:
        seconds: of audio.
        peak: largest magnitude, 1 being full scale.
        clipped: share of samples that stand in runs at full scale.
        digest: equal for equal samples at equal rates, whatever lossless coding they lie in.
    """

    seconds: float
    peak: float
    clipped: float
    digest: bytes


def listen(row: Row) -> Sound:
    """Decode a row at its own rate, channels averaged.

    Raises:
        AudioError, DataError: damaged, broken off, too long, or not there.
    """
    from rechka.audio import open_source

    source = open_source(source_of(row), max_seconds=MAX_S)
    digest = hashlib.blake2b(str(source.sample_rate).encode(), digest_size=12)
    total, peak, clipped = 0, 0.0, 0
    for (chunk,) in source:
        samples = chunk.samples
        total += len(samples)
        if len(samples):
            peak = max(peak, float(np.abs(samples).max()))
            clipped += _clipped(samples)
            digest.update(np.rint(samples * 32767).astype("<i2").tobytes())
    if source.truncated:
        raise DataError("the recording breaks off before its end")
    return Sound(total / source.sample_rate, peak, clipped / max(1, total), digest.digest())


def _clipped(samples: F32) -> int:
    """Samples within runs of at least ``CLIP_RUN`` at full scale."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.abs(samples) >= FULL_SCALE, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= CLIP_RUN].sum())


def ahead(
    items: Iterable[Item], work: Callable[[Item], Made], *, threads: int = 2, window: int = 16
) -> Iterator[tuple[Item, Made | RechkaError]]:
    """Each item with what was made of it, or the error in its place; in order, a few worked on ahead of need."""
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    following = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(waiting) < window:
                    try:
                        item = next(following)
                    except StopIteration:
                        break
                    waiting.append((item, pool.submit(work, item)))
                if not waiting:
                    return
                item, job = waiting.popleft()
                error = job.exception()
                if error is not None and not isinstance(error, RechkaError):
                    raise error
                yield item, job.result() if error is None else error
        finally:
            for _, job in waiting:
                job.cancel()
