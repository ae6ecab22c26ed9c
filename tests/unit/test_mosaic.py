"""Mosaics: every letter of a new sentence comes from where that letter was spoken, at one session's level."""

from __future__ import annotations

import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rechka.train.store import BANDS_FILE, INDEX_FILE, Store
from rechka.train.text import held_out

FOLDER = Path(__file__).parents[2] / "recipes" / "embedded"
STEP = 10
"""Frames from letter to letter of the made-up recordings."""
TEXTS = ["мама мыла раму", "папа мыл пол", "лампа мала"]
LOUD = [10.0, 14.0, 12.0]


@pytest.fixture(scope="module")
def mosaic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embedded_mosaic", FOLDER / "mosaic.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """Three recordings by three sessions: the second band tells the letter, the first the session's level."""
    folder = tmp_path / "store"
    folder.mkdir()
    frames, counts, offset = [], [], 0
    with (
        open(folder / BANDS_FILE, "wb") as values,
        open(folder / INDEX_FILE, "w", encoding="utf-8") as index,
        open(tmp_path / "manifest.jsonl", "w", encoding="utf-8") as manifest,
    ):
        for number, (text, loud) in enumerate(zip(TEXTS, LOUD, strict=True)):
            length = STEP * (len(text) + 4)
            x = np.full((length, 15), loud, np.float32)
            for position, letter in enumerate(text):
                middle = STEP * (position + 2)
                x[middle - 5 : middle + 5, 1] = loud + (ord(letter) - ord("а")) / 4 if letter != " " else loud - 9
            values.write(x.astype(np.float16).tobytes())
            key = f"feat.npz:{offset}"
            item = {"offset": offset, "frames": length, "text": text, "speaker": f"s{number}", "key": key}
            index.write(json.dumps(item) + "\n")
            manifest.write(json.dumps({"feat_file": "feat.npz", "offset": offset, "session": f"s{number}"}) + "\n")
            frames.append(STEP * (np.arange(len(text)) + 2))
            counts.append(len(text))
            offset += length
    keys = [item.key for item in Store(folder).items]
    np.savez(tmp_path / "letters.npz", keys=np.array(keys), quality=np.array([-0.1, -0.1, -0.1]),
             counts=np.array(counts), frames=np.concatenate(frames))  # fmt: skip
    return tmp_path


def corpus(mosaic: ModuleType, material: Path, worst: float = -1.0) -> Any:
    store = Store(material / "store")
    sessions = {item.key: item.speaker for item in store.items}
    return mosaic.read_corpus(store, sessions, material / "letters.npz", worst)


def test_pieces_cover_the_sentence_and_hold_its_letters(mosaic: ModuleType, material: Path) -> None:
    found = corpus(mosaic, material)
    found.means[:, 1] = found.means[:, 2]  # the level alone: letters are told by the second band against it
    planner = mosaic.Planner(found, np.random.default_rng(0), (1, 3))
    sentence = "папа мыла лампу"  # "пу" was never spoken
    assert planner.plan(sentence) is None
    sentence = "мама мыла пол"
    plan = planner.plan(sentence)
    x = mosaic.join(found.bands, found.means, plan["home"], plan["parts"])
    assert len(x) == plan["frames"]
    spoken = (x[:, 1] - np.median(x[:, 2])) * 4
    told = "".join(chr(ord("а") + round(value)) if value > -2 else " " for value in spoken)
    runs = [letter for position, letter in enumerate(told) if told[position : position + 4] == letter * 4]
    letters = [letter for position, letter in enumerate(runs) if position == 0 or letter != runs[position - 1]]
    # Around the sentence the level itself reads as "а".
    assert "".join(letters).strip("а ") == sentence.strip("а ").replace("лл", "л")


def test_the_longest_run_is_taken_and_the_level_is_the_homes(mosaic: ModuleType, material: Path) -> None:
    found = corpus(mosaic, material)
    planner = mosaic.Planner(found, np.random.default_rng(1), (3, 3))
    plan = planner.plan("мыла раму")
    assert len(plan["parts"]) == 2  # ten letters and spaces at most make two pieces
    x = mosaic.join(found.bands, found.means, plan["home"], plan["parts"])
    assert np.median(x[:, 5]) == pytest.approx(found.means[plan["home"], 5], abs=0.05)


def test_badly_aligned_recordings_give_nothing(mosaic: ModuleType, material: Path) -> None:
    with np.load(material / "letters.npz") as old:
        np.savez(material / "letters.npz", **{**old, "quality": np.array([-0.1, -9.0, -0.1])})
    assert "пол" not in corpus(mosaic, material).text
    assert "пол" in corpus(mosaic, material, worst=-10.0).text


def test_no_test_sentence_and_none_that_was_used(mosaic: ModuleType, tmp_path: Path) -> None:
    lines = [f"{a} {b} {c}" for a in ("мама", "папа", "дед") for b in ("мыл", "ждал", "вел") for c in ("раму", "пол")]
    (tmp_path / "texts.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (tmp_path / "test.txt").write_text("Мама мыл пол!\n", "utf-8")
    (tmp_path / "used.txt").write_text("папа ждал раму\n", "utf-8")
    got = list(mosaic.sentences([f"{tmp_path}/texts.txt:1"], [tmp_path / "test.txt"], [tmp_path / "used.txt"], 1))
    assert sorted(got) == sorted(
        line for line in lines if not held_out(line) and line not in ("мама мыл пол", "папа ждал раму")
    )


def test_a_plan_becomes_a_store_that_training_reads(mosaic: ModuleType, material: Path) -> None:
    (material / "texts.txt").write_text("мыла раму\nмама мыла пол\nлампа мала\nмыл раму\n", "utf-8")
    (material / "none.txt").write_text("ничего такого\n", "utf-8")
    mosaic.make_plan(Namespace(
        store=material / "store", manifest=material / "manifest.jsonl", letters=material / "letters.npz", worst=-1.0,
        texts=[f"{material}/texts.txt:1"], forbidden=[material / "none.txt"], used=[], seed=1, company=(1, 3),
        hours=1.0, out=material / "plan.jsonl",
    ))  # fmt: skip
    mosaic.build(Namespace(plan=material / "plan.jsonl", store=material / "store", out=material / "made"))
    made = Store(material / "made")
    plans = [json.loads(line) for line in (material / "plan.jsonl").read_text("utf-8").splitlines()[1:]]
    assert len(made.items) == len(plans) > 0
    for item, plan in zip(made.items, plans, strict=True):
        assert item.text == plan["text"]
        assert made.read(item).shape == (plan["frames"], 15)
        assert item.speaker in ("s0", "s1", "s2")
