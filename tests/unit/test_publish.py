"""rechka publish: what would be sent, that nothing is sent without being asked, and what a Hub gets that is."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rechka.cli.main import main
from rechka.errors import BadCard, ChecksumMismatch, ModelNotFound, UsageError
from rechka.hub.card import Card, CardFile
from rechka.hub.publish import plan

WEIGHTS = b"\x00weights" * 500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder as fine-tuning leaves it, with things that are nobody's business."""
    place = tmp_path / "calls"
    (place / "training").mkdir(parents=True)
    (place / "transformers").mkdir()
    (place / "training/last.pt").write_bytes(b"state")
    (place / "transformers/model.safetensors").write_bytes(b"merged")
    (place / "finetune.toml").write_text('model = "/home/someone/secret"\n')
    (place / "model.bin").write_bytes(WEIGHTS)
    (place / "config.json").write_text("{}")
    files = {
        "model": CardFile("model.bin", len(WEIGHTS), sha256=hashlib.sha256(WEIGHTS).hexdigest()),
        "config": CardFile("config.json"),
        "extra": CardFile("extra.bin", optional=True),
    }
    card = Card(name="calls", family="whisper", language="ru", license="unknown", files=files)
    (place / "card.toml").write_text(card.to_toml(), "utf-8")
    use = "$ rechka transcribe talk.wav --model FOLDER"
    page = f'---\nlanguage: ["ru"]\n---\n\n# calls\n\n{use}\n\nLicence: unknown, of it.\n'
    (place / "MODEL_CARD.md").write_text(page, "utf-8")
    return place


@dataclass
class Receiver:
    """Plays the Hub's side of uploads: small files come in the commit, those above ``large`` to a store of their own.

    Attributes:
        status: of the answer to making a repository; 200 lets it happen.
        files: what the last commit holds: path -> content.
        made: the requests for repositories.
        tokens: that came.
    """

    status: int = 200
    large: int = 1000
    files: dict[str, bytes] = field(default_factory=dict)
    store: dict[str, bytes] = field(default_factory=dict)
    made: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    endpoint: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if method == "PUT":
            self.store[path.rpartition("/")[2]] = body
            return 200, {}
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return self.status, {"url": f"{self.endpoint}/someone/calls"}
        if path == "/api/validate-yaml":
            return 200, {"warnings": [], "errors": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "lfs" if f["size"] > self.large else "regular"} for f in files]
            return 200, {"files": [{**mode, "shouldIgnore": False} for mode in modes]}
        if path.endswith("/info/lfs/objects/batch"):
            asked = json.loads(body)["objects"]
            todo = [{**one, "actions": {"upload": {"href": f"{self.endpoint}/store/{one['oid']}"}}} for one in asked]
            return 200, {"transfer": "basic", "objects": todo}
        if "/commit/" in path:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.store[value["oid"]]
            return 200, {"commitUrl": f"{self.endpoint}/someone/calls/commit/{'a' * 40}", "commitOid": "a" * 40}
        return 404, {}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

        def _all(self) -> None:
            found.tokens.add(self.headers.get("Authorization", ""))
            body = self._body()
            status, value = found.answer(self.command, self.path.partition("?")[0], body)
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = _all

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    found.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("RECHKA_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_would_be_sent(folder: Path, receiver: Receiver, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(folder), "--to", "someone/calls"]) == 0
    out, err = capfd.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == ["README.md", "card.toml", "config.json", "model.bin"]
    assert "nothing was sent" in err
    assert "stays here: finetune.toml, training/, transformers/" in err
    assert "sending needs --license" in err
    assert (receiver.made, receiver.files, receiver.tokens) == ([], {}, set())


def test_sent_when_asked(folder: Path, receiver: Receiver, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["publish", str(folder), "--to", "someone/calls", "--license", "MIT", "--send", "--private", "--json"]
    assert main(command) == 0, capfd.readouterr().err
    told = json.loads(capfd.readouterr().out)
    assert told["sent"] is True
    assert told["address"].endswith("/commit/" + "a" * 40)
    assert receiver.files["model.bin"] == WEIGHTS
    assert (
        set(receiver.files)
        == {"README.md", "card.toml", "config.json", "model.bin"}
        == {f["path"] for f in told["files"]}
    )
    assert receiver.made[0]["name"] == "calls"
    assert receiver.made[0]["organization"] == "someone"
    assert "private" in json.dumps(receiver.made[0])
    assert receiver.tokens <= {"Bearer hf_secret", ""}
    card = Card.parse(receiver.files["card.toml"].decode())
    assert (card.repo, card.license) == ("someone/calls", "MIT")
    page = receiver.files["README.md"].decode()
    assert page.startswith('---\nlicense: "mit"\nlanguage')
    assert "--model calls" in page
    assert "Licence: MIT, of it." in page
    assert not any(b"secret" in content for content in receiver.files.values())


def test_the_checkpoint_goes_along_if_asked(folder: Path) -> None:
    found = plan(folder, "someone/calls", checkpoint=True)
    assert "transformers/model.safetensors" in [file.path for file in found.files]
    assert found.left_out == ("finetune.toml", "training/")
    assert found.size == sum(file.size for file in found.files)


@pytest.mark.parametrize(
    ("status", "code", "said"), [(403, "hub.forbidden", "may not write"), (404, "hub.not_found", "owner's name")]
)
def test_what_the_hub_refuses_is_told(
    folder: Path, receiver: Receiver, capfd: pytest.CaptureFixture[str], status: int, code: str, said: str
) -> None:
    receiver.status = status
    assert main(["publish", str(folder), "--to", "someone/calls", "--license", "MIT", "--send"]) != 0
    error = capfd.readouterr().err
    assert f"[{code}]" in error
    assert said in error
    assert receiver.files == {}


@pytest.mark.parametrize(
    ("environment", "more", "code"),
    [
        ({}, [], "usage"),
        ({"HF_TOKEN": ""}, ["--license", "MIT"], "hub.forbidden"),
        ({"RECHKA_OFFLINE": "1"}, ["--license", "MIT"], "hub.offline"),
    ],
)
def test_what_is_not_even_tried(
    folder: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    environment: dict[str, str], more: list[str], code: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["publish", str(folder), "--to", "someone/calls", "--send", *more]) != 0
    assert f"[{code}]" in capfd.readouterr().err
    assert receiver.tokens == set()


def test_a_hub_that_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.delenv("RECHKA_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert main(["publish", str(folder), "--to", "someone/calls", "--license", "MIT", "--send"]) != 0
    assert "[hub.unreachable]" in capfd.readouterr().err


@pytest.mark.parametrize("repo", ["calls", "a/b/c", "../x/y", "someone/", "-x/y", "a b/c"])
def test_names_that_are_none(folder: Path, repo: str) -> None:
    with pytest.raises(UsageError, match="owner/name"):
        plan(folder, repo)


def test_folders_that_are_not_sent(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"no card\.toml"):
        plan(tmp_path, "a/b")
    with pytest.raises(UsageError, match="no licence"):
        plan(folder, "a/b", license="MIT\nevil: true")
    (folder / "model.bin").write_bytes(WEIGHTS[::-1])
    with pytest.raises(ChecksumMismatch, match=r"model\.bin"):
        plan(folder, "a/b")
    (folder / "model.bin").unlink()
    with pytest.raises(ModelNotFound, match=r"model\.bin is missing"):
        plan(folder, "a/b")
    (folder / "card.toml").write_text("name = 3")
    with pytest.raises(BadCard):
        plan(folder, "a/b")


def test_a_model_without_a_page_gets_a_short_one(folder: Path) -> None:
    (folder / "MODEL_CARD.md").unlink()
    files = {file.path: file.content for file in plan(folder, "a/b", license="MIT").files}
    assert isinstance(files["README.md"], bytes)
    assert files["README.md"].startswith(b'---\nlicense: "mit"\nlanguage: ["ru"]')
