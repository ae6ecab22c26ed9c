"""The incremental segmenter against a plain one that sees everything at once, and its promises on their own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.segmentation import Cut, Feed, FrameOptions, Mark, Open, Segmenter
from rechka.segmentation.segmenter import Action, merged
from rechka.testing import chunkings


@dataclass(frozen=True)
class Played:
    """A phrase as the decoder saw it: its speech frames, and the frames that it was fed."""

    start: int
    end: int
    fed: tuple[int, ...]


def play(actions: list[Action]) -> list[Played]:
    """Carry out the instructions with a decoder that only notes its frames."""
    phrases: list[Played] = []
    fed: tuple[int, ...] = ()
    mark: tuple[int, ...] | None = None
    for action in actions:
        if isinstance(action, Open):
            fed, mark = (), None
        elif isinstance(action, Feed):
            fed += tuple(range(action.start, action.end))
        elif isinstance(action, Mark):
            mark = fed
        elif isinstance(action, Cut):
            assert mark is not None
            phrases.append(Played(action.start, action.end, mark))
        else:
            phrases.append(Played(action.start, action.end, fed))
    return phrases


def run(options: FrameOptions, evidence: list[float], sizes: list[int]) -> list[Action]:
    segmenter = Segmenter(options)
    state = segmenter.initial_state()
    actions: list[Action] = []
    first = 0
    for size in sizes:
        keep = state.keep
        some, state = segmenter.step(state, evidence[first : first + size])
        first += size
        assert all(action.start >= keep for action in some if isinstance(action, Feed)), (
            "a forgotten frame was asked for"
        )
        actions += some
    last, state = segmenter.flush(state)
    return actions + last


def plain(options: FrameOptions, evidence: list[float]) -> list[Played]:
    """The same rules over the whole recording: find the stretches, then halve those that are too long."""
    speech = [value >= options.threshold for value in evidence]
    frames = [i for i, is_speech in enumerate(speech) if is_speech]
    phrases: list[Played] = []
    free = 0
    while frames:
        start = frames[0]
        end = next(
            (a + 1 for a, b in itertools.pairwise(frames) if b - a - 1 >= options.min_silence),
            frames[-1] + 1,
        )
        too_late = next((f for f in frames if f < end and f - start >= options.max_phrase), None)
        resume = None
        if too_late is not None:
            end, resume = cut_place(options, evidence, frames, start, too_late)
        first = max(free, start - options.expand)
        limit = len(evidence) if resume is None else resume
        free = min(end + options.expand, limit)
        phrases.append(Played(start, end, tuple(range(first, free))))
        frames = [f for f in frames if f >= end]
    return phrases


def cut_place(
    options: FrameOptions, evidence: list[float], frames: list[int], start: int, too_late: int
) -> tuple[int, int]:
    """Where the first part ends, and where the second begins."""
    window = 2 * options.max_phrase // 3
    inside = [f for f in frames if start <= f <= too_late]
    pauses = [(a + 1, b) for a, b in itertools.pairwise(inside) if b - a > 1 and b >= start + window]
    if not pauses:
        late = [f for f in inside if start + window <= f < too_late]
        quiet = min(late, key=lambda f: (evidence[f], f))
        return quiet + 1, quiet + 1
    best = max(pauses, key=lambda pause: (pause[1] - pause[0], pause[1]))
    if pauses[-1][1] == too_late and too_late >= best[1] + window:
        best = pauses[-1]
    return best


@st.composite
def options(draw: st.DrawFn) -> FrameOptions:
    min_silence = draw(st.integers(1, 8))
    return FrameOptions(0.5, min_silence, draw(st.integers(0, min_silence)), draw(st.integers(1, 30)))


@st.composite
def recordings(draw: st.DrawFn) -> list[float]:
    """Runs of speech and silence with some texture, so that pauses of all lengths occur."""
    length = st.one_of(st.integers(1, 4), st.integers(1, 25))
    runs = draw(st.lists(st.tuples(st.booleans(), length, st.integers(0, 2**16)), max_size=20))
    frames: list[float] = []
    for is_speech, size, seed in runs:
        noise = np.random.default_rng(seed).integers(0, 4, size) / 8
        frames += [float(value) + (0.5 if is_speech else 0.0) for value in noise]
    return frames


@settings(max_examples=200, deadline=None)
@given(options=options(), evidence=recordings())
def test_like_the_plain_segmenter(options: FrameOptions, evidence: list[float]) -> None:
    assert play(run(options, evidence, [len(evidence)])) == plain(options, evidence)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), options=options(), evidence=recordings())
def test_any_chunking_gives_the_same_instructions(
    data: st.DataObject, options: FrameOptions, evidence: list[float]
) -> None:
    sizes = data.draw(chunkings(len(evidence)))
    assert merged(run(options, evidence, sizes)) == merged(run(options, evidence, [len(evidence)]))


@settings(max_examples=80, deadline=None)
@given(options=options(), evidence=recordings())
def test_phrases_hold_all_speech_once(options: FrameOptions, evidence: list[float]) -> None:
    phrases = play(run(options, evidence, [1] * len(evidence)))
    speech = [i for i, value in enumerate(evidence) if value >= options.threshold]
    fed = [frame for phrase in phrases for frame in phrase.fed]
    assert fed == sorted(set(fed)), "a frame was decoded for two phrases"
    assert set(speech) <= set(fed)
    for phrase in phrases:
        assert 0 < phrase.end - phrase.start <= options.max_phrase
        assert evidence[phrase.start] >= options.threshold
        assert evidence[phrase.end - 1] >= options.threshold
        assert phrase.start - options.expand <= phrase.fed[0] <= phrase.start
        assert phrase.end <= phrase.fed[-1] + 1 <= phrase.end + options.expand


@settings(max_examples=60, deadline=None)
@given(options=options(), evidence=recordings())
def test_work_and_memory_are_bounded(options: FrameOptions, evidence: list[float]) -> None:
    segmenter = Segmenter(options)
    state = segmenter.initial_state()
    fed = 0
    for value in evidence * 3:
        actions, state = segmenter.step(state, [value])
        fed += sum(action.end - action.start for action in actions if isinstance(action, Feed))
        bound = options.max_phrase + options.min_silence + options.expand + 1
        assert state.frame - state.keep <= bound
    assert fed <= 2 * len(evidence * 3) + options.max_phrase
