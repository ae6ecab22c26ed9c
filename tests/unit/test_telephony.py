"""Template files of what telephone systems say, and inflected forms from a dictionary."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rechka.errors import DataError, DataNotFound
from rechka.train.grammar import parse
from rechka.train.telephony import read_templates, sentences, variants
from rechka.train.text import training
from rechka.train.wordforms import families, likely_forms

TELEPHONY = sorted((Path(__file__).parents[2] / "recipes" / "embedded" / "telephony").glob("*.txt"))

DIC = "2\nзаказ/A\nвызов/A\nквас/A\nАнна\n"
AFF = "SET UTF-8\nSFX A Y 3\nSFX A 0 а [зсв]\nSFX A 0 ом [зсв]\nSFX A аз азы аз\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "t.txt"
    path.write_text(text, "utf-8")
    return path


def test_named_parts_comments_and_pieces(tmp_path: Path) -> None:
    path = written(tmp_path, "# a comment\n@key = (один|два)\n@press = нажмите {key}\nчтобы выйти, {press}\n")
    (template,) = read_templates(path)
    found = list(sentences([template]))
    assert set(found) == {
        "чтобы выйти нажмите один",
        "чтобы выйти нажмите два",
        "чтобы выйти",
        "нажмите один",
        "нажмите два",
    }
    assert [text.count(" ") for text in found[:2]] == [3, 3]  # whole phrases first
    assert found == list(sentences([template]))


def test_phrases_are_bounded_but_all_short_ones_come(tmp_path: Path) -> None:
    (template,) = read_templates(written(tmp_path, "(а|б|в|г) (да|нет)\n"))
    assert variants(parse(template)) == 8
    assert len(set(sentences([template], each=100))) >= 7  # drawn at random, four times as often as needed
    assert len(list(sentences([template], each=3))) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("нажмите {nothing}\n", "unknown slot"),
        ("нажмите (один|два\n", "without '\\)'"),
        ("@a = {a}\nскажите {a}\n", "eight deep"),
    ],
)
def test_what_is_no_template_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_templates(written(tmp_path, text))


@pytest.mark.parametrize("path", TELEPHONY, ids=lambda path: path.stem)
def test_own_templates_give_training_targets(path: Path) -> None:
    templates = read_templates(path)
    assert len(templates) >= 20
    phrases = list(itertools.islice(sentences(templates, each=2), 400))
    assert len(set(phrases)) >= 40
    assert all(training(text) == text for text in phrases)


def test_unseen_forms_of_known_words_come_by_use(tmp_path: Path) -> None:
    dic, aff = tmp_path / "x.dic", tmp_path / "x.aff"
    dic.write_text(DIC, "utf-8")
    aff.write_text(AFF, "utf-8")
    known = list(families(dic, aff))
    assert [word for word, _ in known[1]] == ["заказ", "заказа", "заказом", "заказы"]
    assert ["анна"] in [[word for word, _ in family] for family in known]
    counts = {"заказ": 5, "заказа": 4, "вызов": 3, "кот": 9}
    found = likely_forms(counts, known, 10)
    assert found[0] == "вызова"  # the ending that others of its kind are met with
    assert set(found) == {"вызова", "вызовом", "заказом", "заказы"}  # nothing of "квас", which nobody says
    assert likely_forms(counts, known, 1) == found[:1]


def test_an_affix_file_without_suffixes_is_refused(tmp_path: Path) -> None:
    empty = written(tmp_path, "SET UTF-8\n")
    with pytest.raises(DataError, match="SFX"):
        list(families(empty, empty))
    with pytest.raises(DataNotFound, match="readable"):
        list(families(tmp_path / "none.dic", tmp_path / "none.aff"))
