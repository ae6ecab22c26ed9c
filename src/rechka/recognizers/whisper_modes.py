"""How a recording is divided into windows for Whisper: one after another, overlapping, or packed with speech.

Each mode keeps the state of one stream. ``fork`` gives a copy that shares what does not change, so that a step that
fails leaves the stream as it was.

    hear(audio, ...)    more audio, and what the detectors say about it
    voters()            windows that vote on the language; None: more audio is needed
    windows()           what can be decoded now, in order; nothing: more audio is needed
    take(reads)         what came of all of them; gives events
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from rechka.decoding.whisper import WhisperOptions
from rechka.decoding.whisper.stitch import border
from rechka.decoding.whisper.words import UNSPACED, spread
from rechka.recognizers.whisper_window import RATE, Line, Read, Window
from rechka.types import F32, Event, Final, Segment, Word

Clock: TypeAlias = Callable[[float, float], tuple[float, float]]
"""From a start and an end in seconds of a window to those of the stream."""


Dropped: TypeAlias = tuple[float, float, str, tuple[str, ...]]
"""Start, end, text and signs of a line that was not believed."""


def reported(dropped: Sequence[Dropped]) -> list[dict[str, Any]]:
    """For ``Segment.labels``."""
    return [{"start": round(a, 3), "end": round(b, 3), "text": text, "signs": list(s)} for a, b, text, s in dropped]


def shifted(by: float) -> Clock:
    """The clock of a window that is a piece of the stream as it is."""
    return lambda start, end: (start + by, end + by)


WINDOW = 30 * RATE
SHORTEST = RATE // 10
"""A rest of less than 0.1 s at the end of a recording holds no word."""
PAUSE_S = 0.6
"""A pause this long divides the words of a window into segments."""


class Track:
    """Numbers on a time axis, of which the oldest are forgotten: samples, or one value per window of a detector."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self._pieces: list[F32] = []

    def fork(self) -> Track:
        """A copy."""
        other = copy.copy(self)
        other._pieces = list(self._pieces)
        return other

    def push(self, values: F32) -> None:
        """Append; the array must not be changed afterwards."""
        if len(values):
            self._pieces.append(values)
            self.end += len(values)

    def part(self, first: int, last: int) -> F32:
        """Values from ``first`` up to ``last``, those that are there."""
        found, at = [], self.start
        for piece in self._pieces:
            if at < last and at + len(piece) > first:
                found.append(piece[max(0, first - at) : max(0, last - at)])
            at += len(piece)
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def forget(self, before: int) -> None:
        """Let go of what lies before."""
        while self._pieces and self.start + len(self._pieces[0]) <= before:
            self.start += len(self._pieces.pop(0))
        if self._pieces and self.start < before:
            # A copy, so that the rest of a large piece is not held.
            self._pieces[0] = self._pieces[0][before - self.start :].copy()
            self.start = before


@dataclass(frozen=True, slots=True)
class Setting:
    """What the modes of a stream need to know.

    Attributes:
        options: of decoding.
        hotwords: of the stream.
        opening: tokens of the initial prompt.
        encode: text to tokens.
        step: samples per value of the speech detector.
        channel, speaker: of the stream.
    """

    options: WhisperOptions
    hotwords: tuple[str, ...]
    opening: tuple[int, ...]
    encode: Callable[[str], list[int]]
    step: int
    channel: int = 0
    speaker: str | None = None


@dataclass(eq=False)
class Mode:
    """What all modes share.

    Attributes:
        language: code, empty while it is not known.
        audio, speech: what may still be needed; ``speech`` is empty without a detector.
        last: all audio was heard.
        dropped: lines that were not believed and not reported yet, on the clock of the stream.
        voted: windows that voted on the language, by their first and last sample, until they are forgotten.
    """

    setting: Setting
    language: str = ""
    audio: Track = field(default_factory=Track)
    speech: Track = field(default_factory=Track)
    last: bool = False
    dropped: tuple[Dropped, ...] = ()
    voted: Mapping[tuple[int, int], Window] = field(default_factory=dict)

    def fork(self) -> Any:
        """A copy that may be changed."""
        other = copy.copy(self)
        other.audio, other.speech = self.audio.fork(), self.speech.fork()
        return other

    def hear(self, audio: F32, speech: F32 | None, energy: F32 | None, *, last: bool) -> None:
        """More audio, the probabilities of the detector windows that it completes, and whether it is the last."""
        self.audio.push(audio)
        if speech is not None:
            self.speech.push(speech)
        self.last = last

    @property
    def undecided(self) -> bool:
        """The language is not known yet."""
        return not self.language

    def window(self, first: int, last: int, **more: Any) -> Window:
        """A window of the stream's audio."""
        step = self.setting.step
        speech = self.speech.part(first // step, -(-last // step)) if self.speech.end else None
        voter = self.voted.get((first, last))
        return Window(
            self.audio.part(first, last), self.language, self.setting.opening, self.setting.hotwords,
            self.setting.options.with_stamps, speech, step, encoded=None if voter is None else voter.encoded, **more,
        )  # fmt: skip

    def ballot(self, spans: Sequence[tuple[int, int]]) -> list[Window]:
        """Windows that vote on the language; what the model encodes for it is used again."""
        self.voted = {span: self.window(*span) for span in spans}
        return list(self.voted.values())

    def forget(self, before: int) -> None:
        """Let go of audio before a sample."""
        self.audio.forget(before)
        self.speech.forget(before // self.setting.step)
        self.voted = {span: window for span, window in self.voted.items() if span[0] >= before}

    def final(self, text: str, start: float, end: float, words: Sequence[Word], line: Line) -> Final:
        """A segment with what its window tells about it, and with what was dropped before it."""
        labels = line.labels()
        if self.setting.options.follow_language and line.language != self.language:
            labels["language"] = line.language
        if self.dropped:
            labels["dropped"] = reported(self.dropped)
            self.dropped = ()
        return Final(Segment(text, start, end, tuple(words), self.setting.speaker, self.setting.channel, labels))

    def note(self, lines: Sequence[Line], clock: Clock) -> None:
        """Remember lines that were dropped."""
        self.dropped += tuple((*clock(line.start, line.end), line.text, line.signs) for line in lines)


@dataclass(eq=False)
class Sequential(Mode):
    """Window after window, each beginning where the stamps of the one before say, and knowing its text.

    Source: section 3.8 of the Whisper paper.
    """

    seek: int = 0
    previous: tuple[int, ...] = ()
    told_until: float = -math.inf
    begun: bool = False

    def voters(self) -> list[Window] | None:
        """The first windows of 30 seconds."""
        wanted = self.setting.options.language_windows * WINDOW
        if self.audio.end < wanted and not self.last:
            return None
        ends = min(self.audio.end, wanted)
        return self.ballot([(first, min(first + WINDOW, ends)) for first in range(0, ends - SHORTEST + 1, WINDOW)])

    def windows(self) -> list[Window]:
        """The next one."""
        rest = self.audio.end - self.seek
        if rest < (SHORTEST if self.last else WINDOW):
            return []
        window = self.window(self.seek, self.seek + min(rest, WINDOW), follows=True)
        if not self.begun:
            self.begun, self.previous = True, self.setting.opening
        window.previous = self.previous if self.setting.options.use_previous else self.setting.opening
        window.silence_s = self.seek / RATE - self.told_until
        return [window]

    def take(self, reads: Sequence[Read]) -> list[Event]:
        """Lines as they are."""
        events: list[Event] = []
        for read in reads:
            start = self.seek / RATE
            self.note(read.dropped, shifted(start))
            for line in read.lines:
                words = [replace(word, start=word.start + start, end=word.end + start) for word in line.words]
                events.append(self.final(line.text, start + line.start, start + line.end, words, line))
                self.told_until = start + line.end
            said = tuple(token for line in read.lines for token in line.tokens)
            self.previous = self.setting.opening if read.reset else (self.previous + said)[-448:]
            self.seek = min(self.seek + read.advance, self.audio.end)
        self.forget(self.seek)
        return events


@dataclass(frozen=True, slots=True)
class Held:
    """Words that wait for the window after theirs, which heard the end of them too."""

    words: tuple[Word, ...] = ()
    lines: tuple[Line, ...] = ()
    """For each word the line that it comes from."""


@dataclass(eq=False)
class Joined(Mode):
    """Windows whose texts are joined by words: what chunked and packed mode share."""

    held: Held = field(default_factory=Held)

    def join(self, read: Read, clock: Clock, overlap: tuple[float, float] | None) -> list[Event]:
        """The words of a window behind those that are held; these are told as far as they are certain.

        Args:
            read: of the window.
            clock: of the window.
            overlap: seconds that the window before heard too; None if there is no such window.
        """
        heard = self.heard(read, clock)
        kept, gone = len(self.held.words), 0
        if overlap is not None:
            kept, gone = border(self.held.words, heard.words, overlap)
        events = self.tell(Held(self.held.words[:kept], self.held.lines[:kept]))
        self.note(read.dropped, clock)
        self.held = Held(heard.words[gone:], heard.lines[gone:])
        return events

    def heard(self, read: Read, clock: Clock) -> Held:
        """All words of a window on the clock of the stream."""
        words: list[Word] = []
        lines: list[Line] = []
        for line in read.lines:
            for word in line.words or spread(line.text, line.start, line.end):
                start, end = clock(word.start, word.end)
                words.append(replace(word, start=start, end=end))
                lines.append(line)
        return Held(tuple(words), tuple(lines))

    def tell(self, held: Held) -> list[Event]:
        """Words as segments: of one line each, divided at pauses."""
        events: list[Event] = []
        group: list[int] = []
        for i in range(len(held.words) + 1):
            ends = i == len(held.words) or (
                group
                and (
                    held.lines[i] is not held.lines[group[-1]]
                    or held.words[i].start - held.words[group[-1]].end >= PAUSE_S
                )
            )
            if ends and group:
                words = [held.words[k] for k in group]
                line = held.lines[group[0]]
                text = ("" if line.language in UNSPACED else " ").join(word.text for word in words)
                timed = words if line.words else []
                events.append(self.final(text, words[0].start, max(word.end for word in words), timed, line))
                group = []
            group.append(i)
        return events


@dataclass(eq=False)
class Chunked(Joined):
    """Windows of equal length that overlap; the texts are joined where they agree."""

    start: int = 0
    pending: int = 0

    @property
    def size(self) -> int:
        """Samples of a window."""
        return round(self.setting.options.chunk_s * RATE)

    @property
    def shift(self) -> int:
        """Samples between the beginnings of two windows."""
        return self.size - 2 * round(self.setting.options.stride_s * RATE)

    def spans(self) -> list[tuple[int, int]]:
        """Windows that can be decoded now."""
        found, start, end = [], self.start, self.audio.end
        while start + self.size <= end:
            found.append((start, start + self.size))
            start += self.shift
        overlap = self.size - self.shift if start else 0
        if self.last and end - start - overlap >= SHORTEST:
            found.append((start, end))
        return found

    def voters(self) -> list[Window] | None:
        """The first of them."""
        spans = self.spans()
        wanted = self.setting.options.language_windows
        if len(spans) < wanted and not self.last:
            return None
        return self.ballot(spans[:wanted])

    def windows(self) -> list[Window]:
        """All that can be decoded now."""
        spans = self.spans()
        self.pending = len(spans)
        return [self.window(*span, words=True) for span in spans]

    def take(self, reads: Sequence[Read]) -> list[Event]:
        """Joined texts."""
        events: list[Event] = []
        for read in reads:
            start = self.start / RATE
            overlap = (start, start + (self.size - self.shift) / RATE) if self.start else None
            events += self.join(read, shifted(start), overlap)
            self.start += self.shift
        self.forget(self.start)
        if self.last and not self.spans():
            events += self.tell(self.held)
            self.held = Held()
        return events
