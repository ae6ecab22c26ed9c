"""A call in two channels as one conversation: echo of one speaker in the other's channel is taken out.

On many lines a speaker is heard again, fainter and a little later, on the other side. Recognised there too, the same
words stand twice. Echo is found as a run of words that another channel says at nearly the same distance in time. A word
is dropped only if its own counterpart, no other word's, stays on the other channel; words that only one channel has are
never dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

from rechka.text.normalize import scoring
from rechka.types import Segment, Transcript, Word


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """When words are taken for an echo.

    Attributes:
        latest_s: an echo comes at most this long after the word; satellite and mobile paths stay below half a second.
        words: so many different words in a row are believed to be an echo rather than both saying the same.
        dense: at least this share of the words from the first to the last of a run belongs to it.
        jitter_s: word times are not exact: the delay within a run may change by this much from word to word.
        similarity: an echo is often misheard; a word counts as the same from this share of equal letters on. At least
            half of a run must be spelled the same.
        at_once_s: below this mean delay, about a frame or two, words count as said at the same time.
        doubt: a difference of mean confidence up to this tells nothing.
    """

    latest_s: float = 0.6
    words: int = 3
    dense: float = 0.75
    jitter_s: float = 0.2
    similarity: float = 0.6
    at_once_s: float = 0.08
    doubt: float = 0.05


class _Spoken(NamedTuple):
    """A word and where it stands: index of its segment, and its place there."""

    word: Word
    segment: int
    place: int


class _Pair(NamedTuple):
    """Words of two channels, by their index there, that may be the same; how alike; delay of the second in seconds."""

    first: int
    second: int
    alike: float
    delay: float


def dialogue(transcript: Transcript, options: EchoOptions | None = None) -> Transcript:
    """The transcript of a recording with one speaker per channel, ordered by time, echo taken out.

    Segments without words stay as they are: echo is found by words and their times.

    Args:
        transcript: its segments name their channels.
        options: what is taken for an echo.
    """
    limits = options or EchoOptions()
    segments = transcript.segments
    channels: dict[int, list[_Spoken]] = {}
    for index, segment in enumerate(segments):
        spoken = channels.setdefault(segment.channel, [])
        spoken += [_Spoken(word, index, place) for place, word in enumerate(segment.words)]
    rows = [sorted(row, key=lambda spoken: spoken.word.start) for _, row in sorted(channels.items())]
    dropped: set[tuple[int, int]] = set()
    for i, first in enumerate(rows):
        for second in rows[i + 1 :]:
            dropped |= _echo(
                [spoken for spoken in first if spoken[1:] not in dropped],
                [spoken for spoken in second if spoken[1:] not in dropped],
                limits,
            )
    kept = [
        _without(segment, {place for at, place in dropped if at == index}) for index, segment in enumerate(segments)
    ]
    ordered = sorted((s for s in kept if s is not None), key=lambda s: (s.start, s.channel, s.end))
    return replace(transcript, segments=tuple(ordered))


def _without(segment: Segment, places: set[int]) -> Segment | None:
    """The segment less some of its words; None if nothing is left."""
    if not places:
        return segment
    words = tuple(word for place, word in enumerate(segment.words) if place not in places)
    if not words:
        return None
    text = " ".join(word.text for word in words)
    return replace(segment, words=words, text=text, start=words[0].start, end=words[-1].end)


def _echo(first: Sequence[_Spoken], second: Sequence[_Spoken], limits: EchoOptions) -> set[tuple[int, int]]:
    """Segment and place of the words of either channel that are an echo of the other; each is in one run at most."""
    runs = _runs(_pairs(first, second, limits), limits)
    used: tuple[set[int], set[int]] = (set(), set())
    dropped: set[tuple[int, int]] = set()
    for run in sorted(runs, key=lambda run: -sum(len(first[pair.first].word.text) * pair.alike for pair in run)):
        rest = [pair for pair in run if pair.first not in used[0] and pair.second not in used[1]]
        same = sum(pair.alike == 1.0 for pair in rest)
        distinct = {first[pair.first].word.text for pair in rest}  # "да да да" may be said by both
        if len(distinct) < limits.words or 2 * same < len(rest):
            continue
        span = max(rest[-1].first - rest[0].first, rest[-1].second - rest[0].second) + 1
        if len(rest) < limits.dense * span:
            continue
        used[0].update(pair.first for pair in rest)
        used[1].update(pair.second for pair in rest)
        echo = _later(rest, first, second, limits)
        if echo is not None:
            dropped |= {(second[pair.second] if echo else first[pair.first])[1:] for pair in rest}
    return dropped


def _pairs(first: Sequence[_Spoken], second: Sequence[_Spoken], limits: EchoOptions) -> list[_Pair]:
    """Words of both channels near in time that are alike, in order."""
    starts = [spoken.word.start for spoken in second]
    found = []
    for i, spoken in enumerate(first):
        begin = spoken.word.start
        j = bisect_left(starts, begin - limits.latest_s)
        while j < len(second) and starts[j] <= begin + limits.latest_s:
            alike = _alike(scoring(spoken.word.text), scoring(second[j].word.text))
            if alike >= limits.similarity:
                found.append(_Pair(i, j, alike, starts[j] - begin))
            j += 1
    return found


@lru_cache(maxsize=4096)
def _alike(first: str, second: str) -> float:
    """Share of equal letters: 1 for the same word. Words of one or two letters are the same or not."""
    if first == second:
        return 1.0
    return 0.0 if min(len(first), len(second)) < 3 else min(SequenceMatcher(None, first, second).ratio(), 0.99)


def _runs(pairs: Sequence[_Pair], limits: EchoOptions) -> list[list[_Pair]]:
    """Chains of pairs in which words follow one another on both channels after the same delay; one may be missing."""
    best: list[float] = []
    back: list[int | None] = []
    for at, pair in enumerate(pairs):
        score, before = 0.0, None
        for other in range(at - 1, -1, -1):
            earlier = pairs[other]
            if earlier.first < pair.first - 2:
                break  # pairs are in order of their first word
            follows = 1 <= pair.first - earlier.first <= 2 and 1 <= pair.second - earlier.second <= 2
            if follows and abs(earlier.delay - pair.delay) <= limits.jitter_s and best[other] > score:
                score, before = best[other], other
        best.append(score + pair.alike)
        back.append(before)
    ends = set(range(len(pairs))) - {before for before in back if before is not None}
    runs = []
    for end in sorted(ends):
        run: list[_Pair] = []
        at_: int | None = end
        while at_ is not None:
            run.append(pairs[at_])
            at_ = back[at_]
        runs.append(run[::-1])
    return runs


def _later(
    run: Sequence[_Pair], first: Sequence[_Spoken], second: Sequence[_Spoken], limits: EchoOptions
) -> int | None:
    """Which of the two is the echo, 0 or 1; None if what came later was heard better, which no echo is.

    Where both came at once, as crosstalk does, it is the one that was heard worse; of equals the second.
    """
    sure = [(first[pair.first].word.confidence, second[pair.second].word.confidence) for pair in run]
    known = [(mine, its) for mine, its in sure if mine is not None and its is not None]
    ahead = sum(mine - its for mine, its in known) / len(known) if known else 0.0
    delay = sum(pair.delay for pair in run) / len(run)
    if abs(delay) < limits.at_once_s:
        return 0 if ahead < -limits.doubt else 1
    if delay > 0:
        return 1 if ahead >= -limits.doubt else None
    return 0 if ahead <= limits.doubt else None
