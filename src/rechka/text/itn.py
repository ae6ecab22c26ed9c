"""Inverse text normalisation: Russian number words to digits, in words with their times or in plain text.

Cardinals to a quadrillion, ordinals, dates, times of day, decimals, per cent, ranges, telephone numbers and other
dictated groups. What may be no number stays, and so do numbers below ten that count no unit, as good style has it:
``два раза``, but ``2 рубля``; ``семью`` is a family unless something is counted.

Meant for finished phrases: a number that is still being said would change its form.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from rechka.text.dictation import Span
from rechka.text.number_rules import Parser
from rechka.text.number_words import MARKS
from rechka.types import Segment, Transcript, Word

PAUSE_S = 1.5
"""A number does not go on beyond a pause this long. Groups of a telephone number are dictated with shorter ones."""


def to_digits(text: str) -> str:
    """The text with its number words as digits; spaces between words become single ones.

    >>> to_digits("двадцать пятого мая в пятнадцать тридцать")
    '25 мая в 15:30'
    """
    words = text.split()
    return " ".join(_rewritten(words, Parser(words).spans()))


def digits_for_scoring(text: str) -> str:
    """The text with all number words as digits: their case, gender and spelling no longer count. Ordinals end in -й."""
    words = text.split()
    return " ".join(_rewritten(words, Parser(words, loose=True).spans()))


def _rewritten(words: Sequence[str], spans: Sequence[Span]) -> list[str]:
    result: list[str] = []
    at = 0
    for span in spans:
        result += [*words[at : span.start], _dressed(words[span.start : span.end], span.text)]
        at = span.end
    return [*result, *words[at:]]


def _dressed(words: Sequence[str], text: str) -> str:
    """The digits with the punctuation that stood around the words."""
    first, last = words[0], words[-1]
    before = first[: len(first) - len(first.lstrip("«("))]
    behind = last[len(last.rstrip(MARKS)) :]
    return before + text + behind


def words_to_digits(words: Sequence[Word]) -> tuple[Word, ...]:
    """Words with numbers as digits: one that stands for several has their times and their lowest confidence."""
    breaks = [b.start - a.end >= PAUSE_S for a, b in itertools.pairwise(words)]
    result: list[Word] = []
    at = 0
    for span in Parser([word.text for word in words], breaks).spans():
        result += words[at : span.start]
        part = words[span.start : span.end]
        sure = [word.confidence for word in part if word.confidence is not None]
        text = _dressed([word.text for word in part], span.text)
        result.append(Word(text, part[0].start, part[-1].end, min(sure) if len(sure) == len(part) else None))
        at = span.end
    return (*result, *words[at:])


def segment_to_digits(segment: Segment) -> Segment:
    """A segment with numbers as digits, in its words and its text."""
    words = words_to_digits(segment.words)
    if not segment.words or " ".join(word.text for word in segment.words) != segment.text:
        return replace(segment, text=to_digits(segment.text), words=words)
    return replace(segment, words=words, text=" ".join(word.text for word in words))


def transcript_to_digits(transcript: Transcript) -> Transcript:
    """All segments with numbers as digits."""
    return replace(transcript, segments=tuple(map(segment_to_digits, transcript.segments)))
