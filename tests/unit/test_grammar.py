"""The call-centre grammar: numbers in words, agreement, templates, the wall between training and test."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from rechka.text.normalize import scoring
from rechka.text.numerals import Case, Gender, cardinal, count, group, ordinal, spell
from rechka.train import phrases
from rechka.train.grammar import expand, generate, main, parse
from rechka.train.lexicon import NOUNS
from rechka.train.slots import FILLERS, decline
from rechka.train.text import held_out, training


@pytest.mark.parametrize(
    ("number", "case", "gender", "words"),
    [
        (0, "nom", "m", "ноль"),
        (21, "nom", "f", "двадцать одна"),
        (2, "acc", "f", "две"),
        (18, "gen", "m", "восемнадцати"),
        (8, "ins", "m", "восемью"),
        (40, "gen", "m", "сорока"),
        (58, "ins", "m", "пятьюдесятью восемью"),
        (90, "dat", "m", "девяноста"),
        (100, "nom", "m", "сто"),
        (365, "gen", "m", "трёхсот шестидесяти пяти"),
        (800, "ins", "m", "восемьюстами"),
        (1000, "acc", "m", "тысячу"),
        (2001, "nom", "f", "две тысячи одна"),
        (11_011, "nom", "m", "одиннадцать тысяч одиннадцать"),
        (1_000_000, "nom", "m", "миллион"),
        (22_500_013, "nom", "m", "двадцать два миллиона пятьсот тысяч тринадцать"),
    ],
)
def test_cardinal(number: int, case: Case, gender: Gender, words: str) -> None:
    assert cardinal(number, case, gender) == words


def test_cardinal_range() -> None:
    assert cardinal(1000, say_one=True) == "одна тысяча"
    for bad in (-1, 10**15):
        with pytest.raises(ValueError, match="cardinal"):
            cardinal(bad)


@pytest.mark.parametrize(
    ("number", "case", "gender", "words"),
    [
        (2, "nom", "m", "второй"),
        (3, "gen", "n", "третьего"),
        (23, "pre", "f", "двадцать третьей"),
        (40, "nom", "m", "сороковой"),
        (50, "nom", "f", "пятидесятая"),
        (108, "nom", "m", "сто восьмой"),
        (1985, "gen", "m", "тысяча девятьсот восемьдесят пятого"),
        (2000, "gen", "m", "двухтысячного"),
        (2024, "pre", "m", "две тысячи двадцать четвёртом"),
        (31, "nom", "n", "тридцать первое"),
    ],
)
def test_ordinal(number: int, case: Case, gender: Gender, words: str) -> None:
    assert ordinal(number, case, gender) == words


@pytest.mark.parametrize(
    ("number", "noun", "case", "words"),
    [
        (1, "рубль", "nom", "один рубль"),
        (2, "копейка", "nom", "две копейки"),
        (5, "рубль", "nom", "пять рублей"),
        (11, "рубль", "nom", "одиннадцать рублей"),
        (112, "минута", "nom", "сто двенадцать минут"),
        (121, "минута", "acc", "сто двадцать одну минуту"),
        (3, "час", "gen", "трёх часов"),
        (5, "год", "nom", "пять лет"),
        (5, "год", "gen", "пяти лет"),
        (22, "год", "nom", "двадцать два года"),
        (1000, "рубль", "ins", "тысячей рублей"),
        (2000, "рубль", "nom", "две тысячи рублей"),
        (0, "рубль", "nom", "ноль рублей"),
    ],
)
def test_counted_noun_agrees(number: int, noun: str, case: Case, words: str) -> None:
    assert count(number, NOUNS[noun], case) == words


def test_digit_groups() -> None:
    assert spell("105") == "один ноль пять"
    assert [group(digits) for digits in ("05", "00", "120", "007", "5")] == [
        "ноль пять",
        "ноль ноль",
        "сто двадцать",
        "ноль ноль семь",
        "пять",
    ]


def test_names_decline() -> None:
    pairs = {
        "Пётр": "Петром",
        "Илья": "Ильёй",
        "Юлия": "Юлией",
        "Ольга": "Ольгой",
        "Андрей": "Андреем",
        "Игорь": "Игорем",
    }
    assert {name: decline(name, "ins") for name in pairs} == pairs
    assert decline("Любовь", "dat") == "Любови"
    assert decline("Мария", "dat") == "Марии"
    assert decline("Сергеевич", "ins") == "Сергеевичем"


def test_template_language() -> None:
    rng = random.Random(0)
    seen = {expand("(а|б (в|)|), {digit:1}", rng).split(",")[0] for _ in range(200)}
    assert {"а", "б в", "б"} <= seen
    assert expand("с службой, с Сергеем", rng) == "со службой, с Сергеем"
    for broken in ("(а|б", "а)", "{num"):
        with pytest.raises(ValueError, match="template"):
            parse(broken)


def test_every_slot_is_known() -> None:
    def slots(nodes: tuple[tuple[str, object], ...]) -> set[str]:
        found: set[str] = set()
        for kind, value in nodes:
            if kind == "slot":
                found.add(value[0])  # type: ignore[index]
            elif kind == "choice":
                found.update(*(slots(branch) for branch in value))  # type: ignore[attr-defined]
        return found

    templates = [*phrases.NUMBERS, *phrases.COMMANDS, *phrases.SLOTS.values()]
    used = set().union(*(slots(parse(template)) for template in templates))
    assert used <= set(FILLERS) | set(phrases.SLOTS)
    assert len(phrases.NUMBERS) + len(phrases.COMMANDS) >= 40


def test_every_template_gives_a_target() -> None:
    rng = random.Random(1)
    for template in (*phrases.NUMBERS, *phrases.COMMANDS):
        for _ in range(30):
            text = expand(template, rng)
            assert training(text), template
            assert "  " not in text
            assert ",," not in text


def test_generate_is_seeded_different_and_walled() -> None:
    train = list(itertools.islice(generate(3), 2000))
    assert train == list(itertools.islice(generate(3), 2000))
    assert train != list(itertools.islice(generate(4), 2000))
    test = list(itertools.islice(generate(3, test=True), 200))
    assert len({scoring(text) for text in train}) == 2000
    assert not any(map(held_out, train))
    assert all(map(held_out, test))
    assert not any(char.isdigit() for text in train for char in text)
    assert max(len(training(text).split()) for text in train) <= 20


def test_generate_leaves_out_what_it_is_told() -> None:
    first = scoring(next(generate(5, topic="commands")))
    assert first not in map(scoring, itertools.islice(generate(5, topic="commands", exclude={first}), 300))


def test_phrases_go_to_a_file(tmp_path: Path) -> None:
    out, prompts = tmp_path / "phrases.txt", tmp_path / "prompts.jsonl"
    main([str(out), "--count", "50", "--seed", "5"])
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines == list(itertools.islice(generate(5), 50))
    prompts.write_text(json.dumps({"text": lines[0]}), encoding="utf-8")
    main([str(out), "--count", "50", "--seed", "5", "--test", "--exclude", str(prompts)])
    assert all(map(held_out, out.read_text(encoding="utf-8").splitlines()))
    main([str(out), "--count", "50", "--seed", "5", "--exclude", str(prompts)])
    assert lines[0] not in out.read_text(encoding="utf-8").splitlines()
