"""Sentences for training: the held-out wall, filters, targets, readers."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from rechka.errors import DataError
from rechka.train.text import Overlap, held_out, profane, read_sentences, read_texts, select, training, unique, usable


def test_held_out_is_the_agreed_rule() -> None:
    for text, folded in (("Ещё раз, пожалуйста!", "еще раз пожалуйста"), ("да", "да")):
        expected = int(hashlib.sha256(folded.encode()).hexdigest(), 16) % 100 < 15
        assert held_out(text) is expected


def test_held_out_share_is_fifteen_percent() -> None:
    share = sum(held_out(f"слово {'а' * (i % 97)} {'б' * (i // 97)}") for i in range(9000)) / 9000
    assert 0.13 < share < 0.17


def test_held_out_goldens_never_move() -> None:
    """Hashes are forever: a change here would put test sentences into training sets."""
    texts = ["соедините с оператором", "нажмите один", "Позиция: номер пять!", "заказ номер четыре"]
    assert [held_out(text) for text in texts] == [False, False, True, True]


def test_training_target() -> None:
    assert training("Что-то ещё: «Съёмка»?") == "что то еще съемка"
    for bad in ("дом 5", "отправьте sms", "Київ"):
        with pytest.raises(DataError, match="Russian letters"):
            training(bad)


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("Добрый день", True),
        ("Алло", False),
        (" ".join(["да"] * 20), True),
        (" ".join(["да"] * 21), False),
        ("Дом 5", False),
        ("Смотрю YouTube вечером", False),
        ("Слава Україні сегодня", False),
        ("!!! ...", False),
        ("ну ты и мудак", False),
    ],
)
def test_usable(text: str, fit: bool) -> None:
    assert usable(text) is fit


def test_profane_spares_decent_words() -> None:
    decent = "себе тебе хлеб колебаться употреблять художник небеса обляпать подмандатный мудрый обед требует учебный"
    assert not [word for word in decent.split() if profane(word)]


def test_unique_folds_before_comparing() -> None:
    assert list(unique(["Да, ещё.", "да еще", "Да-еще!", "нет"])) == ["Да, ещё.", "нет"]


def test_select_keeps_the_wall() -> None:
    sentences = [f"это предложение про {'очень ' * (i % 15)}{'а' * i}" for i in range(1, 300)]
    train, test = list(select(sentences)), list(select(sentences, test=True))
    assert train
    assert test
    assert len(train) + len(test) == len(sentences)
    assert not any(map(held_out, train))
    assert all(map(held_out, test))


def test_read_sentences(tmp_path: Path) -> None:
    plain = tmp_path / "a.txt"
    plain.write_text("раз\n\n  два \n", encoding="utf-8")
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress("раз\nдва".encode()))
    assert list(read_sentences(plain)) == list(read_sentences(packed)) == ["раз", "два"]


def test_read_sentences_errors(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "fake.txt.gz").write_text("не gzip", encoding="utf-8")
    cut = gzip.compress("раз два три".encode() * 50)[:-12]
    (tmp_path / "cut.txt.gz").write_bytes(cut)
    for name in ("latin.txt", "fake.txt.gz", "cut.txt.gz", "absent.txt"):
        with pytest.raises(DataError, match=name):
            list(read_sentences(tmp_path / name))


def test_overlap_catches_whole_texts_and_long_runs() -> None:
    leaks = Overlap(["Нажмите решётку.", "он вошёл в тёмную комнату и закрыл дверь"], run=4)
    assert leaks("нажмите решетку!")
    assert leaks("Тогда он вошел в темную пещеру")
    assert not leaks("он вошёл в пещеру")
    assert not leaks("нажмите решётку после сигнала")


def test_read_texts_of_manifests(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"text": "раз два"}\n{"audio_filepath": "a.wav"}\n{"text": ""}\n', encoding="utf-8")
    assert list(read_texts(manifest)) == ["раз два"]
    manifest.write_text('{"text": "раз"}\n{broken\n', encoding="utf-8")
    with pytest.raises(DataError, match="record 2"):
        list(read_texts(manifest))
    for value in ("[" * 100_000, "1" + "0" * 5000):  # what Python's reader gives up on in other ways
        manifest.write_text('{"text": ' + value + "\n", encoding="utf-8")
        with pytest.raises(DataError, match="record 1"):
            list(read_texts(manifest))
    (tmp_path / "a.txt").write_text("раз\n{два}\n", encoding="utf-8")
    assert list(read_texts(tmp_path / "a.txt")) == ["раз", "{два}"]
