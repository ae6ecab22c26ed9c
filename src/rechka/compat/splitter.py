"""Log-probs to phrases under the names of T-one's package: rechka's segmenter with the frames kept beside its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rechka.errors import BadSamples, UsageError, WrongType
from rechka.models.tone import TOKENS
from rechka.segmentation import BlankEvidence, Close, Cut, Feed, FrameOptions, Mark, Open, Segmenter, SegmenterState
from rechka.types import F32, LogProbs

SIZE = len(TOKENS)
"""Symbols of T-one's vocabulary, blank included."""


@dataclass
class LogprobPhrase:
    """The log-probs (L, 35) of a phrase, three frames more on both sides, and its frames from start up to end."""

    logprobs: F32
    start_frame: int
    end_frame: int


@dataclass
class StreamingLogprobSplitterState:
    """What the splitter remembers of a stream.

    Attributes:
        past_logprobs: (n, 35) frames that may still be needed.
        offset: index of the first of them.
        segmenter: state of the rules.
        taken: frames that the open phrase has so far, and those it had at the place where it might be cut.
    """

    past_logprobs: F32 = field(default_factory=lambda: np.zeros((0, SIZE), np.float32))
    offset: int = 0
    segmenter: SegmenterState = field(default_factory=SegmenterState)
    taken: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


class StreamingLogprobSplitter:
    """Cuts log-probs into phrases where blank and space hold for 600 ms.

    Phrases over 60 s are cut at the best pause of their last third; the original cuts them at 60 s and doubles letters.
    """

    SILENCE_THRESHOLD = 0.9
    MIN_SILENCE_DURATION = 20
    SPEECH_EXPANDSIZE = 3
    MAX_PHRASE_DURATION = 2000

    def __init__(self) -> None:
        self._evidence = BlankEvidence(TOKENS)
        self._segmenter = Segmenter(
            FrameOptions(
                threshold=1.0 - self.SILENCE_THRESHOLD,
                min_silence=self.MIN_SILENCE_DURATION,
                expand=self.SPEECH_EXPANDSIZE,
                max_phrase=self.MAX_PHRASE_DURATION,
            )
        )

    def forward(
        self, logprobs: F32, state: StreamingLogprobSplitterState | None = None, *, is_last: bool = False
    ) -> tuple[list[LogprobPhrase], StreamingLogprobSplitterState]:
        """The phrases that end in the next frames.

        Args:
            logprobs: (L, 35) float32 natural-log probabilities.
            state: what the call before returned; None at the beginning.
            is_last: these are the last frames, an open phrase ends.
        Raises:
            WrongType: (a TypeError) no array, or no state.
            UsageError: (a ValueError) another shape or data type.
        """
        check(logprobs, "logprobs", (None, SIZE), np.float32, UsageError)
        state = StreamingLogprobSplitterState() if state is None else state
        if not isinstance(state, StreamingLogprobSplitterState):
            raise WrongType(f"state must be a StreamingLogprobSplitterState or None, got {type(state).__name__}")
        begin = state.offset
        frames = np.concatenate([state.past_logprobs, logprobs])
        actions, after = self._segmenter.step(
            state.segmenter, self._evidence(LogProbs(logprobs, begin + len(state.past_logprobs)))
        )
        if is_last:
            rest, after = self._segmenter.flush(after)
            actions += rest
        phrases: list[LogprobPhrase] = []
        taken, marked = state.taken
        for action in actions:
            if isinstance(action, Feed):
                taken = (taken[0] if taken[1] else action.start, action.end)
            elif isinstance(action, Mark):
                marked = taken
            elif isinstance(action, Open):
                taken = marked = (0, 0)
            elif isinstance(action, (Close, Cut)):
                first, last = taken if isinstance(action, Close) else marked
                phrases.append(LogprobPhrase(frames[first - begin : last - begin], action.start, action.end))
        if after.start is None:
            taken = marked = (0, 0)
        keep = taken[0] if taken[1] else after.keep
        return phrases, StreamingLogprobSplitterState(frames[keep - begin :], keep, after, (taken, marked))


def check(
    value: object,
    name: str,
    shape: tuple[int | None, ...],
    dtype: Any,
    wrong: type[BadSamples] | type[UsageError],
) -> None:
    """Refuse what is no array of this shape (None: any length) and data type (None: any)."""
    if not isinstance(value, np.ndarray):
        raise WrongType(f"{name} must be a NumPy array, got {type(value).__name__}")
    if len(value.shape) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, value.shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise wrong(f"{name} must have the shape ({wanted}{',' if len(shape) == 1 else ''}), got {value.shape}")
    if dtype is not None and value.dtype != dtype:
        raise wrong(f"{name} must be of type {np.dtype(dtype).name}, got {value.dtype.name}")
