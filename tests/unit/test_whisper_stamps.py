"""Time stamps: the rules of sampling, and windows read whatever the model wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.decoding.whisper.stamps import Piece, read, violations
from rechka.testing.whisper import WordCodec

CODEC = WordCodec()
SPECIAL = CODEC.special
T = CODEC.stamped
WINDOW = 1500


def texts(pieces: tuple[Piece, ...]) -> list[tuple[float, float, str]]:
    return [(piece.start / 50, piece.end / 50, CODEC.decode(piece.tokens).strip()) for piece in pieces]


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ((), None),
        (T(0.0, "да", 1.5), None),
        (T(1.0, "да", 1.5, 1.5, "нет", 3.0), None),
        (T(0.0, "да", 1.5, 2.5, "нет", 3.0), None),
        (T(0.0, "да", 1.5, 1.5), None),
        (T(0.0, "да"), None),
        (T("да", 1.5), "no stamp at the beginning"),
        (T(1.02, "да", 1.5), "later than 1.0 s"),
        ((*T(0.0), SPECIAL.no_stamps, *T("да", 1.5)), "no-timestamps"),
        (T(0.0, "да", 1.5, "нет", 3.0), "single stamp"),
        (T(0.0, "да", 1.5, 1.5, 1.6, "нет", 3.0), "three stamps"),
        (T(0.0, "да", 2.0, 2.0, "нет", 1.0), "not later"),
        (T(0.5, "да", 0.5), "not later"),
    ],
)
def test_every_rule_of_the_mask(tokens: tuple[int, ...], said: str | None) -> None:
    broken = violations(tokens, SPECIAL)
    assert broken == [] if said is None else any(said in one for one in broken)


def test_cut_between_consecutive_stamps_the_rest_is_left_for_the_next_window() -> None:
    found = read(T(0.0, "раз два", 2.0, 2.0, "три", 5.0, 5.0, "чет"), SPECIAL, size=WINDOW)
    assert texts(found.pieces) == [(0.0, 2.0, "раз два"), (2.0, 5.0, "три")]
    assert found.advance == 250
    assert found.complete


def test_a_single_stamp_at_the_end_means_that_the_window_is_done() -> None:
    found = read(T(0.0, "раз", 2.0, 2.5, "два", 4.0), SPECIAL, size=WINDOW)
    assert texts(found.pieces) == [(0.0, 2.0, "раз"), (2.5, 4.0, "два")]
    assert found.advance == WINDOW


def test_a_single_stamp_that_the_limit_of_tokens_left_at_the_end_means_nothing() -> None:
    found = read(T(0.0, "раз", 2.0, 2.5, "два", 4.0), SPECIAL, size=WINDOW, truncated=True)
    assert texts(found.pieces) == [(0.0, 2.0, "раз")]
    assert (found.advance, found.complete) == (100, True)
    alone = read(T(0.0, "раз", 2.0), SPECIAL, size=WINDOW, truncated=True)
    assert not alone.complete  # the window has to be divided


def test_a_closed_pair_at_the_end_says_where_to_go_on() -> None:
    found = read(T(0.0, "раз", 2.0, 2.0), SPECIAL, size=WINDOW)
    assert texts(found.pieces) == [(0.0, 2.0, "раз")]
    assert found.advance == 100


def test_one_segment_with_its_end() -> None:
    found = read(T(0.4, "раз", 2.0), SPECIAL, size=WINDOW)
    assert texts(found.pieces) == [(0.4, 2.0, "раз")]
    assert found.advance == WINDOW


def test_text_without_stamps_has_the_window_for_itself() -> None:
    found = read(T("раз два"), SPECIAL, size=400)
    assert texts(found.pieces) == [(0.0, 8.0, "раз два")]
    assert (found.advance, found.complete) == (400, False)


def test_nothing_said() -> None:
    found = read((), SPECIAL, size=WINDOW)
    assert (found.pieces, found.advance) == ((), WINDOW)


def test_the_last_window_keeps_all_text() -> None:
    found = read(T(0.0, "раз", 2.0, 2.0, "два"), SPECIAL, size=300, final=True)
    assert texts(found.pieces) == [(0.0, 2.0, "раз"), (2.0, 6.0, "два")]
    assert found.advance == 300


def test_what_lies_behind_a_last_pair_remains_to_be_read_even_if_nothing_follows() -> None:
    found = read(T(0.0, "раз", 2.0, 2.0), SPECIAL, size=300, final=True)
    assert texts(found.pieces) == [(0.0, 2.0, "раз")]
    assert (found.advance, found.complete) == (100, True)


def test_stamps_beyond_the_audio_and_in_the_wrong_order_are_repaired() -> None:
    found = read(T(0.0, "раз", 9.0, 9.0, "два", 3.0, 3.0), SPECIAL, size=250)
    assert texts(found.pieces) == [(0.0, 5.0, "раз"), (5.0, 5.0, "два")]
    assert 1 <= found.advance <= 250


def test_a_pair_at_zero_does_not_stop_the_clock() -> None:
    found = read(T(0.0, "раз", 0.0, 0.0, "два"), SPECIAL, size=WINDOW)
    assert found.advance == WINDOW


token = st.one_of(
    st.integers(0, 1500).map(SPECIAL.stamp),
    st.sampled_from(["раз", "два"]).map(lambda word: CODEC.encode(word)[0]),
    st.sampled_from([SPECIAL.end, SPECIAL.start, SPECIAL.no_speech, SPECIAL.no_stamps, 10**6, -1]),
)


@given(st.lists(token, max_size=20), st.integers(1, 1500), st.booleans())
def test_anything_at_all_is_read(tokens: list[int], size: int, final: bool) -> None:
    found = read(tokens, SPECIAL, size=size, final=final)
    violations(tokens, SPECIAL)
    assert 1 <= found.advance <= size
    clock = 0
    for piece in found.pieces:
        assert clock <= piece.start <= piece.end <= size
        assert piece.tokens
        assert all(SPECIAL.is_text(one) for one in piece.tokens)
        clock = piece.end
    kept = [one for piece in found.pieces for one in piece.tokens]
    said = [one for one in tokens if SPECIAL.is_text(one)]
    assert kept == said[: len(kept)]
    if final:
        assert kept == said
