"""The tutorial's T-one half from end to end: a speaker is learned, compared, exported, served; a failure is told."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="the model is exported")
pytest.importorskip("scipy", reason="training needs scipy")
pytest.importorskip("starlette", reason="the model is served")

from rechka.hub.card import Card  # noqa: E402

ROOT = Path(__file__).parents[2]


def recipe(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"tutorial_{name}", ROOT / f"recipes/tutorial/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tutorial() -> Any:
    threads = torch.get_num_threads()
    yield recipe("run")
    torch.set_num_threads(threads)


def test_the_tone_half(tutorial: Any, tmp_path: Path) -> None:
    report = tutorial.tutorial("tone", tmp_path / "tone")
    assert report["before"] > 0.3
    assert report["after"] < 0.1
    assert "better" in report["verdict"]
    assert report["served"] == report["text"]
    card = Card.read(Path(report["model"]) / "card.toml")
    assert (card.family, card.name) == ("tone", "higher")


def test_what_does_not_get_better_is_told(tutorial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tutorial, "tutorial", lambda name, folder: {"before": 0.2, "after": 0.2})
    with pytest.raises(SystemExit, match="not what was to be shown"):
        tutorial.main(["tone"])


def test_every_recording_is_tested_once_by_a_model_that_did_not_learn_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folds, tone = recipe("folds"), recipe("tone")
    tone.recordings(tmp_path, "all", 9, seed=1)
    tone.recordings(tmp_path, "few", 2, seed=2)
    files = [str(tmp_path / name) for name in ("all.jsonl", "few.jsonl", "out")]
    monkeypatch.setattr("sys.argv", ["folds.py", str(ROOT / "recipes/tutorial/base"), *files, "--folds", "2"])
    threads = torch.get_num_threads()
    folds.main()
    torch.set_num_threads(threads)
    whole = {record.audio: record.text for record in folds.manifest.read(files[0])}
    trained = [{r.audio: r.text for r in folds.manifest.read(tmp_path / f"out/train{fold}.jsonl")} for fold in (0, 1)]
    assert trained[0].keys() | trained[1].keys() == whole.keys()
    assert not set(trained[0].values()) & set(trained[1].values())
    out = capsys.readouterr().out
    assert out.count("in 9 utterances") == 2
    assert "words: " in out
    assert "letters: " in out
