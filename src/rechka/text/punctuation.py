"""Punctuation and capitals for models that give bare words: how such a step looks, and the one without weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from rechka.errors import IncompatibleParts
from rechka.types import Segment, Transcript, Word

SENTENCE_PAUSE_S = 0.7
"""A pause this long ends a sentence. Pauses within sentences of read Russian speech are mostly shorter."""


class Punctuator(Protocol):
    """Puts marks and capitals into words."""

    def __call__(self, words: Sequence[Word], /, *, final: bool = True) -> tuple[Word, ...]:
        """As many words as came, in the same order and with the same times; only their spelling may change.

        Args:
            words: of one phrase or more, bare and in lower case.
            final: the phrase is over. False while it grows: what a growing text gets must not depend on words that
                are still to come, so the last word keeps its bare form.
        """
        ...


class PausePunctuator:
    """A full stop and a capital where the speaker paused; nothing is known of questions and commas.

    Args:
        pause_s: seconds of silence between two words that end a sentence.
    """

    def __init__(self, pause_s: float = SENTENCE_PAUSE_S) -> None:
        self._pause_s = pause_s

    def __call__(self, words: Sequence[Word], /, *, final: bool = True) -> tuple[Word, ...]:
        """See ``Punctuator``."""
        result = []
        begins = True
        for place, word in enumerate(words):
            last = place + 1 == len(words)
            ends = final if last else words[place + 1].start - word.end >= self._pause_s
            text = word.text[:1].upper() + word.text[1:] if begins else word.text
            stop = "." if ends and (text[-1:].isalnum() or text[-1:] == "%") else ""
            result.append(replace(word, text=text + stop))
            begins = ends
        return tuple(result)


def punctuated(transcript: Transcript, punctuator: Punctuator | None = None) -> Transcript:
    """All segments with punctuation; those without words stay as they are.

    A channel is given to the punctuator as a whole, so that a phrase that was cut without a pause ends no sentence.

    Raises:
        IncompatibleParts: the punctuator returned more or fewer words than it was given.
    """
    chosen = punctuator or PausePunctuator()
    written: dict[int, Iterator[Word]] = {}
    for channel in {segment.channel for segment in transcript.segments}:
        words = [word for segment in transcript.segments if segment.channel == channel for word in segment.words]
        found = chosen(words)
        if len(found) != len(words):
            raise IncompatibleParts(
                f"a punctuator must return as many words as it is given: {len(words)}, got {len(found)}",
                remedy="let it change the spelling of words, and nothing else",
            )
        written[channel] = iter(found)

    def one(segment: Segment) -> Segment:
        words = tuple(itertools.islice(written[segment.channel], len(segment.words)))
        return replace(segment, words=words, text=" ".join(word.text for word in words)) if words else segment

    return replace(transcript, segments=tuple(map(one, transcript.segments)))
