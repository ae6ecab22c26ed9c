"""Number words to digits and back: tables of cases, round trips, and texts that must stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rechka.text.itn import digits_for_scoring, to_digits, transcript_to_digits, words_to_digits
from rechka.text.nouns import NOUNS, YEAR, known
from rechka.text.number_words import CASES, GENDERS
from rechka.text.numerals import BILLION, MILLION, THOUSAND, TRILLION, Case, Gender, Noun, cardinal, ordinal
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
около миллиона двухсот тысяч = около 1200000
около триллиона двухсот тысяч = около 1000000200000
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


DATA = Path(__file__).parents[1] / "data/text"


@pytest.mark.parametrize(("words", "digits"), cases(DIGITS) + cases((DATA / "itn.txt").read_text(encoding="utf-8")))
def test_words_to_digits(words: str, digits: str) -> None:
    assert to_digits(words) == digits


@pytest.mark.parametrize("text", SAME.strip().splitlines())
def test_what_may_be_no_number_stays(text: str) -> None:
    assert to_digits(text) == text


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 999_999), st.sampled_from(CASES), st.sampled_from(GENDERS))
@example(1000, "gen", "m")
def test_every_cardinal_in_every_form_comes_back(number: int, case: str, gender: str) -> None:
    # "тысячи" alone is no thousand
    words = cardinal(number, case, gender, say_one=number == 1000)  # type: ignore[arg-type]
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


def test_sentences_that_people_wrote() -> None:
    lines = [line.split("\t") for line in (DATA / "numbers.tsv").read_text(encoding="utf-8").splitlines()]
    wrong = [spoken for _, spoken, wanted in lines if to_digits(spoken) != wanted]
    assert len(lines) == 210
    assert wrong == ["четвертая на пятьсот девяносто второй"]  # two numbers, said without a pause


@pytest.mark.parametrize(
    "text",
    [
        "как вас зовут и откуда вы звоните",
        "Мы перезвоним, когда всё будет готово.",
        "одинокий столяр стоял у стола семьи Шестаковых",
        "стало трудно: устало, растает, постой",
        "пятно на пятнистом пятачке",
        "",
    ],
)
def test_text_without_numbers_stays(text: str) -> None:
    assert to_digits(text) == text == to_words(text)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10**15 - 1), st.sampled_from(CASES), st.sampled_from(GENDERS), st.booleans())
def test_every_number_to_a_quadrillion_comes_back(number: int, case: Case, gender: Gender, say_one: bool) -> None:
    words = cardinal(number, case, gender, say_one=say_one or case == "gen")  # "тысячи" alone is no thousand
    assert digits_for_scoring(words) == str(number)
    doubtful = number < 10 or words == "сорока" or words.split()[-1].startswith(("тысяч", "милли", "трилли"))
    assert doubtful or to_digits(f"это {words}") == f"это {number}"


@pytest.mark.parametrize(("digits", "words"), cases((DATA / "spelled.txt").read_text(encoding="utf-8")))
def test_digits_in_every_context_to_words(digits: str, words: str) -> None:
    assert to_words(digits) == words


@settings(deadline=None, max_examples=300)
@given(st.integers(2, 10**9), st.sampled_from(CASES), st.sampled_from(NOUNS))
@example(1631, "nom", known("век"))
def test_the_form_of_a_noun_tells_the_case(number: int, case: Case, noun: Noun) -> None:
    """Said and written again: what is spelled with the noun reads as the same number."""
    century = known("век")  # the twenty-first, not twenty-one of them
    if number % 1000 == 0 or noun in (THOUSAND, MILLION, BILLION, TRILLION, YEAR, century):
        return
    written = f"вижу {number} {noun.form(number, case)}"
    spoken = to_words(written)
    read = digits_for_scoring(spoken).replace("ё", "е")
    assert read == digits_for_scoring(written).replace("%", noun.form(number)).replace("ё", "е")
    fitting = [other for other in CASES if noun.form(number, other) == noun.form(number, case)]
    said = spoken.removeprefix("вижу ").rsplit(" ", 1)[0]
    assert said in {cardinal(number, other, noun.gender) for other in fitting}


@pytest.mark.parametrize(
    ("words", "pauses", "digits"),
    [
        ("двадцать пять", 0.1, ["25"]),
        ("двадцать пять", 2.0, ["20", "пять"]),
        ("восемь девятьсот двенадцать триста сорок пять шестьдесят семь восемьдесят девять", 0.9,
         ["8", "912", "345-67-89"]),
        ("в пятнадцать тридцать", 0.2, ["в", "15:30"]),
        ("двадцать пятого мая две тысячи шестого года", 0.1, ["25", "мая", "2006", "года"]),
    ],
)  # fmt: skip
def test_every_word_is_one_word_with_its_times(words: str, pauses: float, digits: list[str]) -> None:
    heard = [Word(text, i * (0.5 + pauses), i * (0.5 + pauses) + 0.5, 0.9) for i, text in enumerate(words.split())]
    found = words_to_digits(heard)
    assert [word.text for word in found] == digits
    assert {word.start for word in found} <= {word.start for word in heard}
    assert {word.end for word in found} <= {word.end for word in heard}


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


def test_the_table_of_the_documentation_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs/text.md").read_text(encoding="utf-8")
    table = page.split("| said | written |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [[cell.strip().split("; ") for cell in row.strip("|").split("|")] for row in table.splitlines()]
    pairs = [pair for said, written in rows for pair in zip(said, written, strict=True)]
    assert len(pairs) > 20
    assert [to_digits(said) for said, _ in pairs] == [written for _, written in pairs]


WORDS = st.lists(
    st.sampled_from(
        (
            *("да", "двадцать", "пять", "сто", "первого", "мая", "рублей", "с", "до", "от", "половиной", "половина"),
            *("без", "час", "ноль", "тысяч", "тысяча", "два-три", "плюс", "семь", ",", "девятьсот", "раз", "полтора"),
            *("точка", "целых", "десятых", "процентов", "один", "третьего", "минут"),
        )
    ),
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
    assert not any(" " in word.text for word in found)
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
