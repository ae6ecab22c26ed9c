"""Russian numbers in words: cardinals in six cases and three genders, ordinals, counted nouns, digit groups.

Tables follow the school grammar of Russian (any reference grammar has them); ё is written, so that a synthesiser
stresses the words rightly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Case = Literal["nom", "gen", "dat", "acc", "ins", "pre"]
Gender = Literal["m", "f", "n"]

_CASES: tuple[Case, ...] = ("nom", "gen", "dat", "acc", "ins", "pre")
MAX_CARDINAL = 10**15 - 1

DIGITS = ("ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять")


def _forms(words: str) -> dict[Case, str]:
    return dict(zip(_CASES, words.split(), strict=True))


def _soft(word: str) -> dict[Case, str]:
    """Numbers in -ь: пять, пяти, пятью."""
    stem = word[:-1] if word.endswith("надцать") else word[:-1].replace("восем", "восьм")
    return _forms(f"{word} {stem}и {stem}и {word} {word[:-1]}ью {stem}и")


_ONE: dict[Gender, dict[Case, str]] = {
    "m": _forms("один одного одному один одним одном"),
    "f": _forms("одна одной одной одну одной одной"),
    "n": _forms("одно одного одному одно одним одном"),
}
_TWO: dict[Gender, dict[Case, str]] = {
    "m": _forms("два двух двум два двумя двух"),
    "f": _forms("две двух двум две двумя двух"),
    "n": _forms("два двух двум два двумя двух"),
}
_UNITS = {
    3: _forms("три трёх трём три тремя трёх"),
    4: _forms("четыре четырёх четырём четыре четырьмя четырёх"),
    **{i: _soft(DIGITS[i]) for i in range(5, 10)},
    10: _soft("десять"),
    **{
        10 + i: _soft(stem + "надцать")
        for i, stem in enumerate(("один", "две", "три", "четыр", "пят", "шест", "сем", "восем", "девят"), start=1)
    },
}
_TENS = {
    2: _soft("двадцать"),
    3: _soft("тридцать"),
    4: _forms("сорок сорока сорока сорок сорока сорока"),
    9: _forms("девяносто девяноста девяноста девяносто девяноста девяноста"),
}
for _d in (5, 6, 7, 8):
    _u = _UNITS[_d]
    _TENS[_d] = {
        case: _u["nom"] + "десят" if case in ("nom", "acc") else _u[case] + ("десятью" if case == "ins" else "десяти")
        for case in _CASES
    }
_HUNDREDS = {
    1: _forms("сто ста ста сто ста ста"),
    2: _forms("двести двухсот двумстам двести двумястами двухстах"),
    3: _forms("триста трёхсот трёмстам триста тремястами трёхстах"),
    4: _forms("четыреста четырёхсот четырёмстам четыреста четырьмястами четырёхстах"),
}
_ENDS = {"nom": "сот", "gen": "сот", "dat": "стам", "acc": "сот", "ins": "стами", "pre": "стах"}
for _d in (5, 6, 7, 8, 9):
    _HUNDREDS[_d] = {case: _UNITS[_d][case] + _ENDS[case] for case in _CASES}


@dataclass(frozen=True, slots=True)
class Noun:
    """A countable noun: gender, and its forms in the six cases, singular and plural, separated by spaces.

    ``counted`` is the form after five and more where it is not the genitive plural (five years: ``пять лет``).
    """

    gender: Gender
    singular: str
    plural: str
    counted: str = ""

    def form(self, number: int, case: Case = "nom") -> str:
        """The noun as it stands after ``number`` in the given case; inanimate."""
        singular, plural = _forms(self.singular), _forms(self.plural)
        if number % 1000 == 0:  # a bare nought, thousand or million governs the genitive in every case
            return self.counted or plural["gen"]
        one = number % 10 == 1 and number % 100 != 11
        few = 2 <= number % 10 <= 4 and not 12 <= number % 100 <= 14
        if one:
            return singular[case]
        if case in ("nom", "acc"):
            return singular["gen"] if few else self.counted or plural["gen"]
        return self.counted if case == "gen" and self.counted else plural[case]


THOUSAND = Noun("f", "тысяча тысячи тысяче тысячу тысячей тысяче", "тысячи тысяч тысячам тысячи тысячами тысячах")
MILLION = Noun(
    "m",
    "миллион миллиона миллиону миллион миллионом миллионе",
    "миллионы миллионов миллионам миллионы миллионами миллионах",
)
BILLION = Noun(
    "m",
    "миллиард миллиарда миллиарду миллиард миллиардом миллиарде",
    "миллиарды миллиардов миллиардам миллиарды миллиардами миллиардах",
)
TRILLION = Noun(
    "m",
    "триллион триллиона триллиону триллион триллионом триллионе",
    "триллионы триллионов триллионам триллионы триллионами триллионах",
)
_SCALES = ((10**12, TRILLION), (10**9, BILLION), (10**6, MILLION), (10**3, THOUSAND))


def _below_thousand(number: int, case: Case, gender: Gender) -> list[str]:
    hundreds, rest = divmod(number, 100)
    words = [_HUNDREDS[hundreds][case]] if hundreds else []
    if rest >= 20:
        tens, rest = divmod(rest, 10)
        words.append(_TENS[tens][case])
    if rest == 1:
        words.append(_ONE[gender][case])
    elif rest == 2:
        words.append(_TWO[gender][case])
    elif rest:
        words.append(_UNITS[rest][case])
    return words


def cardinal(number: int, case: Case = "nom", gender: Gender = "m", *, say_one: bool = False) -> str:
    """A whole number from 0 to 999,999,999,999,999 in words.

    Args:
        number: the number.
        case: grammatical case of the whole.
        gender: gender of what is counted; touches one and two only.
        say_one: ``одна тысяча`` instead of the usual ``тысяча``.
    """
    if not 0 <= number <= MAX_CARDINAL:
        raise ValueError(f"a cardinal must be in 0..{MAX_CARDINAL}, got {number}")
    if number == 0:
        return _forms("ноль нуля нулю ноль нулём нуле")[case]
    words: list[str] = []
    for scale, noun in _SCALES:
        count, number = divmod(number, scale)
        if count:
            if count > 1 or say_one:
                words += _below_thousand(count, case, noun.gender)
            words.append(noun.form(count, case))
    return " ".join(words + _below_thousand(number, case, gender))


_ORDINAL_STEMS = {
    **dict(enumerate(("перв", "втор", "трет", "четвёрт", "пят", "шест", "седьм", "восьм", "девят", "десят"), start=1)),
    **{i: _UNITS[i]["nom"][:-1] for i in range(11, 20)},
    **{20: "двадцат", 30: "тридцат", 40: "сороков", 90: "девяност", 100: "сот", 1000: "тысячн", 2000: "двухтысячн"},
}
_ORDINAL_STEMS |= {10 * i: f"{_UNITS[i]['gen']}десят" for i in (5, 6, 7, 8)}
_ORDINAL_STEMS |= {100 * i: _HUNDREDS[i]["gen"] for i in range(2, 10)}
_STRESSED = frozenset({2, 6, 7, 8, 40})  # второй, шестой: the ending is -ой
_ADJECTIVE: dict[Gender, dict[Case, str]] = {
    "m": _forms("ый ого ому ый ым ом"),
    "f": _forms("ая ой ой ую ой ой"),
    "n": _forms("ое ого ому ое ым ом"),
}
_THIRD: dict[Gender, dict[Case, str]] = {
    "m": _forms("третий третьего третьему третий третьим третьем"),
    "f": _forms("третья третьей третьей третью третьей третьей"),
    "n": _forms("третье третьего третьему третье третьим третьем"),
}


def ordinal(number: int, case: Case = "nom", gender: Gender = "m") -> str:
    """An ordinal from 1 to 2999 in words: only the last word declines (``две тысячи двадцать четвёртого``)."""
    if not 1 <= number <= 2999:
        raise ValueError(f"an ordinal must be in 1..2999, got {number}")
    last = number
    if number not in (1000, 2000):
        for base in (1000, 100):
            last = last % base or last
        if last >= 20:
            last = last % 10 or last
    head = cardinal(number - last) + " " if number > last else ""
    if last == 3:
        return head + _THIRD[gender][case]
    ending = _ADJECTIVE[gender][case]
    if last in _STRESSED and ending == "ый":
        ending = "ой"
    return head + _ORDINAL_STEMS[last] + ending


def count(number: int, noun: Noun, case: Case = "nom") -> str:
    """A number with its noun in agreement: ``двадцать одна минута``, ``пяти минут``."""
    return f"{cardinal(number, case, noun.gender)} {noun.form(number, case)}"


def spell(digits: str) -> str:
    """Digits one by one: ``105`` is ``один ноль пять``."""
    return " ".join(DIGITS[int(digit)] for digit in digits)


def group(digits: str) -> str:
    """A group of one to three digits as it is dictated: ``05`` is ``ноль пять``, ``120`` is ``сто двадцать``."""
    bare = digits.lstrip("0")
    zeros = ["ноль"] * (len(digits) - len(bare))
    return " ".join(zeros + ([cardinal(int(bare))] if bare else []))
