"""Do the intervals do what they say? Simulated speakers who err at rates of their own, whose mean is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rechka.evaluate import analyse
from rechka.evaluate.hear import Heard, Run
from rechka.evaluate.manifest import Record
from rechka.evaluate.wer import Counts, interval_95, score_counts

TRUE = 0.2
NONE = Counts(0, 0, 0, 1)


def said(rng: np.random.Generator, speakers: int) -> list[tuple[int, int]]:
    """A test set: (speaker, words) of every utterance, about eight utterances of about eight words each."""
    return [(s, int(rng.integers(1, 16))) for s in range(speakers) for _ in range(int(rng.integers(1, 16)))]


def rates(rng: np.random.Generator, speakers: int) -> NDArray[np.float64]:
    """How often each speaker is misheard; 0.2 on average, with a deviation of 0.12."""
    return rng.beta(10 * TRUE, 10 * (1 - TRUE), speakers)


def counted(rng: np.random.Generator, words: int, rate: float) -> Counts:
    return Counts(int(rng.binomial(words, rate)), 0, 0, words)


def coverage(speakers: int, trials: int) -> tuple[float, float]:
    """Share of test sets whose interval holds the true rate: over speakers, and over utterances as if independent."""
    hits = np.zeros(2)
    for trial in range(trials):
        rng = np.random.default_rng([speakers, trial])
        who, rate = said(rng, speakers), rates(rng, speakers)
        parts = [counted(rng, words, rate[speaker]) for speaker, words in who]
        for place, clusters in enumerate(([speaker for speaker, _ in who], None)):
            low, high = score_counts(parts, [NONE] * len(parts), clusters=clusters, resamples=400).wer_interval
            hits[place] += low <= TRUE <= high
    return float(hits[0] / trials), float(hits[1] / trials)


@pytest.mark.parametrize("speakers", [12, 40])
def test_intervals_over_speakers_hold_the_truth(speakers: int) -> None:
    """In 92 to 98 of 100 test sets, also where speakers are few; over utterances they would be far too narrow."""
    over_speakers, over_utterances = coverage(speakers, 400)
    assert 0.92 <= over_speakers <= 0.98
    assert over_utterances < 0.85


def test_five_speakers() -> None:
    """Nobody can say much from five people; plain percentiles would hold the truth in 82 of 100 sets."""
    assert coverage(5, 300)[0] >= 0.87


def test_few_groups_reach_further_out() -> None:
    """With many groups it is the percentile interval; with few it holds what the t distribution says."""
    estimates = np.random.default_rng(0).normal(size=200_000)
    assert interval_95(estimates, 10_000) == pytest.approx(tuple(np.percentile(estimates, [2.5, 97.5])), abs=0.01)
    ends = interval_95(estimates, 5)  # t(4) at 97.5 % is 2.776, times sqrt(5 / 4)
    assert ends == pytest.approx((-3.104, 3.104), abs=0.12)
    assert interval_95([0.3], 1) == (0.3, 0.3)


def runs(seed: int, gain: float) -> tuple[Run, Run]:
    """Two models on the same recordings of 20 speakers; a word that the first gets wrong the second gets right in
    ``gain`` of the cases, and otherwise both differ by chance, speaker by speaker."""
    rng = np.random.default_rng([7, seed])
    rate = rates(rng, 20)
    leaning = rng.normal(0.0, 0.03, 20)
    heard: tuple[list[Heard], list[Heard]] = ([], [])
    for number, (speaker, words) in enumerate(said(rng, 20)):
        record = Record(Path(f"{number}.wav"), "", speaker=str(speaker))
        chances = (rate[speaker], (rate[speaker] + leaning[speaker]) * (1 - gain))
        for side, chance in zip(heard, chances, strict=True):
            side.append(Heard(record, "", counts=(counted(rng, words, float(np.clip(chance, 0, 1))), NONE)))
    return Run("first", tuple(heard[0]), 1.0), Run("second", tuple(heard[1]), 1.0)


def test_verdicts_on_equal_models_are_rarely_wrong_and_real_gains_are_seen() -> None:
    """A difference is claimed between equals in about 5 of 100 test sets, as often for either; a fifth less is seen."""
    trials = 400
    wrong = [analyse.compare(*runs(seed, 0.0), resamples=400) for seed in range(trials)]
    better = sum(found.interval[0] > 0 for found in wrong)
    worse = sum(found.interval[1] < 0 for found in wrong)
    assert 0.02 <= (better + worse) / trials <= 0.08
    assert min(better, worse) >= 2
    seen = [analyse.compare(*runs(seed, 0.2), resamples=400).interval[0] > 0 for seed in range(50)]
    assert np.mean(seen) >= 0.7
