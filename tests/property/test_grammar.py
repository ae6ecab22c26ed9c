"""Numbers in words tell every number apart; every phrase of any seed is a training target."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.text.numerals import cardinal, ordinal
from rechka.train.grammar import generate
from rechka.train.text import held_out, training

numbers = st.integers(0, 10**9)


@given(numbers, numbers)
def test_cardinals_differ(a: int, b: int) -> None:
    assert (cardinal(a) == cardinal(b)) == (a == b)


@given(st.integers(1, 999), st.integers(1, 999))
def test_thousands_are_two_numbers_in_a_row(high: int, low: int) -> None:
    assert cardinal(high * 1000 + low).endswith(cardinal(low))
    assert cardinal(high * 1000 + low, say_one=True).startswith(cardinal(high, gender="f"))


def test_ordinals_differ() -> None:
    assert len({ordinal(number) for number in range(1, 3000)}) == 2999


@settings(max_examples=15, deadline=None)
@given(st.integers(), st.booleans())
def test_phrases_are_targets(seed: int, test: bool) -> None:
    for text in itertools.islice(generate(seed, test=test), 30):
        assert training(text)
        assert held_out(text) is test
