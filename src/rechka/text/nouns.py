"""Counted nouns in all forms, and what their form and the words before say of a number's case and gender."""

from __future__ import annotations

from functools import lru_cache

from rechka.text.number_words import CASES
from rechka.text.numerals import BILLION, MILLION, THOUSAND, TRILLION, Case, Gender, Noun

_MASCULINE = ("- а у - ом е", "ы ов ам ы ами ах")
_SOFT = ("ь я ю ь ем е", "и ей ям и ями ях")
_FEMININE = ("а ы е у ой е", "ы - ам ы ами ах")
_FEMININE_K = ("ка ки ке ку кой ке", "ки ек кам ки ками ках")


def _noun(gender: Gender, stem: str, endings: tuple[str, str], counted: str = "") -> Noun:
    singular, plural = (" ".join(stem + ("" if ending == "-" else ending) for ending in row.split()) for row in endings)
    return Noun(gender, singular, plural, counted)


ROUBLE = _noun("m", "рубл", _SOFT)
KOPECK = _noun("f", "копе", ("йка йки йке йку йкой йке", "йки ек йкам йки йками йках"))
DOLLAR = _noun("m", "доллар", _MASCULINE)
EURO = _noun("m", "евро", ("- - - - - -", "- - - - - -"))
PERCENT = _noun("m", "процент", _MASCULINE)
HOUR = _noun("m", "час", _MASCULINE)
MINUTE, SECOND = _noun("f", "минут", _FEMININE), _noun("f", "секунд", _FEMININE)
METRE, KILOMETRE = _noun("m", "метр", _MASCULINE), _noun("m", "километр", _MASCULINE)
CENTIMETRE, MILLIMETRE = _noun("m", "сантиметр", _MASCULINE), _noun("m", "миллиметр", _MASCULINE)
GRAM, KILOGRAM = _noun("m", "грамм", _MASCULINE), _noun("m", "килограмм", _MASCULINE)
LITRE = _noun("m", "литр", _MASCULINE)
YEAR = Noun("m", "год года году год годом году", "годы лет годам годы годами годах", "лет")

NOUNS: tuple[Noun, ...] = (
    *(ROUBLE, KOPECK, DOLLAR, EURO, PERCENT, HOUR, MINUTE, SECOND, METRE, KILOMETRE, CENTIMETRE, MILLIMETRE, GRAM),
    *(KILOGRAM, LITRE, YEAR, THOUSAND, MILLION, BILLION, TRILLION),
    *(_noun("m", stem, _MASCULINE) for stem in ("градус", "балл", "номер", "раз", "вопрос", "класс", "квартал", "том")),
    _noun("m", "д", ("ень ня ню ень нём не", "ни ней ням ни нями нях")),
    _noun("m", "месяц", ("- а у - ем е", "ы ев ам ы ами ах")),
    _noun("m", "этаж", ("- а у - ом е", "и ей ам и ами ах")),
    _noun("m", "подъезд", _MASCULINE),
    _noun("m", "век", ("- а у - ом е", "а ов ам а ами ах")),
    _noun("m", "дом", ("- а у - ом е", "а ов ам а ами ах")),
    Noun("m", "человек человека человеку человек человеком человеке", "люди людей людям людей людьми людях", "человек"),
    _noun("m", "рубеж", ("- а у - ом е", "и ей ам и ами ах")),
    _noun("f", "недел", ("я и е ю ей е", "и ь ям и ями ях")),
    _noun("f", "тонн", _FEMININE), _noun("f", "комнат", _FEMININE), _noun("f", "квартир", _FEMININE),
    _noun("f", "штук", ("а и е у ой е", "и - ам и ами ах")), _noun("f", "заяв", _FEMININE_K),
    _noun("f", "карт", ("а ы е у ой е", "ы - ам ы ами ах")), _noun("f", "улиц", ("а ы е у ей е", "ы - ам ы ами ах")),
    _noun("n", "числ", ("о а у о ом е", "а - ам а ами ах")),
    _noun("n", "мест", ("о а у о ом е", "а - ам а ами ах")),
)  # fmt: skip
SHORT: dict[str, Noun] = {
    "руб": ROUBLE, "р": ROUBLE, "₽": ROUBLE, "коп": KOPECK, "$": DOLLAR, "€": EURO, "%": PERCENT, "тыс": THOUSAND,
    "млн": MILLION, "млрд": BILLION, "трлн": TRILLION, "км": KILOMETRE, "м": METRE, "см": CENTIMETRE,
    "мм": MILLIMETRE, "кг": KILOGRAM, "г": GRAM, "л": LITRE, "ч": HOUR, "мин": MINUTE, "сек": SECOND,
}  # fmt: skip
"""Abbreviations and signs behind a number."""

_BY_PREPOSITION: dict[str, tuple[Case, ...]] = {
    **dict.fromkeys(
        [
            "до",
            "от",
            "из",
            "без",
            "около",
            "после",
            "у",
            "для",
            "более",
            "менее",
            "больше",
            "меньше",
            "свыше",
            "кроме",
            "против",
        ],
        ("gen",),
    ),
    **dict.fromkeys(["к", "ко", "благодаря"], ("dat",)),
    **dict.fromkeys(["о", "об", "обо", "при"], ("pre",)),
    **dict.fromkeys(["между", "над", "перед"], ("ins",)),
    **dict.fromkeys(["в", "во", "на"], ("acc", "pre")),
    **dict.fromkeys(["через", "про", "сквозь"], ("acc",)),
    **dict.fromkeys(["за", "под"], ("acc", "ins")),
    **dict.fromkeys(["с", "со"], ("gen", "ins", "acc")),
    "по": ("acc", "dat", "pre"),
}


@lru_cache(maxsize=1)
def _forms() -> dict[str, Noun]:
    return {
        form.replace("ё", "е"): noun
        for noun in NOUNS
        for row in (noun.singular, noun.plural, noun.counted)
        for form in row.split()
    }


def known(word: str) -> Noun | None:
    """The noun of which a folded word is a form."""
    return _forms().get(word)


def asked(preposition: str) -> tuple[Case, ...]:
    """Cases that a preposition governs, the likeliest first; empty if it is none."""
    return _BY_PREPOSITION.get(preposition, ())


def cardinal_form(number: int, word: str, before: str) -> tuple[Case, Gender] | None:
    """Case and gender of a cardinal before ``word`` and behind ``before``; None if ``word`` agrees with no cardinal."""
    wanted = asked(before)
    noun = known(word)
    if noun is None:
        return _by_ending(number, word, wanted)
    fitting = [case for case in CASES if noun.form(number, case).replace("ё", "е") == word]
    if not fitting:
        return None
    order = (*wanted, "nom", "acc", *CASES)
    return next(case for case in order if case in fitting), noun.gender


def ordinal_form(word: str, before: str) -> tuple[Case, Gender] | None:
    """Case and gender of an ordinal before a known noun in the singular, such as ``этаже``."""
    noun = known(word)
    if noun is None:
        return None
    singular = noun.singular.replace("ё", "е").split()
    fitting = [case for case, form in zip(CASES, singular, strict=True) if form == word]
    order = (*asked(before), *CASES)
    return next(((case, noun.gender) for case in order if case in fitting), None)


def _by_ending(number: int, word: str, wanted: tuple[Case, ...]) -> tuple[Case, Gender]:
    """For nouns that are not known: endings of the plural tell the case, those of the singular the gender."""
    if word.endswith(("ами", "ями")):
        case: Case = "ins"
    elif word.endswith(("ам", "ям")) and "dat" in wanted:
        case = "dat"
    elif word.endswith(("ах", "ях")) and "pre" in wanted:
        case = "pre"
    else:
        case = next((case for case in wanted if case in ("gen", "dat", "pre", "acc", "ins")), "nom")
    last = 0 if 11 <= number % 100 <= 14 else number % 10
    if last == 1:
        gender: Gender = "f" if word.endswith(("а", "я", "у", "ю")) else "n" if word.endswith(("о", "е")) else "m"
    else:
        gender = "f" if last == 2 and word.endswith(("ы", "и")) else "m"
    return case, gender
