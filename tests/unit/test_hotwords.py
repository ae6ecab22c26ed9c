"""Hotwords: what is earned, what is credited and given back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding import CtcBeam
from rechka.decoding.hotwords import Hotwords, compile_hotwords
from rechka.errors import UsageError
from rechka.options import DecoderOptions
from rechka.types import LogProbs, Tokens

TOKENS = Tokens(("а", "б", "в", " ", ""), blank=4)


def walk(hot: Hotwords, text: str) -> tuple[list[float], float]:
    """Credit after each letter of a text without its last space, and all that was earned with it."""
    state, earned, credits_ = hot.start, 0.0, []
    for letter in text + " ":
        token = TOKENS.symbols.index(letter)
        earned += hot.earned[state, token]
        state = int(hot.next[state, token])
        credits_.append(float(hot.credit[state]))
    return credits_, earned


def test_credit_grows_and_is_given_back() -> None:
    hot = compile_hotwords({"абв": 4.0}, TOKENS)
    assert hot is not None
    assert walk(hot, "абв") == ([1.0, 2.0, 3.0, 0.0], 4.0)
    assert walk(hot, "аба") == ([1.0, 2.0, 0.0, 0.0], 0.0)
    assert walk(hot, "вабв")[1] == 0.0  # inside a word it does not count
    assert walk(hot, "абва")[1] == 0.0
    assert walk(hot, "абв абв")[1] == 8.0


def test_a_phrase_and_a_word_of_it() -> None:
    hot = compile_hotwords({"а б": 8.0, "б": 1.0}, TOKENS)
    assert hot is not None
    assert hot.words == {"а", "б"}
    assert walk(hot, "а б") == ([2.0, 4.0, 6.0, 0.0], 9.0)
    assert walk(hot, "а в")[0] == [2.0, 4.0, 0.0, 0.0]
    assert walk(hot, "б")[1] == 1.0


def test_a_negative_boost_is_charged_at_the_end() -> None:
    hot = compile_hotwords({"аб": -3.0}, TOKENS)
    assert hot is not None
    assert walk(hot, "аб") == ([0.0, 0.0, 0.0], -3.0)


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(st.text("аб ", min_size=1, max_size=5).filter(str.strip), st.floats(-4, 4), max_size=5),
    st.text("аб ", max_size=12),
)
def test_earned_is_the_sum_of_whole_word_matches(entries: dict[str, float], text: str) -> None:
    words = text.split()
    merged: dict[str, float] = {}
    for entry, boost in entries.items():
        merged[" ".join(entry.split())] = boost
    hot = compile_hotwords(merged, TOKENS)
    if hot is None:
        return
    expected = sum(
        boost * sum(words[i : i + len(entry.split())] == entry.split() for i in range(len(words)))
        for entry, boost in merged.items()
    )
    assert walk(hot, " ".join(words))[1] == pytest.approx(expected)
    assert (hot.credit >= 0).all()


@pytest.mark.parametrize(
    ("entry", "boost", "told"), [("  ", 1.0, "empty"), ("абx", 1.0, "'x'"), ("аб", float("nan"), "finite")]
)
def test_refused(entry: str, boost: float, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        compile_hotwords({entry: boost}, TOKENS)


def test_capitals_are_spelled_in_the_vocabulary() -> None:
    hot = compile_hotwords({"АБ  В": 1.0}, TOKENS)
    assert hot is not None
    assert hot.words == {"аб", "в"}


def test_a_hotword_wins_over_a_likelier_neighbour() -> None:
    ids = [0, 4, 1, 4, 3, 4]  # "аб "
    probs = np.full((len(ids), 5), 0.02)
    probs[range(len(ids)), ids] = 0.92
    probs[2] = [0.02, 0.55, 0.39, 0.02, 0.02]  # б or, less likely, в
    frames = LogProbs(np.log(probs).astype(np.float32))

    def heard(hotwords: dict[str, float]) -> str:
        decoder = CtcBeam(TOKENS, DecoderOptions(hotwords=hotwords))
        [beam] = decoder.advance([decoder.begin()], [frames])
        return TOKENS.text(decoder.best(beam).tokens)

    assert heard({}) == "аб"
    assert heard({"ав": 1.0}) == "ав"
    assert heard({"ава": 1.0}) == "аб"
    assert heard({"аб": -1.0}) == "ав"
