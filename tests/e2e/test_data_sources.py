"""transcribe, evaluate and fine-tuning's reader take data from memory, archives, tables, Kaldi folders and the Hub."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest
import soundfile

from rechka.cli.main import main
from rechka.data.convert import convert
from rechka.data.shards import find_shards
from rechka.testing import say

TEXTS = ["добрый день", "как дела", "привет"]


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Three recordings of the toy's tone speech."""
    lines = []
    for number, text in enumerate(TEXTS):
        soundfile.write(tmp_path / f"rec{number}.wav", say(text, before_s=0.5, after_s=0.5), 8000)
        lines.append({"audio_filepath": f"rec{number}.wav", "text": text, "speaker": f"s{number}"})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return str(tmp_path / "m.jsonl")


def sources(manifest: str, folder: Path) -> Iterator[str]:
    yield manifest
    for name, kind in (("a.tar", "tar"), ("k", "kaldi"), ("c/v.tsv", "common-voice"), ("t.csv", "csv")):
        convert([manifest], folder / name, format=kind)
        yield str(folder / name)


def heard(out: str) -> list[str]:
    return [json.loads(line)["transcript"]["text"] for line in out.splitlines()]


def test_every_source_is_transcribed_and_evaluated(
    manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in sources(manifest, tmp_path):
        assert main(["transcribe", source, "-m", "toy", "--json"]) == 0, source
        assert heard(capsys.readouterr().out) == TEXTS
        assert main(["evaluate", "toy", source, "--json"]) == 0, source
        (run,) = json.loads(capsys.readouterr().out)["runs"]
        assert run["score"]["wer"] == 0
        assert run["score"]["words"] == 5


def test_results_of_a_source_go_into_files(manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert([manifest], tmp_path / "a.tar")
    out = tmp_path / "out"
    assert (
        main(["transcribe", str(tmp_path / "a.tar"), manifest, str(tmp_path / "rec0.wav"), "-m", "toy", "-o", str(out)])
        == 0
    )
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == [*(f"rec{n}.txt" for n in range(3)), *(f"rec{n}-2.txt" for n in range(3)), "rec0-3.txt"]
    assert [(out / name).read_text("utf-8").strip() for name in names[:3]] == TEXTS


def test_what_cannot_be_read_does_not_stop_the_rest(
    manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rec1.wav").write_bytes(b"no audio")
    with open(manifest, "a", encoding="utf-8") as file:
        file.write("\nno json\n")
    assert main(["transcribe", manifest, "none://x/y.wav", "-m", "toy", "--json"]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in item for item in told] == [False, True, False, True, True]
    convert([manifest], tmp_path / "t.csv", max_bad=1.0)
    text = (tmp_path / "t.csv").read_text("utf-8")
    (tmp_path / "t.csv").write_text(text + "lost.wav,1.0,да,x\n,,,\n", "utf-8")
    assert main(["evaluate", "toy", str(tmp_path / "t.csv")]) == 1
    assert "1 records could not be read" in capsys.readouterr().err
    assert main(["transcribe", str(tmp_path / "none.parquet"), "-m", "toy"]) == 1
    assert main(["evaluate", "toy", str(tmp_path / "none.csv")]) == 3
    assert main(["evaluate", "toy", str(tmp_path / "none.jsonl")]) == 3
    assert main(["batch", str(tmp_path / "none.tar"), "--out", str(tmp_path / "o")]) == 3
    (tmp_path / "e.csv").write_text("path,text\n")
    assert main(["evaluate", "toy", str(tmp_path / "e.csv")]) == 1
    assert "no records" in capsys.readouterr().err


def test_two_sources_are_two_domains(manifest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert([manifest], tmp_path / "a.tar")
    assert main(["evaluate", "toy", manifest, str(tmp_path / "a.tar"), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert set(run["tables"]["domain"]) == {"m", "a"}
    assert (
        main(["evaluate", "toy", "toy", str(tmp_path / "a.tar"), "--live", "--json"]) == 0
    )  # read once for each model


def test_files_of_other_systems(manifest: str, capsys: pytest.CaptureFixture[str]) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    for name in ("rec0.wav", "rec1.wav", "rec2.wav", "m.jsonl"):
        with memory.open(f"/sources/{name}", "wb") as file:
            file.write((Path(manifest).parent / name).read_bytes())
    assert main(["transcribe", "memory://sources/*.wav", "-m", "toy", "--json"]) == 0
    assert heard(capsys.readouterr().out) == TEXTS
    assert main(["transcribe", "memory://sources/rec1.wav", "-m", "toy", "--format", "txt"]) == 0
    assert TEXTS[1] in capsys.readouterr().out
    assert main(["evaluate", "toy", "memory://sources/m.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["score"]["wer"] == 0
    assert main(["data", "check", "memory://sources/m.jsonl"]) == 0
    assert main(["transcribe", "memory://sources/none.wav", "-m", "toy"]) == 1


class _Datasets(BaseHTTPRequestHandler):
    """The few answers of the Hugging Face Hub that reading a dataset's parquet files takes."""

    files: ClassVar[dict[str, bytes]]
    bytes_sent: ClassVar[int]

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(
            r"/(api/)?datasets/own/name(?:/(revision|tree|resolve)/(~parquet|[0-9a-f]{40})(?:/(.*))?)?", path
        )
        kind, name = (found[2], found[4] or "") if found else (None, "")
        if kind == "resolve" and name in self.files:
            self._content(self.files[name])
        elif kind == "tree":
            self._json(200, self._children(f"{name}/" if name else ""))
        elif found and found[1]:
            self._json(200, {"id": "own/name", "sha": "a" * 40, "private": False, "tags": [], "downloads": 0})
        else:
            self._json(404, {})

    def _children(self, folder: str) -> list[dict[str, object]]:
        files = [path for path in self.files if path.startswith(folder) and "/" not in path[len(folder) :]]
        below = {path[len(folder) :].partition("/")[0] for path in self.files if path.startswith(folder)}
        names = [folder + name for name in sorted(below) if folder + name not in self.files]
        return [
            *({"type": "directory", "path": name, "oid": "c" * 40} for name in names),
            *({"type": "file", "path": path, "size": len(self.files[path]), "oid": "d" * 40} for path in files),
        ]

    def _json(self, status: int, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _content(self, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(content) - 1)) if asked else (0, len(content) - 1)
        part = content[first : last + 1]
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{"b" * 40}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)
            type(self).bytes_sent += len(part)


@pytest.fixture
def hub(manifest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Datasets]]:
    """A Hub with one dataset: two parquet files of the split ``train``."""
    for package in ("fsspec", "pyarrow", "huggingface_hub"):
        pytest.importorskip(package, reason=f"{package} is not installed")

    class Handler(_Datasets):
        files: ClassVar[dict[str, bytes]] = {}
        bytes_sent = 0

    lines = Path(manifest).read_text("utf-8").splitlines()
    for number, part in enumerate((lines[:2], lines[2:])):
        (tmp_path / f"{number}.jsonl").write_text("\n".join(part), "utf-8")
        convert([str(tmp_path / f"{number}.jsonl")], tmp_path / f"{number}.parquet")
        Handler.files[f"default/train/{number}.parquet"] = (tmp_path / f"{number}.parquet").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    from huggingface_hub import HfFileSystem, constants

    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    HfFileSystem.clear_instance_cache()
    yield Handler
    HfFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


def test_datasets_of_the_hub(hub: type[_Datasets], capsys: pytest.CaptureFixture[str]) -> None:
    assert [shard.place.rpartition("/")[2] for shard in find_shards("hf://own/name?split=train")] == [
        "0.parquet", "1.parquet"
    ]  # fmt: skip
    assert main(["transcribe", "hf://own/name?split=train", "-m", "toy", "--json"]) == 0
    assert heard(capsys.readouterr().out) == TEXTS
    assert main(["evaluate", "toy", "hf://own/name?split=train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["score"]["wer"] == 0
    assert hub.bytes_sent > 0
    assert main(["evaluate", "toy", "hf://own/name?split=none"]) == 1
    assert main(["evaluate", "toy", "hf://no/such"]) == 1
    told = capsys.readouterr().err
    assert "error [data]" in told
    assert "Traceback" not in told


def test_an_archive_of_the_hub(hub: type[_Datasets], tmp_path: Path) -> None:
    """rechka batch: a part is a range of rows of one parquet file."""
    from rechka.scale import Archive, BatchOptions
    from rechka.scale.items import of_source
    from rechka.scale.work import Worker
    from rechka.testing.toy import toy_asr

    archive = Archive(str(tmp_path / "out"), BatchOptions(part_size=1))
    archive.write_plan(of_source("hf://own/name?split=train", 1))
    assert archive.num_parts == 3
    worker = Worker(archive.options, str(tmp_path / "out"), lambda _: toy_asr())
    assert len(list(archive.run(lambda parts: map(worker.do, parts)))) == 3
    told = [json.loads((tmp_path / "out" / "parts" / f"000000{n}.jsonl").read_text("utf-8")) for n in range(3)]
    assert [row["transcript"]["text"] for row in told] == TEXTS
    assert [row["input"].rpartition("/")[2] for row in told] == ["0.parquet:1", "0.parquet:2", "1.parquet:1"]


def test_a_source_is_read_no_further_than_needed(tmp_path: Path) -> None:
    """A stream of recordings has no end: results come all the same."""
    from itertools import islice

    from rechka.cli.inputs import Input
    from rechka.cli.transcribe import Job, _source
    from rechka.data.shards import Row

    content = io.BytesIO()
    soundfile.write(content, say("да"), 8000, format="WAV")
    taken = []

    def endless() -> Iterator[Input]:
        while True:
            taken.append(1)
            yield Input("x", None, Path("x"), None, Row(0, 0, "", content.getvalue()))

    import rechka

    job = Job(endless(), "json", None, False)
    results = rechka.load("toy").transcribe_many(job.sources(lambda item: _source(item, None)))
    assert len(list(islice(results, 5))) == 5
    assert len(taken) < 100
