"""Every format of recordings with texts gives the same rows; hostile and damaged ones give counts and typed errors."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rechka.data import Decoded, Row, RowStream, find_shards
from rechka.data import places as places_module
from rechka.data.decode import read_samples
from rechka.errors import DataError, MissingExtra

TEXTS = ["привет", "как «дела»", "пока, друг"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three recordings of 0.1, 0.2 and 0.3 seconds."""
    for number in range(3):
        samples = np.full(800 * (number + 1), 0.1 * (number + 1), np.float32)
        soundfile.write(tmp_path / f"{number}.wav", samples, 8000)
    return tmp_path


def as_jsonl(folder: Path) -> str:
    lines = [{"audio_filepath": f"{n}.wav", "text": text, "speaker": f"s{n}"} for n, text in enumerate(TEXTS)]
    (folder / "m.jsonl").write_text("\ufeff" + "\n\n".join(json.dumps(line) for line in lines), "utf-8")
    return str(folder / "m.jsonl")


def as_common_voice(folder: Path) -> str:
    (folder / "clips").mkdir()
    for n in range(3):
        (folder / f"{n}.wav").rename(folder / "clips" / f"{n}.wav")
    rows = [f"s{n}\t{n}.wav\t{text}" for n, text in enumerate(TEXTS)]
    (folder / "validated.tsv").write_text("\n".join(["client_id\tpath\tsentence", *rows]) + "\n", "utf-8")
    return str(folder / "validated.tsv")


def as_gigaam(folder: Path) -> str:
    rows = [f"{n}.wav\t{0.1 * (n + 1)}\t{text}" for n, text in enumerate(TEXTS)]
    (folder / "train.tsv").write_text("\n".join(["path\tduration\ttranscription", *rows]) + "\n", "utf-8")
    return str(folder / "train.tsv")


def as_csv(folder: Path) -> str:
    with open(folder / "t.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["wav", "transcript"])
        writer.writerows((f"{n}.wav", text) for n, text in enumerate(TEXTS))
    return str(folder / "t.csv")


def as_kaldi(folder: Path) -> str:
    (folder / "wav.scp").write_text("".join(f"u{n} {folder}/{n}.wav\n" for n in range(3)), "utf-8")
    (folder / "text").write_text("".join(f"u{n} {text}\n" for n, text in enumerate(TEXTS)), "utf-8")
    (folder / "utt2spk").write_text("".join(f"u{n} s{n}\n" for n in range(3)), "utf-8")
    return str(folder)


def as_tar(folder: Path) -> str:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for n, text in enumerate(TEXTS):
            fields = json.dumps({"text": text, "speaker": f"s{n}"}).encode()
            for suffix, content in ((".json", fields), (".wav", (folder / f"{n}.wav").read_bytes())):
                member = tarfile.TarInfo(f"x/{n}{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(folder / "a.tar")


def as_parquet(folder: Path) -> str:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    audio = [{"bytes": (folder / f"{n}.wav").read_bytes(), "path": f"{n}.wav"} for n in range(3)]
    table = arrow.table({"audio": audio, "sentence": TEXTS, "junk": ["x" * 100] * 3, "client_id": ["s0", "s1", "s2"]})
    parquet.write_table(table, folder / "a.parquet", row_group_size=2)
    return str(folder / "a.parquet")


MAKERS = (as_jsonl, as_common_voice, as_gigaam, as_csv, as_kaldi, as_tar, as_parquet)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_every_format_gives_texts_speakers_and_sound(make: object, clips: Path) -> None:
    [shard] = find_shards(make(clips))  # type: ignore[operator]
    rows = [row for row in shard.rows() if row is not None]
    assert [row.text for row in rows] == TEXTS
    if make not in (as_gigaam, as_csv):
        assert [row.speaker for row in rows] == ["s0", "s1", "s2"]
    assert [row.number for row in shard.rows(1) if row] == [1, 2]
    for number, example in enumerate(Decoded(RowStream([shard], shuffle=0), sample_rate=8000)):
        assert len(example.samples) == 800 * (number + 1)
        assert example.samples[5] == pytest.approx(0.1 * (number + 1), abs=1e-4)


def test_of_parquet_no_more_is_read_than_needed(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that nobody asked for stays on disk, and so do row groups before the first row and after the last."""
    [shard] = find_shards(as_parquet(clips))
    parquet = pytest.importorskip("pyarrow.parquet")
    whole, asked = parquet.ParquetFile.iter_batches, []

    def spied(self: object, size: int, *, row_groups: list[int], columns: list[str]) -> object:
        asked.append((row_groups, columns))
        return whole(self, size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spied)
    assert next(shard.rows()).text == TEXTS[0]  # type: ignore[union-attr]
    assert [row.text for row in shard.rows(2)] == [TEXTS[2]]  # type: ignore[union-attr]
    assert asked == [([0], ["audio", "sentence", "client_id"]), ([1], ["audio", "sentence", "client_id"])]


def test_kaldi_segments_are_cut_out_and_commands_are_not_run(clips: Path) -> None:
    folder = Path(as_kaldi(clips))
    soundfile.write(folder / "long.wav", np.arange(16000, dtype=np.float32) / 32000, 8000)
    (folder / "wav.scp").write_text(f"long {folder}/long.wav\nevil touch {folder}/hacked |\n", "utf-8")
    (folder / "text").write_text("a да\nb нет\nc что\nd где\n", "utf-8")
    (folder / "segments").write_text("a long 0.5 0.75\nb evil 0 1\nc long 2 1\nd long 1.5 9\n", "utf-8")
    [shard] = find_shards(folder)
    rows = list(shard.rows())
    assert [row and row.text for row in rows] == ["да", None, None, "где"]
    samples = read_samples(rows[0], 8000, 60)  # type: ignore[arg-type]
    assert len(samples) == 2000
    assert samples[0] == pytest.approx(4000 / 32000, abs=1e-4)
    assert len(read_samples(rows[3], 8000, 60)) == 4000  # type: ignore[arg-type]
    assert not (folder / "hacked").exists()


def test_damaged_rows_are_skipped_and_counted(clips: Path) -> None:
    path = Path(as_jsonl(clips))
    path.write_text(
        path.read_text("utf-8") + '\nnonsense\n[1]\n{"text": "да"}\n{"audio": "0.wav", "text": "ещё"}', "utf-8"
    )
    stream = RowStream(find_shards(path), shuffle=0)
    assert [row.text for row in stream] == [*TEXTS, "ещё"]
    assert stream.bad == {0: 3}


@pytest.mark.parametrize("value", ["[" * 100_000, "1" + "0" * 5000], ids=["brackets", "digits"])
def test_json_that_python_will_not_read_is_a_damaged_row(value: str, tmp_path: Path) -> None:
    good = b'{"audio_filepath": "0.wav", "text": "a"}\n'
    (tmp_path / "m.jsonl").write_bytes(b'{"audio_filepath": "0.wav", "text": "a", "x": %s}\n' % value.encode() + good)
    about = b'{"text": "a", "x": %s}' % value.encode()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.json", about), ("0.wav", b""), ("1.wav", b""), ("1.txt", b"a")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    for name in ("m.jsonl", "a.tar"):
        (shard,) = find_shards(str(tmp_path / name))
        assert [row is None for row in shard.rows()] == [True, False]


@pytest.mark.parametrize(
    "header", ["path,text," + "x" * 200_000 + "\n", "path,text\ra.wav,a\r"], ids=["long", "returns"]
)
def test_a_table_whose_first_line_is_no_header(header: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(header + "a.wav,a,b\n", "utf-8", newline="")
    with pytest.raises(DataError, match=r"t\.csv is no table"):
        list(find_shards(str(tmp_path / "t.csv"))[0].rows())


def test_values_of_parquet_that_python_has_not(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    no_text = arrow.Array.from_buffers(
        arrow.string(), 1, [None, arrow.py_buffer(np.array([0, 2], np.int32)), arrow.py_buffer(b"\xff\xfe")]
    )
    for column in ({"text": no_text}, {"text": ["a"], "domain": arrow.array([2**62], arrow.timestamp("us"))}):
        parquet.write_table(arrow.table({"audio": ["a.wav"], **column}), tmp_path / "p.parquet")
        with pytest.raises(DataError, match=r"p\.parquet holds values"):
            list(find_shards(str(tmp_path / "p.parquet"))[0].rows())


def test_seconds_beyond_any_float_are_unknown(tmp_path: Path) -> None:
    huge = "1" + "0" * 400
    line = f'{{"audio_filepath": "0.wav", "text": "a", "offset": {huge}, "duration": {huge}}}'
    (tmp_path / "m.jsonl").write_text(line + "\n", "utf-8")
    (row,) = find_shards(str(tmp_path / "m.jsonl"))[0].rows()
    assert row is not None
    assert (row.start_s, row.duration_s) == (None, None)


def test_too_many_damaged_recordings_end_the_pass(clips: Path) -> None:
    lines = [{"audio_filepath": f"{n % 3}.wav" if n % 5 else "gone.wav", "text": "да"} for n in range(100)]
    (clips / "m.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    decoded = Decoded(RowStream(find_shards(clips / "m.jsonl"), shuffle=0), sample_rate=8000, max_bad=0.1)
    with pytest.raises(DataError, match=r"damaged, more than 10 %.*gone\.wav"):
        list(decoded)
    assert 40 <= decoded.num_good < 80
    tolerant = Decoded(RowStream(find_shards(clips / "m.jsonl"), shuffle=0), sample_rate=8000, max_bad=0.3)
    assert len(list(tolerant)) == 80
    assert tolerant.num_bad == 20


def test_decoding_ahead_does_not_move_the_state(clips: Path) -> None:
    lines = [{"audio_filepath": f"{n % 3}.wav", "text": str(n)} for n in range(40)]
    (clips / "m.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    shards = find_shards(clips / "m.jsonl")
    whole = [example.text for example in Decoded(RowStream(shards, shuffle=7, seed=3), sample_rate=8000)]
    first = Decoded(RowStream(shards, shuffle=7, seed=3), sample_rate=8000, ahead=9)
    head = []
    for example in first:
        head.append(example.text)
        if len(head) == 11:
            break
    rest = RowStream(shards, shuffle=7, seed=3)
    rest.restore(first.state())
    assert head + [example.text for example in Decoded(rest, sample_rate=8000)] == whole


def test_long_recordings_are_refused_without_reading_them_whole(clips: Path) -> None:
    soundfile.write(clips / "l.flac", np.zeros(8000 * 30, np.float32), 8000)
    with pytest.raises(DataError, match="longer than 5 s"):
        read_samples(Row(0, 0, "", str(clips / "l.flac"), name="l"), 8000, 5.0)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.tar", b"no archive at all" * 99), ("a.parquet", b"PAR1 no"), ("a.jsonl", b"x" * (17 << 20)), ("a.xyz", b"")],
)
def test_files_that_are_not_what_they_say(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError):
        [list(shard.rows()) for shard in find_shards(tmp_path / name)]


def test_a_cut_archive_gives_its_whole_rows_and_an_error(clips: Path) -> None:
    path = Path(as_tar(clips))
    path.write_bytes(path.read_bytes()[:6000])
    rows = find_shards(path)[0].rows()
    first = next(rows)
    assert first is not None
    assert first.text == TEXTS[0]
    with pytest.raises(DataError, match="tar archive"):
        list(rows)


def test_names_with_ranges_stars_and_folders(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"s-{number:02d}.tar").write_bytes(b"")
    assert [Path(s.place).name for s in find_shards(f"{tmp_path}/s-{{03..05}}.tar")] == [
        "s-03.tar", "s-04.tar", "s-05.tar",
    ]  # fmt: skip
    assert len(find_shards(f"{tmp_path}/*.tar")) == len(find_shards(tmp_path)) == 12
    assert [shard.index for shard in find_shards([tmp_path, f"{tmp_path}/s-00.tar"])] == list(range(13))
    for nothing in (f"{tmp_path}/*.jsonl", f"{tmp_path}/{{9..1}}.tar", f"{tmp_path}/none.tar0"):
        with pytest.raises(DataError):
            find_shards(nothing)


def test_urls_are_read_through_fsspec(clips: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for number in range(3):
        memory.pipe(f"/set/{number}.wav", (clips / f"{number}.wav").read_bytes())
    memory.pipe("/set/m.jsonl", Path(as_jsonl(clips)).read_bytes())
    shards = find_shards("memory://set/*.jsonl")
    examples = list(Decoded(RowStream(shards, shuffle=0), sample_rate=8000))
    assert [(example.text, len(example.samples)) for example in examples] == list(
        zip(TEXTS, (800, 1600, 2400), strict=True)
    )


def test_a_hub_dataset_is_its_parquet_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(places_module, "expand", lambda place: asked.append(place) or ["hf://x/0000.parquet"])
    [shard] = find_shards("hf://owner/voices?split=test&config=ru")
    assert asked == ["hf://datasets/owner/voices@~parquet/ru/test/*.parquet"]
    assert shard.place == "hf://x/0000.parquet"


def test_without_fsspec_a_url_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(MissingExtra, match=r"rechka\[data\]"):
        list(find_shards("memory://set/m.jsonl")[0].rows())


def test_a_row_of_an_archive_takes_no_more_memory_than_one_recording_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small compressed archive may unpack to whatever it likes."""
    monkeypatch.setattr("rechka.data.shards.MAX_ROW_BYTES", 1000)
    members = [
        ("a.txt", 6),
        ("a.wav", 900),
        ("a.mp3", 900),
        ("a.png", 5000),
        ("b.wav", 1001),
        ("b.txt", 6),
        ("c.wav", 9),
    ]
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name, size in members:
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(b"1" * size))
    (shard,) = find_shards(str(tmp_path / "a.tar.gz"))
    held = [(key, suffix, content) for key, suffix, _, content in shard._members(0)]  # type: ignore[attr-defined]
    assert [content if content is None else len(content) for _, _, content in held] == [6, 900, None, 0, None, 6, 9]
    rows = list(shard.rows())
    assert [row and (row.text, len(row.audio)) for row in rows] == [("111111", 900), None, None]
