"""A call in two channels as one conversation: echo of one speaker in the other's channel is taken out.

On many lines a speaker is heard again, quieter and a little later, on the other side. Recognised there too, the same
words stand twice. A phrase is echo if nearly all of its words, in order, were said on another channel shortly before,
and with no less confidence; words that only one channel has are never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rechka.types import Segment, Transcript, Word


@dataclass(frozen=True, slots=True)
class EchoOptions:
    """When a word is taken for an echo.

    Attributes:
        latest_s: an echo comes at most this long after the word; satellite and mobile paths stay below half a second.
        earliest_s: word times are not exact: an echo may seem this much early.
        words: shortest run of words that is believed to be an echo rather than both saying the same.
        doubt: an echo's mean confidence may be above the original's by no more than this.
    """

    latest_s: float = 0.6
    earliest_s: float = 0.1
    words: int = 3
    doubt: float = 0.05


def dialogue(transcript: Transcript, options: EchoOptions | None = None) -> Transcript:
    """The transcript of a recording with one speaker per channel, ordered by time, echo taken out.

    Args:
        transcript: its segments name their channels.
        options: when a word is taken for an echo.
    """
    limits = options or EchoOptions()
    segments = list(transcript.segments)
    kept = [_without_echo(segment, segments, limits) for segment in segments]
    ordered = sorted((s for s in kept if s is not None), key=lambda s: (s.start, s.channel, s.end))
    return replace(transcript, segments=tuple(ordered))


def _without_echo(segment: Segment, all_segments: Sequence[Segment], options: EchoOptions) -> Segment | None:
    """The segment less the runs of its words that another channel said first; None if nothing is left."""
    if not segment.words:
        return segment
    others = sorted(
        (
            word
            for other in all_segments
            if other.channel != segment.channel
            and other.end >= segment.start - options.latest_s - 1
            and other.start <= segment.end + options.earliest_s + 1
            for word in other.words
        ),
        key=lambda word: word.start,
    )
    echoed = [_source(word, others, options) for word in segment.words]
    dropped: set[int] = set()
    at = 0
    while at < len(echoed):
        end = at
        while end < len(echoed) and echoed[end] is not None:
            end += 1
        run = range(at, end)
        if len(run) >= options.words and _fainter(segment.words, echoed, run, options):
            dropped |= set(run)
        at = max(end, at + 1)
    if not dropped:
        return segment
    words = tuple(word for place, word in enumerate(segment.words) if place not in dropped)
    if not words:
        return None
    return replace(
        segment, words=words, text=" ".join(word.text for word in words), start=words[0].start, end=words[-1].end
    )


def _source(word: Word, others: Sequence[Word], options: EchoOptions) -> Word | None:
    """The same word on another channel, a moment before."""
    for other in others:
        delay = word.start - other.start
        if -options.earliest_s <= delay <= options.latest_s and other.text == word.text:
            return other
    return None


def _fainter(words: Sequence[Word], sources: Sequence[Word | None], run: range, options: EchoOptions) -> bool:
    """Whether the run came later than its source on the whole, and was recognised no better."""
    pairs = [(words[place], source) for place in run if (source := sources[place]) is not None]
    late = sum(word.start - source.start for word, source in pairs) / len(pairs)
    sure = [(word.confidence, source.confidence) for word, source in pairs]
    known = [(mine, its) for mine, its in sure if mine is not None and its is not None]
    excess = sum(mine - its for mine, its in known) / len(known) if known else 0.0
    return late > 0 and excess <= options.doubt
