"""To every format and back: the same texts, speakers and sound; damage counted; whole or not at all."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rechka.cli.main import main
from rechka.data.convert import convert
from rechka.data.decode import read_samples
from rechka.data.shards import Row, find_shards
from rechka.data.writers import FORMATS
from rechka.errors import DataError, OutputError, UsageError

RATE = 8000
TEXTS = ["привет", "как «дела», друг", "", "пока"]
OUTPUTS = {
    "nemo": "out/m.jsonl", "kaldi": "out/kaldi", "common-voice": "out/cv/all.tsv", "csv": "out/t.csv",
    "parquet": "out/p.parquet", "tar": "out/a.tar", "gigaam": "out/g.tsv",
}  # fmt: skip


def tone(number: int) -> np.ndarray:
    at = np.arange(RATE // 4 * (number + 1))
    return (0.3 * np.sin(at * 0.1 * (number + 1))).astype(np.float32)


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Four recordings: two files, one of them with a space in its name, and two parts of one file."""
    soundfile.write(tmp_path / "a b.wav", tone(0), RATE)
    (tmp_path / "sub").mkdir()
    soundfile.write(tmp_path / "sub/c.flac", tone(1), RATE)
    soundfile.write(tmp_path / "long.wav", np.concatenate([tone(2), tone(3)]), RATE)
    first = len(tone(2)) / RATE
    lines = [
        {"audio_filepath": "a b.wav", "text": TEXTS[0], "speaker": "s1", "domain": "x"},
        {"audio_filepath": "sub/c.flac", "text": TEXTS[1], "speaker": "s 2"},
        {"audio_filepath": "long.wav", "text": TEXTS[2], "offset": 0, "duration": first},
        {"audio_filepath": "long.wav", "text": TEXTS[3], "offset": first, "duration": len(tone(3)) / RATE},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    return str(path)


def rows(source: str | Path) -> list[Row]:
    found = [row for shard in find_shards([str(source)]) for row in shard.rows()]
    assert None not in found
    return found  # type: ignore[return-value]


def sound(row: Row) -> list[int]:
    return np.rint(read_samples(row, RATE, 60) * 32767).astype(int).tolist()


@pytest.mark.parametrize("first", sorted(FORMATS))
def test_there_and_back(manifest: str, tmp_path: Path, first: str) -> None:
    if first == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    expected = {row.text: (sound(row), row.speaker) for row in rows(manifest)}
    there = tmp_path / OUTPUTS[first]
    done = convert([manifest], there, format=first)
    assert (done.written, done.skipped) == (4, 0)
    assert done.seconds == pytest.approx(10 * 0.25)
    back = tmp_path / "back" / "m.jsonl"
    convert([str(there)], back)
    for source in (there, back):
        found = {row.text: (sound(row), row.speaker) for row in rows(source)}
        assert found.keys() == expected.keys()
        for text, (samples, speaker) in found.items():
            assert np.abs(np.array(samples) - np.array(expected[text][0])).max() <= 1
            if first not in ("gigaam", "kaldi"):
                assert speaker == expected[text][1]
    assert not list(tmp_path.rglob(".*"))


def test_what_only_some_formats_keep(manifest: str, tmp_path: Path) -> None:
    convert([manifest], tmp_path / "n.jsonl")
    again = rows(tmp_path / "n.jsonl")
    assert again[0].extra == {"domain": "x"}
    assert again[3].start_s == pytest.approx(0.75)
    assert not (tmp_path / "n_audio").exists()
    fields = json.loads((tmp_path / "n.jsonl").read_text("utf-8").splitlines()[0])
    assert fields["audio_filepath"] == "a b.wav"
    convert([manifest], tmp_path / "k")
    assert {path.name for path in (tmp_path / "k").iterdir()} == {
        "wav.scp", "text", "utt2spk", "spk2utt", "utt2dur", "segments"
    }  # fmt: skip
    keys = [line.split()[0] for line in (tmp_path / "k/text").read_text("utf-8").splitlines()]
    assert keys == sorted(keys)
    convert([manifest], tmp_path / "g.tsv", format="gigaam")
    assert len(list((tmp_path / "g_audio").iterdir())) == 2  # the two parts


def test_packed_archives(manifest: str, tmp_path: Path) -> None:
    convert([manifest], tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz", "r:gz") as archive:
        assert len(archive.getnames()) == 8
    assert [row.text for row in rows(tmp_path / "a.tar.gz")] == TEXTS


def test_equal_names_do_not_meet(tmp_path: Path) -> None:
    lines = []
    for number, folder in enumerate("abc"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "1.wav", tone(number), RATE)
        lines.append({"audio_filepath": f"{folder}/1.wav", "text": folder})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("a.tar", "cv/t.tsv", "k"):
        convert([str(tmp_path / "m.jsonl")], tmp_path / name, format="common-voice" if "tsv" in name else None)
        assert {row.text: len(sound(row)) for row in rows(tmp_path / name)} == {"a": 2000, "b": 4000, "c": 6000}


def damaged(tmp_path: Path, good: int, bad: int) -> str:
    soundfile.write(tmp_path / "g.wav", tone(0), RATE)
    (tmp_path / "b.wav").write_bytes(b"nothing of the kind")
    lines = [{"audio_filepath": "b.wav", "text": "x"}] * bad + [{"audio_filepath": "g.wav", "text": "да"}] * good
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(tmp_path / "m.jsonl")


def test_damaged_records_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = damaged(tmp_path, 5, 2)
    assert main(["data", "convert", source, str(tmp_path / "o.csv"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["written"], told["skipped"], len(told["reasons"])) == (5, 2, 2)
    assert len(rows(tmp_path / "o.csv")) == 5
    assert main(["data", "convert", str(tmp_path / "o.csv"), str(tmp_path / "p.jsonl")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'p.jsonl'}\n"


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_half_a_letter_is_damage(format: str, tmp_path: Path) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    soundfile.write(tmp_path / "a.wav", tone(0), RATE)
    soundfile.write(tmp_path / "b.wav", tone(0), RATE)
    lines = [
        {"audio_filepath": "b.wav", "text": "да \ud83d"},
        {"audio_filepath": "b.wav", "text": "да", "speaker": "\udc80"},
        {"audio_filepath": "b.wav", "text": "да", "domain": ["\udc80"]},
        {"audio_filepath": "a.wav", "text": "да"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    done = convert([str(tmp_path / "m.jsonl")], tmp_path / OUTPUTS[format], format=format)
    assert (done.written, done.skipped) == (1, 3)
    assert "half a letter" in done.reasons[0]


@pytest.mark.parametrize("name", ["o.jsonl", "o.tar", "k", "o.csv"])
def test_too_much_damage_leaves_nothing(tmp_path: Path, name: str) -> None:
    source = damaged(tmp_path, 60, 5)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="are damaged"):
        convert([source], tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before
    assert convert([source], tmp_path / name, max_bad=0.2).skipped == 5


def test_nothing_is_overwritten(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        convert([manifest], tmp_path / "o.csv")
    (tmp_path / "clips").mkdir()
    with pytest.raises(OutputError, match="clips"):
        convert([manifest], tmp_path / "o.tsv", format="common-voice")
    assert (tmp_path / "o.csv").read_text() == "mine"
    assert not (tmp_path / "o.tsv").exists()
    assert not list(tmp_path.glob(".*"))


def test_mistakes(manifest: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not tell"):
        convert([manifest], tmp_path / "a.tsv")
    with pytest.raises(UsageError, match="no format 'docx'"):
        convert([manifest], tmp_path / "a.tsv", format="docx")
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(DataError, match="no record can be used"):
        convert([str(tmp_path / "e.jsonl")], tmp_path / "a.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        convert([manifest], tmp_path / "file" / "a.csv")


def test_from_anywhere_that_fsspec_reaches(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    content = io.BytesIO()
    soundfile.write(content, np.concatenate([tone(0), tone(1)]), RATE, format="WAV")
    line = {"audio_filepath": "a.wav", "text": "да", "offset": 0.25, "duration": 0.5}
    with memory.open("/convert/a.wav", "wb") as file:
        file.write(content.getvalue())
    with memory.open("/convert/m.jsonl", "wb") as file:
        file.write(json.dumps(line).encode())
    convert(["memory://convert/m.jsonl"], tmp_path / "o.csv")
    (row,) = rows(tmp_path / "o.csv")
    assert np.abs(np.array(sound(row)) - np.rint(tone(1) * 32767)).max() <= 1
    convert(["memory://convert/m.jsonl"], tmp_path / "o.jsonl")
    assert rows(tmp_path / "o.jsonl")[0].audio == "memory://convert/a.wav"
