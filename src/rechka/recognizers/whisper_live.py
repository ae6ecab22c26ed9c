"""Live phrases for Whisper: every phrase is a window of its own, decoded again and again while it is open.

The text before a phrase is its prompt. A phrase that was cut without a pause and the next one hear the audio around the
cut, and are joined by their words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from rechka.decoding.whisper.stitch import border
from rechka.decoding.whisper.words import spread
from rechka.recognizers.agreement import Agreement
from rechka.recognizers.phrase_walk import Geometry, Note, Noted
from rechka.recognizers.whisper_modes import WINDOW, Setting, shifted
from rechka.recognizers.whisper_packed import Phrased
from rechka.recognizers.whisper_window import RATE, Read, Window
from rechka.segmentation import Segmenter
from rechka.types import F32, Event, Final, Partial, Refined, Segment, SpeechEnd, SpeechStart, Word

EDGE_S = 0.5
"""Words that end so long before the end of what was heard are told as final under ``commit = "alignment"``."""
PROMPT_CHARS = 200
"""Text before a live phrase that is its prompt. Source: whisper_streaming."""


@dataclass(eq=False)
class Live(Phrased):
    """One phrase after another, each shown while it is open."""

    queue: tuple[Noted, ...] = ()
    agreement: Agreement = field(default_factory=Agreement)
    told: tuple[str, str] = ("", "")
    emitted: tuple[Word, ...] = ()
    """Words of a phrase that was cut without a pause, from where the next one hears again."""
    overlap: tuple[float, float] | None = None
    previous: str = ""
    votes: tuple[Window, ...] = ()

    def hear(self, audio: F32, speech: F32 | None, energy: F32 | None, *, last: bool) -> None:
        """See ``Mode``. Of several decodes of an open phrase that wait only the newest is made."""
        super().hear(audio, speech, energy, last=last)
        notes = [*self.queue, *self.noted(audio, speech, last=last)]
        stale = {
            i for i, (one, after) in enumerate(pairwise(notes))
            if isinstance(one, Note) and one.kind == "partial" and isinstance(after, Note)
        }  # fmt: skip
        self.queue = tuple(note for i, note in enumerate(notes) if i not in stale)

    @property
    def undecided(self) -> bool:
        """The first phrases vote; until then the newest vote counts."""
        return not self.setting.options.language and len(self.votes) < self.setting.options.language_windows

    def voters(self) -> list[Window] | None:
        """Phrases that were closed, and the one that is next."""
        note = self._note()
        return None if note is None else [*self.votes, self._window(note)]

    def _note(self) -> Note | None:
        return next((note for note in self.queue if isinstance(note, Note)), None)

    def _window(self, note: Note) -> Window:
        _, speech = self.island(note)
        partial = note.kind == "partial"
        text = tuple(self.setting.encode(" " + self.previous)) if self.previous else self.setting.opening
        return Window(
            note.audio, self.language, text, self.setting.hotwords, False, speech, self.setting.step,
            once=partial, words=True,
        )  # fmt: skip

    def windows(self) -> list[Window]:
        """The next phrase: it may be the prompt of the one after it."""
        note = self._note()
        return [] if note is None else [self._window(note)]

    def take(self, reads: Sequence[Read]) -> list[Event]:
        """The events up to that phrase, and of the notes behind it that need no decode."""
        events: list[Event] = []
        queue = list(self.queue)
        waiting = list(reads)
        while queue and (waiting or not isinstance(queue[0], Note)):
            note = queue.pop(0)
            if isinstance(note, Note):
                events += self._told(note, waiting.pop(0))
            else:
                events.append(self._bound(note, events))
        self.queue = tuple(queue)
        if not queue:
            self.forget(self.audio.end - WINDOW - 2 * RATE)
        return events

    def _bound(self, note: SpeechStart | SpeechEnd, events: Sequence[Event]) -> Event:
        """On this channel; the end of speech is not before the end of its last segment."""
        last = next((event.segment.end for event in reversed(events) if isinstance(event, Final)), 0.0)
        time = max(note.time, last) if isinstance(note, SpeechEnd) else note.time
        return replace(note, channel=self.setting.channel, time=time)

    def _told(self, note: Note, read: Read) -> list[Event]:
        assert self.geometry is not None
        begin = note.frame * self.geometry.hop / RATE
        limit = begin + len(note.audio) / RATE
        words = [
            replace(word, start=word.start + begin, end=word.end + begin)
            for line in read.lines
            for word in (line.words or spread(line.text, line.start, line.end))
        ]
        if self.overlap is not None:
            kept, gone = border(self.emitted, words, self.overlap)
            # What was told of the phrase before stays; the border may lie before its end.
            words = words[min(len(words), gone + (len(self.emitted) - kept if gone else 0)) :]
        start = max(note.start, self.emitted[-1].end) if self.emitted else note.start
        words = [replace(word, start=max(word.start, start), end=max(word.end, start)) for word in words]
        if note.kind == "partial":
            return self._partial(words, start, limit, note.cut)
        cut = None
        if note.kind == "split" and note.cut is not None:
            cut = max(self.geometry.seconds_at(note.cut), self.agreement.end)
        tail = [word for word in words if cut is not None and word.end > self.zone(note)[0]]
        if cut is not None:
            words = [word for word in words if (word.start + word.end) / 2 < cut]
        events = self._finals(words, read, start, max(start, note.end if cut is None else cut), begin)
        said = " ".join(word.text for word in words)
        self.previous = "" if read.reset else (self.previous + " " + said)[-PROMPT_CHARS:].strip()
        if not self.setting.options.use_previous:
            self.previous = ""
        self.emitted = tuple(word for word in words if word in tail) if cut is not None else ()
        self.overlap = self.zone(note) if cut is not None else None
        self.agreement, self.told = Agreement(), ("", "")
        if self.undecided:
            self.votes = (*self.votes, self._window(note))
        return events

    def _partial(self, words: Sequence[Word], start: float, limit: float, cut: float | None) -> list[Event]:
        if self.setting.options.commit == "alignment":
            # Simul-Whisper's policy after the fact: what is attended well before the end will not change.
            held = self.agreement.applied(words)
            limit = limit - EDGE_S if cut is None else min(cut, limit - EDGE_S)
            sure = next((i for i, word in enumerate(held) if word.end > limit), len(held))
            self.agreement = Agreement(held[: max(sure, len(self.agreement.stable))], held)
        else:
            self.agreement = self.agreement.update(words, limit=cut)
        stable, unstable = self.agreement.texts
        if not stable + unstable or (stable, stable + unstable) == self.told:
            return []
        self.told = (stable, stable + unstable)
        return [Partial(stable, unstable, start, self.setting.channel)]

    def _finals(self, words: Sequence[Word], read: Read, start: float, end: float, begin: float) -> list[Event]:
        """A Final that begins with what partials called stable, and a Refined where the text reads otherwise."""
        self.note(read.dropped, shifted(begin))
        text = " ".join(word.text for word in words)
        end = max(end, words[-1].end) if words else end
        bare = Segment(text, start, end, tuple(words), self.setting.speaker, self.setting.channel)
        bound = self.agreement.bound(bare)
        if not bound.text:
            return []
        line = read.lines[0] if read.lines else None
        labels = {} if line is None else self.final("", start, end, (), line).segment.labels
        final = replace(bound, labels=labels)
        events: list[Event] = [Final(final)]
        if bound.text != text:
            events.append(Refined(replace(bare, start=bound.start, end=bound.end, labels=labels)))
        return events


def live(setting: Setting, language: str, segmenter: Segmenter, geometry: Geometry) -> Live:
    """The state of a live stream."""
    return Live(setting, language, segmenter=segmenter, geometry=geometry, partials=True)
