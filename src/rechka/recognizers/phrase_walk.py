"""First pass of a phrase recogniser's step: over new audio of one stream, noting what is to be decoded and told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from rechka.errors import IncompatibleParts
from rechka.segmentation import Action, Close, Cut, Feed, FrameOptions, Mark, Open, Segmenter, SegmenterState
from rechka.types import F32, ModelSpec, SpeechEnd, SpeechStart

OVERLAP_S = 3.0
"""Audio before a cut without a pause that the next phrase hears too: some words of any speaker."""
CLEAN_PAUSE_S = 0.2
"""A shorter pause may lie inside a word, at the closure of a stop consonant."""
EDGE_S = 0.5
"""Tokens this near to the edge of a decoded piece are doubtful."""
TOLERANCE_S = 0.3
"""Time by which two decodes may differ about the same token."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Lengths of a recogniser, derived from its model, VAD and options. Windows are those of the VAD.

    Attributes:
        rate, hop, shift: samples per second, per model frame, and by which a model frame's index is late (pad and lag).
        window: samples per window.
        overlap, clean: windows, from ``OVERLAP_S`` and ``CLEAN_PAUSE_S``.
        partial: windows between two decodes of an open phrase.
        longest: samples of the longest piece that the model is given, padding not counted.
    """

    rate: int
    hop: int
    shift: int
    window: int
    overlap: int
    clean: int
    partial: int
    longest: int

    @classmethod
    def of(cls, spec: ModelSpec, window: int, options: FrameOptions, partial_s: float) -> tuple[Geometry, FrameOptions]:
        """The lengths, and the options with phrases no longer than the model can read.

        Raises:
            IncompatibleParts: the model can read no more than a second or so.
        """
        rate = spec.sample_rate
        overlap = min(round(OVERLAP_S * rate / window), options.max_phrase // 3)
        if spec.max_len is not None:
            overlap = min(overlap, spec.max_len // window // 4)

        def longest(max_phrase: int) -> int:
            return (max_phrase + 1 + max(overlap, options.expand) + options.expand) * window + spec.hop

        if spec.max_len is not None:
            room = (spec.max_len - 2 * spec.pad - longest(0)) // window
            if room < rate // window:
                raise IncompatibleParts(
                    f"the model reads at most {spec.max_len / rate:g} s, too little to cut speech for",
                    remedy="shorten expand_s and max_phrase_s among the segmenter's options",
                )
            options = replace(options, max_phrase=min(options.max_phrase, room))
        partial = max(1, round(partial_s * rate / window))
        clean = max(1, round(CLEAN_PAUSE_S * rate / window))
        most = longest(options.max_phrase)
        return cls(rate, spec.hop, spec.pad + spec.lag, window, overlap, clean, partial, most), options

    def frame(self, window: float) -> float:
        """Model frame, absolute, that tells of the beginning of a window."""
        return (window * self.window + self.shift) / self.hop

    def frame_at(self, seconds: float) -> float:
        """Model frame, absolute, that tells of a time."""
        return (seconds * self.rate + self.shift) / self.hop

    def seconds_at(self, frame: float) -> float:
        """The time of which a model frame tells."""
        return max(0.0, (frame * self.hop - self.shift) / self.rate)


@dataclass(frozen=True, slots=True)
class OpenPhrase:
    """A phrase while it is spoken, in windows.

    Attributes:
        start: first speech window.
        first: first window to decode; None before the first is known.
        end: one past the last window to decode so far.
        mark: one past the last window to decode if the phrase is cut; None before it may be cut.
        pause: windows of silence at the mark.
        noted: ``end`` at the last partial.
    """

    start: int
    first: int | None = None
    end: int = 0
    mark: int | None = None
    pause: int = 0
    noted: int = 0


@dataclass(frozen=True, slots=True)
class WalkState:
    """What the walk over a stream remembers. A value.

    Attributes:
        segmenter: its state.
        kept: audio that may still be decoded, in pieces.
        kept_start: index of its first sample.
        size: samples heard.
        phrase: the open phrase.
    """

    segmenter: SegmenterState
    kept: tuple[F32, ...] = ()
    kept_start: int = 0
    size: int = 0
    phrase: OpenPhrase | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Audio to decode, and what the result is.

    Attributes:
        kind: ``"partial"`` of an open phrase, ``"close"`` after a pause, ``"cut"`` in a pause while speech goes on,
            ``"split"`` without a pause: the next phrase hears a part of it again.
        audio: (n,) samples.
        frame: index of the model frame that begins with the first sample.
        start, end: of speech in the phrase, seconds.
        limit: end of the audio, seconds.
        cut: where it is to be split, model frame; for a partial where it may be cut, seconds.
        zone: model frames between which the next phrase hears the same.
    """

    kind: str
    audio: F32
    frame: int
    start: float
    end: float
    limit: float
    cut: float | None = None
    zone: tuple[float, float] = (0.0, 0.0)


Noted: TypeAlias = "Note | SpeechStart | SpeechEnd"


class Walk:
    """One pass over some audio: the state unpacked, and the notes so far.

    Args:
        segmenter: cuts.
        geometry: lengths.
        state: what the last walk left; not modified.
        partials: whether open phrases are to be decoded.
    """

    def __init__(self, segmenter: Segmenter, geometry: Geometry, state: WalkState, *, partials: bool) -> None:
        self.segmenter_, self.geometry, self.partials = segmenter, geometry, partials
        self.segmenter = state.segmenter
        self.kept, self.kept_start, self.size = list(state.kept), state.kept_start, state.size
        self.phrase = state.phrase
        self.notes: list[Noted] = []

    @property
    def requests(self) -> list[Note]:
        """The notes that ask for a decode, in order."""
        return [note for note in self.notes if isinstance(note, Note)]

    def hear(self, audio: F32, probabilities: F32, *, last: bool) -> None:
        """Audio that follows, the probabilities of the windows that it completes, and whether it is the last."""
        if len(audio):
            self.kept.append(audio)
            self.size += len(audio)
        for piece in self._pieces(probabilities[: -(-self.size // self.geometry.window) - self.segmenter.frame]):
            actions, self.segmenter = self.segmenter_.step(self.segmenter, piece)
            self._carry_out(actions)
            if self.partials:
                self._partial()
        if last:
            actions, self.segmenter = self.segmenter_.flush(self.segmenter)
            self._carry_out(actions)

    def result(self) -> WalkState:
        """The state after the walk, without audio that nobody needs any more."""
        needed = self.segmenter.keep
        if self.phrase is not None and self.phrase.first is not None:
            needed = min(needed, self.phrase.first)
        self._forget(self._sample(needed))
        return WalkState(self.segmenter, tuple(self.kept), self.kept_start, self.size, self.phrase)

    def _pieces(self, probabilities: F32) -> Iterator[F32]:
        """All at once, or window by window where every one may be the time for a partial."""
        size = 1 if self.partials else max(1, len(probabilities))
        for first in range(0, len(probabilities), size):
            yield probabilities[first : first + size]

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            phrase = self.phrase
            if isinstance(action, Open):
                if phrase is None:
                    self.notes.append(SpeechStart(self._seconds(action.start)))
                first = None
                if phrase is not None and phrase.first is not None and phrase.pause < self.geometry.clean:
                    first = max(phrase.first, action.start - self.geometry.overlap)
                self.phrase = OpenPhrase(action.start, first)
                continue
            assert phrase is not None, "the segmenter opens a phrase before it asks for anything else"
            if isinstance(action, Feed):
                first = action.start if phrase.first is None else phrase.first
                self.phrase = replace(phrase, first=first, end=action.end)
            elif isinstance(action, Mark):
                self.phrase = replace(phrase, mark=phrase.end, pause=action.pause)
            elif isinstance(action, Cut):
                self._cut(phrase, action)
            else:
                self._note("close", phrase, phrase.end, action)
                self.notes.append(SpeechEnd(self._seconds(action.end)))
                self.phrase = None

    def _cut(self, phrase: OpenPhrase, action: Cut) -> None:
        """The phrase ends; it stays in place until the one that follows has been opened."""
        assert phrase.mark is not None, "the segmenter cuts at a mark"
        if phrase.pause >= self.geometry.clean:
            self._note("cut", phrase, phrase.mark, action)
            return
        # All that was heard is decoded, up to the window that made the phrase too long.
        frame, now = self.geometry.frame, phrase.start + self.segmenter_.options.max_phrase
        again = max(phrase.first or 0, action.end + phrase.pause - self.geometry.overlap)
        cut = frame(action.end + phrase.pause / 2)
        self._note("split", phrase, now, action, cut=cut, zone=(frame(again), frame(now)))

    def _partial(self) -> None:
        """A decode of the open phrase, if it is time for one and there is something new."""
        phrase = self.phrase
        if phrase is None or phrase.first is None:
            return
        age = self.segmenter.frame - phrase.start
        if age % self.geometry.partial or phrase.end <= phrase.noted:
            return
        self.phrase = replace(phrase, noted=phrase.end)
        cut = None if phrase.mark is None else self._seconds(phrase.mark)
        self._note("partial", phrase, phrase.end, None, cut=cut)

    def _note(
        self,
        kind: str,
        phrase: OpenPhrase,
        end: int,
        action: Cut | Close | None,
        *,
        cut: float | None = None,
        zone: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        assert phrase.first is not None, "a phrase has at least one window"
        first = self._sample(phrase.first)
        audio = self._audio(first, min(end * self.geometry.window, self.size))
        frame = first // self.geometry.hop
        last = self.segmenter.end if action is None else action.end
        start_s, end_s, limit_s = (self._seconds(window) for window in (phrase.start, last, end))
        self.notes.append(Note(kind, audio, frame, start_s, end_s, limit_s, cut, zone))

    def _sample(self, window: int) -> int:
        """First sample of a window, moved back to the beginning of a model frame, so that all decodes share a grid."""
        return window * self.geometry.window // self.geometry.hop * self.geometry.hop

    def _seconds(self, window: int) -> float:
        return min(window * self.geometry.window, self.size) / self.geometry.rate

    def _audio(self, first: int, last: int) -> F32:
        parts, start = [], self.kept_start
        for piece in self.kept:
            if start + len(piece) > first and start < last:
                parts.append(piece[max(0, first - start) : last - start])
            start += len(piece)
        return np.concatenate(parts)

    def _forget(self, sample: int) -> None:
        while self.kept and self.kept_start + len(self.kept[0]) <= sample:
            self.kept_start += len(self.kept.pop(0))
        if self.kept and self.kept_start < sample:
            # A copy, so that the rest of a large piece is not held.
            self.kept[0] = self.kept[0][sample - self.kept_start :].copy()
            self.kept_start = sample
