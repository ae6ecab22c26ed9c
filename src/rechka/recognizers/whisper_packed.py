"""Windows packed with speech, and live phrases: what a VAD finds is decoded, silence is not.

Whisper reads 30 seconds at the same cost whatever is in them, so phrases are packed until a window is full; times are
mapped back. What the VAD takes for silence although it is loud gets a second look in windows of its own, whose text
must stand without any sign against it. A phrase that is too long is cut at its best pause, or else both parts hear the
audio around the cut and are joined by their words.

Live, every phrase is a window of its own, decoded again and again while it is open; the text before it is its prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from rechka.decoding.whisper.stitch import border
from rechka.recognizers.agreement import Agreement
from rechka.recognizers.phrase_walk import Geometry, Note, Noted, Walk, WalkState
from rechka.recognizers.whisper_modes import SHORTEST, WINDOW, Held, Joined, Setting, shifted
from rechka.recognizers.whisper_window import RATE, Line, Read, Window, level_db
from rechka.segmentation import Segmenter
from rechka.types import F32, Event, Final, Partial, Refined, Segment, SpeechEnd, SpeechStart, Word

PACK_S = 60.0
"""A window holds speech of no more than a minute of the recording, however little it is: live, text waits for it."""
LOOK_SPEECH = 0.3
"""Below this speech probability a window is silence for the second look."""
LOOK_MIN_S, LOOK_GAP_S, LOOK_MAX_S = 1.0, 0.3, 20.0
LOOK_DB = -45.0
"""A stretch below this level of full scale is not worth a second look."""
EDGE_S = 0.5
"""Words that end so long before the end of what was heard are told as final under ``commit = "alignment"``."""
EARLY_S = 0.15
"""A word that seems to begin so shortly before the end of an island belongs to the next."""
PROMPT_CHARS = 200
"""Text before a live phrase that is its prompt. Source: whisper_streaming."""


@dataclass(frozen=True, slots=True)
class Island:
    """Audio that is worth decoding.

    Attributes:
        audio: (n,) samples.
        start: index of its first sample in the stream.
        speech: probability per detector window of it.
        doubtful: the VAD says that it is silence.
        zone: seconds that the island before heard too, if there was no pause between them.
        split: the next island hears its end again.
    """

    audio: F32
    start: int
    speech: F32
    doubtful: bool = False
    zone: tuple[float, float] | None = None
    split: bool = False

    @property
    def end(self) -> int:
        """Index one past its last sample."""
        return self.start + len(self.audio)


@dataclass(frozen=True, slots=True)
class Pack:
    """Islands that share a window."""

    islands: tuple[Island, ...]

    @property
    def size(self) -> int:
        """Samples."""
        return sum(len(island.audio) for island in self.islands)

    def takes(self, island: Island) -> bool:
        """True if one more island goes in."""
        first, last = self.islands[0], self.islands[-1]
        return self.size + len(island.audio) <= WINDOW and island.end - first.start <= PACK_S * RATE and not last.split

    def clock(self, start: float, end: float) -> tuple[float, float]:
        """From seconds of the window to those of the stream, both within the island where a word begins.

        A word ends where the next one begins, so in the window it may reach over the pause that was taken out.
        """
        begin = 0.0
        at = min(start + EARLY_S, (start + end) / 2)
        for island in self.islands:
            length = len(island.audio) / RATE
            if at < begin + length or island is self.islands[-1]:
                first, last = (min(max(time - begin, 0.0), length) for time in (start, end))
                return island.start / RATE + first, island.start / RATE + last
            begin += length
        raise AssertionError("a pack has islands")


class Looker:
    """Finds what is loud although the VAD hears no speech. Windows are those of the detectors.

    Args:
        step: samples per window.
    """

    def __init__(self, step: int) -> None:
        self.index = 0
        self.run: int | None = None
        self._loud = 0
        self._least, self._gap, self._most = (round(s * RATE / step) for s in (LOOK_MIN_S, LOOK_GAP_S, LOOK_MAX_S))

    def hear(self, speech: F32, energy: F32, *, last: bool = False) -> list[tuple[int, int]]:
        """Stretches (first, last) that are over, in windows, after two more arrays of probabilities."""
        found: list[tuple[int, int]] = []
        for quiet, loud in zip((speech < LOOK_SPEECH).tolist(), (energy >= 0.5).tolist(), strict=True):
            if self.run is not None and (
                not quiet or self.index - self._loud > self._gap or self.index - self.run >= self._most
            ):
                self._close(found)
            if quiet and loud:
                self.run = self.index if self.run is None else self.run
                self._loud = self.index
            self.index += 1
        if last and self.run is not None:
            self._close(found)
        return found

    def _close(self, found: list[tuple[int, int]]) -> None:
        assert self.run is not None
        if self._loud + 1 - self.run >= self._least:
            found.append((self.run, self._loud + 1))
        self.run = None


@dataclass(eq=False)
class Phrased(Joined):
    """Islands from the VAD: what packed and live windows share."""

    segmenter: Segmenter | None = None
    geometry: Geometry | None = None
    walk: WalkState | None = None
    partials: bool = False

    def noted(self, audio: F32, speech: F32 | None, *, last: bool) -> list[Noted]:
        """What the walk over the new audio asks for."""
        assert self.segmenter is not None
        assert self.geometry is not None
        assert speech is not None
        walk = Walk(self.segmenter, self.geometry, self.walk or self.fresh(), partials=self.partials)
        walk.hear(audio, speech, last=last)
        self.walk = walk.result()
        return walk.notes

    def fresh(self) -> WalkState:
        """Nothing heard."""
        assert self.segmenter is not None
        return WalkState(self.segmenter.initial_state())

    def island(self, note: Note) -> tuple[int, F32]:
        """First sample of a note and the speech probabilities of its audio."""
        assert self.geometry is not None
        start, step = note.frame * self.geometry.hop, self.setting.step
        return start, self.speech.part(start // step, -(-(start + len(note.audio)) // step))

    def zone(self, note: Note) -> tuple[float, float]:
        """Seconds that the next island hears again."""
        assert self.geometry is not None
        return self.geometry.seconds_at(note.zone[0]), self.geometry.seconds_at(note.zone[1])


@dataclass(eq=False)
class Packed(Phrased):
    """Speech in full windows."""

    looker: Looker | None = None
    open: Mapping[bool, Pack] = field(default_factory=dict)
    """Packs that are not full, by whether they are doubtful."""
    ready: tuple[Pack, ...] = ()
    next_zone: tuple[float, float] | None = None
    reached: int = 0

    def fork(self) -> Packed:
        """A copy that may be changed."""
        other: Packed = super().fork()
        other.looker = copy.copy(self.looker)
        return other

    def hear(self, audio: F32, speech: F32 | None, energy: F32 | None, *, last: bool) -> None:
        """See ``Mode``."""
        super().hear(audio, speech, energy, last=last)
        islands = [self._phrase(note) for note in self.noted(audio, speech, last=last) if isinstance(note, Note)]
        if self.looker is not None and speech is not None and energy is not None:
            count = min(len(speech), len(energy))
            stretches = self.looker.hear(speech[:count], energy[:count], last=last)
            islands += [island for one in stretches if (island := self._look(one, islands)) is not None]
        for island in sorted(islands, key=lambda one: one.start):
            self._add(island)
        waiting = self.walk is not None and self.walk.phrase is not None
        waiting = waiting or (self.looker is not None and self.looker.run is not None)
        for doubtful, pack in list(self.open.items()):
            overdue = self.audio.end - pack.islands[0].start > (PACK_S + 1.0) * RATE
            if last or (overdue and not waiting):
                self._close(doubtful)
        self.forget(self.audio.end - round((LOOK_MAX_S + PACK_S / 2) * RATE))

    def _phrase(self, note: Note) -> Island:
        start, speech = self.island(note)
        zone, self.next_zone = self.next_zone, None
        if note.kind == "split":
            self.next_zone = self.zone(note)
        return Island(note.audio, start, speech, zone=zone, split=note.kind == "split")

    def _look(self, stretch: tuple[int, int], islands: Sequence[Island]) -> Island | None:
        """A stretch as an island; None if a phrase covers it, or it is too quiet."""
        step = self.setting.step
        first, last = stretch[0] * step, min(stretch[1] * step, self.audio.end)
        first = max([first, self.reached, *(one.end for one in islands if one.start <= first)])
        last = min([last, *(one.start for one in islands if one.start > first)])
        audio = self.audio.part(first, last)
        if len(audio) < LOOK_MIN_S * RATE / 2 or level_db(audio) < LOOK_DB:
            return None
        return Island(audio, first, self.speech.part(first // step, -(-last // step)), doubtful=True)

    def _add(self, island: Island) -> None:
        if len(island.audio) < SHORTEST:
            return
        self.reached = max(self.reached, island.end)
        pack = self.open.get(island.doubtful)
        if pack is not None and (island.zone is not None or not pack.takes(island)):
            self._close(island.doubtful)
            pack = None
        self.open = {**self.open, island.doubtful: Pack((island,) if pack is None else (*pack.islands, island))}

    def _close(self, doubtful: bool) -> None:
        self.ready = (*self.ready, self.open[doubtful])
        self.open = {key: pack for key, pack in self.open.items() if key != doubtful}

    def voters(self) -> list[Window] | None:
        """The first packs, those with speech if there are any."""
        wanted = self.setting.options.language_windows
        if len(self.ready) < wanted and not self.last:
            return None
        sure = [pack for pack in self.ready if not pack.islands[0].doubtful]
        packs = (sure or self.ready)[:wanted]
        self.voted = {(pack.islands[0].start, pack.islands[-1].end): self._window(pack) for pack in packs}
        return list(self.voted.values())

    def windows(self) -> list[Window]:
        """All packs that are full."""
        return [self._window(pack) for pack in self.ready]

    def _window(self, pack: Pack) -> Window:
        voter = self.voted.get((pack.islands[0].start, pack.islands[-1].end))
        return Window(
            np.concatenate([island.audio for island in pack.islands]),
            self.language, self.setting.opening, self.setting.hotwords, self.setting.options.with_stamps,
            np.concatenate([island.speech for island in pack.islands]), self.setting.step,
            doubtful=pack.islands[0].doubtful, words=pack.islands[0].zone is not None or pack.islands[-1].split,
            encoded=None if voter is None else voter.encoded,
        )  # fmt: skip

    def take(self, reads: Sequence[Read]) -> list[Event]:
        """Segments, divided at the pauses between phrases."""
        events: list[Event] = []
        for pack, read in zip(self.ready[: len(reads)], reads, strict=True):
            if pack.islands[0].doubtful:
                self.note(read.dropped, pack.clock)
                events += self.tell(self.heard(read, pack.clock))
                continue
            events += self.join(read, pack.clock, pack.islands[0].zone)
            if not pack.islands[-1].split:
                events += self.tell(self.held)
                self.held = Held()
        self.ready = self.ready[len(reads) :]  # without a language yet, none was read
        if self.last and not self.open and not self.ready:
            events += self.tell(self.held)
            self.held = Held()
        return events


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
            for word in (line.words or spread_line(line))
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


def spread_line(line: Line) -> list[Word]:
    """Words of a line without word times."""
    from rechka.decoding.whisper.words import spread

    return spread(line.text, line.start, line.end)


def packed(setting: Setting, language: str, segmenter: Segmenter, geometry: Geometry, *, look: bool) -> Packed:
    """The state of a stream in packed mode."""
    looker = Looker(setting.step) if look else None
    return Packed(setting, language, segmenter=segmenter, geometry=geometry, looker=looker)


def live(setting: Setting, language: str, segmenter: Segmenter, geometry: Geometry) -> Live:
    """The state of a live stream."""
    return Live(setting, language, segmenter=segmenter, geometry=geometry, partials=True)
