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


@pytest.fixture
def tutorial() -> Any:
    spec = importlib.util.spec_from_file_location("tutorial_run", ROOT / "recipes/tutorial/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
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
