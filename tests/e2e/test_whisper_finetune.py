"""A tiny Whisper fine-tuned: the tutorial runs, a killed run ends as an undisturbed one, what comes out is used."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("ctranslate2")
pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

from safetensors.numpy import load_file

import rechka
from rechka.cli.main import main
from rechka.errors import BadModelFile
from rechka.hub.card import Card
from rechka.train.whisper import WhisperConfig, finetune_whisper
from rechka.train.whisper.run import WhisperRun

ROOT = Path(__file__).parents[2]


def tutorial(name: str = "whisper") -> Any:
    spec = importlib.util.spec_from_file_location(f"tutorial_{name}", ROOT / f"recipes/tutorial/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    module = tutorial()
    module.recordings(folder, "train", 12, seed=1)
    module.recordings(folder, "dev", 4, seed=2)
    module.checkpoint(folder / "tiny")
    return folder


SHORT = """
model = "tiny"
int8 = true
save_every_s = 0.0
data = {train = ["train.jsonl"], window_s = 10.0}
optim = {steps = 3, rate = 1e-3, batch_seconds = 30.0, accumulate = 2, evals = 2, patience = 0}
[whisper]
lora = 2
lora_dropout = 0.2
dropout = 0.1
stamps = 0.5
previous = 0.5
max_loss = 100.0
"""


def weights(out: Path) -> dict[str, Any]:
    return load_file(out / "transformers" / "model.safetensors")


def test_the_tutorial(tmp_path: Path) -> None:
    report = tutorial().run(tmp_path)
    assert report["before"] >= 1.0
    assert report["after"] <= 0.5
    assert report["transcribed"] <= 0.75  # the whole recogniser with beam search, in 8 bits
    assert {result.test for result in Card.read(Path(report["model"]) / "card.toml").results} == {
        "dev set held out, before fine-tuning", "dev set held out", "dev set held out, converted to int8, greedy",
    }  # fmt: skip
    pytest.importorskip("starlette", reason="the model is served")
    assert tutorial("run").served(report["model"], report["recording"]) == report["text"]
    page = (Path(report["model"]) / "MODEL_CARD.md").read_text("utf-8")
    assert "| held out | 12 |" in page
    assert str(tmp_path) not in page


class Killed(BaseException):
    """Ends a run where it stands: nothing but the last checkpoint is left of it."""


def test_killed_and_gone_on_with(
    prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA, both dropouts, prompts: every source of randomness."""
    (prepared / "run.toml").write_text(SHORT, "utf-8")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    command = ["finetune", "--config", str(prepared / "run.toml"), "--threads", "1", "--out"]
    assert main([*command, str(whole)]) == 0, capfd.readouterr().err
    save = WhisperRun._save

    def killed(run: WhisperRun) -> None:
        save(run)
        if run.step == 1:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(WhisperRun, "_save", killed)
        with pytest.raises(Killed):
            finetune_whisper(WhisperConfig.load(prepared / "run.toml"), broken)
    assert not (broken / "card.toml").exists()
    capfd.readouterr()
    assert main([*command, str(broken)]) == 0
    assert "going on after step 1" in capfd.readouterr().err
    expected, found = weights(whole), weights(broken)
    start = load_file(prepared / "tiny" / "model.safetensors")
    assert set(expected) == set(found) == set(start)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    losses = [
        [row["loss"] for row in map(json.loads, (out / "training/log.jsonl").read_text().splitlines()) if "loss" in row]
        for out in (whole, broken)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    moved = {name for name, value in start.items() if not np.array_equal(value, expected[name])}
    assert moved
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) for name in moved)
    assert_usable(whole)


def assert_usable(out: Path) -> None:
    """The folder is a model with its card, whatever it says; the adapter and the merged weights lie beside."""
    card = Card.read(out / "card.toml")
    assert (card.family, card.language, card.params["language"]) == ("whisper", "ru", "ru")
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    generation = json.loads((out / "transformers/generation_config.json").read_text("utf-8"))
    assert (generation["language"], generation["task"]) == ("ru", "transcribe")
    assert (out / "transformers/tokenizer.json").is_file()
    asr = rechka.load(out, threads=1).with_options(temperatures=[0.0], max_new=8, beam_size=1, word_times=False)
    samples = (0.1 * np.sin(np.arange(16000) / 5)).astype(np.float32)
    assert asr.transcribe((samples, 16000)).language == "ru"


def test_a_conversion_that_loses_words_is_refused(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 bits that hear nothing give way to float16; if that hears nothing either, the run ends with an error."""
    from rechka.evaluate.wer import score
    from rechka.train.whisper import output

    module = tutorial()
    config = module.settings(prepared, optim={"steps": 1, "evals": 1}, whisper={"max_loss": 0.0})
    asked: list[str] = []

    def silent(folder: Path, learner: Any, items: Any) -> Any:
        asked.append(json.loads((folder / "config.json").read_text())["lang_ids"] and str(folder))
        return score([item.text for item in items], ["нет нет нет нет нет нет нет нет нет нет нет нет"] * len(items))

    monkeypatch.setattr(output, "read_converted", silent)
    lines: list[str] = []
    with pytest.raises(BadModelFile, match="more word errors than the trained one"):
        finetune_whisper(config, tmp_path / "out", tell=lines.append)
    assert [line.split(":")[0] for line in lines if "by conversion" in line] == ["int8", "float16"]
    assert len(asked) == 2
    assert (tmp_path / "out/transformers/model.safetensors").is_file()
    assert not (tmp_path / "out/card.toml").exists()


def test_options_of_whisper_are_for_whisper(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["finetune", "t-one", "--train", "x.jsonl", "--out", str(tmp_path / "o"), "--lora", "8"]) == 2
    assert "lora and language (--lora and --language) are for Whisper" in capfd.readouterr().err
    assert main(["finetune", "whisper-small", "--train", "x.jsonl", "--out", str(tmp_path / "o")]) == 3
    assert "cannot be trained" in capfd.readouterr().err
