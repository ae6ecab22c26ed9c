"""Properties of the scoring normaliser and of the held-out rule, for any text."""

from __future__ import annotations

from hypothesis import given, settings
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


PIECES = (
    *("пять", "двадцать", "тысяч", "миллион", "5", "25", "000", "2,5", "%", "процентов", "первый", "25-го", "15:30"),
    *("целых", "половиной", "с", "сто", "ноль", "один", "полтора", "мая", "без", "час", "тысяча", "млн", "0", "-", "."),
    *("и", "десятых", "половина", "третьего", "три", "ё"),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=9))
def test_all_options_are_idempotent(pieces: list[str]) -> None:
    folded = scoring(" ".join(pieces), numbers=True, lookalikes=True)
    assert scoring(folded, numbers=True, lookalikes=True) == folded
    assert all(char.isalnum() or char == " " for char in folded)


@given(st.text(alphabet="абвгдеёжзийклмнabcxyz .,-", max_size=30))
def test_options_do_nothing_where_there_is_nothing_to_do(text: str) -> None:
    plain = "".join(char for char in text if not char.isascii() or not char.isalpha())
    assert scoring(plain, lookalikes=True) == scoring(plain)
