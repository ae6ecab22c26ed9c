"""``rechka data check`` finds what would spoil training, each kind by a record that has just that fault."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rechka.cli.main import main
from rechka.data.check import KINDS, Target, check
from rechka.data.listen import CLIP_RUN, FULL_SCALE, _clipped, ahead, listen
from rechka.data.shards import Row
from rechka.errors import DataError
from rechka.testing import say

RATE = 8000


class Desk:
    """Makes recordings and manifests in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def audio(self, name: str, seconds: float = 1.0, level: float = 0.3, seed: int | None = None) -> str:
        rng = np.random.default_rng(zlib.crc32(name.encode()) if seed is None else seed)
        samples = (level * np.sin(np.arange(round(seconds * RATE)) * rng.uniform(0.1, 0.3))).astype(np.float32)
        soundfile.write(self.folder / name, samples, RATE)
        return name

    def manifest(self, name: str, *records: dict[str, Any]) -> str:
        (self.folder / name).write_text("\n".join(json.dumps(record) for record in records), "utf-8")
        return str(self.folder / name)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def record(audio: str, text: str = "добрый день", **more: Any) -> dict[str, Any]:
    return {"audio_filepath": audio, "text": text, **more}


def found(train: str, test: str = "", **options: Any) -> dict[str, int]:
    counts: Counter[str] = check([train], [test] if test else [], **options).counts
    return dict(counts)


def test_good_data(desk: Desk) -> None:
    train = desk.manifest("a.jsonl", record(desk.audio("1.wav"), speaker="a"), record(desk.audio("2.wav")))
    test = desk.manifest("b.jsonl", record(desk.audio("3.wav"), speaker="b"))
    report = check([train], [test])
    assert not report.counts
    assert dict(report.rows) == {"train": 2, "test": 1}
    assert dict(report.seconds) == {"train": 2.0, "test": 1.0}


def test_each_fault_is_told_by_its_name(desk: Desk) -> None:
    (desk.folder / "bad.wav").write_bytes(b"RIFF????WAVEjunk")
    loud = np.clip(np.sin(np.arange(RATE) * 0.05) * 3, -1, 1).astype(np.float32)
    soundfile.write(desk.folder / "loud.wav", loud, RATE, subtype="FLOAT")
    cases: dict[str, list[dict[str, Any]]] = {
        "row": [{"audio_filepath": "x.wav"}],
        "unreadable": [record("bad.wav"), record("none.wav")],
        "silent": [record(desk.audio("still.wav", level=0.0))],
        "letters": [record(desk.audio("l.wav"), "комната 15"), record(desk.audio("m.wav"), "hello друзья")],
        "clipped": [record("loud.wav")],
        "rate": [record(desk.audio("slow.wav", 10), "да")],
        "length": [record(desk.audio("short.wav", 0.15), "да"), record(desk.audio("long.wav", 31), "слово " * 40)],
        "empty": [record(desk.audio("e.wav"), "")],
    }
    for kind, records in cases.items():
        assert found(desk.manifest(f"{kind}.jsonl", *records)) == {kind: len(records)}, kind
    assert set(cases) | {"impossible", "duplicate", "leak-audio", "leak-text", "leak-speaker"} == set(KINDS)


def test_labels_that_do_not_fit_into_frames(desk: Desk) -> None:
    audio = desk.audio("a.wav", 0.4)
    train = desk.manifest("a.jsonl", record(audio, "ооооо ааааа"))
    assert found(train) == {"impossible": 1}  # 11 letters and 8 blanks between equal ones, 10 frames
    assert found(train, target=Target(frame_s=0.02)) == {}
    assert found(train, target=Target(frame_s=0.0)) == {}
    assert found(desk.manifest("b.jsonl", record(audio, "слово")), target=Target(frame_s=0.08)) == {}


def test_what_is_in_both_leaks(desk: Desk) -> None:
    desk.audio("1.wav", seed=1)
    samples, _ = soundfile.read(desk.folder / "1.wav", dtype="int16")
    soundfile.write(desk.folder / "1.flac", samples, RATE)  # the same sound in another coding
    train = desk.manifest(
        "a.jsonl", record("1.wav", "раз два", speaker="a"), record(desk.audio("2.wav"), "три четыре", speaker="b")
    )
    test = desk.manifest(
        "b.jsonl", record("1.flac", "раз два"), record(desk.audio("3.wav"), "Три, четыре!", speaker="b")
    )
    report = check([train], [test])
    assert dict(report.counts) == {"leak-audio": 1, "leak-text": 1, "leak-speaker": 1}
    assert report.num_errors == 2
    assert "the same as" in report.examples["leak-audio"][0][1]
    assert found(test, train) == {"leak-audio": 1, "leak-text": 1, "leak-speaker": 1}


def test_duplicates_within_one_side(desk: Desk) -> None:
    train = desk.manifest("a.jsonl", *[record(desk.audio("1.wav"))] * 3)
    assert found(train) == {"duplicate": 2}
    assert check([train]).num_errors == 0


def test_the_verb(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    good = desk.manifest("a.jsonl", record(desk.audio("1.wav")), record(desk.audio("2.wav"), "12"))
    assert main(["data", "check", good]) == 1
    told = capsys.readouterr().out
    assert "letters or digits that the model does not write [letters]: 1" in told
    assert "a.jsonl:2" in told
    assert main(["data", "check", good, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert value["errors"] == 1
    assert {entry["kind"] for entry in value["found"]} == {"letters", "rate"}
    fine = desk.manifest("b.jsonl", record(desk.audio("3.wav")))
    assert main(["data", "check", fine]) == 0
    assert "nothing to complain of" in capsys.readouterr().out
    assert main(["data", "check", str(desk.folder / "none.jsonl")]) == 3
    assert main(["data", "check", fine, "--test", fine]) == 1


def test_a_model_says_what_it_writes(desk: Desk) -> None:
    speech = say("добрый день", before_s=0.2, after_s=0.2)
    soundfile.write(desk.folder / "s.wav", speech, RATE)
    assert main(["data", "check", desk.manifest("a.jsonl", record("s.wav")), "--model", "toy"]) == 0
    assert main(["data", "check", desk.manifest("b.jsonl", record("s.wav", "добрый день №")), "--model", "toy"]) == 1


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0]), max_size=60))
def test_clipping_counts_runs(values: list[float]) -> None:
    samples, expected, run = np.array(values, np.float32), 0, 0
    for value in [*values, 0.0]:
        if abs(value) >= FULL_SCALE:
            run += 1
        else:
            expected += run if run >= CLIP_RUN else 0
            run = 0
    assert _clipped(samples) == expected


def test_a_recording_that_breaks_off(desk: Desk) -> None:
    desk.audio("a.wav", 3.0)
    content = (desk.folder / "a.wav").read_bytes()
    with pytest.raises(DataError, match="breaks off"):
        listen(Row(0, 0, "", content[: len(content) // 2]))
    assert listen(Row(0, 0, "", content)).seconds == 3.0


def test_work_ahead_keeps_order_and_faults_of_the_program_come_through() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise DataError("three")
        return item * item

    results = list(ahead(range(6), work, threads=3, window=4))
    assert [item for item, _ in results] == list(range(6))
    assert [made for item, made in results if item != 3] == [0, 1, 4, 16, 25]
    assert isinstance(results[3][1], DataError)
    with pytest.raises(ZeroDivisionError):
        list(ahead([0], lambda item: 1 // item))
