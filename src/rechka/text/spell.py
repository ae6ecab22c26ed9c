"""Digits to Russian number words: the reverse of ``itn``, for training texts and for reading aloud.

Case and gender come from what stands beside the number, where that tells: the form of a counted noun, a preposition, a
month, an ending behind a hyphen. Elsewhere the nominative masculine is taken.
"""

from __future__ import annotations

import re

from rechka.text import nouns
from rechka.text.number_words import MONTHS, fold
from rechka.text.numerals import (
    BILLION,
    MAX_CARDINAL,
    MILLION,
    THOUSAND,
    TRILLION,
    Case,
    Gender,
    Noun,
    cardinal,
    group,
    ordinal,
    spell,
)

_MONTHS = [
    "января",
    "февраля",
    "марта",
    "апреля",
    "мая",
    "июня",
    "июля",
    "августа",
    "сентября",
    "октября",
    "ноября",
    "декабря",
]
_TOKEN = re.compile(r"^(?P<before>[«(\"]*)(?P<body>.*?)(?P<behind>[.,!?;:…»)\"]*)$", re.S)
_PHONE = re.compile(
    r"(?<![\d.,:-])(?:(?:\+7|8)[ (-]{0,2}\d{3}|9\d\d(?=[ )-]))[ )-]{0,2}\d{3}[ -]?\d\d[ -]?\d\d(?![\d.,:-]*\d)"
)
_LOCAL = re.compile(r"(?<![\d-])\d{3}-\d\d-\d\d(?![\d-])")
_THOUSANDS = re.compile(r"(?<![\d.,:-])[1-9]\d{0,2}(?:[ \u00a0\u202f]\d{3})+(?![\d:-]|[.,]\d)")
_SIGNED = re.compile(r"(?<![\d)])(\d)[ \u00a0](?=%)|№[ \u00a0]?(?=\d)")
_WHOLE = re.compile(r"\d+")
_ENDED = re.compile(r"(\d{1,4})-([а-яё]{1,3})")
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)")
_DATE = re.compile(r"(\d{1,2})\.(\d\d)(?:\.(\d{4}|\d\d))?")
_RANGE = re.compile(r"(\d{1,12})[-–](\d{1,12})")
_DECIMAL = re.compile(r"(\d{1,12})[.,](\d{1,3})")
_DOTTED = re.compile(r"\d{1,3}(?:\.\d{1,3}){2,}")
_GLUED = re.compile(r"([-−–+]?)(\d[\d.,]*)(%|₽|\$|€|[а-яА-Я]{1,4})")
_ENDINGS: dict[str, tuple[Case, Gender]] = {
    "й": ("nom", "m"), "ый": ("nom", "m"), "ий": ("nom", "m"), "ой": ("nom", "m"), "го": ("gen", "m"),
    "ого": ("gen", "m"), "его": ("gen", "m"), "му": ("dat", "m"), "ому": ("dat", "m"), "ему": ("dat", "m"),
    "м": ("ins", "m"), "ым": ("ins", "m"), "им": ("ins", "m"), "ом": ("pre", "m"), "ем": ("pre", "m"),
    "я": ("nom", "f"), "ая": ("nom", "f"), "ю": ("acc", "f"), "ую": ("acc", "f"), "е": ("nom", "n"), "ое": ("nom", "n"),
}  # fmt: skip
_PLURALS = {"е": "ые", "х": "ых", "ми": "ыми", "м": "ым"}
_TODAY = frozenset(("сегодня", "завтра", "вчера", "это", "на"))
_NOMINATIVE: tuple[Case, ...] = ("nom",)
_PLACES = {1: ("десятая", "десятых"), 2: ("сотая", "сотых"), 3: ("тысячная", "тысячных")}


def to_words(text: str) -> str:
    """The text with its digits as words.

    Whole numbers up to 15 digits, longer ones and those with leading noughts digit by digit; ordinals with endings
    (``25-го``), or before the singular of a common noun (``на 5 этаже``); dates, decimals with a comma or a point,
    times of day, ranges, ``%``, ``№`` and usual abbreviations of units; telephone numbers in groups. What is none of
    these stays as it is.

    >>> to_words("25 мая в 15:30, через 2 минуты, на 5%")
    'двадцать пятого мая в пятнадцать тридцать, через две минуты, на пять процентов'
    """
    text = _PHONE.sub(lambda found: _phone(found[0]), text)
    text = _LOCAL.sub(lambda found: " ".join(map(group, found[0].split("-"))), text)
    text = _THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = _SIGNED.sub(lambda found: found[1] or "номер ", text)
    tokens = text.split()
    folded = [fold(token) for token in tokens]
    result: list[str] = []
    at = 0
    while at < len(tokens):
        token, size = _token(tokens, folded, at)
        result.append(token)
        at += size
    return " ".join(result)


def _phone(text: str) -> str:
    digits = re.sub(r"\D", "", text)
    plus = "плюс " if text.startswith("+") else ""
    head, rest = digits[:-10], digits[-10:]
    parts = [head] * bool(head) + [rest[:3], rest[3:6], rest[6:8], rest[8:]]
    return plus + " ".join(group(part) for part in parts)


def _token(tokens: list[str], folded: list[str], at: int) -> tuple[str, int]:
    """A token in words, and how many tokens that took: the abbreviation behind a number is spelled with it."""
    token = tokens[at]
    match = _TOKEN.match(token)
    if match is None or not any(letter.isdigit() for letter in token):
        return token, 1
    before, body = folded[at - 1] if at else "", match["body"]
    after = folded[at + 1] if at + 1 < len(folded) and not match["behind"] else ""
    glued = _GLUED.fullmatch(body)
    if glued and (noun := nouns.SHORT.get(glued[3].lower())) is not None:
        sign = {"": "", "+": "плюс "}.get(glued[1], "минус ")
        text = _measured(glued[2], noun, before)
        return (match["before"] + sign + text + match["behind"], 1) if text else (token, 1)
    noun = nouns.SHORT.get(after)
    if noun is not None and (after != "р" or tokens[at + 1][1:2] == "."):
        text = _measured(body, noun, before)
        if text:
            stop = tokens[at + 1].lower().removeprefix(after)
            ends = at + 2 >= len(tokens) or tokens[at + 2][:1].isupper()
            behind = stop if stop.strip(".") or ends or not stop else ""
            return _with_money(match["before"] + text, noun, behind, tokens, folded, at)
    return match["before"] + _number(body, before, after) + match["behind"], 1


def _with_money(text: str, noun: Noun, behind: str, tokens: list[str], folded: list[str], at: int) -> tuple[str, int]:
    """A number with its unit; behind thousands and millions a second abbreviation: ``5 млн руб.``"""
    second = nouns.SHORT.get(folded[at + 2]) if at + 2 < len(folded) and not behind else None
    scale = noun in (THOUSAND, MILLION, BILLION, TRILLION)
    if second is None or not scale:
        return text + behind, 2
    stop = tokens[at + 2].lower().removeprefix(folded[at + 2])
    return f"{text} {second.form(1000)}{stop.strip('.') or (stop if at + 3 >= len(tokens) else '')}", 3


def _measured(digits: str, noun: Noun, before: str) -> str:
    """``5 %``, ``2,5 кг``: the number with its unit in words; empty if these are no digits that can be read so."""
    if found := _DECIMAL.fullmatch(digits):
        return f"{_decimal(int(found[1]), found[2])} {noun.form(2)}"
    if not _WHOLE.fullmatch(digits) or int(digits) > MAX_CARDINAL or (digits[0] == "0" and len(digits) > 1):
        return ""
    number = int(digits)
    case: Case = (*nouns.asked(before), *_NOMINATIVE)[0]
    return f"{cardinal(number, case, noun.gender)} {noun.form(number, case)}"


def _number(body: str, before: str, after: str) -> str:
    if _WHOLE.fullmatch(body):
        return _whole(body, before, after)
    if body[:1] in "-−+" and _WHOLE.fullmatch(body[1:]):
        return f"{'плюс' if body[0] == '+' else 'минус'} {_whole(body[1:], '', after)}"
    if found := _ENDED.fullmatch(body):
        return _ordinal(int(found[1]), found[2].replace("ё", "е"), before, after) or body
    if found := _CLOCK.fullmatch(body):
        return _clock(int(found[1]), found[2]) or body
    if (found := _DATE.fullmatch(body)) and (text := _date(*found.groups())):
        return text
    if found := _RANGE.fullmatch(body):
        if found[1][0] == "0" or int(found[1]) >= int(found[2]):
            return body
        return f"{_whole(found[1], before, after)} {_whole(found[2], before, after)}"
    if found := _DECIMAL.fullmatch(body):
        noun = nouns.known(after)
        if int(found[1]) == 1 and found[2] == "5" and noun is not None:
            return "полторы" if noun.gender == "f" else "полтора"
        return _decimal(int(found[1]), found[2])
    if _DOTTED.fullmatch(body):
        return " точка ".join(cardinal(int(part)) for part in body.split("."))
    return body


def _whole(digits: str, before: str, after: str) -> str:
    if (len(digits) > 1 and digits[0] == "0") or int(digits) > MAX_CARDINAL:
        return group(digits) if len(digits) <= 3 else spell(digits)
    number = int(digits)
    if after in MONTHS and 1 <= number <= 31:
        return ordinal(number, _day_case(before), "n")
    form = nouns.cardinal_form(number, after, before)
    if form is None or (after in ("год", "году") and number >= 1000) or after in ("век", "веке"):
        year = nouns.ordinal_form(after, before)
        if year is not None and 1 <= number <= 2999:
            return ordinal(number, *year)
    if after == "года" and 1000 <= number <= 2999:
        return ordinal(number, "gen")
    return cardinal(number, *(form or ("nom", "m")))


def _day_case(before: str) -> Case:
    """``к двадцать пятому мая``; without a preposition it is most often the day on which something is."""
    asked = nouns.asked(before)
    if before in _TODAY:
        return "nom"
    return "gen" if not asked or "gen" in asked else asked[0]


def _ordinal(number: int, ending: str, before: str, after: str) -> str:
    if not 1 <= number <= 2999:
        return ""
    decade = number % 10 == 0 and (after.startswith("год") or not nouns.known(after))
    if ending in ("х", "ми") or (ending in ("е", "м") and decade and number % 100):
        if number % 10 == 3 or ending not in _PLURALS:
            return ""
        return ordinal(number, "gen")[:-3] + _PLURALS[ending]
    if ending not in _ENDINGS:
        return ""
    case, gender = _ENDINGS[ending]
    asked = nouns.asked(before)
    if ending == "м" and "pre" in asked:
        case = "pre"
    if ending in ("й", "ой") and after.endswith(("е", "и", "ы", "ой", "ей")):  # "на 5-й улице"
        case, gender = "gen", "f"
    return ordinal(number, case, gender)


def _clock(hour: int, minutes: str) -> str:
    if hour > 23 or int(minutes) > 59:
        return ""
    return f"{cardinal(hour)} {'ноль ноль' if minutes == '00' else group(minutes)}"


def _date(day: str, month: str, year: str | None) -> str:
    """``25.05.2026``; without a year only where a leading nought tells it from a decimal."""
    if not (1 <= int(day) <= 31 and 1 <= int(month) <= 12) or (year is None and "0" not in (day[0], month[0])):
        return ""
    if year is None and not (len(day) == 2 and month[0] in "01" and day != "00" and (day[0] == "0" or month[0] == "0")):
        return ""
    text = f"{ordinal(int(day), 'gen', 'n')} {_MONTHS[int(month) - 1]}"
    if year is None or int(year) == 0 or int(year) > 2999:
        return text if year is None else ""
    return f"{text} {ordinal(int(year), 'gen')} года"


def _decimal(whole: int, part: str) -> str:
    """``две целых пять десятых``."""
    one = whole % 10 == 1 and whole % 100 != 11
    value = int(part)
    single = value % 10 == 1 and value % 100 != 11
    places = _PLACES[len(part)][0 if single else 1]
    return f"{cardinal(whole, gender='f')} {'целая' if one else 'целых'} {cardinal(value, gender='f')} {places}"
