"""Digits to Russian number words: the reverse of ``itn``, for training texts and for reading aloud.

Case and gender come from what stands beside the number, where that tells: a counted noun, a preposition, a month, an
ending behind a hyphen. Elsewhere the nominative masculine is taken.
"""

from __future__ import annotations

import re

from rechka.text.number_words import AT, COUNTED, MONTHS, YEARS, fold
from rechka.text.numerals import MAX_CARDINAL, Case, Gender, cardinal, group, ordinal, spell

_TOKEN = re.compile(r"^(?P<before>[«(]*)(?P<body>.*?)(?P<behind>[.,!?;:…»)\"]*)$")
_PHONE = re.compile(r"(?:(?:\+7|8)[ (-]*)?9\d\d[ )-]*\d{3}[ -]?\d\d[ -]?\d\d(?!\d)")
_GENITIVE = frozenset(["до", "от", "с", "без", "около", "после", "из", "у", "более", "менее", "больше", "меньше"])
_DATIVE = frozenset(("к", "по"))
_PREPOSITIONAL = frozenset(("о", "об", "при"))
_FEMININE = frozenset(
    [
        "копейка",
        "копейки",
        "копеек",
        "минута",
        "минуты",
        "минут",
        "минуту",
        "секунда",
        "секунды",
        "секунд",
        "неделя",
        "недели",
        "недель",
        "тысяча",
        "тысячи",
        "тысяч",
        "штука",
        "штуки",
        "штук",
        "тонна",
        "тонны",
        "тонн",
        "квартира",
    ]
)
_NEUTER = frozenset(("место", "места", "мест", "окно", "окна", "окон"))
_ENDINGS: dict[str, tuple[Case, Gender]] = {
    "й": ("nom", "m"), "ый": ("nom", "m"), "ой": ("nom", "m"), "го": ("gen", "m"), "ого": ("gen", "m"),
    "му": ("dat", "m"), "ому": ("dat", "m"), "м": ("ins", "m"), "ым": ("ins", "m"), "я": ("nom", "f"),
    "ая": ("nom", "f"), "ю": ("acc", "f"), "ую": ("acc", "f"), "е": ("nom", "n"), "ое": ("nom", "n"),
}  # fmt: skip
_YEAR_CASES: dict[str, Case] = {"год": "nom", "года": "gen", "году": "pre", "годом": "ins", "годе": "pre"}
_PLACES = {1: ("десятая", "десятых"), 2: ("сотая", "сотых"), 3: ("тысячная", "тысячных")}


def to_words(text: str) -> str:
    """The text with its digits as words.

    Whole numbers up to 12 digits, longer ones and those with leading noughts digit by digit; ordinals with endings
    (``25-го``); decimals with a comma or a point; times of day; ``%``; telephone numbers in groups.

    >>> to_words("25 мая в 15:30, 2 минуты и 5%")
    'двадцать пятое мая в пятнадцать тридцать, две минуты и пять процентов'
    """
    text = _PHONE.sub(lambda found: _phone(found[0]), text)
    tokens = text.split()
    folded = [fold(token) for token in tokens]
    return " ".join(_token(token, folded, at) for at, token in enumerate(tokens))


def _phone(text: str) -> str:
    digits = re.sub(r"\D", "", text)
    plus = "плюс " if text.startswith("+") else ""
    head, rest = digits[:-10], digits[-10:]
    parts = [head] * bool(head) + [rest[:3], rest[3:6], rest[6:8], rest[8:]]
    return plus + " ".join(group(part) for part in parts)


def _token(token: str, folded: list[str], at: int) -> str:
    match = _TOKEN.match(token)
    if match is None or not any(letter.isdigit() for letter in token):
        return token
    return match["before"] + _number(match["body"], folded, at) + match["behind"]


def _number(body: str, folded: list[str], at: int) -> str:
    after = folded[at + 1] if at + 1 < len(folded) else ""
    before = folded[at - 1] if at else ""
    if body.isascii() and body.isdigit():
        return _whole(body, before, after)
    if found := re.fullmatch(r"(\d{1,4})-([а-яё]{1,3})", body):
        case, gender = _ENDINGS.get(found[2].replace("ё", "е"), ("nom", "m"))
        number = int(found[1])
        return ordinal(number, case, gender) if 1 <= number <= 2999 else body
    if found := re.fullmatch(r"(\d{1,2}):(\d\d)", body):
        if int(found[1]) < 24 and int(found[2]) < 60:
            minutes = "ноль ноль" if found[2] == "00" else group(found[2])
            return f"{cardinal(int(found[1]))} {minutes}"
        return body
    if found := re.fullmatch(r"(\d+)(?:[.,](\d{1,3}))?%", body):
        whole = int(found[1]) if len(found[1]) <= 12 else None
        if whole is None:
            return body
        return f"{_decimal(whole, found[2])} процента" if found[2] else f"{cardinal(whole)} {_percents(whole)}"
    if (found := re.fullmatch(r"(\d{1,12})[.,](\d{1,3})", body)) is not None:
        return _decimal(int(found[1]), found[2])
    return body


def _whole(digits: str, before: str, after: str) -> str:
    if (len(digits) > 1 and digits[0] == "0") or int(digits) > MAX_CARDINAL:
        return group(digits) if len(digits) <= 3 else spell(digits)
    number = int(digits)
    if after in MONTHS and 1 <= number <= 31:
        return ordinal(number, "gen" if before in _GENITIVE | AT - {"в", "на"} else "nom", "n")
    if after in YEARS and 1000 <= number <= 2999:
        return ordinal(number, _YEAR_CASES[after], "m")
    gender: Gender = "f" if after in _FEMININE else "n" if after in _NEUTER else "m"
    return cardinal(number, _case(before, after), gender)


def _case(before: str, after: str) -> Case:
    if after and after not in COUNTED and after not in AT:
        return "nom"
    if before in _GENITIVE:
        return "gen"
    if before in _DATIVE:
        return "dat"
    return "pre" if before in _PREPOSITIONAL else "nom"


def _percents(number: int) -> str:
    if number % 10 == 1 and number % 100 != 11:
        return "процент"
    return "процента" if 2 <= number % 10 <= 4 and not 12 <= number % 100 <= 14 else "процентов"


def _decimal(whole: int, part: str) -> str:
    """``две целых пять десятых``."""
    one = whole % 10 == 1 and whole % 100 != 11
    value = int(part)
    single = value % 10 == 1 and value % 100 != 11
    places = _PLACES[len(part)][0 if single else 1]
    return f"{cardinal(whole, gender='f')} {'целая' if one else 'целых'} {cardinal(value, gender='f')} {places}"
