"""The scoring normaliser."""

from __future__ import annotations

import pytest

from rechka.text.normalize import scoring


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ещё раз, пожалуйста!", "еще раз пожалуйста"),
        ("кое-что  из-за\tугла\n", "кое что из за угла"),
        ("«Алло?» — сказал он…", "алло сказал он"),
        ("замо\u0301к", "замок"),  # stress mark
        ("тѐмно-си\u0300ний, о\u0300коло", "темно синий около"),  # secondary stress
        ("пере\u00adнос", "перенос"),  # soft hyphen
        ("и\u0306од, е\u0308лка", "йод елка"),  # decomposed й and ё
        ("в 5 часов", "в 5 часов"),  # a written digit is an error, not nothing
        ("SMS-код", "sms код"),
        ("Ёлка ЁЖ", "елка еж"),
        ("...", ""),
        ("", ""),
    ],
)
def test_scoring(text: str, expected: str) -> None:
    assert scoring(text) == expected


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("двадцать пятого мая две тысячи двадцать шестого года", "25 мая 2026 года"),
        ("двадцать пятого", "25-го"),
        ("пять процентов", "5 %"),
        ("пять тысяч рублей", "5 тысяч рублей"),
        ("двадцать одна тысяча рублей", "21 000 рублей"),
        ("пять тысяч двести", "5 тыс. 200"),
        ("два с половиной миллиона", "2,5 млн"),
        ("восемь девятьсот двенадцать триста сорок пять шестьдесят семь восемьдесят девять", "8 (912) 345-67-89"),
        ("в пятнадцать ноль пять", "в 15:05"),
        ("без пяти шесть", "5:55"),
        ("ноль целых пять десятых процента", "0,5%"),
        ("сто рублей, пятьдесят копеек", "100 рублей 50 копеек"),
        ("один раз", "1 раз"),
        ("два-три дня", "2–3 дня"),
    ],
)
def test_numbers_may_be_spelled_either_way(said: str, written: str) -> None:
    assert scoring(said, numbers=True) == scoring(written, numbers=True)
    assert scoring(said) != scoring(written)


@pytest.mark.parametrize(
    ("one", "other"), [("пять", "шесть"), ("пять тысяч", "пять"), ("2,5", "25"), ("сто два", "сто двадцать"), ("5", "")]
)
def test_different_numbers_stay_different(one: str, other: str) -> None:
    assert scoring(one, numbers=True) != scoring(other, numbers=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cтол Hомер Aллo", "стол номер алло"),  # Latin c, H, A, o
        ("сomputer", "computer"),  # Cyrillic с
        ("COM-порт SMS", "com порт sms"),  # words of one alphabet stay
        ("wифи", "wифи"),  # w looks like no Cyrillic letter, и like no Latin one
    ],
)
def test_letters_that_look_alike(text: str, expected: str) -> None:
    assert scoring(text, lookalikes=True) == expected
