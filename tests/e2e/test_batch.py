"""``rechka batch``: every recording exactly once, whatever is killed, on this machine and on a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from rechka.cli.main import main
from rechka.data import Row
from rechka.data.convert import convert
from rechka.errors import DataError, OutputError, UsageError
from rechka.scale import Archive, BatchOptions, local
from rechka.scale.items import Reader, from_json, of_source, to_json
from rechka.scale.store import Store
from rechka.scale.work import Part, Worker
from rechka.testing.audio import wav_bytes
from rechka.testing.toy import fragile_asr, say, toy_asr
from rechka.testing.waiting import wait_until

WORDS = ("река", "вода", "лес", "ночь", "день", "лето", "зима")


def recordings(folder: Path, n: int) -> dict[str, str]:
    """Short files, and the text of each."""
    folder.mkdir(parents=True)
    texts: dict[str, str] = {}
    for i in range(n):
        text = f"{WORDS[i % 7]} {WORDS[i // 7 % 7]}"
        path = folder / f"{i:04d}.wav"
        path.write_bytes(wav_bytes(say(text, before_s=0.2, after_s=0.6), 8000))
        texts[str(path)] = text
    return texts


def rows(out: Path) -> list[dict]:
    found = []
    for path in sorted((out / "parts").glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return found


def wait_for_parts(child: subprocess.Popen[bytes], out: Path, least: int) -> None:
    """Until so many parts are done by a child that is not through."""
    wait_until(lambda: len(list(out.glob("done/*.json"))) >= least or child.poll() is not None)
    assert child.poll() is None


def check(out: Path, texts: dict[str, str], failed: dict[str, str] | None = None) -> None:
    """Every recording once, with its text or its error."""
    failed = failed or {}
    told = rows(out)
    assert Counter(row["input"] for row in told) == Counter([*texts, *failed])
    assert {row["input"]: row["transcript"]["text"] for row in told if row["transcript"]} == texts
    assert {row["input"]: row["error"]["code"] for row in told if row["error"]} == failed
    assert not [path for path in out.rglob(".*") if path.is_file()]  # nothing half-written


def test_an_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = recordings(tmp_path / "calls", 10)
    broken = tmp_path / "calls" / "broken.wav"
    broken.write_bytes(b"RIFF, not really")
    command = ["batch", str(tmp_path / "calls"), "--out", str(tmp_path / "out"), "--model", "toy", "--workers", "2"]
    assert main([*command, "--part-size", "3", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["recordings"], said["failed"]) == (11, 1)
    assert [failure["input"] for failure in said["failures"]] == [str(broken)]
    check(tmp_path / "out", texts, {str(broken): "audio.not_audio"})

    # Called again it has nothing to do, and says the same.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "parts").iterdir()}
    assert main([*command, "--part-size", "3"]) == 1
    printed = capsys.readouterr()
    assert "4 of 4 parts are done already" in printed.err
    assert printed.out.startswith("11 recordings, 0.01 h of audio, 1 failed")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "parts").iterdir()} == before

    # Other options do not go into the same folder.
    assert main([*command, "--digits"]) == 2
    assert "holds results of other options" in " ".join(capsys.readouterr().err.split())


def test_a_kill_in_the_middle(tmp_path: Path) -> None:
    texts = recordings(tmp_path / "calls", 200)
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "rechka", "batch", str(tmp_path / "calls"), "-o", str(out), "-m", "toy", "--workers", "1",
        "--part-size", "2",
    ]  # fmt: skip
    for least in (3, 12):  # killed twice, ever later
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_for_parts(child, out, least)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    done = {path.name: path.stat().st_mtime_ns for path in (out / "done").glob("*.json")}
    assert len(done) < 100
    subprocess.run(command, check=True, capture_output=True)
    assert all((out / "done" / name).stat().st_mtime_ns == when for name, when in done.items())  # not done twice
    check(out, texts)


def test_what_a_killed_writer_leaves(tmp_path: Path) -> None:
    texts = recordings(tmp_path / "calls", 2)
    out = tmp_path / "out"
    archive = Archive(str(out), BatchOptions())
    archive.write_plan(texts)
    for folder in ("", "plan", "parts", "done"):
        (out / folder).mkdir(exist_ok=True)
        (out / folder / ".0000000.json.a1b2c3").write_text("{")
    (out / "parts" / "notes.txt").write_text("of a person")
    worker = Worker(archive.options, str(out), lambda _: toy_asr())
    assert worker.do(Part(0, tuple(texts)))["recordings"] == 2
    assert archive.report().recordings == 2
    check(out, texts)
    assert (out / "parts" / "notes.txt").exists()


def test_a_recording_that_ends_the_process(tmp_path: Path) -> None:
    texts = recordings(tmp_path / "calls", 9)
    items = list(texts)
    bad = tmp_path / "calls" / "0004-fatal.wav"
    bad.write_bytes(Path(items[0]).read_bytes())
    items.insert(5, str(bad))
    out = tmp_path / "out"
    options = BatchOptions(part_size=4)
    archive = Archive(str(out), options)
    archive.write_plan(items)
    said = list(archive.run(lambda parts: local.run(parts, options, str(out), workers=2, load=fragile_asr)))
    assert sorted(one["part"] for one in said) == [0, 1, 2]
    check(out, texts, {str(bad): "internal"})
    assert archive.report().failed == 1


def test_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    texts = recordings(tmp_path / "calls", 3)
    missing = str(tmp_path / "calls" / "no.wav")
    options = BatchOptions(format="parquet")
    worker = Worker(options, str(tmp_path / "out"), lambda _: toy_asr())
    worker.do(Part(0, (*texts, missing)))
    table = pq.read_table(tmp_path / "out" / "parts" / "0000000.parquet").to_pylist()
    assert {row["input"]: row["text"] for row in table} == {**texts, missing: None}
    assert [row["error"] for row in table] == [None, None, None, "audio.not_found"]
    assert json.loads(table[0]["transcript"])["segments"][0]["words"]


def test_urls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fsspec = pytest.importorskip("fsspec")
    texts = recordings(tmp_path / "calls", 3)
    memory = fsspec.filesystem("memory")
    for path in texts:
        memory.pipe_file(f"/calls/{Path(path).name}", Path(path).read_bytes())
    memory.pipe_file("/calls/readme.txt", b"no audio")
    from rechka.cli.batch import _items

    names = list(_items(["memory://calls", "memory://calls/0001.wav", "memory://calls/9.wav"], 64))
    assert names == [
        *(f"memory:///calls/{i:04d}.wav" for i in range(3)),
        "memory://calls/0001.wav",
        "memory://calls/9.wav",
    ]
    worker = Worker(BatchOptions(), "memory://results", lambda _: toy_asr())
    said = worker.do(Part(3, tuple(names)))
    assert [failure["error"]["code"] for failure in said["failures"]] == ["audio.not_found"]
    assert Store("memory://results").names("parts") == {"0000003.jsonl"}
    assert worker.do(Part(3, ())) == said  # done is done


def test_lists_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = recordings(tmp_path / "calls", 2)
    (tmp_path / "list.txt").write_text("\n".join([*texts, "", *texts]), encoding="utf-8")
    out = ["--out", str(tmp_path / "out"), "--model", "toy", "--workers", "1"]
    assert main(["batch", f"@{tmp_path / 'no.txt'}", *out]) == 2
    assert main(["batch", "-", *out]) == 2
    assert not list((tmp_path / "out").rglob("*.json"))
    capsys.readouterr()
    missing = str(tmp_path / "no.wav")
    assert main(["batch", missing, f"@{tmp_path / 'list.txt'}", *out]) == 1
    check(tmp_path / "out", texts, {missing: "audio.not_found"})


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    for text in ("[]", "[" * 100_000):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(OutputError, match="no plan"):
            Archive(str(tmp_path), BatchOptions())
    with pytest.raises(UsageError, match="part_size"):
        BatchOptions(part_size=0)
    with pytest.raises(UsageError, match="no recordings"):
        Archive(str(tmp_path / "new"), BatchOptions()).write_plan([])


def dataset(folder: Path, texts: dict[str, str]) -> dict[str, str]:
    """The same recordings in a manifest, and in an archive and a table with sound but no text; all in one folder."""
    names = list(texts)
    lines = [json.dumps({"audio_filepath": name, "text": "x"}) for name in names]
    (folder / "m.jsonl").write_text("\n".join(["", lines[0], "no json", *lines[1:]]), "utf-8")
    told = dict(texts)
    with tarfile.open(folder / "a.tar", "w") as archive:
        for i, name in enumerate(names):
            archive.add(name, f"{i:03d}.wav")
            told[f"{folder}/a.tar:{i:03d}"] = texts[name]
    with tarfile.open(folder / "z.tar.gz", "w:gz") as archive:
        for i, name in enumerate(names):
            archive.add(name, f"{'folder/' * 30}{i:03d}.wav")  # a long name has a header of its own
            told[f"{folder}/z.tar.gz:{'folder/' * 30}{i:03d}"] = texts[name]
    return told


def test_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests and archives beside files; a part is a range of rows, read from where it begins."""
    told = dataset(tmp_path, recordings(tmp_path / "calls", 7))
    monkeypatch.chdir(tmp_path)
    sources = ["m.jsonl", "a.tar", "m.jsonl", "z.tar.gz", "calls/none.wav"]
    command = ["batch", *sources, "--out", "out", "--model", "toy", "--workers", "2", "--part-size", "3"]
    assert main([*command, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["recordings"], said["failed"]) == (7 * 3 + 2, 2)
    bad = {f"{tmp_path}/m.jsonl:2": "data", f"{tmp_path}/calls/none.wav": "audio.not_found"}
    check(tmp_path / "out", told, bad)
    assert len(list((tmp_path / "out" / "done").iterdir())) == 3 + 3 + 3  # the last takes the file too
    plan = json.loads((tmp_path / "out" / "plan" / "00000.json").read_text())
    assert [item["mark"] > 0 for (item, *_) in plan] == [False, True, True, False, True, True, False, False, False]
    assert main(command) == 1  # nothing is left to do
    assert "9 of 9 parts are done already" in capsys.readouterr().err


def test_a_dataset_that_changes_or_breaks_off(tmp_path: Path) -> None:
    told = dataset(tmp_path, recordings(tmp_path / "calls", 5))
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    archive = Archive(str(tmp_path / "out"), BatchOptions(part_size=2))
    archive.write_plan([*of_source(str(tmp_path / "a.tar"), 2), *of_source(str(tmp_path / "m.jsonl"), 2)])
    lines = (tmp_path / "m.jsonl").read_text("utf-8").splitlines()
    (tmp_path / "m.jsonl").write_text("\n".join(lines[:-1]), "utf-8")
    worker = Worker(archive.options, str(tmp_path / "out"), lambda _: toy_asr())
    assert len(list(archive.run(lambda parts: map(worker.do, parts)))) == archive.num_parts
    report = archive.report()
    names = [row["input"] for row in rows(tmp_path / "out")]
    assert len(names) == len(set(names)) == report.recordings == archive.num_recordings
    failed = {failure["input"].rpartition("/")[2]: failure["error"]["message"] for failure in report.failures}
    assert "shorter" in failed["m.jsonl:6"]
    assert "no readable tar archive" in failed["a.tar:2"]  # whether its last file is whole is not known any more
    assert "no readable tar archive" in failed["a.tar:3"]  # its row was counted, its sound is cut
    assert "broken off after record 3" in failed["a.tar:4"]
    assert set(failed) == {"a.tar:2", "a.tar:3", "a.tar:4", "m.jsonl:2", "m.jsonl:6"}
    heard = {row["input"]: row["transcript"]["text"] for row in rows(tmp_path / "out") if row["transcript"]}
    assert heard.items() <= told.items()
    with pytest.raises(DataError, match="cannot read"):
        list(of_source(str(tmp_path / "none.tar"), 2))


@pytest.mark.parametrize("name", ["m.jsonl", "a.tar", "z.tar.gz", "p.parquet", "t.csv", "kaldi"])
def test_ranges_in_any_order_are_the_rows(name: str, tmp_path: Path) -> None:
    if name == "p.parquet":
        pytest.importorskip("pyarrow")
    dataset(tmp_path, recordings(tmp_path / "calls", 7))
    if not (tmp_path / name).exists():
        convert([str(tmp_path / "m.jsonl")], tmp_path / name, max_bad=1.0)
    source = str(tmp_path / name)
    (whole,) = of_source(source, 100)
    entries = list(Reader().entries([whole]))
    for size in (1, 2, 3):
        parts = list(of_source(source, size))
        assert [part.stop - part.start for part in parts[:-1]] == [size] * (len(parts) - 1)
        reader = Reader()
        assert [from_json(json.loads(json.dumps(to_json(part)))) for part in parts] == parts
        for order in (parts, parts[::2] + parts[1::2], parts[::-1]):
            found = {part.start: list(reader.entries([part])) for part in order}
            got = [entry for start in sorted(found) for entry in found[start]]
            assert [entry.key for entry in got] == [entry.key for entry in entries]
            assert [entry.open() for entry in got if isinstance(entry.content, Row)] == [
                entry.open() for entry in entries if isinstance(entry.content, Row)
            ]


def test_a_dataset_killed_in_the_middle(tmp_path: Path) -> None:
    told = dataset(tmp_path, recordings(tmp_path / "calls", 100))
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "rechka", "batch", str(tmp_path / "a.tar"), str(tmp_path / "z.tar.gz"), "-o", str(out),
        "-m", "toy", "--workers", "1", "--part-size", "2",
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_parts(child, out, 3)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert len(list(out.glob("done/*.json"))) < 100
    subprocess.run(command, check=True, capture_output=True)
    check(out, {name: text for name, text in told.items() if "tar" in name})


def test_a_cluster_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    recordings(tmp_path / "calls", 2)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999999999"):
        command = ["batch", str(tmp_path / "calls"), "-o", str(tmp_path / "out"), "-m", "toy", "--ray", address]
        assert main(command) == 2
        assert "no Ray cluster" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_datasets_on_a_cluster(tmp_path: Path) -> None:
    """Parts that are ranges of rows, read by Ray's actors, and what a person sees of Ray meanwhile."""
    pytest.importorskip("ray", reason="Ray is not installed")
    told = dataset(tmp_path, recordings(tmp_path / "calls", 7))
    command = [
        sys.executable, "-m", "rechka", "batch", "m.jsonl", "a.tar", "z.tar.gz", "--out", "out",
        "-m", "toy", "--ray", "local", "--workers", "2", "--part-size", "3", "--json",
    ]  # fmt: skip
    elsewhere = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}  # a cluster that "local" does not mean
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, env=elsewhere)
    assert done.returncode == 1, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert (said["recordings"], said["failed"]) == (7 * 3 + 1, 1)
    check(tmp_path / "out", told, {f"{tmp_path}/m.jsonl:2": "data"})
    assert "Execution plan" not in done.stderr


@pytest.mark.slow
def test_a_cluster_that_loses_a_node(tmp_path: Path) -> None:
    """Two nodes of Ray; one is taken away in the middle."""
    pytest.importorskip("ray", reason="Ray is not installed")
    texts = recordings(tmp_path / "calls", int(os.environ.get("RECHKA_TEST_RECORDINGS", "120")))
    program = Path(__file__).parents[2] / "benchmarks" / "lost_node.py"
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "calls"), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"parts"'))
    assert said["nodes_before"] == 2
    assert said["nodes_after"] == 1
    assert 0 < said["parts_before_the_loss"] < said["parts"]
    check(tmp_path / "out", texts)
