"""A growing text keeps its marks: what few words ahead decide is never changed by what comes later."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.models.punctuator import embedded
from rechka.text.punctuation import LivePunctuator
from rechka.text.word_hashes import NUM_PIECES, NUM_WORDS, hashes
from rechka.types import Final, Partial, Segment, Word

WORDS = (
    *("да", "нет", "я", "вы", "он", "она", "что", "чтобы", "если", "когда", "где", "почему", "который", "потому", "но"),
    *("а", "и", "не", "ну", "вот", "скажите", "пожалуйста", "спасибо", "здравствуйте", "номер", "договора", "заказ"),
    *("привезли", "вчера", "москве", "иванова", "ирина", "будет", "можно", "120", "5%", "сша"),
)
texts = st.lists(st.tuples(st.sampled_from(WORDS), st.floats(0, 1.5)), max_size=60)


def timed(pairs: list[tuple[str, float]], measured: bool = True) -> tuple[Word, ...]:
    words, at = [], 0.0
    for text, pause in pairs:
        words.append(Word(text, at, at + 0.3, 0.5) if measured else Word(text, 0.0, 0.0))
        at += 0.3 + pause
    return tuple(words)


@settings(deadline=None, max_examples=60)
@given(texts, st.booleans())
def test_a_growing_text_keeps_what_it_got(pairs: list[tuple[str, float]], measured: bool) -> None:
    punctuator, words = embedded(), timed(pairs, measured)
    whole = punctuator(words)
    for size in range(len(words) + 1):
        shown = punctuator(words[:size], final=False)
        settled = max(0, size - punctuator.look_ahead)
        assert shown[:settled] == whole[:settled]
        assert shown[settled:] == words[settled:size]


@settings(deadline=None, max_examples=60)
@given(texts)
def test_only_marks_and_capitals_are_added(pairs: list[tuple[str, float]]) -> None:
    words = timed(pairs)
    found = embedded()(words)
    assert [(w.start, w.end, w.confidence) for w in found] == [(w.start, w.end, w.confidence) for w in words]
    assert [w.text.rstrip(",.?!…").lower() for w in found] == [w.text for w in words]
    assert embedded()(found) == found  # marks that are there stay, nothing is added to them


@settings(deadline=None, max_examples=30)
@given(texts, st.lists(st.integers(0, 12), max_size=10))
def test_live_finals_are_never_taken_back_and_go_on_from_each_other(
    pairs: list[tuple[str, float]], sizes: list[int]
) -> None:
    words, live, shown = timed(pairs), LivePunctuator(embedded()), []
    cuts = [0, *np.minimum(np.cumsum(sizes), len(words)).astype(int).tolist(), len(words)]
    for begin, end in itertools.pairwise(cuts):
        part = words[begin:end]
        event = live(Final(Segment(" ".join(w.text for w in part), 0, 0, part)))
        assert event.segment.text == " ".join(word.text for word in event.segment.words)
        shown += event.segment.words
    assert [w.text.rstrip(",.?!…").lower() for w in shown] == [w.text for w in words]
    partial = Partial("а", "б", 0)
    assert live(partial) is partial


@given(st.text(max_size=80))
def test_any_text_has_hashes(text: str) -> None:
    words, pieces = hashes([text, text.upper(), "«" + text + "».", text])
    assert 0 <= words.min() <= words.max() < NUM_WORDS
    assert 0 <= pieces.min() <= pieces.max() < NUM_PIECES
    assert words[0] == words[3]
