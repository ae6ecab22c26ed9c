"""A fine-tuning run: rates, frozen parts, averages; killed and resumed bit for bit; early end; what it writes."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnx", reason="the model is exported")
from rechka.errors import BadModelFile, DataError, UsageError  # noqa: E402
from rechka.evaluate.wer import Counts, Score, score_counts  # noqa: E402
from rechka.export.source import read_source  # noqa: E402
from rechka.hub.card import Card  # noqa: E402
from rechka.testing import say  # noqa: E402
from rechka.train.finetune import DataOptions, DevSet, FinetuneConfig, Optimisation, finetune, params  # noqa: E402
from rechka.train.finetune.config import Usual  # noqa: E402
from rechka.train.finetune.learners import Learner, open_learner  # noqa: E402
from rechka.train.finetune.place import CONFIG, WORK, settle  # noqa: E402
from rechka.train.finetune.report import Progress, Reporter  # noqa: E402

DATA = Path(__file__).parents[1] / "data"
TEXTS = ("да", "нет", "дом", "алло", "да нет")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def manifest(folder: Path, sample_rate: int, texts: tuple[str, ...] = TEXTS) -> str:
    """Tone speech with its texts."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, text in enumerate(texts):
        speech = say(re.sub("[^а-я ]", "", text.lower()), sample_rate=sample_rate, before_s=0.05, after_s=0.1)
        soundfile.write(folder / f"{number}.wav", speech, sample_rate)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": text}, ensure_ascii=False))
    (folder / "m.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return str(folder / "m.jsonl")


def tone_checkpoint(folder: Path) -> Path:
    """The mini T-one as its fine-tuning leaves it: ``config.json`` and ``model.safetensors``."""
    folder.mkdir(exist_ok=True)
    shutil.copy(DATA / "tone/mini.safetensors", folder / "model.safetensors")
    shutil.copy(DATA / "tone/mini_config.json", folder / "config.json")
    return folder


def small(model: Path, source: str, **optim: Any) -> FinetuneConfig:
    """Every augmentation on, a few steps."""
    options = {"steps": 6, "rate": 1e-3, "batch_seconds": 4.0, "accumulate": 2, "evals": 2, **optim}
    data = DataOptions(train=(source,), replay=(source,), max_s=4.0, window_s=6.0, shuffle=3, threads=2)
    return FinetuneConfig(str(model), (DevSet("dev", (source,), 2),), data, optim=Optimisation(**options))


def tiny(name: str = "v2_rnnt") -> Learner:
    return open_learner(read_source(DATA / "gigaam" / name))


def steps_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "training/log.jsonl").read_text("utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


# Weights -------------------------------------------------------------------------------------------------------------


def test_the_rate_rises_and_falls() -> None:
    optim = Optimisation(rate=1.0, warmup=0.2)
    assert params.rate_at(0.1, optim) == pytest.approx(0.5)
    assert params.rate_at(0.2, optim) == pytest.approx(1.0)
    assert params.rate_at(0.6, optim) == pytest.approx(0.505)
    assert params.rate_at(1.0, optim) == params.rate_at(1.3, optim) == pytest.approx(0.01)


def test_lower_layers_move_less_and_frozen_ones_not_at_all() -> None:
    learner = tiny()
    optim = Optimisation(rate=1.0, warmup=0.0, layer_decay=0.5, head_rate=3.0, freeze=("head.decoder.*",))
    optimizer = params.make_optimizer(learner, optim)
    params.set_rates(optimizer, 0.0, optim)
    names = {id(parameter): name for name, parameter in learner.module.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates["encoder.pre_encode.conv.0.weight"] == pytest.approx(0.25)
    assert rates["encoder.layers.0.norm_out.weight"] == pytest.approx(0.5)
    assert rates["encoder.layers.1.norm_out.weight"] == pytest.approx(1.0)
    assert rates["head.joint.enc.weight"] == pytest.approx(3.0)
    assert not any(name.startswith("head.decoder.") for name in rates)
    decays = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays["encoder.layers.0.norm_out.weight"] == 0.0 < decays["head.joint.enc.weight"]


def test_frozen_layers_are_released_when_their_share_is_over() -> None:
    learner = tiny()
    optim = Optimisation(freeze_layers=1, freeze_until=0.5)
    optimizer = params.make_optimizer(learner, optim)
    weights = dict(learner.module.named_parameters())
    for share, moves in ((0.0, False), (0.5, False), (0.6, True)):
        params.set_rates(optimizer, share, optim)
        assert weights["encoder.pre_encode.out.weight"].requires_grad is moves
        assert weights["encoder.layers.0.norm_out.weight"].requires_grad is moves
        assert weights["encoder.layers.1.norm_out.weight"].requires_grad


def test_patterns_that_fit_nothing_or_everything_are_refused() -> None:
    with pytest.raises(UsageError, match=r"encodr\.\*"):
        params.make_optimizer(tiny(), Optimisation(freeze=("encodr.*",)))
    with pytest.raises(UsageError, match="nothing to train"):
        params.make_optimizer(tiny(), Optimisation(freeze=("*",)))


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    learner = tiny()
    for freeze, same in ((True, True), (False, False)):
        before = {name: value.clone() for name, value in learner.module.state_dict().items()}
        params.training_mode(learner.module, freeze_norms=freeze)
        assert learner.module.training
        learner.losses(torch.randn(2, 80, 64), torch.tensor([80, 80]), [[1], [2]])
        after = learner.module.state_dict()
        kept = [torch.equal(before[name], after[name]) for name in before if "running_mean" in name]
        assert kept
        assert all(kept) is same


def test_the_average_forgets_the_beginning_and_copies_without_memory() -> None:
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    start = one.weight.detach().clone()
    params.follow(one, two, step=0, memory=0.999)
    torch.testing.assert_close(one.weight, start + 0.9 * (two.weight - start))
    params.follow(one, two, step=0, memory=0.0)
    assert torch.equal(one.weight, two.weight)


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["tone", "gigaam"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(family: str, tmp_path: Path) -> None:
    """Dropout, masks, every distortion, accumulation, replay: same losses, same weights, bit for bit."""
    model = tone_checkpoint(tmp_path / "start") if family == "tone" else DATA / "gigaam/v2_rnnt"
    run = replace(small(model, manifest(tmp_path / "data", 8000), steps=4), save_every_s=0.0)

    def killed(progress: Any) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finetune(run, whole)
    with pytest.raises(KeyboardInterrupt):
        finetune(run, parts, tick=killed)
    assert [line["step"] for line in steps_of(parts) if "loss" in line] == [1, 2, 3]
    assert not (parts / "card.toml").exists()
    card = finetune(run, parts)
    assert steps_of(whole) == steps_of(parts)
    assert [line["step"] for line in steps_of(parts) if "loss" in line] == [1, 2, 3, 4]
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    assert card.name == "parts"
    assert finetune(run, parts) == card  # finished before: written again, not trained again
    assert steps_of(whole) == steps_of(parts)


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    run = small(DATA / "gigaam/v3_ctc", manifest(tmp_path / "data", 16000))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    with pytest.raises(UsageError, match=r"cat\.jpg"):
        finetune(run, tmp_path / "photos")

    def second(_: Any) -> None:
        with pytest.raises(UsageError, match="under way"):
            finetune(run, tmp_path / "out")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(run, tmp_path / "out", tick=second)
    with pytest.raises(UsageError, match=r"other settings: optim differ.*--config"):
        finetune(replace(run, optim=replace(run.optim, rate=1e-4)), tmp_path / "out")
    (tmp_path / "out/training/last.pt").write_bytes(b"PK, but no more")
    with pytest.raises(BadModelFile, match=r"last\.pt"):
        finetune(run, tmp_path / "out")


def test_a_kill_while_the_settings_are_written_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them would be those of another run, and the folder could not be gone on with."""
    run = FinetuneConfig("m", (), DataOptions(train=("t",)), optim=Optimisation(steps=7, patience=0)).placed(tmp_path)
    (tmp_path / "out" / WORK).mkdir(parents=True)
    write = Path.write_text

    def killed(path: Path, text: str, encoding: str) -> int:
        monkeypatch.undo()
        write(path, text[: len(text) // 2], encoding)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        settle(run, tmp_path / "out")
    settle(run, tmp_path / "out")
    settle(run, tmp_path / "out")
    assert FinetuneConfig.load(tmp_path / "out" / CONFIG).optim.steps == 7


def test_it_ends_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    """A rate that ruins the model: the weights from before are what is written, and the user is told."""
    source = manifest(tmp_path / "data", 16000)
    run = small(DATA / "gigaam/v2_rnnt", source, steps=40, evals=20, patience=3, rate=1e-9, ema=0.0)
    said: list[str] = []
    card = finetune(run, tmp_path / "out", tell=said.append)
    looks = [line for line in steps_of(tmp_path / "out") if "dev" in line]
    assert [look["step"] for look in looks] == [0, 2, 4, 6]
    assert any("has not fallen for 3 looks" in line for line in said)
    assert any("nothing was better" in line for line in said)
    before, after = (
        [result.value for result in card.results if ("before" in result.test) is first] for first in (True, False)
    )
    assert before == after == [round(100 * looks[0]["dev"]["dev"][key], 2) for key in ("wer", "cer")]


def test_weights_half_way_back_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks before, in the middle, at the end, then at a quarter, half and three quarters of the way: half is best."""
    from rechka.train.finetune import run as module

    letters = iter([50, 40, 45, 42, 30, 35])
    given: list[int] = []

    def rated(self: Any, items: Any) -> Score:
        given.append(next(letters))
        return score_counts([Counts(given[-1], 0, 0, 100)], [Counts(given[-1], 0, 0, 100)])

    monkeypatch.setattr(module.Run, "_score", rated)
    run = small(DATA / "gigaam/v3_ctc", manifest(tmp_path / "data", 16000))
    said: list[str] = []
    for _ in range(2):  # the second call finds everything done and scores nothing
        card = finetune(run, tmp_path / "out", tell=said.append)
        assert len(given) == 6
        assert [result.value for result in card.results] == [50.0, 50.0, 30.0, 30.0]
    assert any("50% of the way" in line for line in said)
    assert [line["share"] for line in steps_of(tmp_path / "out") if "blend" in line] == [0.25, 0.5, 0.75]
    work = tmp_path / "out/training"
    best, last = (torch.load(work / name, weights_only=True) for name in ("best.pt", "last.pt"))
    assert (best["step"], best["share"]) == (6, 0.5)
    before = tiny("v3_ctc").module.state_dict()
    moved = 0.0
    for name, value in last["average"].items():
        if value.is_floating_point():
            torch.testing.assert_close(best["model"][name], (before[name] + value) / 2)
            moved += float((value - before[name]).abs().sum())
    assert moved > 0


def test_what_is_left_open_is_settled_by_the_family_and_said_in_the_file(tmp_path: Path) -> None:
    run = FinetuneConfig("m", (), DataOptions(train=("t",), max_s=25.0))
    found = run.settled(Usual(epochs=7.0, rate=1e-4, batch_seconds=20.0), lm=True).optim
    assert (found.epochs, found.rate, found.batch_seconds, found.decide) == (7.0, 1e-4, 25.0, "cer")
    run = replace(run, optim=Optimisation(epochs=1.0, rate=1e-3, batch_seconds=30.0, decide="wer"))
    assert run.settled(Usual(), lm=True) == run
    small_run = small(DATA / "gigaam/v3_ctc", manifest(tmp_path / "data", 16000), steps=2, rate=0.0, blend=False)
    finetune(small_run, tmp_path / "out")
    written = FinetuneConfig.load(tmp_path / "out/finetune.toml").optim
    assert (written.rate, written.decide) == (5e-5, "wer")
    assert not any("blend" in line for line in steps_of(tmp_path / "out"))


def test_epochs_are_passes_over_the_audio(tmp_path: Path) -> None:
    source = manifest(tmp_path / "data", 16000)
    run = small(DATA / "gigaam/v3_ctc", source, steps=0, epochs=2.0, accumulate=1)
    run = replace(run, data=replace(run.data, replay=()))
    said: list[str] = []
    finetune(run, tmp_path / "out", tell=said.append)
    assert any("2 passes" in line for line in said)
    used = next(int(line.split()[1]) for line in said if line.startswith("train:"))
    assert 2 * len(TEXTS) <= used <= 3 * len(TEXTS)  # the batch ahead is counted with its window
    assert math.isclose(
        json.loads(torch.load(tmp_path / "out/training/last.pt")["rest"])["heard"], 2 * 2.19, rel_tol=0.5
    )


def test_without_a_dev_set_the_last_average_is_written(tmp_path: Path) -> None:
    run = small(DATA / "gigaam/v3_ctc", manifest(tmp_path / "data", 16000), steps=2, patience=0)
    card = finetune(replace(run, dev=()), tmp_path / "out")
    assert card.results == ()
    last = torch.load(tmp_path / "out/training/last.pt", weights_only=True)["average"]
    best = torch.load(tmp_path / "out/training/best.pt", weights_only=True)
    assert best["step"] == 2
    assert all(torch.equal(last[name], value) for name, value in best["model"].items())


def test_gradients_that_are_no_numbers_are_skipped_and_end_the_run_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rechka.train.finetune import run as module

    monkeypatch.setattr(module, "WORST_SKIPPED", 3)
    monkeypatch.setattr(
        module.Run, "_loss", lambda self, batch: next(self.learner.module.parameters()).sum() * math.nan
    )
    run = small(DATA / "gigaam/v3_ctc", manifest(tmp_path / "data", 16000))
    with pytest.raises(DataError, match="3 steps in a row"):
        finetune(run, tmp_path / "out")


def test_gradients_are_clipped_before_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads]))))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spied)
    run = small(DATA / "gigaam/v3_ctc", manifest(tmp_path / "data", 16000), steps=2, clip=1e-3)
    finetune(run, tmp_path / "out")
    assert norms == pytest.approx([1e-3] * 2, rel=1e-3)
    told = [line["norm"] for line in steps_of(tmp_path / "out") if "norm" in line]
    assert told
    assert min(told) > 1e-2  # as it was before


def test_mixed_precision_keeps_weights_whole_and_losses_close(tmp_path: Path) -> None:
    """Matrix products in bf16, weights, loss and averages in fp32; the same first loss but for rounding."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor does not compute in bf16")
    source = manifest(tmp_path / "data", 16000)
    first = {}
    for precision in ("fp32", "bf16"):
        run = replace(small(DATA / "gigaam/v3_ctc", source, steps=2), precision=precision)
        finetune(run, tmp_path / precision)
        first[precision] = steps_of(tmp_path / precision)[1]["loss"]
        state = torch.load(tmp_path / precision / "training/last.pt", weights_only=True)
        assert {value.dtype for value in state["average"].values() if value.is_floating_point()} == {torch.float32}
    assert first["bf16"] == pytest.approx(first["fp32"], rel=0.02)
    assert first["bf16"] != first["fp32"]


def test_models_that_write_no_text_and_devices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    source = manifest(tmp_path / "data", 16000)
    with pytest.raises(BadModelFile, match="writes no text"):
        finetune(small(DATA / "gigaam/v3_ssl", source), tmp_path / "ssl")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA"):
            finetune(replace(small(DATA / "gigaam/v3_ctc", source), device="cuda"), tmp_path / "cuda")


def test_the_card_takes_after_the_model_it_came_from(tmp_path: Path) -> None:
    """Licence, titles and settings of the card beside the checkpoint; the tokenizer travels along."""
    start = tmp_path / "start"
    shutil.copytree(DATA / "gigaam/v3_e2e_ctc", start)
    (start / "card.toml").write_text(
        'name = "base"\nfamily = "gigaam"\nlanguage = "ru"\nlicense = "MIT"\n[title]\nen = "Base"\nru = "Основа"\n'
        '[segmenter]\nvad = "energy"\n[params]\ntask = "ctc"\n',
        "utf-8",
    )
    source = manifest(tmp_path / "data", 16000, ("Да.", "Нет!"))
    run = small(start, source, steps=1, accumulate=1)
    card = finetune(replace(run, name="mine"), tmp_path / "out")
    assert card == Card.read(tmp_path / "out/card.toml")
    assert (card.name, card.license, card.title["en"]) == ("mine", "MIT", "Base, fine-tuned")
    assert card.segmenter == {"vad": "energy"}
    assert [result.metric for result in card.results] == ["WER %", "CER %"] * 2
    again = finetune(replace(run, model=str(tmp_path / "out")), tmp_path / "again")
    assert again.title["ru"].startswith("Основа")


# What a run tells ----------------------------------------------------------------------------------------------------


def test_curves_are_written_for_tensorboard_and_go_on_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="curves need the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for begin in (None, 2):  # step 3 is lost in a kill, and made again
        reporter = Reporter(tmp_path, begin, lambda progress: None)
        for step in range((begin or 0) + 1, 4):
            reporter.step(step / 4, step, {"loss": 1.0 / step}, 1.0)
        reporter.look(3, {"calls": {"wer": 0.5, "cer": 0.1}})
        reporter.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    curve = [(event.step, event.value) for event in found.Scalars("train/loss")]
    assert curve == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [event.value for event in found.Scalars("calls/wer")] == [0.5]


def test_time_left_is_what_the_rest_will_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 10.0, 14.0])  # the first step takes ten seconds and is not counted
    monkeypatch.setattr("rechka.train.finetune.report.time.monotonic", lambda: next(clock))
    told: list[Progress] = []
    reporter = Reporter(tmp_path, None, told.append)
    for step in (1, 2):
        reporter.step(step / 10, step, {"loss": 2.0}, 20.0)
    reporter.close()
    assert [progress.left_s for progress in told] == [None, pytest.approx(4.0 / 0.1 * 0.8)]
    assert told[1].loss == 2.0
