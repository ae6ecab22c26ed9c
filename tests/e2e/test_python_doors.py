"""``rechka.finetune``, ``rechka.export`` and ``rechka.serve``: what the command line does, from Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import soundfile

import rechka
from rechka.errors import MissingExtra, ModelNotFound, UsageError

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The mini T-one as a checkpoint with its configuration."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    shutil.copy(DATA / "tone/mini.safetensors", folder / "model.safetensors")
    shutil.copy(DATA / "tone/mini_config.json", folder / "config.json")
    return folder


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    from rechka.testing import say

    lines = []
    for number, text in enumerate(("да", "нет", "дом")):
        soundfile.write(tmp_path / f"{number}.wav", say(text, sample_rate=8000, after_s=0.1), 8000)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": text}, ensure_ascii=False))
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_finetune_export_and_load(checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("onnx", reason="the model is exported")
    before, told, steps = torch.get_num_threads(), [], []
    try:
        card = rechka.finetune(
            checkpoint, train=manifest, dev=[str(manifest)], out=tmp_path / "mine", steps=2, batch_seconds=20, seed=3,
            threads=1, tell=told.append, tick=lambda progress: steps.append(progress.step),
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    assert card.name == "mine"
    assert steps[-1] == 2
    assert any(line.startswith("step 2: train:") for line in told)
    assert re.search(r"^seed = 3$", (tmp_path / "mine/finetune.toml").read_text("utf-8"), re.M)
    assert rechka.load(tmp_path / "mine").name == "mine"
    assert rechka.export(tmp_path / "mine", to="triton", out=tmp_path / "repository", max_batch=2) == ["mine"]
    assert "max_batch_size: 2" in (tmp_path / "repository/mine/config.pbtxt").read_text("utf-8")
    with pytest.raises(UsageError, match="is there already"):
        rechka.export(tmp_path / "mine", to="triton", out=tmp_path / "repository")


def test_finetune_says_what_is_wrong(checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("onnx", reason="the model is exported")
    with pytest.raises(UsageError, match="no option 'epoch'"):
        rechka.finetune(checkpoint, train=manifest, out=tmp_path / "o", epoch=3)
    with pytest.raises(UsageError, match=r"the model \(MODEL\) and train \(--train\) missing"):
        rechka.finetune(out=tmp_path / "o")
    with pytest.raises(UsageError, match="for Whisper"):
        rechka.finetune(checkpoint, train=manifest, out=tmp_path / "o", lora=8)
    assert not (tmp_path / "o").exists()


def test_export_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no target 'onnx'"):
        rechka.export("t-one", to="onnx", out=tmp_path / "o")
    with pytest.raises(ModelNotFound):
        rechka.export("no-such-model", to="triton", out=tmp_path / "o")
    pytest.importorskip("onnx", reason="the model is exported")
    with pytest.raises(UsageError, match="no option 'batch'"):
        rechka.export("rechka-mini", to="triton", out=tmp_path / "o", batch=3)


SERVE = """
import rechka
rechka.serve({models}, port=0, max_streams=3, started=lambda port: print(port, flush=True))
"""


@pytest.mark.parametrize("models", ["'rechka-mini'", "rechka.load('rechka-mini', threads=1)"])
def test_serve_until_a_signal(models: str) -> None:
    pytest.importorskip("starlette", reason="the server's libraries are not installed")
    pytest.importorskip("uvicorn", reason="the server's libraries are not installed")
    code = SERVE.format(models=models)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=120) as answer:
                assert [model["id"] for model in json.load(answer)["data"]] == ["rechka-mini"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()


def test_serve_says_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="no setting 'prot'"):
        rechka.serve(prot=8001)
    pytest.importorskip("uvicorn", reason="the server's libraries are not installed")
    with pytest.raises(UsageError, match="some of each"):
        rechka.serve(rechka.load("rechka-mini", threads=1), "t-one")
    with pytest.raises(UsageError, match="port"):
        rechka.serve(port="many")


@pytest.mark.parametrize("loaded", [False, True])
def test_an_alias_means_a_model_that_is_served(loaded: bool) -> None:
    pytest.importorskip("uvicorn", reason="the server's libraries are not installed")
    model = rechka.load("toy") if loaded else "toy"
    with pytest.raises(UsageError, match="alias small means rechka-mini, which is not served") as caught:
        rechka.serve(model, port=0, alias="small=rechka-mini", started=lambda port: os.kill(os.getpid(), signal.SIGINT))
    assert caught.value.remedy == "served: toy"


def test_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name == "rechka.server.run"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match="uvicorn"):
        rechka.serve()
    monkeypatch.setattr("rechka.train.adapt.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="torch"):
        rechka.finetune("t-one", train="a.jsonl", out=tmp_path / "o")
