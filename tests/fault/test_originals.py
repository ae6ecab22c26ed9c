"""Checkpoints of authors: fetched whole and checked, resumed, never with a token; converting is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from rechka.cli import models
from rechka.errors import BadCard, ChecksumMismatch, HubNotFound, Offline, UsageError
from rechka.hub.card import Card
from rechka.hub.originals import pull_originals
from rechka.hub.registry import find
from rechka.testing.fake_hub import FakeHub, Fault

CONTENT = bytes(range(256)) * 4000
CARD = """name = "checkpoint-only"
family = "gigaam"
language = "ru"
license = "MIT"
[files.model]
path = "model.onnx"
[originals.checkpoint]
url = "{url}/content/small.ckpt"
md5 = "{md5}"
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "RECHKA_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("rechka.hub.download.time.sleep", lambda _: None)
    (tmp_path / "cards").mkdir()
    with FakeHub(files={"small.ckpt": CONTENT}) as server:
        write(tmp_path, server)
        yield server  # type: ignore[misc]


def write(home: Path, hub: FakeHub, md5: str = "") -> None:
    digest = md5 or hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    (home / "cards/checkpoint-only.toml").write_text(CARD.format(url=hub.storage, md5=digest), "utf-8")


def rechka(*arguments: str) -> Result:
    app = typer.Typer()
    models.register(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["models", *arguments])


def test_pull_fetches_the_checkpoint_and_tells_how_to_convert_it(hub: FakeHub, tmp_path: Path) -> None:
    result = rechka("pull", "checkpoint-only")
    place = tmp_path / "originals/checkpoint-only"
    assert result.exit_code == 0
    assert result.stdout == f"{place}\n"
    out = tmp_path / "models/checkpoint-only"
    assert f"rechka models convert {place / 'small.ckpt'} --out {out} --name checkpoint-only" in result.stderr
    assert (place / "small.ckpt").read_bytes() == CONTENT
    assert {seen.token for seen in hub.seen} == {""}, "the token is for the Hub"
    asked = len(hub.seen)
    assert rechka("pull", "checkpoint-only").exit_code == 0
    assert len(hub.seen) == asked, "it is there"


def test_a_cut_is_resumed_and_a_wrong_file_is_thrown_away(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.extend([Fault(), Fault(cut=300_000)])  # the first request only asks for the length
    paths = pull_originals(find("checkpoint-only"))
    assert paths["checkpoint"].read_bytes() == CONTENT
    assert any(seen.range == "bytes=300000-" for seen in hub.seen)
    paths["checkpoint"].unlink()
    write(tmp_path, hub, md5="0" * 32)
    with pytest.raises(ChecksumMismatch, match="md5"):
        pull_originals(find("checkpoint-only"))
    assert [path.name for path in paths["checkpoint"].parent.iterdir() if path.name != ".pull.lock"] == []


def test_without_network_or_checkpoint(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.append(Fault(status=404))
    with pytest.raises(HubNotFound):
        pull_originals(find("checkpoint-only"))
    with pytest.raises(UsageError, match="names no checkpoint"):
        pull_originals(find("t-one"))
    monkeypatch.setenv("RECHKA_OFFLINE", "1")
    with pytest.raises(Offline):
        pull_originals(find("checkpoint-only"))


@pytest.mark.parametrize(
    "table",
    [
        '[originals.weights]\nurl = "https://example.org/a.ckpt"',
        '[originals.checkpoint]\nurl = "file:///etc/passwd"',
        '[originals.checkpoint]\nurl = "https://example.org/.."',
        '[originals.checkpoint]\nurl = "https://example.org/"',
        '[originals.checkpoint]\nurl = "https://example.org/a.ckpt"\nmd5 = "short"',
        '[originals.checkpoint]\nmd5 = "00000000000000000000000000000000"',
    ],
)
def test_odd_originals_are_refused(table: str) -> None:
    with pytest.raises(BadCard):
        Card.parse(f'name = "m"\nfamily = "toy"\nlanguage = "ru"\nlicense = "MIT"\n{table}\n')
