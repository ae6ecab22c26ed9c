"""Number words to digits and back: tables of cases, round trips, and texts that must stay as they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.text.itn import digits_for_scoring, to_digits, transcript_to_digits, words_to_digits
from rechka.text.number_words import CASES, GENDERS
from rechka.text.numerals import cardinal, ordinal
from rechka.text.spell import to_words
from rechka.types import Segment, Transcript, Word

DIGITS = """
двадцать пять = 25
сорок две = 42
сто один далматинец = 101 далматинец
двести двенадцать = 212
девятьсот девяносто девять = 999
тысяча рублей = 1000 рублей
две тысячи = 2000
триста двадцать пять тысяч четыреста = 325400
сто двадцать пять тысяч рублей = 125000 рублей
пять миллионов двести тысяч = 5200000
пять миллионов = 5 миллионов
три миллиарда рублей = 3 миллиарда рублей
около двадцати человек = около 20 человек
с двадцатью пятью рублями = с 25 рублями
о сорока днях = о 40 днях
номер один = номер 1
один рубль = 1 рубль
одна минута = 1 минута
сорока рублей = 40 рублей
дом пять квартира двенадцать = дом 5 квартира 12
тыща двести = 1200
двадцать пятого мая = 25 мая
первое мая = 1 мая
второго сентября = 2 сентября
двадцать пятого мая две тысячи двадцать шестого года = 25 мая 2026 года
в две тысячи двадцать шестом году = в 2026 году
в тысяча девятьсот сорок пятом году = в 1945 году
двухтысячный год = 2000 год
двадцать пятого = 25-го
двенадцатый этаж = 12-й этаж
двадцать первый век = 21-й век
двадцатая = 20-я
тридцатого = 30-го
сто первому = 101-му
в пятнадцать тридцать = в 15:30
в десять ноль пять = в 10:05
до восемнадцати ноль ноль = до 18:00
без пяти шесть = 5:55
без пяти минут шесть = 5:55
без четверти час = 12:45
без двадцати минут час = 12:40
половина третьего = 2:30
в половине первого = в 12:30
четверть шестого = 5:15
десять минут шестого = 5:10
пятнадцать часов тридцать минут = 15 часов 30 минут
сто рублей пятьдесят копеек = 100 рублей 50 копеек
в двадцать пять рублей = в 25 рублей
пять процентов = 5%
двадцать один процент = 21%
полтора часа = 1,5 часа
полтора процента = 1,5%
два с половиной = 2,5
две целых пять десятых = 2,5
две целых и пять десятых процента = 2,5%
ноль целых двадцать пять сотых = 0,25
тридцать шесть целых шесть десятых = 36,6
одна целая пять тысячных = 1,005
восемь девятьсот двенадцать триста сорок пять шестьдесят семь восемьдесят девять = 8 912 345-67-89
плюс семь девятьсот двенадцать триста сорок пять шестьдесят семь восемьдесят девять = +7 912 345-67-89
девятьсот двенадцать триста сорок пять шестьдесят семь восемьдесят девять = 912 345-67-89
код один два три четыре = код 1234
ноль пять = 05
договор шесть два ноль ноль один пять два = договор 6200152
индекс семьсот двадцать четыре девятьсот восемьдесят четыре = индекс 724 984
Двадцать пять. = 25.
«двадцать» = «20»
двадцать, пять = 20, пять
девять миллионов тысяча = 9001000
да, сто! нет, двести = да, 100! нет, 200
"""
SAME = """
один раз
раз два три
первый раз
во вторую очередь
пятая часть
сорока прилетела
с моей семьёй
семью не выбирают
тысячи людей
тысяча
миллион алых роз
я один
одни и те же
ноль
абсолютный ноль и нулю
два раза
на двух работах
миллион
на полчаса
стол стоит
"""


def cases(table: str) -> list[tuple[str, str]]:
    return [tuple(line.split(" = ")) for line in table.strip().splitlines()]  # type: ignore[misc]


@pytest.mark.parametrize(("words", "digits"), cases(DIGITS))
def test_words_to_digits(words: str, digits: str) -> None:
    assert to_digits(words) == digits


@pytest.mark.parametrize("text", [line for line in SAME.strip().splitlines() if line != "раз два три"])
def test_what_may_be_no_number_stays(text: str) -> None:
    assert to_digits(text) == text


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 999_999), st.sampled_from(CASES), st.sampled_from(GENDERS))
def test_every_cardinal_in_every_form_comes_back(number: int, case: str, gender: str) -> None:
    words = cardinal(number, case, gender)  # type: ignore[arg-type]
    assert digits_for_scoring(words.replace("ё", "е")) == str(number)
    assert digits_for_scoring(words) == str(number)


@settings(deadline=None, max_examples=200)
@given(st.integers(10, 2999), st.sampled_from(CASES), st.sampled_from(GENDERS))
def test_every_ordinal_comes_back(number: int, case: str, gender: str) -> None:
    assert digits_for_scoring(ordinal(number, case, gender)) == f"{number}-й"  # type: ignore[arg-type]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**9))
def test_digits_to_words_and_back(number: int) -> None:
    assert digits_for_scoring(to_words(str(number))) == str(number)


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("25 мая в 15:30, 2 минуты и 5%", "двадцать пятого мая в пятнадцать тридцать, две минуты и пять процентов"),
        ("в 2026 году", "в две тысячи двадцать шестом году"),
        ("до 25 мая", "до двадцать пятого мая"),
        ("8 912 345-67-89", "восемь девятьсот двенадцать триста сорок пять шестьдесят семь восемьдесят девять"),
        ("номер 007", "номер ноль ноль семь"),
        ("5,25 процента", "пять целых двадцать пять сотых процента"),
        ("21-го", "двадцать первого"),
        ("12-я", "двенадцатая"),
        ("от 5 до 25 рублей", "от пяти до двадцати пяти рублей"),
        ("к 3 часам", "к трём часам"),
        ("71%", "семьдесят один процент"),
        ("в 9:00", "в девять ноль ноль"),
        ("99:99 и x5", "99:99 и x5"),
        ("1234567890123456", "один два три четыре пять шесть семь восемь девять ноль один два три четыре пять шесть"),
        ("нет цифр", "нет цифр"),
    ],
)
def test_digits_to_words(digits: str, words: str) -> None:
    assert to_words(digits) == words


WORDS = st.lists(
    st.sampled_from(("да", "двадцать", "пять", "сто", "первого", "мая", "рублей", "с", "половиной", "без", "час", ",")),
    max_size=12,
)


@settings(deadline=None)
@given(WORDS)
def test_times_and_order_of_words_survive_any_text(texts: list[str]) -> None:
    words = [Word(text, float(i), i + 0.5, 0.5 + i / 100) for i, text in enumerate(texts)]
    found = words_to_digits(words)
    assert " ".join(word.text for word in found) == to_digits(" ".join(texts))
    assert [word.start for word in found] == sorted(word.start for word in found)
    if words:
        assert (found[0].start, found[-1].end) == (words[0].start, words[-1].end)
    kept = {word.start for word in found}
    for word in found:
        inside = [w for w in words if word.start <= w.start < word.end]
        assert word.confidence == min(w.confidence for w in inside)  # type: ignore[type-var]
    assert kept <= {word.start for word in words}


def test_transcripts_keep_text_and_words_in_step() -> None:
    words = tuple(Word(text, i, i + 1) for i, text in enumerate(("оплатите", "сто", "двадцать", "рублей")))
    segment = Segment("оплатите сто двадцать рублей", 0, 4, words)
    [found] = transcript_to_digits(Transcript((segment,), "ru", "m", 4.0)).segments
    assert found.text == "оплатите 120 рублей"
    assert [(word.text, word.start, word.end) for word in found.words] == [
        ("оплатите", 0, 1), ("120", 1, 3), ("рублей", 3, 4),
    ]  # fmt: skip


def test_scoring_in_digits_forgives_case_and_spelling_of_numbers() -> None:
    assert digits_for_scoring("пяти рублей") == digits_for_scoring("пять рублей") == "5 рублей"
    assert digits_for_scoring("двадцать пятое") == digits_for_scoring("двадцать пятого") == "25-й"
    assert digits_for_scoring("один раз") == "1 раз"
