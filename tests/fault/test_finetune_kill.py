"""A fine-tuning run that is killed, by SIGKILL or after any step, ends with the weights of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="the model is exported")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from rechka.nn.tone import Tone  # noqa: E402
from rechka.nn.tone_config import ToneConfig  # noqa: E402
from rechka.testing import say  # noqa: E402
from rechka.train.finetune import DataOptions, DevSet, FinetuneConfig, Optimisation  # noqa: E402
from rechka.train.finetune.publish import starting_point  # noqa: E402
from rechka.train.finetune.run import Run, open_learner  # noqa: E402

STEPS = 6
CHILD = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from rechka.train.finetune import FinetuneConfig
from rechka.train.finetune.run import Run, open_learner
from rechka.train.finetune.publish import starting_point
config = FinetuneConfig.load(Path(sys.argv[1]))
Run(config, open_learner(starting_point(config)[0]), Path(sys.argv[2]), lambda line: None,
    lambda progress: print(progress.step, flush=True)).go()
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    """Every kind of randomness: order, replay, distortions, masks, dropout; two batches a step; looks and averages."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    tiny = ToneConfig(
        n_layers=3, d_model=16, n_heads=2, rope_dim=4, conv_kernel_size=3, conv_channels=(2, 4),
        conv_kernels=((3, 33), (5, 17)), mhsa_stateless_layers=2, recompute_scores=(True, True, True),
        reduction_position=0, upsample_position=1, dropout=0.1, dropout_att=0.1,
    )  # fmt: skip
    save_file(Tone(tiny).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(tiny.to_dict()), "utf-8")
    lines = []
    for number, text in enumerate(("да", "нет", "дом", "да нет")):
        soundfile.write(folder / f"{number}.wav", say(text, before_s=0.05, after_s=0.05), 8000)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": text}, ensure_ascii=False) + "\n")
    (folder / "m.jsonl").write_text("".join(lines), "utf-8")
    source = (str(folder / "m.jsonl"),)
    return FinetuneConfig(
        str(folder), (DevSet("dev", source, 1),),
        DataOptions(train=source, replay=source, max_s=2.0, window_s=2.0, shuffle=3),
        optim=Optimisation(steps=STEPS, rate=1e-3, batch_seconds=2.0, accumulate=2, evals=2, patience=0),
    )  # fmt: skip


def trained(config: FinetuneConfig, folder: Path, *, until: int | None = None) -> None:
    """A run, or what comes of it before it is stopped after some step."""

    def tick(progress: Any) -> None:
        if progress.step == until:
            raise KeyboardInterrupt

    folder.mkdir(exist_ok=True)
    run = Run(config, open_learner(starting_point(config)[0]), folder, lambda line: None, tick)
    try:
        run.go()
    finally:
        run.close()


def outcome(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """The curve of losses and scores, the last weights, and the best ones."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    curve = [{key: value for key, value in line.items() if key != "time"} for line in lines]
    last = torch.load(folder / "last.pt", weights_only=True)
    best = torch.load(folder / "best.pt", weights_only=True)["model"]
    return curve, {**last["model"], **{f"average {key}": value for key, value in last["average"].items()}}, best


def same(one: tuple[Any, ...], two: tuple[Any, ...]) -> None:
    assert one[0] == two[0]
    for first, second in zip(one[1:], two[1:], strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def whole(config: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What comes of the run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    trained(config, folder)
    found = outcome(folder)
    assert [line["step"] for line in found[0] if "loss" in line] == list(range(1, STEPS + 1))
    return found


@settings(max_examples=8, deadline=None)
@given(stops=st.lists(st.integers(1, STEPS), min_size=1, max_size=2), often=st.booleans())
def test_stopped_after_any_step_it_ends_the_same(
    stops: list[int], often: bool, config: FinetuneConfig, whole: tuple[Any, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """With a checkpoint after every step, or only at the looks, so that steps are made again."""
    folder = tmp_path_factory.mktemp("parts")
    run = replace(config, save_every_s=0.0 if often else 1e9)
    for stop in sorted(stops):
        with suppress(KeyboardInterrupt):
            trained(run, folder, until=stop)
    trained(run, folder)
    same(whole, outcome(folder))


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a matter of POSIX")
@pytest.mark.parametrize("step", [4])
def test_killed_by_sigkill_it_ends_the_same(
    step: int, config: FinetuneConfig, whole: tuple[Any, ...], tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text(replace(config, save_every_s=0.0).to_toml(), "utf-8")
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", CHILD, str(tmp_path / "run.toml"), str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == step:
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    log = (tmp_path / "work/log.jsonl").read_text("utf-8").splitlines()
    assert json.loads(log[0])["step"] == 0
    assert f'"step": {STEPS}' not in "".join(log)
    trained(replace(config, save_every_s=0.0), tmp_path / "work")
    same(whole, outcome(tmp_path / "work"))
