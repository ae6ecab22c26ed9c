"""Does a confidence of 0.8 mean right four times in five? Measuring it, and fitting the curve that makes it so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import DataError

_EDGE = 1e-4
"""Raw confidences are kept this far from 0 and 1, where the log-odds end."""
_RIDGE = 1e-3
"""Weight of the pull towards slope 1 and offset 0, in words."""


def calibrated(raw: float, calibration: tuple[float, float]) -> float:
    """Confidence in [0, 1]: the logistic function of slope * log-odds(raw) + offset."""
    slope, offset = calibration
    raw = min(max(raw, _EDGE), 1.0 - _EDGE)
    return 1.0 / (1.0 + math.exp(-min(max(slope * math.log(raw / (1.0 - raw)) + offset, -30.0), 30.0)))


def fit(confidences: Sequence[float], correct: Sequence[bool], *, steps: int = 50) -> tuple[float, float]:
    """Slope and offset for ``calibrated`` by logistic regression (Platt 1999), Newton's method.

    One right and one wrong word at even odds are added, so that a sample without errors has an answer too.

    Args:
        confidences: raw, in [0, 1].
        correct: was the word right.
    Raises:
        DataError: nothing to fit, or lengths that differ.
    """
    raw, right = _pairs(confidences, correct)
    clipped = np.clip(raw, _EDGE, 1 - _EDGE)
    odds = np.append(np.log(clipped / (1 - clipped)), [0.0, 0.0])
    target = np.append(right, [0.0, 1.0])
    inputs = np.stack([odds, np.ones_like(odds)], axis=1)
    weights = np.array([1.0, 0.0])

    def loss(at: NDArray[np.float64]) -> float:
        scores = inputs @ at
        return float((np.logaddexp(0.0, scores) - target * scores).sum() + _RIDGE * ((at - [1.0, 0.0]) ** 2).sum() / 2)

    for _ in range(steps):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (chance - target) + _RIDGE * (weights - [1.0, 0.0])
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def calibration(confidences: Sequence[float], correct: Sequence[bool], *, num_bins: int = 10) -> dict[str, Any]:
    """How well confidences tell right words from wrong ones.

    Args:
        confidences: in [0, 1], one a word.
        correct: was the word right.
        num_bins: bins of equal width.
    Returns:
        ``num_words``; ``accuracy``; ``mean_confidence``; ``ece``, the expected calibration error: mean distance of
        confidence and accuracy over bins, weighted by their words (Guo et al. 2017); ``brier``, the mean squared
        distance of confidence and truth; ``auc``, the chance that a right word has more confidence than a wrong one
        (None if all are right, or all wrong); ``bins``: for each bin that has words its ``low``, ``high``,
        ``num_words``, ``confidence`` and ``accuracy``.
    Raises:
        DataError: no words, lengths that differ, or a confidence outside [0, 1].
    """
    sure, right = _pairs(confidences, correct)
    which = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    bins = []
    for index in range(num_bins):
        members = which == index
        if members.any():
            bins.append(
                {
                    "low": index / num_bins,
                    "high": (index + 1) / num_bins,
                    "num_words": int(members.sum()),
                    "confidence": float(sure[members].mean()),
                    "accuracy": float(right[members].mean()),
                }
            )
    return {
        "num_words": len(sure),
        "accuracy": float(right.mean()),
        "mean_confidence": float(sure.mean()),
        "ece": math.fsum(b["num_words"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / len(sure),
        "brier": float(((sure - right) ** 2).mean()),
        "auc": _auc(sure, right),
        "bins": bins,
    }


def _auc(sure: NDArray[np.float64], right: NDArray[np.float64]) -> float | None:
    """Rank statistic of Mann and Whitney over their product; ties count half."""
    good, bad = np.sort(sure[right == 1]), sure[right == 0]
    if not len(good) or not len(bad):
        return None
    above = len(good) - np.searchsorted(good, bad, "right")
    even = np.searchsorted(good, bad, "right") - np.searchsorted(good, bad, "left")
    return float((above + even / 2).sum() / (len(good) * len(bad)))


def _pairs(confidences: Sequence[float], correct: Sequence[bool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sure, right = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    if not len(sure) or sure.shape != right.shape:
        raise DataError(f"expected as many confidences as truths, and at least one, got {len(sure)} and {len(right)}")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise DataError("a confidence is outside [0, 1]")
    return sure, right
