"""Cutting phrases into subtitle cues at words.

Limits are the usual ones of subtitling guides (BBC, Netflix): two lines of 42 characters, 7 seconds on the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rechka.types import Segment, Transcript, Word

MAX_LINE = 42
MAX_LINES = 2
MAX_CUE_S = 7.0
MIN_CUE_S = 1.0
"""A shorter cue stays on the screen for this long if its speaker's next cue leaves room."""


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines of text shown from ``start`` to ``end``, in seconds."""

    lines: tuple[str, ...]
    start: float
    end: float
    speaker: str | None
    channel: int


def cues(transcript: Transcript) -> list[Cue]:
    """All cues in order of their starts. Those of one channel do not overlap, and none ends before it starts."""
    by_channel: dict[int, list[Cue]] = {}
    for segment in sorted(transcript.segments, key=lambda s: s.start):
        earlier = by_channel.setdefault(segment.channel, [])
        for cue in _cut(segment):
            start = max(cue.start, earlier[-1].end if earlier else 0.0)
            earlier.append(Cue(cue.lines, start, max(start, cue.end), cue.speaker, cue.channel))
    held = [cue for channel in by_channel.values() for cue in _hold(channel)]
    return sorted(held, key=lambda cue: (cue.start, cue.channel))


def _cut(segment: Segment) -> list[Cue]:
    """The cues of one phrase: as few as possible, of lengths as equal as possible."""
    words = timed_words(segment)
    texts = [word.text for word in words]
    room = MAX_LINE - (len(segment.speaker) + 2 if segment.speaker is not None else 0)  # "speaker: " of an srt

    def fits(start: int, end: int) -> bool:
        return words[end - 1].end - words[start].start <= MAX_CUE_S and _num_lines(texts[start:end], room) <= MAX_LINES

    pieces = _partition([len(word.text) + 1 for word in words], fits)
    return [
        Cue(
            tuple(_wrap(texts[a:b], room)),
            words[a].start,
            words[b - 1].end,
            segment.speaker,
            segment.channel,
        )
        for a, b in pieces
    ]


def timed_words(segment: Segment) -> list[Word]:
    """The words of ``segment.text`` with times.

    The recognised words carry the times. If the text was rewritten since (numbers, punctuation) and its words are as
    many, they take the times one to one; else the phrase's time is shared out by length.
    """
    texts = segment.text.split()
    if len(texts) == len(segment.words):
        return [Word(text, word.start, word.end) for text, word in zip(texts, segment.words, strict=True)]
    per_letter = (segment.end - segment.start) / max(1, sum(map(len, texts)))
    words, time = [], segment.start
    for text in texts:
        words.append(Word(text, time, time + per_letter * len(text)))
        time = words[-1].end
    return words


def _wrap(texts: Sequence[str], room: int) -> list[str]:
    """Words as lines of at most ``room`` characters, as few and as equal as possible; a longer word stands alone."""

    def fits(start: int, end: int) -> bool:
        return sum(map(len, texts[start:end])) + end - start - 1 <= room

    return [" ".join(texts[a:b]) for a, b in _partition([len(text) + 1 for text in texts], fits)]


def _num_lines(texts: Sequence[str], room: int) -> int:
    """How many lines ``_wrap`` makes: filling each line in turn gives the fewest."""
    lines, used = 0, room
    for text in texts:
        if used + 1 + len(text) > room:
            lines, used = lines + 1, len(text)
        else:
            used += 1 + len(text)
    return lines


def _partition(lengths: Sequence[int], fits: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Cut a row of lengths into the fewest runs that fit; among these the one with the least sum of squared lengths.

    Args:
        lengths: of the items.
        fits: whether the items from a start up to, not including, an end may stand together; if they may, so may every
            part of them. A single item always may.
    """
    best: list[tuple[int, int, int]] = [(0, 0, 0)]  # (runs, squares, start of the last run) up to each item
    for end in range(1, len(lengths) + 1):
        options, total = [], 0
        for start in range(end - 1, -1, -1):
            if start < end - 1 and not fits(start, end):
                break
            total += lengths[start]
            runs, squares, _ = best[start]
            options.append((runs + 1, squares + total * total, start))
        best.append(min(options))
    pieces: list[tuple[int, int]] = []
    end = len(lengths)
    while end:
        start = best[end][2]
        pieces.append((start, end))
        end = start
    return pieces[::-1]


def _hold(row: Sequence[Cue]) -> list[Cue]:
    """Cues of one channel, the short ones held for ``MIN_CUE_S`` or until the next one starts."""
    held = []
    for i, cue in enumerate(row):
        until = row[i + 1].start if i + 1 < len(row) else cue.start + MIN_CUE_S
        end = max(cue.end, min(cue.start + MIN_CUE_S, until))
        held.append(Cue(cue.lines, cue.start, end, cue.speaker, cue.channel))
    return held
