"""Inverse text normalisation: Russian number words to digits, in words with their times or in plain text.

A table of every form of every number word (six cases, three genders, ordinals) comes from ``rechka.text.numerals``;
a small grammar puts them together: cardinals up to a billion, ordinals, dates, years, times of day, decimals, per cent,
telephone numbers and other dictated groups. What may be no number stays, and so do numbers below ten on their own, as
good style has it: ``два раза``, but ``2 рубля``; ``семью`` is a family unless something is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from rechka.text.numerals import BILLION, MILLION, THOUSAND, Case, Gender, cardinal, ordinal
from rechka.types import Segment, Transcript, Word

CASES: tuple[Case, ...] = ("nom", "gen", "dat", "acc", "ins", "pre")
GENDERS: tuple[Gender, ...] = ("m", "f", "n")
MARKS = '.,!?;:…»)"'
"""Punctuation behind a word that ends a number, unless the number ends with it."""

Kind = Literal["unit", "teen", "ten", "hundred", "scale", "half"]


@dataclass(frozen=True, slots=True)
class Number:
    """A number word: its value and place in a number; ``ordinal`` with its written ending; ``doubtful`` alone."""

    value: int
    kind: Kind
    ordinal: str = ""
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens ``start`` to ``end`` (exclusive) became ``text``."""

    start: int
    end: int
    text: str


def fold(word: str) -> str:
    """The form in which words are looked up: lower case, ё as е, no punctuation around."""
    return word.lower().replace("ё", "е").strip(MARKS + "«(")


def _kind(value: int) -> Kind:
    if value < 10:
        return "unit"
    if value < 20:
        return "teen"
    return "ten" if value < 100 else "hundred"


_DOUBTFUL = frozenset({"семью", "сорока"})
"""Forms that are something else as well (family, a magpie): numbers only beside another number or a counted noun."""
_ADJECTIVE_ENDINGS = ("ый", "ого", "ому", "ым", "ом", "ая", "ой", "ую", "ое")


def _ending(word: str) -> str:
    """What is written behind the digits: one letter after a vowel, two after a consonant (``-го``, ``-й``, ``-ми``)."""
    return word[-1] if word[-2] in "аеиоуыэюяь" else word[-2:]


@lru_cache(maxsize=1)
def table() -> dict[str, Number]:
    """Every number word in every form; cardinals win over ordinals of the same spelling."""
    found: dict[str, Number] = {}
    for value in (*range(1, 20), *range(20, 100, 10), *range(100, 1000, 100), 1000):
        for case in CASES:
            for gender in GENDERS:
                word = fold(ordinal(value, case, gender))
                found.setdefault(word, Number(value, "scale" if value == 1000 else _kind(value), _ending(word)))
    for case in CASES:
        for gender in GENDERS:
            word = fold(ordinal(2000, case, gender))
            found.setdefault(word, Number(2000, "scale", _ending(word)))
    for value, stem in ((10**6, "миллионн"), (10**9, "миллиардн")):
        for ending in _ADJECTIVE_ENDINGS:
            found.setdefault(stem + ending, Number(value, "scale", _ending(stem + ending)))
    for value in (*range(20), *range(20, 100, 10), *range(100, 1000, 100)):
        for case in CASES:
            for gender in GENDERS:
                word = fold(cardinal(value, case, gender))
                found[word] = Number(value, _kind(value), doubtful=value == 1 or word in _DOUBTFUL)
    found |= {"нуль": Number(0, "unit"), "нулю": Number(0, "unit"), "нулем": Number(0, "unit")}
    for value, noun in ((1000, THOUSAND), (10**6, MILLION), (10**9, BILLION)):
        for forms in (noun.singular, noun.plural):
            for form in forms.split():
                found[fold(form)] = Number(value, "scale", doubtful=True)
    found |= {"тыща": Number(1000, "scale", doubtful=True), "тыщи": Number(1000, "scale", doubtful=True),
              "тыщ": Number(1000, "scale", doubtful=True)}  # fmt: skip
    return found


def _nouns(text: str) -> frozenset[str]:
    return frozenset(text.split())


COUNTED = _nouns(
    "рубль рубля рублей рублю рублем рублях рублями копейка копейки копеек копейку процент процента процентов "
    "проценту процентом час часа часов часу минута минуты минут минуту секунда секунды секунд день дня дней неделя "
    "недели недель неделю месяц месяца месяцев год года лет году километр километра километров метр метра метров "
    "килограмм килограмма килограммов грамм грамма граммов градус градуса градусов штука штуки штук доллар доллара "
    "долларов евро гигабайт гигабайта гигабайтов мегабайт этаж этажа этаже номер номера литр литра литров человек "
    "человека балл балла баллов часам часах днях часами минутам минутами дням дням годам рублям рублями копейками"
)
"""Behind these, or before them, ``один`` and other doubtful words are numbers."""
BEFORE = _nouns("номер дом дома доме квартира квартиры квартире корпус офис подъезд этаж кабинет код строение участок")
MONTHS = _nouns("января февраля марта апреля мая июня июля августа сентября октября ноября декабря")
YEARS = _nouns("год года году годом годе")
AT = _nouns("в к до с после около на")
PERCENT = _nouns("процент процента процентов проценту процентом проценте процентам процентах процентами")
_TENTHS = {
    **dict.fromkeys(("десятая", "десятых", "десятые", "десятой"), 1),
    **dict.fromkeys(("сотая", "сотых", "сотые", "сотой"), 2),
    **dict.fromkeys(("тысячная", "тысячных", "тысячные", "тысячной"), 3),
}
_WHOLE = _nouns("целая целых целые целой")
_ONE_AND_HALF = _nouns("полтора полторы полутора")


class Parser:
    """One pass over the tokens of a phrase.

    Args:
        words: tokens as written.
        loose: for scoring: ``один`` and ordinals become bare digits wherever they stand.
    """

    def __init__(self, words: Sequence[str], *, loose: bool = False) -> None:
        self.words = [fold(word) for word in words]
        self.stops = [word[-1:] in MARKS for word in words]
        self.loose = loose
        self.numbers = [table().get(word) for word in self.words]

    def spans(self) -> list[Span]:
        """What becomes digits, in order."""
        found: list[Span] = []
        rules: tuple[Callable[[int], Span | None], ...] = (
            self._time, self._half, self._decimal, self._date, self._clock, self._dictated, self._ordinal, self._number,
        )  # fmt: skip
        at = 0
        while at < len(self.words):
            span = next((span for rule in rules if (span := rule(at))), None)
            if span is None:
                at += 1
            else:
                found.append(span)
                at = span.end
        return found

    # Pieces ---------------------------------------------------------------------------------------------------------

    def word(self, at: int) -> str:
        """The folded token, or ""."""
        return self.words[at] if 0 <= at < len(self.words) else ""

    def linked(self, at: int) -> bool:
        """Whether token ``at`` goes on from the one before: no punctuation between."""
        return 0 < at < len(self.words) and not self.stops[at - 1]

    def below_thousand(self, at: int) -> tuple[int, int, str] | None:
        """Hundreds, tens and units from ``at``: value, end, and the ending if the last word is an ordinal."""
        value, limit, here = 0, 1000, at
        while here < len(self.words) and (here == at or self.linked(here)):
            number = self.numbers[here]
            if number is None or number.kind == "scale" or (number.value == 0 and here > at):
                break
            if {"hundred": 100, "ten": 10, "teen": 1, "unit": 1}[number.kind] * 10 > limit or (
                number.kind == "teen" and limit < 100
            ):
                break
            value += number.value
            here += 1
            if number.ordinal:
                return value, here, number.ordinal
            if number.value == 0 or number.kind in ("unit", "teen"):
                break
            limit = 100 if number.kind == "hundred" else 10
        return (value, here, "") if here > at else None

    def cardinal(self, at: int) -> tuple[int, int, str] | None:
        """A whole number with its scales: value, end, ordinal ending."""
        total, here, last_scale = 0, at, 10**12
        while here < len(self.words) and (here == at or self.linked(here)):
            part = self.below_thousand(here)
            count, end, ending = part if part else (1, here, "")
            if ending:
                return (total + count, end, ending) if not last_scale < 1000 else None
            scale = self.numbers[end] if end < len(self.words) and (end == here or self.linked(end)) else None
            if scale is not None and scale.kind == "scale" and scale.value < last_scale:
                if count == 0:
                    return (0, end, "")
                total, here, last_scale = total + count * scale.value, end + 1, scale.value
                if scale.ordinal:
                    return total, here, scale.ordinal
                continue
            if part is None or (last_scale < 10**12 and count == 0):
                break
            return total + count, end, ""
        return (total, here, "") if here > at else None

    def _bare(self, at: int) -> bool:
        """Whether the word alone should stay: small, or perhaps no number, and nothing beside it speaks for digits."""
        number = self.numbers[at]
        if number is None or self.loose or not (number.doubtful or (number.kind == "unit" and not number.ordinal)):
            return False
        return self.word(at + 1) not in COUNTED and self.word(at - 1) not in BEFORE

    # Rules ----------------------------------------------------------------------------------------------------------

    def _number(self, at: int) -> Span | None:
        found = self.cardinal(at)
        if found is None or found[2]:
            return None
        value, end, _ = found
        if end == at + 1 and self._bare(at):
            return None
        if self.numbers[at] is not None and self.numbers[at].kind == "scale" and end == at + 1:  # type: ignore[union-attr]
            plural = self.word(at) not in ("тысяча", "тысячу", "тыща", "миллион", "миллиард")
            if not self.loose and (plural or value >= 10**6):
                return None
        text = str(value)
        if not self.loose and value >= 10**6 and self.numbers[end - 1].kind == "scale":  # type: ignore[union-attr]
            scale = self.numbers[end - 1].value  # type: ignore[union-attr]
            if scale >= 10**6 and value % scale == 0:  # "5 миллионов" reads better than seven digits
                return Span(at, end - 1, str(value // scale)) if end - 1 > at else None
        if self.word(end) in PERCENT and self.linked(end) and not self.loose:
            return Span(at, end + 1, text + "%")
        return Span(at, end, text)

    def _ordinal(self, at: int) -> Span | None:
        found = self.cardinal(at)
        if found is None or not found[2]:
            return None
        value, end, ending = found
        if self.word(end) in YEARS and self.linked(end) and value >= 1000:
            return Span(at, end, str(value))
        if self.loose:
            return Span(at, end, f"{value}-й")
        if end == at + 1 and value < 10:
            return None  # first and second are words
        return Span(at, end, f"{value}-{ending}")

    def _date(self, at: int) -> Span | None:
        found = self.below_thousand(at)
        if found is None or not found[2] or not 1 <= found[0] <= 31:
            return None
        day, end, _ = found
        if self.word(end) not in MONTHS or not self.linked(end):
            return None
        return Span(at, end, str(day))

    def _decimal(self, at: int) -> Span | None:
        """``две целых пять десятых``; ``полтора``; ``два с половиной``."""
        if self.word(at) in _ONE_AND_HALF:
            percent = self.word(at + 1) in PERCENT
            return Span(at, at + 1 + percent, "1,5%" if percent else "1,5")
        found = self.cardinal(at)
        if found is None:
            return None
        value, end, ending = found
        if ending:
            return None
        if self.word(end) == "с" and self.word(end + 1) == "половиной" and self.linked(end) and self.linked(end + 1):
            return Span(at, end + 2, f"{value},5")
        if self.word(end) not in _WHOLE or not self.linked(end):
            return None
        part = self._fraction(end + 1) or (self._fraction(end + 2) if self.word(end + 1) == "и" else None)
        if part is None:
            return None
        digits, last = part
        percent = self.word(last) in PERCENT and self.linked(last)
        return Span(at, last + percent, f"{value},{digits}" + ("%" if percent else ""))

    def _fraction(self, at: int) -> tuple[str, int] | None:
        """``пять десятых``: digits after the comma and the end."""
        for size in (1, 2, 3):
            places = _TENTHS.get(self.word(at + size))
            if places is None:
                continue
            kept = self.numbers[at + size]
            self.numbers[at + size] = None  # "десятых" is a form of "десятый", too
            found = self.below_thousand(at)
            self.numbers[at + size] = kept
            if found and found[1] == at + size and not found[2] and found[0] < 10**places:
                return f"{found[0]:0{places}d}", at + size + 1
        return None

    def _half(self, at: int) -> Span | None:
        """``половина третьего``, ``четверть шестого``, ``без пяти шесть``, ``без четверти шесть``."""
        word = self.word(at)
        if word in ("половина", "половине", "половину", "половины", "полтретьего", "четверть", "четверти"):
            hour = self.below_thousand(at + 1)
            if hour and hour[2] in ("го",) and 1 <= hour[0] <= 12 and self.linked(at + 1):
                minutes = 15 if word.startswith("четверт") else 30
                return Span(at, hour[1], f"{(hour[0] - 2) % 12 + 1}:{minutes}")
        if word == "без":
            quarter = self.word(at + 1) == "четверти"
            part = (15, at + 2, "") if quarter else self.below_thousand(at + 1)
            if part and not part[2] and 1 <= part[0] <= 29:
                after = part[1] + (self.word(part[1]) in ("минут", "минуты", "минуту"))
                if self.word(after) == "час" and self.linked(after):
                    return Span(at, after + 1, f"12:{60 - part[0]:02d}")
                hour = self.below_thousand(after)
                lone = hour and self.word(hour[1]) not in COUNTED | PERCENT - {"часа", "часов", "час"}
                if hour and lone and not hour[2] and 1 <= hour[0] <= 12 and self.linked(after):
                    return Span(at, hour[1], f"{(hour[0] - 2) % 12 + 1}:{60 - part[0]:02d}")
        return None

    def _time(self, at: int) -> Span | None:
        """``десять минут шестого``: 5:10."""
        found = self.below_thousand(at)
        if not found or found[2] or not 1 <= found[0] <= 59 or self.word(found[1]) not in ("минут", "минуты", "минута"):
            return None
        hour = self.below_thousand(found[1] + 1)
        if hour and hour[2] == "го" and 1 <= hour[0] <= 12 and self.word(hour[1]) not in MONTHS:
            return Span(at, hour[1], f"{(hour[0] - 2) % 12 + 1}:{found[0]:02d}")
        return None

    def _clock(self, at: int) -> Span | None:
        """``в пятнадцать тридцать``: hours and minutes after a preposition, nothing counted behind them."""
        if self.word(at - 1) not in AT or self.loose:
            return None
        hour = self.below_thousand(at)
        if not hour or hour[2] or hour[0] > 23 or not self.linked(hour[1]):
            return None
        start = hour[1]
        zero = self.word(start) in ("ноль", "нуль")
        minute = self.below_thousand(start + zero)
        if not minute or minute[2] or not self.linked(start + zero):
            return None
        value, end, _ = minute
        fits = (value < 10) if zero else (10 <= value <= 59)  # "ноль пять", "ноль ноль" or two digits
        nothing_counted = not self.linked(end) or (self.word(end) not in COUNTED and self.numbers[end] is None)
        return Span(at, end, f"{hour[0]}:{value:02d}") if fits and nothing_counted else None

    def _dictated(self, at: int) -> Span | None:
        """Numbers said in groups: telephone numbers get their usual form, a nought before a number stays on it."""
        if self.word(at) == "плюс" and self.linked(at + 1):
            number = self._dictated(at + 1)
            return Span(at, number.end, number.text) if number and number.text.startswith("+7 ") else None
        groups: list[str] = []
        here = at
        while here < len(self.words) and (here == at or self.linked(here)):
            part = self.below_thousand(here)
            scale = part and part[1] < len(self.words) and self.numbers[part[1]]
            if part is None or part[2] or (scale and scale.kind == "scale"):
                break
            groups.append(str(part[0]))
            here = part[1]
        if len(groups) < 2 or self.word(here) in _WHOLE:
            return None
        digits = "".join(groups)
        if self.word(here) in COUNTED and here > at + 1 and len(digits) < 7:
            return None  # two numbers, the second of which counts something
        phone = _phone(digits)
        if phone:
            return Span(at, here, phone)
        return Span(at, here, digits if self._dense(groups) else " ".join(groups))

    @staticmethod
    def _dense(groups: Sequence[str]) -> bool:
        """A code rather than separate numbers: single digits, or noughts among them."""
        return all(len(group) == 1 for group in groups) or (len(groups) > 2 and "0" in groups)


def _phone(digits: str) -> str:
    """``8 912 345-67-89`` for eleven digits that begin with 7 or 8, ``912 345-67-89`` for ten that begin with 9."""
    head, rest = (digits[0] + " ", digits[1:]) if len(digits) == 11 and digits[0] in "78" else ("", digits)
    if len(rest) != 10 or (not head and rest[0] != "9"):
        return ""
    head = "+7 " if head == "7 " else head
    return f"{head}{rest[:3]} {rest[3:6]}-{rest[6:8]}-{rest[8:]}"


def to_digits(text: str) -> str:
    """The text with its number words as digits; spaces between words become single ones.

    >>> to_digits("двадцать пятого мая в пятнадцать тридцать")
    '25 мая в 15:30'
    """
    words = text.split()
    return " ".join(_rewritten(words, Parser(words).spans()))


def digits_for_scoring(text: str) -> str:
    """A text in scoring form with all numbers as digits: case, gender and spelling of numbers no longer count."""
    words = text.split()
    return " ".join(_rewritten(words, Parser(words, loose=True).spans()))


def _rewritten(words: Sequence[str], spans: Sequence[Span]) -> list[str]:
    result: list[str] = []
    at = 0
    for span in spans:
        result += [*words[at : span.start], _dressed(words[span.start : span.end], span.text)]
        at = span.end
    return [*result, *words[at:]]


def _dressed(words: Sequence[str], text: str) -> str:
    """The digits with the punctuation that stood around the words."""
    first, last = words[0], words[-1]
    before = first[: len(first) - len(first.lstrip("«("))]
    behind = last[len(last.rstrip(MARKS)) :]
    return before + text + behind


def words_to_digits(words: Sequence[Word]) -> tuple[Word, ...]:
    """Words with numbers as digits: one that stands for several has their times and their lowest confidence."""
    result: list[Word] = []
    at = 0
    for span in Parser([word.text for word in words]).spans():
        result += words[at : span.start]
        part = words[span.start : span.end]
        sure = [word.confidence for word in part if word.confidence is not None]
        text = _dressed([word.text for word in part], span.text)
        result.append(Word(text, part[0].start, part[-1].end, min(sure) if len(sure) == len(part) else None))
        at = span.end
    return (*result, *words[at:])


def segment_to_digits(segment: Segment) -> Segment:
    """A segment with numbers as digits, in its words and its text."""
    if not segment.words or " ".join(word.text for word in segment.words) != segment.text:
        return replace(segment, text=to_digits(segment.text), words=words_to_digits(segment.words))
    words = words_to_digits(segment.words)
    return replace(segment, words=words, text=" ".join(word.text for word in words))


def transcript_to_digits(transcript: Transcript) -> Transcript:
    """All segments with numbers as digits."""
    return replace(transcript, segments=tuple(map(segment_to_digits, transcript.segments)))
