"""Punctuation and capitals for models that give bare words: how such a step looks, and the one without weights.

The one that goes by the words is ``rechka.models.punctuator``.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rechka.errors import IncompatibleParts
from rechka.types import Final, Refined, Segment, Transcript, Word

MARKS = ("", ",", ".", "?", "!", "…")
"""What may stand behind a word, in the order of a model's output."""
CASES = ("lower", "Capital", "UPPER")
"""How a word may be written, in the order of a model's output."""
PAUSE_EDGES_S = (0.12, 0.24, 0.4, 0.7, 1.2)
"""Where the classes of pauses end; class 0 is a pause nobody measured, class 1 up to the first edge, and so on."""
ENDS = (".", "?", "!")
"""Marks behind which a new sentence begins; an ellipsis may stand within one."""

SENTENCE_PAUSE_S = 0.7
"""A pause this long ends a sentence. Pauses within sentences of read Russian speech are mostly shorter."""

_AnyEvent = TypeVar("_AnyEvent", bound=object)


class Punctuator(Protocol):
    """Puts marks and capitals into words."""

    def __call__(self, words: Sequence[Word], /, *, final: bool = True) -> tuple[Word, ...]:
        """As many words as came, in the same order and with the same times; only their spelling may change.

        Args:
            words: of one phrase or more, bare and in lower case. Words at the beginning may carry marks and capitals
                from an earlier call; they keep them.
            final: the phrase is over. False while it grows: what a growing text gets must not depend on words that
                are still to come, so the last word, or as many as the punctuator looks ahead, keep their bare form.
        """
        ...


def pause_classes(words: Sequence[Word]) -> NDArray[np.int64]:
    """Class (N,) of the pause behind each word, see ``PAUSE_EDGES_S``; 0 behind the last, and without times."""
    classes = np.zeros(len(words), np.int64)
    for place, (word, after) in enumerate(itertools.pairwise(words)):
        if word.end > word.start or after.end > after.start:
            classes[place] = 1 + bisect.bisect_right(PAUSE_EDGES_S, after.start - word.end)
    return classes


def written(words: Sequence[Word], choices: Sequence[tuple[int, int]]) -> tuple[Word, ...]:
    """The words with marks and capitals.

    Args:
        words: from the beginning of a text.
        choices: for each the numbers in ``MARKS`` and ``CASES``. A word that opens a sentence has a capital anyway.
    """
    result = []
    begins = True
    for word, (mark, case) in zip(words, choices, strict=True):
        text = word.text
        if _takes_mark(text):
            text = text.upper() if CASES[case] == "UPPER" else text
            text = _capital(text) if begins or CASES[case] == "Capital" else text
            text += MARKS[mark]
        begins = text.endswith(ENDS)
        result.append(replace(word, text=text))
    return tuple(result)


def _takes_mark(text: str) -> bool:
    return text[-1:].isalnum() or text[-1:] == "%"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def is_bare(words: Iterable[Word]) -> bool:
    """Whether the words have neither marks nor capitals, as from a model that writes none."""
    return all(word.text == word.text.lower() and not word.text.endswith(MARKS[1:]) for word in words)


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
            text = _capital(word.text) if begins else word.text
            text += "." if ends and _takes_mark(text) else ""
            result.append(replace(word, text=text))
            begins = ends or text.endswith(ENDS)
        return tuple(result)


def _ended(words: Sequence[Word]) -> Sequence[Word]:
    """The words with a mark that ends a sentence behind the last."""
    text = words[-1].text.removesuffix(",") if words else ""
    return [*words[:-1], replace(words[-1], text=text + ".")] if _takes_mark(text) else words


def punctuated(transcript: Transcript, punctuator: Punctuator | None = None) -> Transcript:
    """All segments with punctuation; those without words stay as they are.

    A channel is given to the punctuator as a whole, so that a phrase that was cut without a pause ends no sentence.
    What is said last ends with a full stop at least.

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
        written[channel] = iter(_ended(found))

    def one(segment: Segment) -> Segment:
        words = tuple(itertools.islice(written[segment.channel], len(segment.words)))
        return replace(segment, words=words, text=" ".join(word.text for word in words)) if words else segment

    return replace(transcript, segments=tuple(map(one, transcript.segments)))


LIVE_CONTEXT = 40
"""Words of earlier phrases that a live punctuator is shown again."""


class LivePunctuator:
    """Gives the finals of a stream marks and capitals as they come; everything else passes as it is.

    Each channel is a text of its own. A phrase is punctuated when it is over, with the words before it and without
    those after it; what was given out does not change, and the next phrase goes on from it. Phrases of a model that
    writes marks or capitals itself stay as they are.

    Args:
        punctuator: for the words.
    """

    def __init__(self, punctuator: Punctuator) -> None:
        self._punctuator = punctuator
        self._said: dict[int, tuple[Word, ...]] = {}
        self._before: dict[int, tuple[Word, ...]] = {}

    def __call__(self, event: _AnyEvent) -> _AnyEvent:
        """The event as it is to be shown. A ``Refined`` takes the place of the last final of its channel."""
        if isinstance(event, (Final, Refined)):
            return replace(event, segment=self._written(event.segment, again=isinstance(event, Refined)))
        return event

    def _written(self, segment: Segment, *, again: bool) -> Segment:
        channel = segment.channel
        if not again:
            self._before[channel] = self._said.get(channel, ())
        before = self._before.get(channel, ())
        words = segment.words
        if words and is_bare(words):
            words = self._punctuator((*before, *words))[len(before) :]
            segment = replace(segment, words=words, text=" ".join(word.text for word in words))
        self._said[channel] = (*before, *words)[-LIVE_CONTEXT:]
        return segment
