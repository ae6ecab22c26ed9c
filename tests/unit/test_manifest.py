"""Manifests: round trip, relative paths, errors with line numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rechka.errors import DataError, OutputError
from rechka.evaluate.manifest import Record, read, write


def test_round_trip(tmp_path: Path) -> None:
    records = [
        Record(tmp_path / "а" / "1.wav", "ещё раз", 1.5, "анна", {"set": "звонки", "snr": 12}),
        Record(tmp_path / "2.wav", "", 0.0),
        Record(Path("/elsewhere/3.wav")),
    ]
    path = write(tmp_path / "test.jsonl", records)
    assert list(read(path)) == records
    lines = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["audio_filepath"] == "а/1.wav"
    assert json.loads(lines[2]) == {"audio_filepath": "/elsewhere/3.wav"}
    assert "ещё" in lines[0]
    assert [file.name for file in tmp_path.iterdir()] == ["test.jsonl"]


def test_relative_paths_follow_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub" / "m.jsonl").write_text('\ufeff{"audio_filepath": "a.wav"}\n\n', encoding="utf-8")
    (record,) = read(Path("sub/m.jsonl"))
    assert record.audio == Path("sub/a.wav")
    write(tmp_path / "other.jsonl", [Record(Path("sub/a.wav"))])
    assert next(read(tmp_path / "other.jsonl")).audio == tmp_path / "sub" / "a.wav"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "JSON object"),
        ("[1, 2]", "JSON object"),
        ('{"text": "да"}', "audio_filepath"),
        ('{"audio_filepath": 5}', "audio_filepath"),
        ('{"audio_filepath": "a.wav", "text": 5}', "text"),
        ('{"audio_filepath": "a.wav", "text": "да", "duration": "1"}', "duration"),
        ('{"audio_filepath": "a.wav", "text": "да", "duration": -1}', "duration"),
        ('{"audio_filepath": "a.wav", "text": "да", "duration": NaN}', "duration"),
        ('{"audio_filepath": "a.wav", "text": "да", "duration": true}', "duration"),
        ('{"audio_filepath": "a.wav", "text": "да", "speaker": []}', "speaker"),
        ('{"audio_filepath": "a.wav"}', "text"),
        ('{"audio_filepath": "a.wav", "text": ' + "[" * 100_000, "JSON object"),
        ('{"audio_filepath": "a.wav", "text": "да", "duration": 1' + "0" * 5000 + "}", "JSON object"),
        ('{"audio_filepath": "a.wav", "text": "да", "duration": 1' + "0" * 400 + "}", "duration"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "a.wav", "text": "да"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"line 3: .*{says}"):
        list(read(path, require_text=True))


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe{}")
    for name in ("m.jsonl", "absent.jsonl"):
        with pytest.raises(DataError, match=name):
            list(read(tmp_path / name))


def test_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", [Record(Path("a.wav"), "да")])
    before = path.read_bytes()
    with pytest.raises(DataError, match="JSON"):
        write(path, [Record(Path("b.wav"), extra={"x": object()})])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]
    with pytest.raises(OutputError):
        write(tmp_path / "absent" / "m.jsonl", [])
