"""Phrases from speech probabilities: an incremental cutter whose state is a value.

The rules are those of T-one's log-prob splitter: a phrase opens at its first speech frame, closes after ``min_silence``
silent frames, and is decoded with ``expand`` frames on both sides. Phrases longer than ``max_phrase`` are cut at the
best pause of their last third instead of at a fixed frame, so that no letter is lost or heard twice.

The segmenter does not touch log-probs. It answers with instructions, in the order in which they are to be carried out:

    Open(start)          a phrase begins, and with it a new beam
    Feed(start, end)     these frames go to the decoder
    Mark()               remember the beam: here the phrase would be cut if it grew too long
    Cut(start, end)      the phrase ends at the last mark although speech goes on; an Open follows
    Close(start, end)    the phrase ends after a pause

Frames between the last speech frame plus ``expand`` and the present are held back: they are fed when speech resumes
and dropped when the phrase closes. Time is linear in the frames: each is fed to a decoder at most twice, the second
time only after a cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from rechka.errors import UsageError
from rechka.options import SegmenterOptions
from rechka.timeline import Timeline
from rechka.types import F32


@dataclass(frozen=True, slots=True)
class FrameOptions:
    """``SegmenterOptions`` counted in frames.

    Attributes:
        threshold: a frame is speech when its evidence is at least this.
        min_silence: a pause of so many frames ends a phrase; at least 1.
        expand: frames kept on both sides of a phrase; from 0 to ``min_silence``.
        max_phrase: longest phrase without its expansion; at least 1.

    Raises:
        UsageError: a value out of its range.
    """

    threshold: float = 0.1
    min_silence: int = 20
    expand: int = 3
    max_phrase: int = 2000

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold <= 1.0:
            raise UsageError(
                f"silence_threshold must be at least 0 and below 1, got {1.0 - self.threshold:g}",
                remedy="0.9 is T-one's value",
            )
        if self.min_silence < 1:
            raise UsageError("min_silence_s is shorter than one frame", remedy="0.6 is T-one's value")
        if not 0 <= self.expand <= self.min_silence:
            raise UsageError(
                f"expand_s must lie between 0 and min_silence_s, got {self.expand} of {self.min_silence} frames",
                remedy="0.09 is T-one's value",
            )
        if self.max_phrase < 1:
            raise UsageError("max_phrase_s is shorter than one frame", remedy="60 is T-one's value")

    @classmethod
    def of(cls, options: SegmenterOptions, timeline: Timeline) -> FrameOptions:
        """The options in frames of ``timeline``, each rounded to the nearest."""
        return cls(
            threshold=1.0 - options.silence_threshold,
            min_silence=timeline.frames(options.min_silence_s),
            expand=timeline.frames(options.expand_s),
            max_phrase=timeline.frames(options.max_phrase_s),
        )


@dataclass(frozen=True, slots=True)
class Open:
    """A phrase begins; ``start`` is its first speech frame. The frames to decode come with ``Feed``."""

    start: int


@dataclass(frozen=True, slots=True)
class Feed:
    """Frames from ``start`` up to, not including, ``end`` go to the decoder."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mark:
    """The beam as it is now belongs to the best place for a cut so far.

    Attributes:
        pause: length of the pause there, in frames; 0 when there was none and the mark follows the quietest frame.
    """

    pause: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The phrase is too long and ends at the last mark; speech frames from ``start`` up to ``end``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Close:
    """The phrase ends after a pause; speech frames from ``start`` up to ``end``."""

    start: int
    end: int


Action: TypeAlias = Open | Feed | Mark | Cut | Close


@dataclass(frozen=True, slots=True)
class CutPoint:
    """Where the open phrase would be cut.

    Attributes:
        end: end of the first part.
        fed: frames before this one belong to the first part.
        resume: first speech frame of the second part.
        pause: silent frames between the parts.
        evidence: of the quietest frame, when there was no pause.
    """

    end: int
    fed: int
    resume: int
    pause: int
    evidence: float = 0.0


@dataclass(frozen=True, slots=True)
class SegmenterState:
    """What a stream's segmenter remembers; a few numbers, whatever the length of the stream.

    Attributes:
        frame: index of the next frame.
        fed: frames before this one are decoded or dropped.
        start: first speech frame of the open phrase, None outside of phrases.
        end: one past the last speech frame.
        cut: best place for a cut so far.
        keep: first frame that a later ``Feed`` may name; older ones can be forgotten.
    """

    frame: int = 0
    fed: int = 0
    start: int | None = None
    end: int = 0
    cut: CutPoint | None = None
    keep: int = 0


class Segmenter:
    """Cuts frames into phrases. Holds options only; one segmenter serves all streams.

    Args:
        options: in frames.
    """

    def __init__(self, options: FrameOptions) -> None:
        self.options = options

    def with_pause(self, min_silence_s: float | None, timeline: Timeline) -> Segmenter:
        """The same rules with another pause that ends a phrase, never shorter than ``expand``; None for this one.

        Raises:
            UsageError: not a positive length.
        """
        if min_silence_s is None:
            return self
        if not 0.0 < min_silence_s < float("inf"):
            raise UsageError(f"min_silence_s must be above 0, got {min_silence_s}", remedy="0.6 is T-one's value")
        pause = max(1, self.options.expand, timeline.frames(min_silence_s))
        return Segmenter(replace(self.options, min_silence=pause))

    def initial_state(self) -> SegmenterState:
        """The state before the first frame."""
        return SegmenterState()

    def step(self, state: SegmenterState, evidence: Sequence[float] | F32) -> tuple[list[Action], SegmenterState]:
        """Instructions for the next frames.

        Args:
            state: what the last step returned; not modified.
            evidence: (T,) speech probability of each frame. Any split into calls gives the same instructions, but for
                the places where one ``Feed`` ends and the next begins.
        """
        walk = _Walk(self.options, state)
        for probability in evidence:
            walk.frame_in(float(probability))
        return walk.result()

    def flush(self, state: SegmenterState) -> tuple[list[Action], SegmenterState]:
        """Instructions for the end of the audio: an open phrase is closed."""
        walk = _Walk(self.options, state)
        walk.close()
        return walk.result()


class _Walk:
    """One pass over some frames: the state unpacked, and the instructions so far."""

    def __init__(self, options: FrameOptions, state: SegmenterState) -> None:
        self.options = options
        self.actions: list[Action] = []
        self.frame, self.fed = state.frame, state.fed
        self.start, self.end, self.cut = state.start, state.end, state.cut
        self.asked = state.fed  # frames from ``asked`` to ``fed`` wait to be named in a Feed

    def result(self) -> tuple[list[Action], SegmenterState]:
        self._feed_now()
        keep = self.fed if self.cut is None else min(self.fed, self._first_frame(self.cut.resume, self.cut.fed))
        return self.actions, SegmenterState(self.frame, self.fed, self.start, self.end, self.cut, keep)

    def frame_in(self, evidence: float) -> None:
        here = self.frame
        self.frame += 1
        if evidence >= self.options.threshold:
            self._speech(here, evidence)
        elif self.start is not None:
            self._silence(here, here + 1 - self.end)
        else:
            self._skip_to(self.frame - self.options.expand)

    def close(self) -> None:
        """The phrase, if one is open, ends with its last speech frame."""
        if self.start is None:
            return
        self._feed_now()
        self.actions.append(Close(self.start, self.end))
        self.start = self.cut = None
        self._skip_to(self.frame - self.options.expand)

    def _silence(self, here: int, run: int) -> None:
        if run <= self.options.expand:
            self.fed = here + 1
        if run >= self.options.min_silence:
            self.close()

    def _speech(self, here: int, evidence: float) -> None:
        if self.start is None:
            self._open(here, self.fed)
        else:
            self._before_speech(self.start, here)
        self.end = self.fed = here + 1
        assert self.start is not None
        # Without any pause the quietest frame is the place to cut; the first one of equals, so that marks are rare.
        if here >= self._window(self.start) and (
            self.cut is None or (self.cut.pause == 0 and evidence < self.cut.evidence)
        ):
            self._mark(CutPoint(here + 1, here + 1, here + 1, 0, evidence))

    def _before_speech(self, start: int, here: int) -> None:
        """Speech at ``here`` in the phrase from ``start``: is the pause before it, or an older one, a place to cut?"""
        pause = here - self.end
        too_long = here + 1 - start > self.options.max_phrase
        if pause and here >= self._window(start) and self._is_better(pause, here, too_long=too_long):
            self._mark(CutPoint(self.end, self.fed, here, pause))
        if too_long:
            assert self.cut is not None, "the last frame of a full phrase is in the window, so it left a mark"
            cut, self.cut = self.cut, None
            self._feed_now()
            self.actions.append(Cut(start, cut.end))
            self._open(cut.resume, cut.fed)

    def _is_better(self, pause: int, here: int, *, too_long: bool) -> bool:
        """Whether the pause before ``here`` is a better place to cut than the one known; the later one of equals."""
        if self.cut is None or pause >= self.cut.pause:
            return True
        # A short pause across the limit must do if the second part would otherwise be due for a cut at once.
        # With realistic options (max_phrase above three times min_silence) this never happens.
        return too_long and here >= self._window(self.cut.resume)

    def _window(self, start: int) -> int:
        """First frame at which a phrase from ``start`` may be cut: the last third of the allowed length."""
        return start + 2 * self.options.max_phrase // 3

    def _first_frame(self, start: int, free: int) -> int:
        return max(free, start - self.options.expand)

    def _open(self, start: int, free: int) -> None:
        """A phrase opens at ``start``; frames before ``free`` belong to others."""
        self.start = start
        self.fed = self.asked = self._first_frame(start, free)
        self.actions.append(Open(start))

    def _mark(self, cut: CutPoint) -> None:
        self._feed_now()
        self.cut = cut
        self.actions.append(Mark(cut.pause))

    def _feed_now(self) -> None:
        if self.fed > self.asked:
            self.actions.append(Feed(self.asked, self.fed))
            self.asked = self.fed

    def _skip_to(self, frame: int) -> None:
        self.fed = self.asked = max(self.fed, frame)


def merged(actions: Sequence[Action]) -> list[Action]:
    """The same instructions with adjoining feeds joined: equal for every split of the frames into calls."""
    joined: list[Action] = []
    for action in actions:
        last = joined[-1] if joined else None
        if isinstance(action, Feed) and isinstance(last, Feed) and last.end == action.start:
            joined[-1] = replace(last, end=action.end)
        else:
            joined.append(action)
    return joined
