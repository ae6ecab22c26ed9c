"""Which words a rival speaks against."""

from __future__ import annotations

import math

import pytest

from rechka.decoding.posterior import Detour, token_posteriors

SPACE = 9
LETTERS = {"а": 0, "б": 1, "в": 2, " ": SPACE}


def chain(text: str, start: int = 0) -> list[tuple[int, int]]:
    """Letters three frames apart."""
    return [(LETTERS[letter], start + 3 * i) for i, letter in enumerate(text)]


def words(text: str, *detours: Detour) -> list[float]:
    """The posterior of each word."""
    found = token_posteriors(chain(text), detours, SPACE)
    ends = [i for i, letter in enumerate(text + " ") if letter == " "]
    return [found[end - 1] for end in ends]


def against(text: str) -> list[float]:
    return words("аб ва бб", Detour(*DETOURS[text]))


DETOURS = {
    "second word": (3, 6, chain("аа ", 9), 0.0),
    "last letter": (7, 8, chain("в", 21), 0.0),
    "one letter more": (8, 8, chain("а", 24), 0.0),
    "one word more": (8, 8, chain(" а", 24), 0.0),
    "the same word": (3, 6, chain("ва ", 10), 0.0),
    "the same word at another time": (3, 6, chain("ва ", 40), 0.0),
    "two words joined": (2, 6, chain("ва ", 6), 0.0),
    "met within a word": (3, 7, chain("вв б", 9), 0.0),
    "nothing after all": (5, 8, [], 0.0),
}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("second word", [1, 0.5, 1]),
        ("last letter", [1, 1, 0.5]),
        ("one letter more", [1, 1, 0.5]),
        ("one word more", [1, 1, 1]),
        ("the same word", [1, 1, 1]),
        ("the same word at another time", [1, 0.5, 1]),
        ("two words joined", [0.5, 0.5, 1]),
        ("met within a word", [1, 0.5, 1]),
        ("nothing after all", [1, 1, 0.5]),
    ],
)
def test_one_rival(what: str, expected: list[float]) -> None:
    assert against(what) == expected


def test_odds_add_up() -> None:
    second = Detour(3, 6, chain("аа ", 9), math.log(0.5))
    third = Detour(3, 6, chain("вв ", 9), math.log(0.25))
    assert words("аб ва бб", second, third) == [1, pytest.approx(1 / 1.75), 1]


def test_empty() -> None:
    assert token_posteriors([], [], SPACE) == ()
    assert token_posteriors(chain("аб"), [], SPACE) == (1.0, 1.0)
    assert token_posteriors(chain("аб"), [Detour(0, 2, [], 0.0)], -2) == (0.5, 0.5)
