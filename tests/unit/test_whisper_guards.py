"""Text that was made up is dropped when two kinds of witnesses agree, never by a list of phrases alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from rechka.decoding.whisper.guards import KINDS, Surroundings, anomalous, anomaly, condemned, isolated, signs
from rechka.types import Word

SPOKEN = Surroundings(speech=0.9, after=False, level_db=-25.0, loudest_db=-20.0, no_speech=0.05)
CREDIT = "Субтитры сделал DimaTorzok"


def found(text: str, seconds: float = 3.0, around: Surroundings = SPOKEN) -> tuple[str, ...]:
    return signs(text, seconds, around, max_words_s=7.0, max_no_speech=0.6)


def test_ordinary_speech_has_no_sign() -> None:
    assert found("Добрый день, чем могу помочь?") == ()


@pytest.mark.parametrize(
    ("text", "seconds", "change", "sign"),
    [
        (CREDIT, 3.0, {}, "credits"),
        ("Продолжение следует...", 3.0, {}, "credits"),
        ("Редактор субтитров А.Семкин Корректор А.Егорова", 9.0, {}, "credits"),
        ("Thanks for watching!", 3.0, {}, "credits"),
        ("раз два три четыре пять шесть семь восемь", 1.0, {}, "fast"),
        ("да да да да да", 3.0, {}, "loop"),
        ("Добрый день", 3.0, {"speech": 0.0}, "no speech"),
        ("Добрый день", 3.0, {"after": True}, "after speech"),
        ("Добрый день", 3.0, {"level_db": -55.0}, "quiet"),
        ("Добрый день", 3.0, {"level_db": -70.0, "loudest_db": -68.0}, "quiet"),
        ("Добрый день", 3.0, {"no_speech": 0.8}, "model says no speech"),
        ("Добрый день", 3.0, {"ctc": 0.0}, "no letters heard"),
    ],
)
def test_every_sign(text: str, seconds: float, change: dict[str, float], sign: str) -> None:
    assert found(text, seconds, replace(SPOKEN, **change)) == (sign,)  # type: ignore[arg-type]
    assert not condemned((sign,))  # alone it proves nothing


@pytest.mark.parametrize(
    "text", ["Мне нужно продолжение", "Спасибо большое", "Сделайте субтитры к фильму", "Да, да, да"]
)
def test_like_a_credit_but_none(text: str) -> None:
    assert found(text) == ()


def test_seven_words_a_second_is_the_limit() -> None:
    assert found("раз два три четыре пять шесть семь", 1.0) == ()
    assert found("раз два", 0.05) == ()  # times of two short words say little


def test_a_credit_is_dropped_where_nobody_speaks_and_kept_where_somebody_does() -> None:
    silence = replace(SPOKEN, speech=0.0, level_db=-65.0)
    assert condemned(found(CREDIT, 3.0, silence))
    assert not condemned(found(CREDIT, 3.0, SPOKEN))


def test_without_a_detector_the_level_and_the_model_are_witnesses() -> None:
    deaf = Surroundings(None, True, -70.0, -20.0, 0.9)
    assert set(found("Добрый день", 3.0, deaf)) == {"quiet", "model says no speech"}
    assert condemned(found("Добрый день", 3.0, deaf))


def test_two_kinds_are_needed() -> None:
    for first, second in itertools.combinations(KINDS, 2):
        assert condemned((first, second)) is (KINDS[first] != KINDS[second])
    assert not condemned(())


def word(start: float, end: float, confidence: float | None = 0.9, text: str = "слово") -> Word:
    return Word(text, start, end, confidence)


def test_the_points_of_improbable_words() -> None:
    assert anomaly(word(0, 0.4)) == 0
    assert anomaly(word(0, 0.4, 0.1)) == 1
    assert anomaly(word(0, 0.4, None)) == 0
    assert anomaly(word(0, 0.033)) == pytest.approx(1.5)
    assert anomaly(word(0, 3.5)) == pytest.approx(1.5)
    assert anomaly(word(0, 3.5, 0.1)) == pytest.approx(2.5)


def test_a_segment_of_three_points_or_all_of_its_words() -> None:
    odd, fine = word(0, 0.4, 0.1), word(0, 0.4)
    assert anomalous([odd, odd, odd, *[fine] * 5])
    assert not anomalous([odd, odd, *[fine] * 6])
    assert anomalous([odd, odd])
    assert not anomalous([fine] * 8 + [odd] * 4)  # the first eight words count
    assert not anomalous([])
    assert not anomalous([word(0, 0.4, 0.1, text="...")])


def test_improbable_between_pauses_is_dropped_beside_speech_it_stays() -> None:
    def odd(start: float) -> list[Word]:
        return [word(start, start + 0.4, 0.05), word(start + 0.4, start + 0.8, 0.05)]

    fine = [word(10.0, 10.4), word(10.4, 10.9)]
    alone = isolated([odd(4.0), fine], size=30.0, silence=2.0, before=0.0)
    assert alone == [0]
    assert isolated([odd(9.0), fine], size=30.0, silence=2.0, before=0.0) == []
    assert isolated([fine, odd(11.0)], size=30.0, silence=2.0, before=0.0) == []
    assert isolated([fine, odd(20.0)], size=30.0, silence=2.0, before=0.0) == [1]  # silence up to the window's end
    assert isolated([fine, odd(20.0)], size=22.0, silence=2.0, before=0.0) == [1]
    assert isolated([odd(0.5)], size=30.0, silence=2.0, before=float("inf")) == [0]  # nothing before, nothing after
    assert isolated([odd(0.2)], size=2.5, silence=2.0, before=float("inf")) == [0]
    assert isolated([fine], size=30.0, silence=2.0, before=float("inf")) == []
