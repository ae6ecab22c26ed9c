"""Words with times and confidence, and how well the confidence tells right from wrong."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.errors import DataError
from rechka.text.confidence import calibrated, calibration, fit
from rechka.text.words import to_words
from rechka.timeline import Timeline
from rechka.types import Hypothesis, Tokens

TOKENS = Tokens(("а", "б", " ", ""), blank=3)
TIMELINE = Timeline(8000, 240)


def hypothesis(text: str, frames: list[int], probs: list[float] | None = None) -> Hypothesis:
    logps = tuple(math.log(p) for p in (probs or [0.9] * len(frames)))
    return Hypothesis(tuple(TOKENS.symbols.index(letter) for letter in text), tuple(frames), logps, 0.0)


def test_times_and_confidence() -> None:
    words = to_words(hypothesis("аб а", [3, 5, 6, 9], [0.9, 0.4, 0.1, 1.0]), TOKENS, TIMELINE, end=10.0)
    assert [word.text for word in words] == ["аб", "а"]
    assert [(word.start, word.end) for word in words] == [
        (pytest.approx(0.09), pytest.approx(0.18)),
        (pytest.approx(0.27), pytest.approx(0.30)),
    ]
    assert [word.confidence for word in words] == [pytest.approx(0.6), pytest.approx(1.0)]


def test_confidence_with_a_posterior() -> None:
    heard = replace(hypothesis("аб а", [3, 5, 6, 9], [0.9, 0.4, 0.1, 1.0]), posteriors=(0.5, 0.5, 1.0, 0.25))
    words = to_words(heard, TOKENS, TIMELINE, end=10.0)
    assert [word.confidence for word in words] == [pytest.approx(0.5 * math.sqrt(0.6)), pytest.approx(0.25)]


def test_nothing_and_spaces() -> None:
    assert to_words(hypothesis("", []), TOKENS, TIMELINE, end=1.0) == ()
    assert to_words(hypothesis(" ", [2]), TOKENS, TIMELINE, end=1.0) == ()
    assert [word.text for word in to_words(hypothesis(" а  б ", [1, 2, 3, 4, 5, 6]), TOKENS, TIMELINE, end=1.0)] == [
        "а",
        "б",
    ]


@given(
    st.text("аб ", max_size=20),
    st.lists(st.integers(1, 9), min_size=20, max_size=20),
    st.integers(0, 9000),
    st.integers(0, 9000),
    st.floats(0.01, 6.0),
)
def test_times_are_in_order_and_inside(text: str, steps: list[int], pad: int, lag: int, end: float) -> None:
    frames = list(itertools.accumulate(steps))[: len(text)]
    words = to_words(hypothesis(text, frames), TOKENS, Timeline(8000, 240, pad, lag), end=end)
    assert [word.text for word in words] == text.split()
    before = 0.0
    for word in words:
        assert before <= word.start < word.end <= end
        before = word.end


def test_calibration_of_honest_confidences() -> None:
    rng = np.random.default_rng(0)
    sure = rng.random(20_000)
    right = rng.random(20_000) < sure
    told = calibration(sure.tolist(), right.tolist())
    assert told["ece"] < 0.02
    assert told["brier"] == pytest.approx(1 / 6, abs=0.01)
    assert told["auc"] == pytest.approx(5 / 6, abs=0.02)
    assert sum(b["num_words"] for b in told["bins"]) == told["num_words"] == 20_000
    assert told["accuracy"] == pytest.approx(0.5, abs=0.02)


def test_fitting_mends_false_confidence() -> None:
    rng = np.random.default_rng(1)
    true = rng.random(20_000)
    right = (rng.random(20_000) < true).tolist()
    raw = (true**0.25).tolist()  # far too sure
    curve = fit(raw, right)
    mended = [calibrated(value, curve) for value in raw]
    assert calibration(raw, right)["ece"] > 0.2
    assert calibration(mended, right)["ece"] < 0.05
    assert curve[0] > 0
    assert all(0 <= value <= 1 for value in mended)
    assert [calibrated(x, curve) for x in (0.0, 1.0)] == sorted(calibrated(x, curve) for x in (0.0, 1.0))


def test_fitting_a_sample_without_errors() -> None:
    slope, offset = fit([0.9] * 50, [True] * 50)
    assert math.isfinite(slope)
    assert math.isfinite(offset)
    assert calibrated(0.9, (slope, offset)) > 0.9
    assert calibration([0.9], [True])["auc"] is None


def test_what_cannot_be_measured() -> None:
    for sure, right in (([], []), ([0.5], [True, False]), ([1.5], [True])):
        with pytest.raises(DataError):
            calibration(sure, right)


def test_calibrated_words() -> None:
    [word] = to_words(hypothesis("а", [1], [0.5]), TOKENS, TIMELINE, end=1.0, calibration=(1.0, math.log(3)))
    assert word.confidence == pytest.approx(0.75)
