"""Windows packed with speech: what a VAD finds is decoded, silence is not.

Whisper reads 30 seconds at the same cost whatever is in them, so phrases are packed until a window is full; times are
mapped back. What the VAD takes for silence although it is loud gets a second look in windows of its own, whose text
must stand without any sign against it. A phrase that is too long is cut at its best pause, or else both parts hear the
audio around the cut and are joined by their words.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rechka.recognizers.phrase_walk import Geometry, Note, Noted, Walk, WalkState
from rechka.recognizers.whisper_modes import SHORTEST, WINDOW, Held, Joined, Setting
from rechka.recognizers.whisper_window import RATE, Read, Window, level_db
from rechka.segmentation import Segmenter
from rechka.types import F32, Event

PACK_S = 60.0
"""A window holds speech of no more than a minute of the recording, however little it is: live, text waits for it."""
LOOK_SPEECH = 0.3
"""Below this speech probability a window is silence for the second look."""
LOOK_MIN_S, LOOK_GAP_S, LOOK_MAX_S = 1.0, 0.3, 20.0
LOOK_DB = -45.0
"""A stretch below this level of full scale is not worth a second look."""
EARLY_S = 0.15
"""A word that seems to begin so shortly before the end of an island belongs to the next."""


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


def packed(setting: Setting, language: str, segmenter: Segmenter, geometry: Geometry, *, look: bool) -> Packed:
    """The state of a stream in packed mode."""
    looker = Looker(setting.step) if look else None
    return Packed(setting, language, segmenter=segmenter, geometry=geometry, looker=looker)
