"""Segmenter options: seconds to frames, and values that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from rechka.errors import UsageError
from rechka.options import SegmenterOptions
from rechka.segmentation import Close, Feed, FrameOptions, Open, Segmenter
from rechka.timeline import Timeline


def test_the_defaults_are_those_of_t_one() -> None:
    options = FrameOptions.of(SegmenterOptions(), Timeline(8000, 240))
    assert (options.min_silence, options.expand, options.max_phrase) == (20, 3, 2000)
    assert options.threshold == pytest.approx(0.1)
    assert options == FrameOptions(options.threshold)


@pytest.mark.parametrize(
    "wrong",
    [
        {"silence_threshold": 1.0},
        {"silence_threshold": -0.1},
        {"min_silence_s": 0.001},
        {"expand_s": 0.7},
        {"expand_s": -0.1},
        {"max_phrase_s": 0.0},
    ],
)
def test_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        FrameOptions.of(SegmenterOptions(**wrong), Timeline(8000, 240))
    assert caught.value.remedy


def test_a_phrase_opens_at_once_and_holds_its_silence_back() -> None:
    segmenter = Segmenter(FrameOptions(0.5, min_silence=5, expand=2, max_phrase=100))
    state = segmenter.initial_state()
    actions, state = segmenter.step(state, [0, 0, 0, 0, 1, 1])
    assert actions == [Open(4), Feed(2, 6)]
    actions, state = segmenter.step(state, [0, 0, 0, 0])
    assert actions == [Feed(6, 8)]  # two frames of expansion; two more wait
    actions, state = segmenter.step(state, [1])
    assert actions == [Feed(8, 11)]  # speech resumed
    actions, state = segmenter.step(state, [0, 0, 0, 0, 0, 0])
    assert actions == [Feed(11, 13), Close(4, 11)]
    assert state.start is None
    assert segmenter.flush(state)[0] == []
