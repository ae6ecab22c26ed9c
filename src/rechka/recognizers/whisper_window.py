"""Windows of a Whisper recogniser: from audio to lines of text with times, retries, guards and words included.

All windows that are known at a time share the model's calls, in batches; what comes of a window does not depend on the
others. A window that holds more text than Whisper can write is divided at a pause and read in parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rechka.decoding.whisper import (
    Attempt,
    Codec,
    Kernel,
    Prompt,
    Task,
    WhisperOptions,
    decode,
    guards,
    prompt,
    stamps,
    words,
)
from rechka.decoding.whisper.dense import middle_pause
from rechka.decoding.whisper.language import follow, vote
from rechka.types import F32, Word

RATE = 16000
POSITION = 320
"""Samples of a position, 20 ms."""
HOP = 160
LOUD_S = 0.5
REST_S = 0.5
"""Audio of a window behind its last stamp that is not worth another look."""
MARGIN_S = 0.2
"""Text that begins so long after the last speech is after it."""


@dataclass(eq=False)
class Window:
    """What is to be decoded.

    Attributes:
        audio: (n,) at 16 kHz, at most 30 s, at least a position.
        language: code; must be known when it is decoded, unless it is followed.
        previous: text tokens before it.
        hotwords: to expect.
        stamps: whether the model writes time stamps.
        speech: speech probability of every ``step`` samples, or None without a detector.
        step: see ``speech``.
        silence_s: silence before the window.
        doubtful: the detector says that nobody speaks here; only text without any sign against it is taken.
        once: greedy and without retries, for text that is replaced soon.
        words: times of words are needed whatever the options say.
        follows: the next window begins where the stamps of this one say; else all of it is read here.
        encoded: by the kernel, when that has been done.
    """

    audio: F32
    language: str = ""
    previous: tuple[int, ...] = ()
    hotwords: tuple[str, ...] = ()
    stamps: bool = False
    speech: F32 | None = None
    step: int = 512
    silence_s: float = math.inf
    doubtful: bool = False
    once: bool = False
    words: bool = False
    follows: bool = False
    encoded: Any = None

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.audio) / RATE


@dataclass(frozen=True, slots=True)
class Line:
    """A segment of a window; seconds from the window's beginning.

    Attributes:
        tokens: of its text.
        words: empty unless asked for.
        attempt: what it comes from.
        signs: what speaks against it.
        language: of the window.
    """

    text: str
    start: float
    end: float
    tokens: tuple[int, ...]
    words: tuple[Word, ...]
    attempt: Attempt
    signs: tuple[str, ...] = ()
    language: str = ""

    def labels(self) -> dict[str, Any]:
        """For ``Segment.labels``."""
        found = self.attempt.figures()
        if self.signs:
            found["signs"] = list(self.signs)
        return found


@dataclass(frozen=True, slots=True)
class Read:
    """What came of a window.

    Attributes:
        lines: in order.
        dropped: lines that were not believed, each with its signs.
        advance: samples by which to go on; all of the window unless its stamps say less.
        reset: the text is too doubtful to be given as a prompt.
    """

    lines: tuple[Line, ...]
    dropped: tuple[Line, ...]
    advance: int
    reset: bool


@dataclass(eq=False)
class _Part:
    """A window, or a part of one that was divided."""

    owner: int
    offset: int
    audio: F32
    last: bool
    encoded: Any = None
    attempt: Attempt | None = None
    pieces: tuple[stamps.Piece, ...] = ()
    advance: int = 0
    replaced: bool = False
    words: list[list[Word]] = field(default_factory=list)


class WindowReader:
    """Reads windows.

    Args:
        kernel: the model.
        codec: its tokens.
        options: how to decode.
    """

    def __init__(self, kernel: Kernel, codec: Codec, options: WhisperOptions) -> None:
        self.kernel, self.codec, self.options = kernel, codec, options
        self.head(options.language or "en")  # what the model cannot do is told now

    def head(self, language: str) -> tuple[int, ...]:
        """Start of transcript, language, task."""
        return prompt.head(
            self.codec.special, language=language, task=self.options.task, multilingual=self.kernel.multilingual
        )

    def languages(self, windows: Sequence[Window]) -> list[Mapping[str, float]]:
        """Language probabilities of windows, which stay encoded."""
        found: list[Mapping[str, float]] = []
        for batch in self._batches(windows):
            self._encode(batch)
            found += self.kernel.detect_language([window.encoded for window in batch])
        return found

    def language(self, windows: Sequence[Window]) -> str:
        """The language of a recording by the votes of its windows, weighed by their speech."""
        pairs = zip(self.languages(windows), (_speech_s(window) for window in windows), strict=True)
        return vote(list(pairs), self.options.languages)[0] or "en"

    def read(self, windows: Sequence[Window]) -> list[Read]:
        """Each window read."""
        return [read for batch in self._batches(windows) for read in self._read(batch)]

    def _batches(self, windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
        size = self.options.batch_size
        return (windows[first : first + size] for first in range(0, len(windows), size))

    def _encode(self, items: Sequence[Any]) -> None:
        fresh = [item for item in items if item.encoded is None]
        for item, encoded in zip(fresh, self.kernel.encode([one.audio for one in fresh]) if fresh else [], strict=True):
            item.encoded = encoded

    def _read(self, windows: Sequence[Window]) -> list[Read]:
        self._encode(windows)
        if self.options.follow_language and self.kernel.multilingual:
            for window, found in zip(windows, self.languages(windows), strict=True):
                window.language = follow(found, window.language, self.options.languages)
        waiting = [_Part(i, 0, one.audio, True, one.encoded) for i, one in enumerate(windows)]
        done: list[_Part] = []
        while waiting:
            self._encode(waiting)
            tasks = [self._task(part, windows[part.owner]) for part in waiting]
            divided: list[_Part] = []
            attempts = decode(self.kernel, self.codec, tasks, self.options)
            for part, attempt in zip(waiting, attempts, strict=True):
                part.attempt = attempt
                divided += self._divided(part, windows[part.owner])
                done += [] if part.replaced else [part]
            waiting = divided
        for window in windows:
            window.encoded = None
        done.sort(key=lambda part: (part.owner, part.offset))
        self._align(done, windows)
        return [self._result(window, [part for part in done if part.owner == i]) for i, window in enumerate(windows)]

    def _task(self, part: _Part, window: Window) -> Task:
        """A part of a divided window begins anew: the text before it is not known yet."""
        previous = window.previous if part.offset == 0 else ()
        before = prompt.before(self.codec, hotwords=window.hotwords, previous=previous)
        return Task(
            part.encoded,
            Prompt(before, self.head(window.language), window.stamps),
            self.codec.decode(before),
            window.language,
            window.once,
        )

    def _divided(self, part: _Part, window: Window) -> list[_Part]:
        """What is still to be read of a part: that behind its last pair of stamps, or both halves of a dense one.

        Its pieces are read here, unless it is divided into halves, which are decoded anew.
        """
        attempt = part.attempt
        assert attempt is not None
        part.advance = len(part.audio)
        if attempt.silent:
            return []
        if window.stamps:
            if self._stamped(part, attempt, follows=window.follows and part.last):
                return [] if window.follows and part.last else self._rest(part)
        else:
            text = tuple(token for token in attempt.tokens if self.codec.special.is_text(token))
            part.pieces = (stamps.Piece(0, max(1, len(part.audio) // POSITION), text),) if text else ()
        looped = {"loop", "compression"} & set(attempt.reasons)  # a loop would fill any half too
        if not attempt.truncated or looped or window.once:
            return []
        cut = middle_pause(part.audio, RATE)
        if cut is None:
            return []
        part.replaced = True
        return [
            _Part(part.owner, part.offset, part.audio[:cut], False),
            _Part(part.owner, part.offset + cut, part.audio[cut:], part.last),
        ]

    def _stamped(self, part: _Part, attempt: Attempt, *, follows: bool) -> bool:
        """Pieces of a part by its stamps; True if a pair of them says where to go on."""
        reading = stamps.read(
            attempt.tokens, self.codec.special, size=max(1, len(part.audio) // POSITION),
            final=not follows and not attempt.truncated, truncated=attempt.truncated,
        )  # fmt: skip
        part.pieces = reading.pieces
        if reading.complete:
            part.advance = min(reading.advance * POSITION, len(part.audio))
        return reading.complete

    @staticmethod
    def _rest(part: _Part) -> list[_Part]:
        """What lies behind the last pair of stamps, in windows that no other one follows."""
        if len(part.audio) - part.advance < REST_S * RATE:
            return []
        return [_Part(part.owner, part.offset + part.advance, part.audio[part.advance :], part.last)]

    def _align(self, parts: Sequence[_Part], windows: Sequence[Window]) -> None:
        """Word times of all parts that have text and want them."""
        groups: dict[str, list[_Part]] = {}
        for part in parts:
            window = windows[part.owner]
            if part.pieces and (self.options.word_times or window.words):
                groups.setdefault(window.language, []).append(part)
        for language, members in groups.items():
            for first in range(0, len(members), self.options.batch_size):
                batch = members[first : first + self.options.batch_size]
                texts = [[token for piece in part.pieces for token in piece.tokens] for part in batch]
                frames = [min(3000, max(2, len(part.audio) // HOP)) for part in batch]
                encoded = [part.encoded for part in batch]
                found = self.kernel.align(encoded, self.head(language), texts, frames)
                for part, text, alignment in zip(batch, texts, found, strict=True):
                    part.words = self._words(part, text, alignment, language)

    def _words(self, part: _Part, text: Sequence[int], alignment: Any, language: str) -> list[list[Word]]:
        """The words of each piece, on the clock of the part. Words are split within pieces, never across."""
        found, at = [], 0
        for piece in part.pieces:
            split = [
                words.Piece(one.text, one.first + at, one.last + at)
                for one in words.split(self.codec, text[at : at + len(piece.tokens)], language)
            ]
            found.append(words.timed(split, alignment, end=len(part.audio) / RATE))
            at += len(piece.tokens)
        return found

    def _result(self, window: Window, parts: Sequence[_Part]) -> Read:
        lines = [line for part in parts for line in self._lines(part, window)]
        kept, dropped = self._guarded(lines, window)
        attempts = [part.attempt for part in parts if part.attempt is not None]
        doubtful = any(one.temperature > self.options.reset_temperature or one.failed for one in attempts)
        last = parts[-1]
        return Read(tuple(kept), tuple(dropped), max(POSITION, last.offset + last.advance), doubtful)

    def _lines(self, part: _Part, window: Window) -> Iterator[Line]:
        assert part.attempt is not None
        offset = part.offset / RATE
        limit = offset + len(part.audio) / RATE
        for i, piece in enumerate(part.pieces):
            text = self.codec.decode(piece.tokens).strip()
            if not any(char.isalnum() for char in text):
                continue
            timed = part.words[i] if part.words else []
            moved = tuple(Word(w.text, w.start + offset, w.end + offset, w.confidence) for w in timed)
            start = moved[0].start if moved else min(limit, offset + piece.start * POSITION / RATE)
            end = moved[-1].end if moved else min(limit, offset + piece.end * POSITION / RATE)
            yield Line(text, start, max(start, end), piece.tokens, moved, part.attempt, (), window.language)

    def _guarded(self, lines: Sequence[Line], window: Window) -> tuple[list[Line], list[Line]]:
        """Lines that are believed, and those that are not."""
        loudest = _loudest_db(window.audio)
        kept: list[Line] = []
        dropped: list[Line] = []
        for line in lines:
            found = guards.signs(
                line.text, line.end - line.start, self._surroundings(line, window, loudest),
                max_words_s=self.options.max_words_s, max_no_speech=self.options.max_no_speech,
            )  # fmt: skip
            told = replace(line, signs=found)
            doubted = window.doubtful and (line.attempt.reasons or set(found) - {"no speech", "after speech"})
            (dropped if guards.condemned(found) or doubted else kept).append(told)
        if self.options.guard_silence_s > 0 and kept and all(line.words for line in kept):
            odd = guards.isolated(
                [line.words for line in kept], size=window.seconds, silence=self.options.guard_silence_s,
                before=window.silence_s,
            )  # fmt: skip
            dropped += [kept[i] for i in odd]
            kept = [line for i, line in enumerate(kept) if i not in odd]
        return kept, dropped

    def _surroundings(self, line: Line, window: Window, loudest_db: float) -> guards.Surroundings:
        piece = window.audio[int(line.start * RATE) : max(int(line.end * RATE), int(line.start * RATE) + POSITION)]
        share, after = None, False
        if window.speech is not None and len(window.speech):
            active = window.speech >= guards.SPEECH
            first = min(int(line.start * RATE) // window.step, len(active) - 1)
            last = max(first + 1, math.ceil(line.end * RATE / window.step))
            share = float(active[first:last].mean())
            ends = np.flatnonzero(active)
            after = len(ends) > 0 and line.start > (int(ends[-1]) + 1) * window.step / RATE + MARGIN_S
        return guards.Surroundings(share, after, level_db(piece), loudest_db, line.attempt.no_speech)


def level_db(samples: F32) -> float:
    """Mean power of samples in decibels of full scale, at least -200."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return 10.0 * math.log10(max(power, 1e-20))


def _loudest_db(samples: F32) -> float:
    """Level of the loudest half second."""
    block = round(LOUD_S * RATE)
    count = max(1, len(samples) // block)
    return max(level_db(samples[i * block : (i + 1) * block]) for i in range(count))


def _speech_s(window: Window) -> float:
    """Weight of a window's vote: its seconds of speech, or its length where nobody knows."""
    if window.speech is None:
        return window.seconds
    return 0.1 + float((window.speech >= guards.SPEECH).sum()) * window.step / RATE
