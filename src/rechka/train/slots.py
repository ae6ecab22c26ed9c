"""What fills the slots of the call-centre grammar: numbers, money, dates, times, addresses, names, in words.

Every filler takes a random generator and the slot's argument (see :mod:`rechka.train.phrases`) and returns words.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from rechka.text.numerals import DIGITS, Case, Gender, cardinal, count, group, ordinal, spell
from rechka.train import lexicon
from rechka.train.lexicon import NOUNS

Random = random.Random


# --- numbers ---


def _magnitude(rng: Random, digits: int) -> int:
    """A number of one to ``digits`` digits, every length equally likely, often round."""
    size = rng.randint(1, digits)
    number = rng.randrange(10 ** (size - 1) if size > 1 else 0, 10**size)
    if size > 2 and rng.random() < 0.4:
        step: int = 10 ** rng.randint(1, size - 1)
        number = max(step, number // step * step)
    return number


def _range(argument: str, low: int, high: int) -> tuple[int, int]:
    if not argument:
        return low, high
    first, _, last = argument.partition("-")
    return int(first), int(last or first)


def _num(rng: Random, argument: str) -> str:
    if argument:
        return cardinal(rng.randint(*_range(argument, 0, 0)))
    number = _magnitude(rng, 7 if rng.random() < 0.3 else 4)
    return cardinal(number, say_one=rng.random() < 0.3)


def _digit_string(rng: Random, size: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(size))


def _digits(rng: Random, argument: str) -> str:
    return spell(_digit_string(rng, int(argument or rng.randint(2, 10))))


def _in_groups(digits: str, size: int) -> str:
    return " ".join(group(digits[i : i + size]) for i in range(0, len(digits), size))


def _pairs(rng: Random, argument: str) -> str:
    if argument == "short":
        size = rng.randint(2, 4)
        digits = _digit_string(rng, size)
        return group(digits) if size == 3 else _in_groups(digits, 2)
    return _in_groups(_digit_string(rng, int(argument or 2 * rng.randint(2, 5))), 2)


def _triples(rng: Random, argument: str) -> str:
    return _in_groups(_digit_string(rng, int(argument or 3 * rng.randint(2, 3))), 3)


def _code(rng: Random, argument: str) -> str:
    size = rng.randint(3, 5) if argument == "short" else rng.randint(5, 10)
    digits = _digit_string(rng, size)
    how = rng.random()
    if how < 0.4:
        return spell(digits)
    if how < 0.8:
        return _in_groups(digits, 2) if size % 2 == 0 else f"{group(digits[:3])} {_in_groups(digits[3:], 2)}".strip()
    return _in_groups(digits, 3)


def phone(rng: Random) -> str:
    """A telephone number as people dictate it: mobile with or without prefix, city, or digit by digit."""
    area = rng.choice(
        ("9" + _digit_string(rng, 2), "9" + _digit_string(rng, 2), "495", "812", "383", "800", "343", "846")
    )
    local = _digit_string(rng, 7)
    prefix = rng.choice(("восемь ", "восемь ", "плюс семь ", "семь ", ""))
    how = rng.random()
    if how < 0.12:
        return prefix + spell(area + local)
    if how < 0.24:
        return f"{group(local[:3])} {_in_groups(local[3:], 2)}"
    if how < 0.3:
        return _in_groups(local[:6], 2)
    head = spell(area) if rng.random() < 0.15 else group(area)
    first = spell(local[:3]) if rng.random() < 0.2 else group(local[:3])
    comma = rng.choice(("", ","))
    return f"{prefix}{head}{comma} {first}{comma} {_in_groups(local[3:], 2)}"


def _phone(rng: Random, argument: str) -> str:
    return phone(rng)


def _ordinal(rng: Random, argument: str) -> str:
    gender: Gender = "f" if argument == "f" else "n" if argument == "n" else "m"
    return ordinal(rng.randint(1, 40) if rng.random() < 0.8 else rng.randint(41, 999), "nom", gender)


_LOOSE_SUMS = (
    *("полторы тысячи рублей", "полтора миллиона рублей", "полмиллиона", "сто тысяч", "пару тысяч"),
    *("две с половиной тысячи", "пять с половиной тысяч", "двенадцать с половиной тысяч", "тысяч двадцать"),
)


def money(rng: Random, argument: str = "") -> str:
    """A sum in roubles (sometimes kopecks, dollars, euros); ``argument`` is a case or ``small``, ``round``, ``kop``."""
    case: Case = "acc" if argument == "acc" else "gen" if argument == "gen" else "nom"
    how = rng.random()
    if argument == "round":
        return count(rng.randint(8, 300) * 1000, NOUNS["рубль"])
    if argument == "kop":
        return f"{count(rng.randint(9, 120), NOUNS['рубль'])} {count(rng.randint(1, 99), NOUNS['копейка'])}"
    if argument == "small":
        return count(rng.randint(1, 99) * rng.choice((1, 10, 100)), NOUNS["рубль"])
    if case != "gen" and how < 0.08:
        return rng.choice(_LOOSE_SUMS)
    currency = NOUNS["рубль"] if how < 0.92 else NOUNS[rng.choice(("доллар", "евро"))]
    number = max(1, _magnitude(rng, 7 if rng.random() < 0.2 else 5))
    text = f"{cardinal(number, case, currency.gender, say_one=rng.random() < 0.2)} {currency.form(number, case)}"
    if how < 0.3:
        kopecks = rng.randint(0, 99)
        text += f" {'ноль ноль копеек' if kopecks == 0 else count(kopecks, NOUNS['копейка'], case)}"
    return text


def _percent(rng: Random, argument: str) -> str:
    how = rng.random()
    number = rng.randint(1, 30) if rng.random() < 0.7 else rng.randint(1, 100)
    if how < 0.6:
        return count(number, NOUNS["процент"])
    if how < 0.75:
        return f"{cardinal(number)} с половиной {NOUNS['процент'].form(5)}"
    whole = NOUNS["процент"].form(2)
    tenths = rng.randint(1, 9)
    return (
        f"{cardinal(number, gender='f')} {'целая' if number % 10 == 1 and number % 100 != 11 else 'целых'} и "
        f"{cardinal(tenths, gender='f')} {'десятая' if tenths == 1 else 'десятых'} {whole}"
    ).replace(" и ", rng.choice((" ", " и ")), 1)


# --- dates and times ---


def year(rng: Random, case: Case = "gen") -> str:
    """A year from 1940 to 2030 as an ordinal."""
    return ordinal(rng.randint(1940, 2030), case)


def _date(rng: Random, argument: str, *, case: Case = "nom") -> str:
    day = rng.randint(1, 31)
    month = rng.randrange(12)
    text = ordinal(day, case, "n")
    if argument == "day":
        return text
    text += f" {lexicon.MONTHS_GEN[month]}"
    if argument != "short" and rng.random() < 0.35:
        text += f" {year(rng)} года"
    return text


def _date_gen(rng: Random, argument: str) -> str:
    return _date(rng, argument, case="gen")


def _birth(rng: Random, argument: str) -> str:
    born = rng.randint(1935, 2020)
    how = rng.random()
    if how < 0.6:
        short = ordinal(born) if how < 0.1 else ordinal(born, "gen")
        return f"{_date(rng, 'short', case=rng.choice(('nom', 'gen')))} {short}{' года' if how >= 0.1 else ''}"
    if how < 0.8:
        rest = born % 100
        tail = ordinal(rest, "gen") if rest > 0 and born < 2000 else ordinal(born, "gen")
        return f"{ordinal(rng.randint(1, 31), 'nom', 'n')} {group(f'{rng.randint(1, 12):02d}')} {tail}"
    return f"{_date(rng, 'short', case='nom')} {cardinal(born)}"


def _year(rng: Random, argument: str) -> str:
    return ordinal(rng.randint(1940, 2030), "pre")


def _weekday(rng: Random, argument: str) -> str:
    names = ("понедельник", "вторник", "четверг") if argument == "m" else lexicon.WEEKDAYS_ACC
    return rng.choice(names)


def _weekday_dat(rng: Random, argument: str) -> str:
    return rng.choice(lexicon.WEEKDAYS_DAT)


_PARTS = {"утра": range(4, 12), "дня": range(1, 6), "вечера": range(4, 12), "ночи": range(1, 5)}


def time_of_day(rng: Random) -> str:
    """A time as an adverbial: «в пятнадцать сорок пять», «в половине шестого», «без десяти восемь»."""
    hour, minute = rng.randint(0, 23), rng.choice((5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, rng.randint(1, 59)))
    small = rng.randint(1, 12)
    how = rng.random()
    if how < 0.2:
        return f"в {count(hour, NOUNS['час'], 'acc')} {count(minute, NOUNS['минута'], 'acc')}"
    if how < 0.45:
        return f"в {cardinal(hour)} {group(f'{minute:02d}')}"
    if how < 0.55:
        return f"в половине {ordinal(small, 'gen')}"
    if how < 0.6:
        return f"в пол{ordinal(small, 'gen')}" if small != 11 else "в половине одиннадцатого"
    if how < 0.7:
        to = rng.choice(("пяти", "десяти", "двадцати", "четверти", "двадцати пяти"))
        return f"без {to} {'час' if small == 1 else cardinal(small)}"
    if how < 0.78:
        return f"{count(rng.choice((5, 10, 15, 20)), NOUNS['минута'])} {ordinal(small, 'gen')}"
    part = rng.choice(tuple(_PARTS))
    hour = rng.choice(_PARTS[part])
    if how < 0.9:
        spoken = "час" if hour == 1 else cardinal(hour) if how < 0.84 else count(hour, NOUNS["час"], "acc")
        return f"в {spoken} {part}"
    return f"{rng.choice(('до', 'после', 'около'))} {cardinal(hour, 'gen') if hour > 1 else 'часа'} {part}"


def _time(rng: Random, argument: str) -> str:
    return time_of_day(rng)


def _hour_gen(rng: Random, argument: str) -> str:
    hour = rng.randint(2, 23)
    return cardinal(hour, "gen") + (f" {NOUNS['час'].form(hour, 'gen')}" if rng.random() < 0.2 else "")


def _duration(rng: Random, argument: str) -> str:
    """A length of time in the accusative."""
    how = rng.random()
    if how < 0.12:
        return rng.choice(
            ("полчаса", "полтора часа", "полторы минуты", "пару минут", "час", "минуту", "сутки", "неделю", "полгода")
        )
    if how < 0.3:
        hours = rng.randint(1, 12)
        return f"{count(hours, NOUNS['час'], 'acc')} {count(rng.randint(1, 59), NOUNS['минута'], 'acc')}"
    if how < 0.4:
        return (
            f"{count(rng.randint(1, 10), NOUNS['минута'], 'acc')} {count(rng.randint(1, 59), NOUNS['секунда'], 'acc')}"
        )
    unit, most = rng.choice((("минута", 59), ("час", 48), ("день", 30), ("неделя", 8), ("месяц", 24), ("секунда", 59)))
    return count(rng.randint(1, most), NOUNS[unit], "acc")


_COUNTED = tuple(noun for noun in NOUNS if noun not in ("рубль", "копейка", "доллар", "евро", "участник", "сутки"))


def _count(rng: Random, argument: str) -> str:
    """A counted noun; argument ``noun:low-high:case``, each part optional."""
    noun, _, rest = argument.partition(":")
    limits, _, case = rest.partition(":")
    cases: Case = "acc" if case == "acc" else "gen" if case == "gen" else "dat" if case == "dat" else "nom"
    return count(rng.randint(*_range(limits, 1, 120)), NOUNS[noun or rng.choice(_COUNTED)], cases)


# --- places and people ---


def _address(rng: Random, argument: str) -> str:
    parts = []
    if rng.random() < 0.25:
        parts.append(rng.choice(("город ", "")) + rng.choice(lexicon.CITIES))
    parts.append(rng.choice(lexicon.STREETS))
    house = cardinal(rng.randint(1, 120 if rng.random() < 0.9 else 300))
    if rng.random() < 0.1:
        house += " " + rng.choice(("а", "бэ", "вэ", "дробь " + cardinal(rng.randint(1, 20))))
    parts.append(rng.choice(("дом ", "дом ", "")) + house)
    if rng.random() < 0.2:
        parts.append(rng.choice(("корпус ", "строение ")) + cardinal(rng.randint(1, 9)))
    if rng.random() < 0.5:
        parts.append(rng.choice(("квартира ", "квартира ", "офис ")) + cardinal(rng.randint(1, 350)))
    return ", ".join(parts)


def _plate(rng: Random, argument: str) -> str:
    series = [lexicon.LETTERS[rng.choice("авекмнорстух")] for _ in range(3)]
    region = rng.choice((77, 50, 78, 99, 16, 23, 54, 66, 777, 197, 178, 750, 2, 61))
    return f"{series[0]} {group(_digit_string(rng, 3))} {series[1]} {series[2]} {group(f'{region:02d}')}"


def surname(rng: Random, *, female: bool) -> str:
    """A last name in its gender's form."""
    how = rng.random()
    if how < 0.1:
        return rng.choice(lexicon.SURNAMES_FIXED)
    if how < 0.18:
        name = rng.choice(lexicon.SURNAMES_SKY)
        return name[:-2] + "ая" if female else name
    return rng.choice(lexicon.SURNAMES) + ("а" if female else "")


def patronymic(rng: Random, *, female: bool) -> str:
    """A patronymic: ``Иванович`` or ``Ивановна``."""
    name = rng.choice(lexicon.PATRONYMICS)
    if not female:
        return name
    if name in ("Ильич", "Никитич"):
        return name + "на" if name == "Никитич" else "Ильинична"
    return name[:-2] + "на"


def first_name(rng: Random, *, female: bool) -> str:
    """A first name."""
    return rng.choice(lexicon.FEMALE_NAMES if female else lexicon.MALE_NAMES)


_IRREGULAR = {"Пётр": "Петр", "Павел": "Павл", "Лев": "Льв", "Любовь": "Любовь"}


def decline(name: str, case: Literal["dat", "ins"]) -> str:
    """A first name or patronymic in the dative or instrumental, singular."""
    name_stem = _IRREGULAR.get(name, name)
    last = name_stem[-1]
    if name_stem == "Любовь":
        return "Любови" if case == "dat" else "Любовью"
    if name_stem.endswith("ия"):
        return name_stem[:-1] + ("и" if case == "dat" else "ей")
    if last == "а":
        soft = name_stem[-2] in "жшчщц"
        return name_stem[:-1] + ("е" if case == "dat" else "ей" if soft else "ой")
    if last == "я":
        return name_stem[:-1] + ("е" if case == "dat" else "ёй" if name_stem == "Илья" else "ей")
    if last in "йь":
        return name_stem[:-1] + ("ю" if case == "dat" else "ем")
    return name_stem + ("у" if case == "dat" else "ем" if last in "жшчщц" else "ом")


def _female(rng: Random) -> bool:
    return rng.random() < 0.5


def _fullname(rng: Random, argument: str) -> str:
    female = _female(rng)
    last, first = surname(rng, female=female), first_name(rng, female=female)
    middle = patronymic(rng, female=female)
    return rng.choice((f"{last} {first} {middle}", f"{first} {middle} {last}", f"{last} {first}", f"{first} {middle}"))


def _firstname(rng: Random, argument: str) -> str:
    return first_name(rng, female=_female(rng))


def _patronym(rng: Random, argument: str) -> str:
    female = _female(rng)
    return f"{first_name(rng, female=female)} {patronymic(rng, female=female)}"


def _spelled(rng: Random, argument: str) -> str:
    name = surname(rng, female=_female(rng)) if rng.random() < 0.7 else first_name(rng, female=_female(rng))
    letters = ", ".join(lexicon.LETTERS[letter] for letter in name.lower()[:9])
    return f"{name}, {letters}" if rng.random() < 0.3 else letters


def _spelled_names(rng: Random, argument: str) -> str:
    name = surname(rng, female=False).lower()[: rng.randint(2, 6)]
    return ", ".join(lexicon.SPELLING_NAMES[letter] for letter in name)


FILLERS: dict[str, Callable[[Random, str], str]] = {
    "num": _num,
    "digit": lambda rng, _: rng.choice(DIGITS),
    "digits": _digits,
    "pairs": _pairs,
    "triples": _triples,
    "code": _code,
    "phone": _phone,
    "ordinal": _ordinal,
    "money": money,
    "percent": _percent,
    "date": _date,
    "date_gen": _date_gen,
    "birth": _birth,
    "year": _year,
    "weekday": _weekday,
    "weekday_dat": _weekday_dat,
    "time": _time,
    "hour_gen": _hour_gen,
    "duration": _duration,
    "count": _count,
    "address": _address,
    "plate": _plate,
    "fullname": _fullname,
    "firstname": _firstname,
    "patronym": _patronym,
    "firstname_ins": lambda rng, _: decline(first_name(rng, female=_female(rng)), "ins"),
    "firstname_dat": lambda rng, _: decline(first_name(rng, female=_female(rng)), "dat"),
    "patronym_ins": lambda rng, _: " ".join(decline(name, "ins") for name in _patronym(rng, "").split()),
    "patronym_dat": lambda rng, _: " ".join(decline(name, "dat") for name in _patronym(rng, "").split()),
    "spelled": _spelled,
    "spelled_names": _spelled_names,
    "doctor": lambda rng, _: rng.choice(lexicon.DOCTORS_DAT),
}
