"""Russian number words as they are read: every form of every word with its value, and numbers put together from them.

The forms come from ``rechka.text.numerals``: six cases, three genders, ordinals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rechka.text.numerals import BILLION, MILLION, THOUSAND, TRILLION, Case, Gender, cardinal, ordinal

CASES: tuple[Case, ...] = ("nom", "gen", "dat", "acc", "ins", "pre")
GENDERS: tuple[Gender, ...] = ("m", "f", "n")
MARKS = '.,!?;:…»)"'
"""Punctuation behind a word; a number does not go on beyond it."""

Kind = Literal["unit", "teen", "ten", "hundred", "scale"]
_PLACE: dict[Kind, int] = {"unit": 1, "teen": 1, "ten": 10, "hundred": 100}


@dataclass(frozen=True, slots=True)
class Number:
    """A number word.

    Attributes:
        value: of the word alone; of a scale the factor.
        kind: its place in a number.
        ordinal: what is written behind the digits of an ordinal (``-го``), empty for cardinals.
        doubtful: alone it is more often something else: ``один``, ``тысяча``, ``семью``.
        plain: the form in which numbers are dictated: nominative.
        counts_one: of a scale: without a count before it the form stands for one (``тысяча``, not ``тысяч``).
    """

    value: int
    kind: Kind
    ordinal: str = ""
    doubtful: bool = False
    plain: bool = False
    counts_one: bool = False


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
"""Family, magpie: numbers only beside another number or a counted noun."""
_ADJECTIVE_ENDINGS = ("ый", "ого", "ому", "ым", "ом", "ая", "ой", "ую", "ое")
_PLURAL_ENDINGS = ("ые", "ых", "ым", "ыми")
_SCALES = ((10**3, THOUSAND), (10**6, MILLION), (10**9, BILLION), (10**12, TRILLION))


def _ending(word: str) -> str:
    """What is written behind the digits: one letter after a vowel, two after a consonant (``-го``, ``-й``, ``-ми``)."""
    return word[-1] if word[-2] in "аеиоуыэюяь" else word[-2:]


@lru_cache(maxsize=1)
def table() -> dict[str, Number]:
    """Every number word in every form; cardinals win over ordinals of the same spelling."""
    found: dict[str, Number] = {}
    for value in (*range(1, 20), *range(20, 100, 10), *range(100, 1000, 100), 1000, 2000):
        for case in CASES:
            for gender in GENDERS:
                word = fold(ordinal(value, case, gender))
                found.setdefault(word, Number(value, "scale" if value >= 1000 else _kind(value), _ending(word)))
    for value in range(20, 100, 10):  # decades: восьмидесятые
        for ending in _PLURAL_ENDINGS:
            word = ordinal(value)[:-2] + ending
            found.setdefault(word, Number(value, "ten", _ending(word)))
    for value, stem in ((10**6, "миллионн"), (10**9, "миллиардн")):
        for ending in _ADJECTIVE_ENDINGS:
            found.setdefault(stem + ending, Number(value, "scale", _ending(stem + ending)))
    for value in (*range(20), *range(20, 100, 10), *range(100, 1000, 100)):
        for case in CASES:
            for gender in GENDERS:
                word = fold(cardinal(value, case, gender))
                plain = word == fold(cardinal(value, "nom", gender))
                plain = plain or (word in found and not found[word].ordinal and found[word].plain)
                found[word] = Number(value, _kind(value), "", value == 1 or word in _DOUBTFUL, plain)
    found["нуль"] = Number(0, "unit", plain=True)
    for value, noun in _SCALES:
        for forms in (noun.plural, noun.singular):
            for case, form in zip(CASES, forms.split(), strict=True):
                counts_one = forms is noun.singular and case != "gen"
                found[fold(form)] = Number(value, "scale", doubtful=True, plain=case == "nom", counts_one=counts_one)
    for word in ("тыща", "тыщу", "тыщи", "тыщ"):
        found[word] = Number(1000, "scale", doubtful=True, plain=word == "тыща", counts_one=word in ("тыща", "тыщу"))
    return found


@dataclass(frozen=True, slots=True)
class Value:
    """A number that was read: its value, the token after it, and the ending to write if its last word is an ordinal."""

    value: int
    end: int
    ordinal: str = ""


class Reader:
    """The tokens of a phrase, and the numbers that begin at each.

    Args:
        tokens: as written.
        breaks: for each token, whether numbers end with it although no punctuation says so: a long pause.
    """

    def __init__(self, tokens: Sequence[str], breaks: Sequence[bool] = ()) -> None:
        self.words = [fold(token) for token in tokens]
        self.stops = [token[-1:] in MARKS for token in tokens]
        for place, stop in enumerate(breaks):
            self.stops[place] |= stop
        known = table()
        self.numbers = [known.get(word) for word in self.words]
        self.any = any(number is not None for number in self.numbers)

    def word(self, at: int) -> str:
        """The folded token, or ""."""
        return self.words[at] if 0 <= at < len(self.words) else ""

    def number(self, at: int) -> Number | None:
        """What the token says as a number word."""
        return self.numbers[at] if 0 <= at < len(self.words) else None

    def linked(self, at: int) -> bool:
        """Whether token ``at`` goes on from the one before: no punctuation between."""
        return 0 < at < len(self.words) and not self.stops[at - 1]

    def next(self, at: int) -> str:
        """The folded token if it goes on from the one before, else ""."""
        return self.words[at] if self.linked(at) else ""

    def below_thousand(self, at: int, *, agreeing: bool = False) -> Value | None:
        """Hundreds, tens and units from ``at``; if ``agreeing``, no nominative goes on with another case.

        Speech mixes cases (``около двадцать пяти``), so that agreement is asked only where it decides.
        """
        value, limit, here = 0, 1000, at
        while here < len(self.words) and (here == at or self.linked(here)):
            number = self.numbers[here]
            if number is None or number.kind == "scale" or (number.value == 0 and here > at):
                break
            if _PLACE[number.kind] * 10 > limit or (number.kind == "teen" and limit < 100):
                break
            before = self.numbers[here - 1] if here > at else None
            if agreeing and number.plain and before is not None and not before.plain:
                break
            value += number.value
            here += 1
            if number.ordinal:
                return Value(value, here, number.ordinal)
            if number.kind in ("unit", "teen"):
                break
            limit = _PLACE[number.kind]
        return Value(value, here) if here > at else None

    def whole(self, at: int) -> Value | None:
        """A whole number with its thousands, millions and so on."""
        total, here, last_scale = 0, at, 10**15
        while here < len(self.words) and (here == at or self.linked(here)):
            part = self.below_thousand(here) or Value(1, here)
            if part.ordinal:
                return Value(total + part.value, part.end, part.ordinal)
            scale = self.number(part.end) if part.end == here or self.linked(part.end) else None
            if scale is not None and scale.kind == "scale" and scale.value < last_scale:
                if part.value == 0:
                    return Value(0, part.end)
                if part.end == here and not scale.ordinal and not self._counts_one(here, scale):
                    break
                total, here, last_scale = total + part.value * scale.value, part.end + 1, scale.value
                if scale.ordinal:
                    return Value(total, here, scale.ordinal)
                continue
            if part.end == here or (here > at and part.value == 0):
                break
            return Value(total + part.value, part.end)
        return Value(total, here) if here > at else None

    def _counts_one(self, at: int, scale: Number) -> bool:
        """Whether a scale without a count stands for one: ``тысяча``, ``тысячи двухсот``, but not ``тысячи три``."""
        if scale.counts_one:
            return True
        after = self.number(at + 1) if self.linked(at + 1) else None
        return (
            self.words[at] in ("тысячи", "миллиона", "миллиарда", "триллиона")
            and after is not None
            and after.kind != "scale"
            and not (after.plain or after.ordinal)
        )

    def is_scale(self, at: int) -> bool:
        """Whether the token goes on with thousands, millions and so on."""
        number = self.number(at)
        return number is not None and number.kind == "scale" and self.linked(at)


def words(text: str) -> frozenset[str]:
    """Words given in one string."""
    return frozenset(text.split())


def _declined(text: str) -> frozenset[str]:
    """Forms of nouns given as ``stem:ending ending``; ``-`` is the empty ending."""
    found = set()
    for entry in text.split(";"):
        stem, _, endings = entry.strip().partition(":")
        found |= {stem + ("" if ending == "-" else ending) for ending in endings.split()}
    return frozenset(found)


_HARD = "- а у ом е ы ов ам ами ах"
PERCENT = _declined(f"процент:{_HARD}")
MEASURES = PERCENT | _declined(
    "рубл:ь я ю ем е и ей ям ями ях; копе:йка йки йке йку йкой ек йкам йками йках; евро:-; градус:" + _HARD
    + "; доллар:" + _HARD + "; час:" + _HARD + "; минут:а ы е у ой - ам ами ах; секунд:а ы е у ой - ам ами ах; "
    "метр:" + _HARD + "; километр:" + _HARD + "; сантиметр:" + _HARD + "; миллиметр:" + _HARD + "; грамм:" + _HARD
    + "; килограмм:" + _HARD + "; кило:-; литр:" + _HARD + "; миллилитр:" + _HARD + "; тонн:а ы е у ой - ам ами ах; "
    "гектар:" + _HARD + "; ватт:" + _HARD + "; киловатт:" + _HARD + "; вольт:" + _HARD + "; ампер:" + _HARD
    + "; мегабайт:" + _HARD + "; гигабайт:" + _HARD + "; терабайт:" + _HARD + "; мегабит:" + _HARD + "; балл:" + _HARD
)  # fmt: skip
"""Units: ``один`` before them is a number, too."""
COUNTED = MEASURES | _declined(
    "д:ень ня ню нем не ни ней ням нями нях; недел:я и е ю ей ь ям ями ях; месяц:- а у ем е ы ев ам ами ах; "
    "год:- а у ом е ы ов ам ами ах; лет:- ам ами ах; штук:а и е у ой - ам ами ах; человек:- а у ом е; "
    "номер:- а у ом е ов ам ами ах; этаж:- а у ом е и ей ам ами ах; сут:ки ок кам ками ках; "
    "экземпляр:" + _HARD + "; утр:а; вечер:а; ноч:и; комнат:а ы е у ой - ам ами ах"
)  # fmt: skip
"""Nouns whose number is written in digits even below ten."""
BEFORE = words(
    "номер дом квартира квартиры квартире квартиру корпус строение офис подъезд кабинет код пункт часть части статья "
    "статьи статье параграф глава том страница страницы странице версия версии участок вариант рейс поезд маршрут"
)
"""Behind these a number is a name."""
MONTHS = words("января февраля марта апреля мая июня июля августа сентября октября ноября декабря")
YEARS = words("год года году годом годе")
AT = words("в к до с после около на")
WHOLE = words("целая целых целые целой целыми целым")
TENTHS = {
    **dict.fromkeys(words("десятая десятых десятые десятой десятую"), 1),
    **dict.fromkeys(words("сотая сотых сотые сотой сотую"), 2),
    **dict.fromkeys(words("тысячная тысячных тысячные тысячной тысячную"), 3),
}
