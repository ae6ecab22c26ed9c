"""Properties of the scoring normaliser and of the held-out rule, for any text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rechka.text.normalize import scoring
from rechka.train.text import held_out


@given(st.text())
def test_scoring_is_idempotent_and_single_spaced(text: str) -> None:
    folded = scoring(text)
    assert scoring(folded) == folded
    assert folded == " ".join(folded.split())
    assert all(char.isalnum() or char == " " for char in folded)


@given(st.lists(st.text(alphabet="абвгдеёжзийклмн", min_size=1), min_size=1))
def test_held_out_sees_letters_only(words: list[str]) -> None:
    plain = " ".join(words)
    assert held_out(plain) == held_out(plain.upper() + "!") == held_out(" - ".join(words).replace("ё", "е"))
