"""Does a text repeat itself, is it in another language, is it the prompt: for Cyrillic as for Latin letters."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.decoding.whisper import quality

PROSE = (
    "Утром, когда над рекой ещё стоял туман, мы вышли из дома и отправились к старой мельнице. Дорога шла через "
    "поле, потом вдоль опушки, где пахло грибами и мокрой хвоей. Дед рассказывал, как строили плотину, кто возил "
    "камень, почему однажды весной её прорвало и что случилось с мостом. Я слушал и думал, что надо бы записать "
    "эти истории, пока их кто-то помнит. За поворотом нас догнала телега с молоком, и возница предложил подвезти."
)
LOOP = "и это было очень хорошо "


def utf8_ratio(text: str) -> float:
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def test_fluent_russian_is_not_taken_for_a_loop() -> None:
    words = PROSE.split()
    for size in (20, 40, 60, len(words)):
        text = " ".join(words[:size])
        assert quality.compression(text) < 2.0
        assert not quality.loops(text)


def test_the_measure_means_the_same_for_both_alphabets() -> None:
    latin = PROSE.translate({ord(letter): 97 + i % 26 for i, letter in enumerate("абвгдежзийклмнопрстуфхцчшщъыьэюяё")})
    assert quality.compression(PROSE) == pytest.approx(quality.compression(latin), rel=0.15)
    assert utf8_ratio(PROSE) > 1.2 * quality.compression(PROSE)  # what bytes of UTF-8 would say


@given(st.text(alphabet="абвгдежзийклмнопрстуфхцчшщъыьэюяё ", min_size=1, max_size=300))
def test_shifting_the_alphabet_changes_nothing(text: str) -> None:
    shifted = "".join(chr(ord(char) + 0x1000) for char in text)
    assert quality.compression(shifted) == quality.compression(text)


def test_a_long_loop_exceeds_the_limit() -> None:
    assert quality.compression(LOOP * 6) > 2.4
    assert quality.compression("") == 0.0


@pytest.mark.parametrize(
    "repeated", ["да", "спасибо за внимание", "и это было очень хорошо", "раз два три четыре пять шесть"]
)
def test_short_loops_are_found_by_n_grams(repeated: str) -> None:
    size = len(repeated.split())
    times = quality.LIMITS[size]
    text = f"Сначала он сказал. {f'{repeated} ' * times}"
    assert quality.loops(text)
    assert not quality.loops(f"Сначала он сказал. {f'{repeated} ' * (times - 1)}")
    assert quality.compression(f"{repeated} " * times) < 2.4 or times > 3  # the ratio alone would let it pass


def test_loops_are_compared_without_case_punctuation_and_yo() -> None:
    assert quality.loops("Всё, всё! Все… ВСЁ")
    assert quality.loops("да-да да-да да-да да-да")
    assert not quality.loops("да, да, да")


def test_going_in_circles_without_exact_repetition() -> None:
    text = " ".join(f"мы пошли туда и вернулись {'сюда' if i % 2 else 'домой'}" for i in range(8))
    assert quality.loops(text)
    assert quality.distinct(["раз", "два", "три", "раз", "два", "три"]) == pytest.approx(3 / 4)
    assert quality.distinct(["раз"]) == 1.0


@given(st.lists(st.sampled_from("абв"), max_size=30))
def test_the_longest_run_is_really_there(items: list[str]) -> None:
    size, times = quality.longest_run(items)
    if not items:
        assert (size, times) == (0, 0)
        return
    assert 1 <= size <= quality.MAX_NGRAM
    assert any(items[i : i + size * times] == items[i : i + size] * times for i in range(len(items)))


def test_characters_count_where_a_script_has_no_spaces() -> None:
    assert quality.words("今日は今日は") == ["今", "日", "は", "今", "日", "は"]
    assert quality.loops("はいはいはいはいはいはい")


@pytest.mark.parametrize(
    ("text", "language", "slipped"),
    [
        ("Thank you very much for watching", "ru", True),
        ("Мы купили новый iPhone и MacBook", "ru", False),
        ("Thank you very much for watching", "en", False),
        ("OK", "ru", False),
        ("", "ru", False),
        ("Дякую за перегляд", "ru", False),
    ],
)
def test_another_alphabet(text: str, language: str, slipped: bool) -> None:
    assert quality.foreign(text, language) is slipped


@pytest.mark.parametrize(
    ("text", "prompt", "echo"),
    [
        ("речка, распознавание, Иваново", "Речка распознавание Иваново", True),
        ("распознавание речи Иваново", "речка, распознавание речи Иваново, конец", True),
        ("Речка распознавание Иваново и ещё кое-что", "речка, распознавание, Иваново", True),
        ("мы живём в Иваново", "речка, распознавание, Иваново", False),
        ("да, да", "да да", False),
        ("совсем другое дело", "", False),
    ],
)
def test_the_prompt_said_again(text: str, prompt: str, echo: bool) -> None:
    assert quality.echoes(text, prompt) is echo
