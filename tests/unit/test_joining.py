"""Phrases cut without a pause: where the first ends, and with which token the second goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.models.toy import TOKENS
from rechka.recognizers.agreement import Agreement
from rechka.recognizers.joining import Tail, begins_word, continuation, sliced, split
from rechka.types import Hypothesis, Segment, Tokens, Word


def hypothesis(text: str, *, first: int = 0, step: int = 4) -> Hypothesis:
    """A letter every four frames."""
    ids = tuple(TOKENS.symbols.index(char) for char in text)
    frames = tuple(first + step * i for i in range(len(ids)))
    return Hypothesis(ids, frames, (-0.1,) * len(ids), -1.0)


def read(found: Hypothesis) -> str:
    return TOKENS.text(found.tokens)


def test_the_split_is_at_the_word_nearest_to_the_cut() -> None:
    whole = hypothesis("раз два три четыре")
    index, tail = split(whole, TOKENS, cut=30, zone=(10, 72), least=0, edge=4)
    assert read(sliced(whole, 0, index)) == "раз два "
    assert (tail.kept, tail.border) == (index - 3, 30)
    index, _ = split(whole, TOKENS, cut=30, zone=(10, 72), least=40, edge=4)
    assert read(sliced(whole, 0, index)) == "раз два три ", "what was called stable stays"


def test_a_word_longer_than_the_zone_is_divided() -> None:
    whole = hypothesis("одиннадцатиклассница")
    index, tail = split(whole, TOKENS, cut=40, zone=(20, 60), least=0, edge=4)
    assert index == 10
    assert read(Hypothesis(tail.tokens, tail.frames, (), 0.0)) == read(sliced(whole, 5))


def test_nothing_heard_near_the_cut() -> None:
    whole = hypothesis("да")
    index, tail = split(whole, TOKENS, cut=40, zone=(20, 60), least=0, edge=4)
    assert (index, tail.tokens, tail.border) == (2, (), 40)
    later = hypothesis("нет", first=52)
    assert continuation(tail, later, tolerance=10) == 0


def test_pieces_begin_words_with_a_space() -> None:
    tokens = Tokens((" при", "вет", " мир", ""), 3, pieces=True)
    assert [begins_word((0, 1, 2), i, tokens) for i in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    ("second", "rest"),
    [
        ("два три четыре пять", "три четыре пять"),
        ("ва три четыре пять", "три четыре пять"),  # its first letter was cut
        ("дватри четыре пять", "три четыре пять"),  # a space that only one of them heard
        ("два жри четыре пять", "жри четыре пять"),  # the first letter after the border is another
    ],
)
def test_the_second_goes_on_where_the_first_ended(second: str, rest: str) -> None:
    tail = Tail(hypothesis("два три чет", first=16).tokens, hypothesis("два три чет", first=16).frames, 4, 30)
    found = hypothesis(second, first=16 + 4 * (len("два три четыре пять") - len(second)))
    assert read(sliced(found, continuation(tail, found, tolerance=10))).strip() == rest


@given(text=st.text("аб ", min_size=12, max_size=60), data=st.data())
def test_two_views_of_the_same_letters_are_joined_exactly(text: str, data: st.DataObject) -> None:
    """Repeated letters, times that differ by a frame, letters missing at the edges of both views."""
    begin = 4 * data.draw(st.integers(0, len(text) // 3))
    end = 4 * data.draw(st.integers(2 * len(text) // 3, len(text)))
    shift = data.draw(st.integers(-1, 1))
    whole = hypothesis(text)
    first = sliced(whole, 0, end // 4 - data.draw(st.integers(0, 1)))
    lost = begin // 4 + data.draw(st.integers(0, 1))
    second = sliced(hypothesis(text, first=shift), lost)
    cut = data.draw(st.integers(begin, end))
    index, tail = split(first, TOKENS, cut=cut, zone=(begin, end), least=0, edge=8)
    joined = read(sliced(first, 0, index)) + read(sliced(second, continuation(tail, second, tolerance=10)))
    assert joined == text


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(word, i, i + 0.9) for i, word in enumerate(text.split()))


def test_agreement_of_two() -> None:
    state = Agreement().update(words("раз два тр"))
    assert state.texts == ("", "раз два тр")
    state = state.update(words("раз два три четыре"))
    assert state.texts == ("раз два", " три четыре")
    state = state.update(words("раз дважды три четыре пя"))
    assert state.texts == ("раз два три четыре", " пя"), "what two agreed on is not taken back"


def test_nothing_behind_a_possible_cut_is_stable() -> None:
    state = Agreement().update(words("раз два три четыре")).update(words("раз два три четыре"), limit=2.0)
    assert state.texts == ("раз два", " три четыре")


def test_a_final_begins_with_what_was_stable() -> None:
    state = Agreement(words("раз два"), words("раз два три"))
    same = Segment("раз два три", 0.0, 3.0, words("раз два три"))
    assert state.bound(same) is same
    other = state.bound(Segment("рад три", 0.0, 3.0, (Word("рад", 0.0, 1.9), Word("три", 2.0, 2.9))))
    assert other.text == "раз два три"
    assert state.bound(Segment("", 0.0, 1.0)).text == "раз два"
    assert state.bound(Segment("", 0.0, 1.0)).end == 1.9
