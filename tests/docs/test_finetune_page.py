"""The pages on fine-tuning are true: settings are the program's, commands run and print what is shown."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="the model is exported")
pytest.importorskip("scipy", reason="training needs scipy")

from rechka.cli.main import main  # noqa: E402
from rechka.train.finetune import DataOptions, DevSet, FinetuneConfig  # noqa: E402

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text("utf-8") for name in ("finetune.md", "finetune.ru.md")}
ENGLISH = PAGES["finetune.md"]


def block(page: str, kind: str, first: str) -> str:
    """The block of a kind that begins so."""
    found = [text for text in re.findall(rf"```{kind}\n(.*?)```", page, re.S) if text.startswith(first)]
    assert len(found) == 1
    return found[0]


def tone() -> Any:
    spec = importlib.util.spec_from_file_location("tutorial_tone", ROOT / "recipes/tutorial/tone.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_settings_are_shown_with_what_holds_without_them(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(block(ENGLISH, "toml", 'model = "./t-one"'), "utf-8")
    shown = FinetuneConfig.load(path)
    plain = FinetuneConfig("./t-one", (DevSet("dev", ("dev.jsonl",)),), DataOptions(train=("train.jsonl",)))
    assert shown == plain
    named = set(re.findall(r"^(\w+) = ", path.read_text("utf-8"), re.M))
    for section in (plain, plain.data, plain.optim, plain.mask, plain.wave, plain.dev[0]):
        tables = {"data", "dev", "optim", "mask", "wave"}
        assert set(type(section).__dataclass_fields__) - tables <= named


def masked(text: str) -> list[str]:
    """Lines without progress, numbers and blanks: another processor may compute others."""
    lines = [line for line in text.splitlines() if line.strip() and not line.endswith(" left")]
    return [re.sub(r"\s+", " ", re.sub(r"[+-]?\d[\d.e-]*", "#", line)) for line in lines]


def test_the_tutorials_commands_print_what_the_pages_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    module = tone()
    runs = {name: block(page, "console", "$ rechka finetune --config run.toml") for name, page in PAGES.items()}
    assert len(set(runs.values())) == 1
    assert all(block(page, "toml", 'model = "base"').strip() == module.RUN.strip() for page in PAGES.values())
    module.prepare(tmp_path / "t")
    monkeypatch.chdir(tmp_path / "t")
    threads = torch.get_num_threads()
    for part in re.split(r"^(?=\$ )", runs["finetune.md"], flags=re.M)[1:]:
        command, _, expected = part.partition("\n")
        capfd.readouterr()
        assert main(shlex.split(command)[2:]) == 0, capfd.readouterr().err
        said = capfd.readouterr()
        assert sorted(masked(said.err + said.out)) == sorted(masked(expected)), command
    torch.set_num_threads(threads)
    assert said.out.strip().endswith("дом дом алло")
