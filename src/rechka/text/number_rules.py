"""What numbers in a phrase are: dates, years, times of day, decimals, per cent, ranges, telephone numbers, codes.

``number_words`` reads numbers; a rule looks at what begins at one token and at what stands around it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from rechka.text.dictation import Span, phone
from rechka.text.number_words import (
    AT,
    BEFORE,
    COUNTED,
    MEASURES,
    MONTHS,
    PERCENT,
    TENTHS,
    WHOLE,
    YEARS,
    Number,
    Reader,
    Value,
    table,
    words,
)

_CUES = words(
    "код кода индекс индекса паспорт паспорта серия серии инн снилс карта карты карту договор договора "
    "заказ заказа пин пароль пароля телефон телефона номер номера артикул"
)
"""Before these digits are a code, joined even if they might be counting."""
_NOW = words("сейчас завтра сегодня вчера ровно")
_DAYTIMES = words("утра дня вечера ночи")
_NO_HOUR = re.compile(
    r"(тайм|класс|том|период|курс|этаж|год|месяц|дом|акт|круг|раунд|сезон|век|матч)(а|у|ом|е|ы|и|ов)?|десятк.*|столет.*|ряда|ряду"
)
"""What ``половина второго`` is half of, if not of an hour."""
_NUMBERED = words(
    "число числа числу числом этаж этажа этаже этажу этажом подъезд подъезда подъезде подъезду квартал квартала "
    "квартале канал канала канале каналу"
)
"""Ordinals below ten are written with digits before these."""
_IDIOMATIC = (100, 1000, 10**6, 10**9)
"""``в сотый раз``, ``тысячная доля``: these ordinals stay words."""
_HALVES = words("половина половины половине половину")
_QUARTERS = words("четверть четверти")
_POINTS = {"запятая": ",", "точка": "."}
_ONE_AND_HALF = words("полтора полторы полутора")
_IDIOMS = tuple(tuple(text.split()) for text in ("сто раз", "на все сто", "тысяча и одна ночь", "в двух словах"))
_IDIOM_HEADS = frozenset(idiom[0] for idiom in _IDIOMS)


Found: TypeAlias = "tuple[int, list[Span]] | None"
"""What a rule has found: the token after it, and what changes before that. None: nothing begins here."""


def _one(start: int, end: int, text: str) -> tuple[int, list[Span]]:
    return end, [Span(start, end, text)]


class Parser(Reader):
    """One pass over the tokens of a phrase.

    Args:
        tokens: as written.
        breaks: see ``Reader``.
        loose: for scoring: every number word becomes bare digits, whatever stands around it.
    """

    def __init__(self, tokens: Sequence[str], breaks: Sequence[bool] = (), *, loose: bool = False) -> None:
        super().__init__(tokens, breaks)
        self.loose = loose
        self.rules: tuple[Callable[[int], Found], ...] = (
            self._idiom, self._half, self._to_the_hour, self._past, self._decimal, self._date, self._clock,
            self._from_to, self._range, self._dictated, self._ordinal, self._number,
        )  # fmt: skip
        if loose:
            self.rules = (self._half, self._to_the_hour, self._past, self._decimal, self._ordinal, self._number)

    def spans(self) -> list[Span]:
        """What becomes digits, in order."""
        found: list[Span] = []
        at = 0
        while at < len(self.words):
            end, spans = next((hit for rule in self.rules if (hit := rule(at)) is not None), (at + 1, []))
            found += spans
            at = end
        return found

    # What stands around a number ------------------------------------------------------------------------------------

    def _counts(self, end: int) -> bool:
        """Whether the number before token ``end`` counts a unit: ``дней``, ``рабочих дней``."""
        return self.next(end) in COUNTED or (self.next(end)[-2:] in ("ых", "их") and self.next(end + 1) in COUNTED)

    def _stays(self, at: int, number: Number) -> bool:
        """Whether a single word stays: small, or perhaps no number, and nothing beside it speaks for digits."""
        if not (number.doubtful or number.kind == "unit"):
            return False
        before = self.word(at - 1)
        if number.value == 1:
            unit = self.next(at + 1) in MEASURES or self.is_scale(at + 1)
            asking = self.next(at + 1) in ("минуту", "секунду") and before not in ("за", "через", "на", "в")
            polite = self.word(at) == "одну" and asking
            return before == "ни" or polite or not (unit or (before in BEFORE and number.plain))
        return not self._counts(at + 1) and not (before in BEFORE and number.kind != "scale")

    def _percent(self, start: int, end: int, text: str) -> tuple[int, list[Span]]:
        """The number, with ``%`` if per cent follow."""
        return _one(start, end + 1, text + "%") if self.next(end) in PERCENT else _one(start, end, text)

    def _counting(self, start: int, value: Value) -> tuple[int, list[Span]]:
        """A whole number in digits; round millions keep their word: ``5 миллионов``."""
        scale = self.number(value.end - 1)
        if not self.loose and scale is not None and scale.kind == "scale" and scale.value >= 10**6:
            count, rest = divmod(value.value, scale.value)
            if not rest:
                return value.end, [Span(start, value.end - 1, str(count))] if value.end - 1 > start else []
        if self.loose:
            return _one(start, value.end, str(value.value))
        return self._percent(start, value.end, str(value.value))

    # Numbers alone --------------------------------------------------------------------------------------------------

    def _idiom(self, at: int) -> Found:
        word = self.words[at]
        if word == "раз" and self.number(at - 1) is None:  # counting out: раз, два, три
            end = at + 1
            while (number := self.number(end)) is not None and number.kind == "unit":
                end += 1
            return (end, []) if end > at + 1 else None
        if word in _IDIOM_HEADS:
            for idiom in _IDIOMS:
                if tuple(self.words[at : at + len(idiom)]) == idiom and not self._counts(at + len(idiom)):
                    return at + len(idiom), []
        return None

    def _number(self, at: int) -> Found:
        number = self.numbers[at]
        if number is None:
            return self._hyphened(at)
        found = self.whole(at)
        if found is None or found.ordinal:
            return None
        if found.end == at + 1 and not self.loose and self._stays(at, number):
            return found.end, []
        return self._counting(at, found)

    def _hyphened(self, at: int) -> Found:
        """``два-три`` before what is counted."""
        first, hyphen, second = self.words[at].partition("-")
        low, high = (table().get(first), table().get(second)) if hyphen else (None, None)
        if low is None or high is None or low.ordinal or high.ordinal or low.value >= high.value:
            return None
        counted = self._counts(at + 1) or self.is_scale(at + 1) or self.loose
        return _one(at, at + 1, f"{low.value}-{high.value}") if counted and high.kind != "scale" else None

    def _ordinal(self, at: int) -> Found:
        found = self.whole(at)
        if found is None or not found.ordinal:
            return None
        value, end, ending = found.value, found.end, found.ordinal
        if self.loose:
            return _one(at, end, f"{value}-й")
        if self.next(end) in YEARS and value >= 1000:
            return _one(at, end, str(value))
        alone = end == at + 1
        if alone and ((value < 10 and self.next(end) not in _NUMBERED) or value in _IDIOMATIC):
            return end, []  # first and second, hundredth and thousandth are words
        return _one(at, end, f"{value}-{ending}")

    # Dates and times ------------------------------------------------------------------------------------------------

    def _date(self, at: int) -> Found:
        """``двадцать пятого мая [две тысячи пятого]``; ``пятое ноль третье [восемьдесят второго]``."""
        day = self.below_thousand(at)
        if day is None or not day.ordinal or not 1 <= day.value <= 31:
            return None
        if self.next(day.end) in MONTHS:
            year = self.whole(day.end + 1) if self.linked(day.end + 1) else None
            if year is not None and year.value >= 1000 and year.ordinal:
                return year.end, [Span(at, day.end, str(day.value)), Span(day.end + 1, year.end, str(year.value))]
            return _one(at, day.end, str(day.value))
        nought = self.next(day.end) in ("ноль", "нуль")
        month = (
            self.below_thousand(day.end + nought) if self.linked(day.end) and self.linked(day.end + nought) else None
        )
        if month is None or not (1 <= month.value <= 9 if nought else 10 <= month.value <= 12):
            return None
        year = self.whole(month.end) if self.linked(month.end) else None
        dated = year is not None and year.ordinal and (year.value < 100 or 1900 <= year.value < 2100)
        if not dated and not (nought and month.ordinal):
            return None
        text = f"{day.value:02d}.{month.value:02d}"
        if year is None or not dated:
            return _one(at, month.end, text)
        return _one(at, year.end, f"{text}.{year.value:02d}")

    def _hour_of(self, at: int) -> Value | None:
        """The hour that an ordinal names: ``третьего`` is the one from two to three."""
        hour = self.below_thousand(at) if self.linked(at) else None
        fits = hour is not None and hour.ordinal == "го" and 1 <= hour.value <= 12
        if hour is None or not fits or self.next(hour.end) in MONTHS or _NO_HOUR.fullmatch(self.next(hour.end)):
            return None
        return Value((hour.value - 2) % 12 + 1, hour.end)

    def _half(self, at: int) -> Found:
        """``половина третьего``, ``четверть шестого``, ``полседьмого``."""
        word = self.words[at]
        if word in _HALVES or word in _QUARTERS or (word == "пол" and self.word(at - 1) in AT):
            hour = self._hour_of(at + 1)
            return None if hour is None else _one(at, hour.end, f"{hour.value}:{15 if word in _QUARTERS else 30}")
        hour_word = table().get(word[3:]) if word.startswith("пол") else None
        if hour_word is None or hour_word.ordinal != "го" or not 1 <= hour_word.value <= 12:
            return None
        return _one(at, at + 1, f"{(hour_word.value - 2) % 12 + 1}:30")

    def _to_the_hour(self, at: int) -> Found:
        """``без пяти шесть``, ``без четверти шесть``, ``без двадцати минут час``."""
        if self.words[at] != "без":
            return None
        quarter = self.next(at + 1) == "четверти"
        minutes = self.below_thousand(at + 1, agreeing=True) if self.linked(at + 1) else None
        part = Value(15, at + 2) if quarter else minutes
        if part is None or part.ordinal or not 1 <= part.value <= 29:
            return None
        after = part.end + (self.next(part.end) in ("минут", "минуты"))
        if self.next(after) == "час":
            return _one(at, after + 1, f"12:{60 - part.value:02d}")
        hour = self.below_thousand(after) if self.linked(after) else None
        if hour is None or hour.ordinal or not 1 <= hour.value <= 12 or self.is_scale(hour.end):
            return None
        if self.next(hour.end) in COUNTED and self.next(hour.end) not in ("час", "часа", "часов"):
            return None
        return _one(at, hour.end, f"{(hour.value - 2) % 12 + 1}:{60 - part.value:02d}")

    def _past(self, at: int) -> Found:
        """``десять минут шестого``: 5:10."""
        part = self.below_thousand(at)
        if part is None or part.ordinal or not 1 <= part.value <= 59:
            return None
        if self.next(part.end) not in ("минут", "минуты", "минута"):
            return None
        hour = self._hour_of(part.end + 1)
        return None if hour is None else _one(at, hour.end, f"{hour.value}:{part.value:02d}")

    def _minutes(self, at: int) -> bool:
        """Whether two digits of minutes begin here: ``тридцать``, ``ноль пять``."""
        part = self.below_thousand(at) if self.linked(at) else None
        return part is not None and (10 <= part.value <= 59 or (part.value == 0 and self.number(part.end) is not None))

    def _clock(self, at: int) -> Found:
        """``в пятнадцать тридцать``: hours and minutes behind a preposition or before ``утра``, nothing counted."""
        if self.words[at] == "час":
            hour: Value | None = Value(1, at + 1)
        elif self.words[at] == self.next(at + 1) == "ноль" and self._minutes(at + 2):
            hour = Value(0, at + 2)
        else:
            hour = self.below_thousand(at)
        if hour is None or hour.ordinal or hour.value > 23 or not self.linked(hour.end):
            return None
        nought = self.next(hour.end) in ("ноль", "нуль")
        minute = self.below_thousand(hour.end + nought) if self.linked(hour.end + nought) else None
        if minute is None or minute.ordinal:
            return None
        if not (minute.value < 10 if nought else 10 <= minute.value <= 59):  # "ноль пять", "ноль ноль" or two digits
            return None
        said = self.word(at - 1)
        told = said in AT or said in _NOW or self.next(minute.end) in _DAYTIMES
        alone = nought and hour.end == at + 1 and hour.value > 9 and self.number(at - 1) is None and said not in _CUES
        more = self.number(minute.end) is not None and self.linked(minute.end)
        if not (told or alone) or more or (self._counts(minute.end) and self.next(minute.end) not in _DAYTIMES):
            return None
        return _one(at, minute.end, f"{hour.value}:{minute.value:02d}")

    # Fractions and ranges -------------------------------------------------------------------------------------------

    def _decimal(self, at: int) -> Found:
        """``две целых пять десятых``, ``полтора``, ``два с половиной``, ``два запятая пять``."""
        if self.words[at] in _ONE_AND_HALF:
            return self._and_half(at, 1, at + 1)
        if self.numbers[at] is None:
            return None
        found = self.whole(at)
        if found is None or found.ordinal:
            return self._tenths(at)
        end = found.end
        if self.next(end) == "с" and self.next(end + 1) == "половиной":
            return self._and_half(at, found.value, end + 2)
        if self.next(end) in _POINTS:
            return self._pointed(at, found)
        if self.next(end) == "и" and 34 <= found.value <= 42:  # body temperature: тридцать шесть и шесть
            tenth = self.below_thousand(end + 1) if self.linked(end + 1) else None
            fits = tenth is not None and not tenth.ordinal and 1 <= tenth.value <= 9 and not self._counts(tenth.end)
            return _one(at, tenth.end, f"{found.value},{tenth.value}") if tenth is not None and fits else None
        if self.next(end) in WHOLE:
            part = self._fraction(end + 1) or (self._fraction(end + 2) if self.next(end + 1) == "и" else None)
            return None if part is None else self._percent(at, part[1], f"{found.value},{part[0]}")
        return self._tenths(at)

    def _pointed(self, at: int, first: Value) -> Found:
        """``два запятая пять``, ``сто девяносто два точка сто шестьдесят восемь точка``..."""
        text, end = str(first.value), first.end
        while (mark := _POINTS.get(self.next(end), "")) and self.linked(end + 1):
            part = self.whole(end + 1)
            if part is None or part.ordinal:
                break
            text, end = f"{text}{mark}{part.value}", part.end
        return self._percent(at, end, text) if end > first.end else None

    def _and_half(self, at: int, whole: int, end: int) -> Found:
        """A number and a half, of thousands too; bigger ones keep their word: ``2,5 миллиона``."""
        scale = self.number(end)
        if self.is_scale(end) and scale is not None and scale.value == 1000 and not scale.ordinal:
            return _one(at, end + 1, str(whole * 1000 + 500))
        return self._percent(at, end, f"{whole},5")

    def _tenths(self, at: int) -> Found:
        """``пять десятых`` of a unit."""
        part = self._fraction(at)
        if part is None or self.next(part[1]) not in MEASURES:
            return None
        return self._percent(at, part[1], f"0,{part[0]}")

    def _fraction(self, at: int) -> tuple[str, int] | None:
        """``пять десятых``: digits after the comma, and the token after them."""
        for size in (1, 2, 3):
            places = TENTHS.get(self.next(at + size))
            if places is None:
                continue
            kept, self.numbers[at + size] = self.numbers[at + size], None  # "десятых" might go on with the number
            found = self.below_thousand(at)
            self.numbers[at + size] = kept
            if found is not None and found.end == at + size and not found.ordinal and found.value < 10**places:
                return f"{found.value:0{places}d}", at + size + 1
        return None

    def _from_to(self, at: int) -> Found:
        """``от пяти до десяти``, ``с девяти до восемнадцати ноль ноль``."""
        if self.words[at] not in ("от", "с"):
            return None
        low = self.whole(at + 1) if self.linked(at + 1) else None
        if low is None or low.ordinal or self.next(low.end) != "до" or self._clock(at + 1):
            return None
        start = low.end + 1
        high = self.whole(start) if self.linked(start) else None
        if high is None or high.ordinal:
            return None
        end, spans = self._decimal(start) or self._clock(start) or self._counting(start, high)
        return end, [*self._counting(at + 1, low)[1], *spans]

    def _range(self, at: int) -> Found:
        """``два три дня``, ``десять пятнадцать минут``: about so many."""
        low = self.below_thousand(at)
        high = self.below_thousand(low.end) if low is not None and self.linked(low.end) else None
        if low is None or high is None or low.ordinal or high.ordinal or self.number(at - 1) is not None:
            return None
        number, other = self.numbers[at], self.numbers[low.end]
        same_case = number is not None and other is not None and number.plain == other.plain
        step = high.value - low.value
        near = step == 1 and high.value <= 10
        round_ = step > 0 and any(low.value % unit == 0 and step in (unit, 2 * unit) for unit in (5, 50, 100))
        before = {self.word(at - 1), self.word(at - 2)} & COUNTED
        hours = self.next(high.end) in _DAYTIMES and high.value > 12
        counted = (self._counts(high.end) and not hours) or self.is_scale(high.end) or before
        if not (same_case and (near or round_) and counted):
            return None
        return self._percent(at, high.end, f"{low.value}-{high.value}")

    # Dictation ------------------------------------------------------------------------------------------------------

    def _dictated(self, at: int) -> Found:
        """Numbers said in groups: telephone numbers get their usual form, a nought stays on what follows it."""
        plus = self.words[at] == "плюс" and self.next(at + 1) == "семь"
        groups = self._groups(at + plus)
        if len(groups) < 2:
            nought = len(groups) == 1 and not plus and len(groups[0].text) > 1 and groups[0].text[0] == "0"
            return (groups[0].end, groups) if nought else None
        start, end = groups[0].start, groups[-1].end
        found = phone(groups, plus=plus)
        if found is not None:
            return end, [found[0]._replace(start=at), *found[1:]]
        coded = any(self.word(at - back) in _CUES for back in (1, 2, 3))
        if (self._counts(end) and not coded) or plus:
            return None  # several numbers, the last of which counts something
        texts = [group.text for group in groups]
        joined = "".join(texts)
        if all(len(text) == 1 for text in texts):
            rising = all(int(b) == int(a) + 1 for a, b in itertools.pairwise(texts))
            if coded or joined[0] == "0" or (len(texts) > 2 and not rising):
                return _one(start, end, joined)
            return end, []  # counting, or two numbers that happened to meet
        if [len(text) for text in texts] == [3, 2, 2]:
            return _one(start, end, "-".join(texts))
        if any(text[0] == "0" and len(text) > 1 for text in texts):
            return _one(start, end, joined)
        return end, list(groups)

    def _groups(self, at: int) -> list[Span]:
        """Numbers below a thousand in the nominative, one after another, noughts before one on it."""
        groups: list[Span] = []
        here, noughts = at, ""
        while here < len(self.words) and (here == at or self.linked(here)):
            part, number = self.below_thousand(here), self.numbers[here]
            if part is None or part.ordinal or number is None or not number.plain or self.is_scale(part.end):
                break
            if number.value == 0:
                noughts += "0"
            elif noughts and groups and part.value >= 10:  # "девяносто ноль двадцать": a group of its own
                groups.append(Span(here - len(noughts), here, noughts))
                noughts = ""
            if number.value:
                groups.append(Span(here - len(noughts), part.end, noughts + str(part.value)))
                noughts = ""
            elif len(noughts) > 1:
                groups.append(Span(here - len(noughts) + 1, part.end, noughts))
                noughts = ""
            here = part.end
        if noughts:
            groups.append(Span(here - len(noughts), here, noughts))
        if groups and self.next(here) in WHOLE:
            groups.pop()
        return groups
