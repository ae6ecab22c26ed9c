"""The largest number of streams that holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

STEP = 0.04
"""Neighbours nearer than this share are not told apart: two runs of one level differ by as much."""


def find_most(
    run: Callable[[int], Result], holds: Callable[[Result], bool], *, start: int = 4, limit: int = 10_000
) -> tuple[int, list[Result]]:
    """Double until it does not hold, then halve the distance.

    Args:
        run: a level.
        holds: whether its result is good enough.
        start: first number that is tried.
        limit: largest number that is tried.
    Returns:
        The largest number that held, 0 if not even one stream did; and all results in the order of the trials.
    """
    results: list[Result] = []

    def trial(number: int) -> bool:
        results.append(run(number))
        return holds(results[-1])

    good, bad, number = 0, 0, min(start, limit)
    while not bad:
        if trial(number):
            good = number
            if number == limit:
                return good, results
            number = min(2 * number, limit)
        else:
            bad = number
    while bad - good > max(1, round(STEP * good)):
        middle = (good + bad) // 2
        if trial(middle):
            good = middle
        else:
            bad = middle
    return good, results
