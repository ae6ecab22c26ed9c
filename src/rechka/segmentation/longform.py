"""The long-form merge rule of GigaAM: speech spans of a VAD to chunks of 15 to 22 seconds, for comparison.

``PhraseRecognizer`` does not cut this way: here a span longer than the limit is cut into equal pieces through whatever
is being said, and nothing is joined afterwards. The rule is kept so that results of the original can be reproduced.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rechka.errors import UsageError


@dataclass(frozen=True, slots=True)
class LongformOptions:
    """Limits of the rule, seconds; the defaults are those of ``transcribe_longform`` in GigaAM.

    Attributes:
        max_s: a chunk is closed before a span that would make it longer.
        min_s: a chunk longer than this is closed at the next span.
        limit_s: a chunk longer than this is cut into equal pieces.
        drop_s: a chunk no longer than this does not stand alone: it grows on, and is dropped at the end.

    Raises:
        UsageError: limits that are not above zero.
    """

    max_s: float = 22.0
    min_s: float = 15.0
    limit_s: float = 30.0
    drop_s: float = 0.2

    def __post_init__(self) -> None:
        if not (self.max_s > 0 and self.min_s >= 0 and self.limit_s > 0 and self.drop_s >= 0):
            raise UsageError(f"limits of long-form chunks must be above 0, got {self}")


def merge_spans(
    spans: Iterable[tuple[float, float]], duration: float, options: LongformOptions | None = None
) -> list[tuple[float, float]]:
    """Chunks to recognise one by one.

    Args:
        spans: start and end of speech, seconds, in order.
        duration: of the recording; spans are clipped to it.
        options: the limits.
    Returns:
        Start and end of every chunk, seconds. Pauses between the spans of a chunk are in it.
    """
    limits = options or LongformOptions()
    chunks: list[tuple[float, float]] = []
    chunk: tuple[float, float] | None = None
    for first, last in spans:
        start, end = max(0, first), min(duration, last)
        if chunk is None:
            chunk = (start, end)
            continue
        length = chunk[1] - chunk[0]
        full = length + (end - chunk[1]) > limits.max_s or length > limits.min_s
        if length > limits.drop_s and full:
            chunks += _pieces(chunk, limits.limit_s)
            chunk = (start, end)
        chunk = (chunk[0], end)
    if chunk is not None and chunk[1] - chunk[0] > limits.drop_s:
        chunks += _pieces(chunk, limits.limit_s)
    return chunks


def samples_of(chunk: tuple[float, float], sample_rate: int) -> slice:
    """The samples of a chunk, both ends rounded down as in the original."""
    return slice(int(chunk[0] * sample_rate), int(chunk[1] * sample_rate))


def _pieces(chunk: tuple[float, float], limit: float) -> list[tuple[float, float]]:
    """The chunk, or equal parts of it none longer than the limit."""
    start, end = chunk
    length = end - start
    if length <= limit:
        return [chunk]
    num = int(length / limit) + 1
    pieces = []
    for _ in range(num):
        pieces.append((start, start + length / num))  # added up as in the original, to the last bit
        start = pieces[-1][1]
    return pieces
