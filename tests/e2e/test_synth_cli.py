"""``rechka synth`` from the outside: results, resuming after a kill, crashes of a synthesiser, users' mistakes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from rechka.cli.main import main
from rechka.testing.waiting import wait_until
from rechka.train.synth import PlanOptions, choose_voices, read_manifest, synthesise
from rechka.train.synth.manifest import read_json_lines

WORDS = ("один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.txt"
    path.write_text("\n".join(f"Скажите: {a} {b} {c}." for a in WORDS for b in WORDS for c in WORDS), "utf-8")
    return path


def arguments(text: Path, out: Path, *more: str) -> list[str]:
    return ["synth", str(text), "--out", str(out), "--voices", "toy", "--limit", "40", "--seed", "4", *more]


def check_complete(out: Path, count: int) -> None:
    """Every planned utterance is in the manifest once, and its file is what the manifest says."""
    planned = {entry["id"] for entry in read_json_lines(out / "plan.jsonl")}
    records = read_manifest(out)
    assert len(planned) == count
    assert sorted(record.id for record in records) == sorted(planned)
    for record in records:
        assert soundfile.info(out / record.audio_filepath).duration == pytest.approx(record.duration, abs=1e-3)
        assert set(record.text) <= set("абвгдежзийклмнопрстуфхцчшщъыьэюяё ")


def test_a_run_makes_what_it_planned_and_says_so(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(text, tmp_path / "out", "--jobs", "2", "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["planned"], summary["utterances"], summary["made"], summary["failed"]) == (40, 40, 40, 0)
    check_complete(tmp_path / "out", 40)
    assert summary["hours"] == pytest.approx(sum(r.duration for r in read_manifest(tmp_path / "out")) / 3600, abs=1e-4)

    assert main(arguments(text, tmp_path / "out", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["made"] == 0

    more = arguments(text, tmp_path / "more", "--exclude", str(tmp_path / "out"))
    assert main(more) == 0
    first, second = (
        {s for e in read_json_lines(tmp_path / n / "plan.jsonl") for s in e["sentences"]} for n in ("out", "more")
    )
    assert first and second and not first & second  # noqa: PT018


def test_a_killed_run_goes_on_where_it_was(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import sys; from rechka.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments(text, out)], start_new_session=True)
    wait_until(lambda: len(read_manifest(out)) >= 3 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {record.id for record in read_manifest(out)}
    assert len(before) >= 3
    with (out / "manifest.jsonl").open("a") as file:
        file.write('{"id": "4-0000')  # what a kill in the middle of a write leaves
    kept = {path: path.stat().st_mtime_ns for path in (out / "audio").rglob("*.flac") if path.stem in before}
    assert len(kept) == len(before)
    assert main(arguments(text, out)) == 0
    check_complete(out, 40)
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())


def test_a_crash_of_the_synthesiser_costs_one_utterance(text: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_once(done: int, planned: int, seconds: float) -> None:
        if done == 5 and not killed:
            child = multiprocessing.active_children()[0]
            killed.append(child.pid or 0)
            os.kill(child.pid or 0, signal.SIGKILL)

    summary = synthesise(
        [(text, 1.0)], tmp_path / "out", choose_voices(["toy"]), PlanOptions(limit=40), progress=kill_once
    )
    failed = list(read_json_lines(tmp_path / "out" / "failed.jsonl"))
    assert killed
    assert (summary.utterances, summary.failed, len(failed)) == (39, 1, 1)
    assert "crashed" in failed[0]["error"]
    assert failed[0]["id"] not in {record.id for record in read_manifest(tmp_path / "out")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--voices", "pavel"], "--allow-nc"),
        (["--voices", "nobody"], "unknown voice 'nobody'"),
        (["--tempo", "1.2", "0.9"], "the lower first"),
        (["--exclude", "."], "no plan of rechka synth"),
    ],
)
def test_mistakes_are_told_in_one_line(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    assert main([*arguments(text, tmp_path / "out"), *change]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_a_folder_of_another_run_is_refused(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(text, tmp_path / "out"), "--limit", "2"]) == 0
    assert main([*arguments(text, tmp_path / "out"), "--limit", "3"]) == 2
    assert "a run with other options" in capsys.readouterr().err
