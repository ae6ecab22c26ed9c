"""``rechka models`` against a server that plays the Hub."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from rechka.cli import models
from rechka.cli.main import main
from rechka.errors import RechkaError
from rechka.testing.fake_hub import COMMIT, FakeHub, Fault

MODEL, LM, WEIGHTS = b"weights" * 1000, b"n-grams" * 500, b"safetensors" * 99


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "RECHKA_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    with FakeHub(
        repo="t-tech/T-one", files={"model.onnx": MODEL, "kenlm.bin": LM, "model.safetensors": WEIGHTS}
    ) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server  # type: ignore[misc]


def rechka(*arguments: str) -> Result:
    app = typer.Typer()
    models.register(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["models", *arguments])


def answer(*arguments: str) -> Any:
    """What the command prints for programs; standard output must hold nothing else."""
    result = rechka(*arguments, "--json")
    if isinstance(result.exception, RechkaError):
        raise result.exception
    return json.loads(result.stdout)


def test_list_before_anything_is_pulled() -> None:
    found = {item["name"]: item for item in answer("list")}
    assert found["t-one"]["on_disk"] is False
    assert found["t-one"]["size"] == 144_000_000
    assert found["toy"]["on_disk"] is True
    assert sum(item["default"] for item in found.values()) <= 1
    result = rechka("list")
    assert result.exit_code == 0
    assert any(line.startswith("t-one") and "not on disk\t144 MB" in line for line in result.stdout.splitlines())
    assert "rechka models pull t-one" in result.stderr


def test_list_reports_a_broken_card_and_goes_on(cache: Path) -> None:
    (cache / "cards").mkdir()
    (cache / "cards" / "bad.toml").write_text("name =", "utf-8")
    result = rechka("list")
    assert result.exit_code == 0
    assert "t-one" in result.stdout
    assert "bad.toml" in result.stderr


def test_pull_then_list_then_verify(hub: FakeHub, cache: Path) -> None:
    folder = cache / "models" / "t-one"
    result = rechka("pull", "t-one")
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n")
    assert "got model" in result.stderr
    assert "287 MB" in result.stderr
    assert "5.46 GB" in result.stderr  # the language model is left out, and how to get it is said
    assert (folder / "model.onnx").read_bytes() == MODEL

    found = {item["name"]: item for item in answer("list")}
    assert (found["t-one"]["on_disk"], found["t-one"]["default"]) == (True, True)
    assert found["t-one"]["size"] == len(MODEL)

    again = answer("pull", "t-one", "--with", "lm")[0]
    assert (again["fetched"], again["kept"], again["revision"]) == (["lm"], ["model"], COMMIT)
    assert answer("pull", "t-one", "--with", "weights")[0]["fetched"] == ["weights"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert answer("pull", "t-one", "--all")[0]["fetched"] == []

    checked = {file["role"]: file for file in answer("verify", "t-one")}
    assert checked["model"]["state"] == checked["lm"]["state"] == "ok"
    assert checked["model"]["sha256"] == hashlib.sha256(MODEL).hexdigest()
    assert rechka("verify").exit_code == 0


@pytest.mark.parametrize(
    ("damage", "state"),
    [(MODEL[:-1], "wrong size"), (MODEL[::-1], "wrong sha256"), (None, "missing")],
)
def test_verify_notices_damage_and_pull_mends_it(hub: FakeHub, cache: Path, damage: bytes | None, state: str) -> None:
    rechka("pull", "t-one")
    path = cache / "models" / "t-one" / "model.onnx"
    path.unlink() if damage is None else path.write_bytes(damage)
    result = rechka("verify", "t-one")
    assert result.exit_code == 3
    assert f"model\t{state}" in result.stdout
    assert "lm\tleft out" in result.stdout
    assert "rechka models pull t-one --update" in result.stderr
    assert rechka("pull", "t-one", "--update").exit_code == 0
    assert rechka("verify", "t-one").exit_code == 0


def test_verify_of_files_without_a_known_sum(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(MODEL)
    assert [file["state"] for file in answer("verify", str(folder))] == ["no sum known"]


def test_show(hub: FakeHub) -> None:
    shown = answer("show", "t-one")
    assert shown["card"]["repo"] == "t-tech/T-one"
    assert shown["revision_on_disk"] is None
    assert [(file["role"], file["on_disk"]) for file in shown["files_on_disk"]] == [
        ("model", False), ("weights", False), ("lm", False)
    ]  # fmt: skip
    rechka("pull", "t-one")
    assert answer("show", "t-one")["revision_on_disk"] == COMMIT
    text = rechka("show", "t-one").stdout
    assert "call-centre calls, T-one's set\tWER %\t8.63\t\tpublished, not measured by us: README" in text
    assert COMMIT in text
    assert "not on disk, optional" in text


def test_errors_are_one_line_with_code_and_exit_code(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "nothing"]) == 3
    assert "[model.not_found]: no model is called 'nothing'" in capsys.readouterr().err
    hub.head_faults = deque([Fault(403, "GatedRepo")])
    assert main(["models", "pull", "t-one"]) == 3
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "[hub.forbidden]" in said.err
    assert "HF_TOKEN" in said.err
    assert main(["models", "pull"]) == 2
    assert main(["models", "pull", "t-one", "--wit", "lm"]) == 2
    assert main(["models", "pull", "t-one", "--with", "vad"]) == 2
    assert main(["models", "pull", "t-one"]) == 0
    capsys.readouterr()
    assert main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
