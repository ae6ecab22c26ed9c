"""An open phrase: its beam, what was shown of it, and how it becomes a Partial or a Segment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rechka.protocols import Decoder
from rechka.timeline import Timeline
from rechka.types import Hypothesis, LogProbs, Partial, Segment, Tokens


@dataclass(frozen=True, slots=True)
class Phrase:
    """What is known of a phrase while it is spoken. A value.

    Attributes:
        beam: of all frames fed so far.
        start: first speech frame.
        last: loudest token of the last frame fed.
        mark: the beam at the place where the phrase would be cut, None before there is one.
        mark_last: loudest token of the last frame before that place, if a cut there would go through speech.
        glue: after a cut through speech, the token that leading frames may only continue.
        shown: stable part and whole text of the last Partial.
    """

    beam: Any
    start: int
    last: int | None = None
    mark: Any = None
    mark_last: int | None = None
    glue: int | None = None
    shown: tuple[str, str] = ("", "")

    def marked(self, *, pause: int) -> Phrase:
        """With the present beam as the one to return to."""
        return replace(self, mark=self.beam, mark_last=None if pause else self.last)

    def unglued(self, frames: LogProbs) -> tuple[LogProbs, Phrase]:
        """The frames without those that only continue the letter on which the phrase before was cut."""
        if self.glue is None:
            return frames, self
        loudest = frames.values.argmax(axis=1)
        same = int((loudest != self.glue).argmax()) if (loudest != self.glue).any() else len(frames)
        rest = LogProbs(frames.values[same:], frames.start + same)
        return rest, replace(self, glue=None) if len(rest) else self

    def partial(
        self, decoder: Decoder[Any], tokens: Tokens, *, start: float, channel: int
    ) -> tuple[Partial | None, Phrase]:
        """A Partial, or None if it would say the same as the last one.

        The stable part ends with a whole word: it holds the words that a stable space follows. While the phrase may
        still be cut at its mark, only words before the mark are stable.
        """
        best = decoder.nbest(self.beam, 1)[0]  # no posteriors, which only words need
        num_stable = decoder.stable(self.beam if self.mark is None else self.mark)
        text = clean(tokens.text(best.tokens))
        stable = whole_words(best.tokens[:num_stable], tokens)
        if not text or (stable, text) == self.shown:
            return None, self
        return Partial(stable, text[len(stable) :], start, channel), replace(self, shown=(stable, text))


def clean(text: str) -> str:
    """The text with single spaces between words and none around."""
    return " ".join(text.split())


def whole_words(ids: tuple[int, ...], tokens: Tokens) -> str:
    """The words of ``ids`` that are complete, since another begins; all of them in a vocabulary without spaces."""
    if tokens.space is None and not tokens.pieces:
        return clean(tokens.text(ids))
    last = next((i for i in range(len(ids) - 1, -1, -1) if tokens.opens(ids[i])), 0)
    return clean(tokens.text(ids[:last]))


def segment_of(
    best: Hypothesis,
    tokens: Tokens,
    timeline: Timeline,
    *,
    start: float,
    end: float,
    channel: int,
    speaker: str | None,
    calibration: tuple[float, float] | None = None,
) -> Segment | None:
    """The phrase as a Segment from ``start`` to ``end`` seconds; None if nothing was recognised."""
    from rechka.text.words import to_words

    text = clean(tokens.text(best.tokens))
    if not text:
        return None
    words = to_words(best, tokens, timeline, end=end, calibration=calibration)
    return Segment(text, start, end, words, speaker, channel)
