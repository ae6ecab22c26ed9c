"""Third pass of a phrase recogniser's step: from decoded phrases to events, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rechka.recognizers.agreement import Agreement
from rechka.recognizers.joining import Tail, continuation, sliced, split
from rechka.recognizers.phrase_walk import EDGE_S, TOLERANCE_S, Geometry, Note, Noted
from rechka.types import Event, Final, Hypothesis, Partial, Refined, Segment, SpeechEnd, SpeechStart, Tokens

if TYPE_CHECKING:
    from rechka.recognizers.stream import Stream


@dataclass(frozen=True, slots=True)
class Talk:
    """What was told of the open phrase. A value.

    Attributes:
        tail: end of the phrase before, if that one was split without a pause.
        start: of the phrase, seconds, if the split moved it.
        agreement: of its decodes so far.
        told: stable part and whole text of the last Partial.
    """

    tail: Tail | None = None
    start: float | None = None
    agreement: Agreement = field(default_factory=Agreement)
    told: tuple[str, str] = ("", "")


class Teller:
    """Makes the events of one stream.

    Args:
        geometry: of the recogniser.
        tokens: of the model.
        talk: what was told so far; not modified.
        segment: a hypothesis as a Segment, given start and end of speech, the end of the audio, and the stream.
        stream: whose events they are; not modified.
    """

    def __init__(
        self,
        geometry: Geometry,
        tokens: Tokens,
        talk: Talk,
        segment: Callable[[Hypothesis, float, float, float, Stream], Segment],
        stream: Stream,
    ) -> None:
        self.geometry, self.tokens, self.talk, self.stream = geometry, tokens, talk, stream
        self.segment = segment
        self.events: list[Event] = []

    def tell(self, notes: Sequence[Noted], hypotheses: Sequence[Hypothesis]) -> tuple[Talk, list[Event]]:
        """The events of some notes.

        Args:
            notes: of the walk, in order.
            hypotheses: of those that are ``Note``.
        """
        waiting = iter(hypotheses)
        for note in notes:
            if not isinstance(note, Note):
                self.events.append(self._told(note))
                continue
            best = next(waiting)
            if self.talk.tail is not None:
                tolerance = TOLERANCE_S * self.geometry.rate / self.geometry.hop
                best = sliced(best, continuation(self.talk.tail, best, tolerance=tolerance))
            start = note.start if self.talk.start is None else self.talk.start
            if note.kind == "partial":
                self._partial(note, best, start)
            elif note.kind == "split":
                self._split(note, best, start)
            else:
                self._final(self.segment(best, start, max(start, note.end), note.limit, self.stream))
                self.talk = Talk()
        return self.talk, self.events

    def _told(self, event: SpeechStart | SpeechEnd) -> Event:
        """The event on this channel; the end of speech is not before the end of its last segment."""
        last = next((e.segment.end for e in reversed(self.events) if isinstance(e, Final)), 0.0)
        return replace(event, channel=self.stream.channel, time=max(event.time, last))

    def _partial(self, note: Note, best: Hypothesis, start: float) -> None:
        words = self.segment(best, start, max(start, note.end), note.limit, self.stream).words
        agreement = self.talk.agreement.update(words, limit=note.cut)
        stable, unstable = agreement.texts
        self.talk = replace(self.talk, agreement=agreement)
        if stable + unstable and (stable, stable + unstable) != self.talk.told:
            self.talk = replace(self.talk, told=(stable, stable + unstable))
            self.events.append(Partial(stable, unstable, start, self.stream.channel))

    def _split(self, note: Note, best: Hypothesis, start: float) -> None:
        """The end of a phrase without a pause: it keeps what comes before a word near the middle of the overlap."""
        assert note.cut is not None
        edge = EDGE_S * self.geometry.rate / self.geometry.hop
        least = self.geometry.frame_at(max(start, self.talk.agreement.end))
        index, tail = split(best, self.tokens, cut=note.cut, zone=note.zone, least=least, edge=edge)
        end = max(start, self.geometry.seconds_at(tail.border))
        final = self._final(self.segment(sliced(best, 0, index), start, end, end, self.stream))
        self.talk = Talk(tail, final.end)

    def _final(self, segment: Segment) -> Segment:
        """A Final that begins with what partials called stable, and a Refined where the last decode reads otherwise."""
        bound = self.talk.agreement.bound(segment)
        if bound.text:
            self.events.append(Final(bound))
            if bound.text != segment.text:
                self.events.append(Refined(replace(segment, start=bound.start, end=bound.end)))
        return bound
