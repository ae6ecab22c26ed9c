"""Rules of the two passes: what a streaming witness lets a stronger model say."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.recognizers.witness import EXTEND, OPEN, SUBSTITUTE, Verdict, _align, judge, letters
from rechka.types import Segment, Word


def spoken(text: str, *, confidence: float | None = 0.9, rate: float = 0.1) -> list[Word]:
    """The words of a text, a tenth of a second a letter."""
    words, clock = [], 0.0
    for word in text.split():
        words.append(Word(word, clock, clock + rate * len(word), confidence))
        clock += rate * (len(word) + 1)
    return words


def verdict(first: str, second: str, **options: float) -> tuple[str, Verdict]:
    found = judge(spoken(first, **options), spoken(second))
    return " ".join(word.text for word in found.words), found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("превет как дила", "Привет, как дела?"),  # spelling, case, punctuation
        ("нада паехать дамой", "надо поехать домой"),
        ("стоит двадцать пять рублей", "стоит 25 рублей"),  # digits
        ("поехали метро", "поехали в метро"),  # a short word that CTC swallowed
        ("мама мыла ра", "мама мыла раму"),
        ("он бр др кр сказал", "он вчера вечером сказал"),  # something was said there
        ("ёлка", "елка"),
    ],
)
def test_a_better_reading_stands(first: str, second: str) -> None:
    text, found = verdict(first, second)
    assert text == second
    assert (found.dropped, found.restored, found.rejected) == ((), (), "")


@pytest.mark.parametrize(
    ("first", "second", "text", "dropped"),
    [
        ("до свидания", "до свидания Субтитры сделал кто-то", "до свидания", ("Субтитры сделал кто-то",)),
        ("и так и так", "и так и так и так и так и так и так", "и так и так", ("и так и так и так и так",)),
        ("да нет", "да конечно же нет", "да нет", ("конечно же",)),
        ("спасибо вам", "Продолжение следует спасибо вам", "спасибо вам", ("Продолжение следует",)),
    ],
)  # fmt: skip
def test_what_nobody_heard_is_dropped(first: str, second: str, text: str, dropped: tuple[str, ...]) -> None:
    found_text, found = verdict(first, second)
    assert found_text == text
    assert found.dropped == dropped


def test_what_was_left_out_is_restored() -> None:
    first = "завтра я позвоню вам после обеда и мы поговорим"
    text, found = verdict(first, "завтра я позвоню вам и мы поговорим")
    assert text == first
    assert found.restored == ("после обеда",)
    text, found = verdict(first, "завтра я позвоню вам и мы поговорим", confidence=0.3)
    assert text == "завтра я позвоню вам и мы поговорим", "a witness that is not sure restores nothing"
    text, _ = verdict("в две тысячи двадцать пятом году", "в 2025 году")
    assert text == "в 2025 году", "digits are the same words, written otherwise"


@pytest.mark.parametrize(("second", "why"), [("", "empty"), ("...", "empty"), ("Субтитры делал", "other")])
def test_a_text_about_something_else_is_rejected(second: str, why: str) -> None:
    text, found = verdict("поезд отходит в пять", second)
    assert (text, found.rejected) == ("поезд отходит в пять", why)
    assert found.dropped == ()


def test_an_unsure_witness_is_not_believed() -> None:
    text, found = verdict("пздтх дтрну", "субботнее утро", confidence=0.2)
    assert text == "субботнее утро"
    assert not found.rejected
    text, found = verdict("мм", "Субтитры сделал кто-то", confidence=0.2)
    assert (text, found.rejected) == ("мм", "other"), "but not even an unsure witness heard so much"


def test_dropping_loses_nothing_that_was_heard() -> None:
    """The credits took the letters of a garbled last word: the word comes back as it was heard."""
    text, found = verdict("спасибо сдёх", "спасибо счёт субтитры сделал кто-то")
    assert text == "спасибо сдёх"
    assert (found.dropped, found.restored) == (("счёт субтитры сделал кто-то",), ("сдёх",))


def test_times_stay_in_order() -> None:
    found = judge(spoken("раз два три четыре пять шесть"), spoken("раз три пять шесть", rate=0.15))
    edges = [time for word in found.words for time in (word.start, word.end)]
    assert edges == sorted(edges)


def test_the_segment_tells_what_happened() -> None:
    words = spoken("до свидания")
    first = Segment("до свидания", 0.0, 1.2, tuple(words), "2", 1, {"emotion": "calm"})
    better = judge(words, spoken("До свидания! Субтитры сделал я")).segment(first, "big")
    assert better is not None
    assert (better.text, better.start, better.end, better.speaker, better.channel) == ("До свидания!", 0.0, 1.2, "2", 1)
    assert better.labels == {"emotion": "calm", "refined_by": "big", "dropped": ["Субтитры сделал я"]}
    assert judge(words, words).segment(first, "big") is None
    rejected = judge(words, []).segment(first, "big")
    assert rejected is not None
    assert (rejected.text, rejected.labels["rejected"]) == ("до свидания", "empty")


def test_letters() -> None:
    assert letters("Кто-то, Ёж!") == "ктотоеж"
    assert judge([], []).words == ()


@given(first=st.text("абв", max_size=9), second=st.text("абв", max_size=9))
def test_the_alignment_is_the_cheapest(first: str, second: str) -> None:
    """Against all alignments, tried one by one."""

    @cache
    def cheapest(i: int, j: int, gap: int) -> int:
        if i == len(first) and j == len(second):
            return 0
        found = []
        if i < len(first) and j < len(second):
            found.append(cheapest(i + 1, j + 1, 0) + (0 if first[i] == second[j] else SUBSTITUTE))
        if i < len(first):
            found.append(cheapest(i + 1, j, 1) + EXTEND + (0 if gap == 1 else OPEN))
        if j < len(second):
            found.append(cheapest(i, j + 1, 2) + EXTEND + (0 if gap == 2 else OPEN))
        return min(found)

    steps = _align(first, second)
    assert [i for i, _, _ in steps if i >= 0] == list(range(len(first)))
    assert [j for _, j, _ in steps if j >= 0] == list(range(len(second)))
    cost, gap = 0, 0
    for i, j, same in steps:
        kind = 1 if j < 0 else 2 if i < 0 else 0
        cost += EXTEND + (0 if kind == gap else OPEN) if kind else 0 if same else SUBSTITUTE
        gap = kind
        assert same == (kind == 0 and first[i] == second[j])
    assert cost == cheapest(0, 0, 0)
