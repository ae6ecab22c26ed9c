"""Means against learning by heart, growing, and batches made by other processes: nothing changes where they are off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("scipy", reason="training needs scipy")

from rechka.errors import DataError, UsageError  # noqa: E402
from rechka.nn.conformer import ConformerConfig, StreamingConformer  # noqa: E402
from rechka.train import augment  # noqa: E402
from rechka.train.augment import AugmentOptions  # noqa: E402
from rechka.train.batches import ahead, batch_of, sampler  # noqa: E402
from rechka.train.config import DataSet, Optimisation, Regularisation, TrainConfig  # noqa: E402
from rechka.train.grow import grow  # noqa: E402
from rechka.train.loop import Run, context, load_weights, train  # noqa: E402
from rechka.train.sampler import Position  # noqa: E402
from rechka.train.store import BANDS_FILE, INDEX_FILE, Store  # noqa: E402

SMALL = ConformerConfig(dim=16, heads=2, slow_blocks=2, expansion=2, channels=(4, 4))


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 96, 15, generator=torch.Generator().manual_seed(1))


def test_thinning_acts_in_training_only_and_keeps_the_mean(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = StreamingConformer(SMALL).eval()
    plain = model(features)[0]
    model.thin(0.3, 0.5)
    assert torch.equal(model(features)[0], plain)
    assert [block.thin.depth for block in model.blocks] == [0.125, 0.25, 0.375, 0.5]
    model.train()
    assert not torch.allclose(model(features)[0], plain, atol=1e-3)
    thin = model.blocks[-1].thin
    ones = thin(torch.ones(4000, 2, 3))
    assert ones.mean().item() == pytest.approx(1.0, abs=0.1)
    skipped = (ones == 0).flatten(1).all(dim=1).float().mean().item()
    assert skipped == pytest.approx(0.5, abs=0.05)


def test_a_step_draws_its_context_within_the_bounds_and_always_the_same() -> None:
    regular = Regularisation(left=8, chunks=(4, 8))
    drawn = [context(regular, 48, 3, step) for step in range(200)]
    assert drawn == [context(regular, 48, 3, step) for step in range(200)]
    assert {chunk for chunk, _ in drawn} == {4, 8}
    lefts = {left for _, left in drawn if left is not None}
    assert min(lefts) == 8
    assert max(lefts) == 48
    assert all(left % 2 == 0 for left in lefts)
    assert context(Regularisation(), 48, 3, 0) == (None, None)


def test_a_shorter_left_context_is_really_not_seen(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = StreamingConformer(replace(SMALL, slow_blocks=1, kernel=1)).eval()
    features = features.repeat(1, 2, 1)  # six chunks
    changed = features.clone()
    changed[:, :16] += 1.0
    with torch.no_grad():
        far = [(model(x, 8, 4)[0])[:, -8:] for x in (features, changed)]
        near = [(model(x, 8, 48)[0])[:, -8:] for x in (features, changed)]
    assert torch.equal(far[0], far[1])
    assert not torch.equal(near[0], near[1])


def test_more_and_wider_masks() -> None:
    options = AugmentOptions(time_masks=0, band_masks=0, mask_every=0.5, mask_frames=40)
    x = np.ones((2, 1000, 15), np.float32)
    augment.masks(x, np.array([1000, 100]), np.random.default_rng(0), options)
    hidden = (x[:, :, 0] == 0).sum(axis=1)
    assert hidden[0] > 200  # 20 masks of 19.5 frames in the mean
    assert hidden[1] <= 2 * 39
    untouched = np.ones((1, 50, 15), np.float32)
    augment.masks(untouched, np.array([50]), np.random.default_rng(0), AugmentOptions(time_masks=0, band_masks=0))
    assert (untouched == 1).all()


def test_a_grown_network_says_what_the_smaller_one_said(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    small = StreamingConformer(SMALL).eval()
    larger = replace(SMALL, expansion=5)
    grown = StreamingConformer(larger).eval()
    grown.load_state_dict(grow(small.state_dict(), SMALL, larger))
    torch.testing.assert_close(grown(features)[0], small(features)[0], atol=1e-5, rtol=1e-5)
    grown(features)[0].sum().backward()
    moved = grown.blocks[0].first.down.weight.grad[:, SMALL.expansion * SMALL.dim :]
    assert moved.abs().max() > 0  # the new units can learn
    for other in (replace(larger, dim=32), replace(SMALL, expansion=1)):
        with pytest.raises(UsageError, match="feed-forward"):
            grow(small.state_dict(), SMALL, other)


@pytest.fixture
def run(tmp_path: Path) -> tuple[TrainConfig, Path]:
    """A run of a few steps on noise, and the folder of its features."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "features" / "data"
    folder.mkdir(parents=True)
    frames = rng.integers(60, 120, 24)
    (folder / BANDS_FILE).write_bytes(rng.normal(10, 2, (frames.sum(), 15)).astype(np.float16).tobytes())
    with open(folder / INDEX_FILE, "w", encoding="utf-8") as index:
        for number, (offset, count) in enumerate(zip(np.cumsum(frames) - frames, frames, strict=True)):
            index.write(
                f'{{"offset": {offset}, "frames": {count}, "text": "да нет", "speaker": "a", "key": "{number}"}}\n'
            )
    model = {"dim": 16, "heads": 2, "slow_blocks": 1, "expansion": 2, "channels": [4, 4]}
    optim = Optimisation(steps=4, warmup=2, decay_from=3, batch_seconds=3.0, short_first_steps=1)
    return TrainConfig((DataSet("data", ()),), (), model, optim, workers=1, eval_every=99, save_every=2), folder.parent


def test_batches_of_other_processes_are_the_same(run: tuple[TrainConfig, Path]) -> None:
    config, folder = run
    stores = {"data": Store(folder / "data")}
    draw = sampler(config, stores, Position())
    expected = [batch_of(config, stores, draw.next_group(), step, 0, 8) for step in range(4)]
    position = Position()
    got = list(ahead(replace(config, loaders=2), stores, position, 0, 8))
    assert len(got) == 4
    for one, two in zip(expected, got, strict=True):
        assert torch.equal(one.features, two.features)
        assert torch.equal(one.targets, two.targets)
        assert one.seconds == two.seconds


def finished(config: TrainConfig, out: Path, features: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a run, made in this process."""
    out.mkdir(exist_ok=True)
    Run(0, config, out, features).go()
    return load_weights(out / "last.pt")[1]


def test_a_regularised_run_resumes_to_the_same_weights_with_loaders_or_without(
    run: tuple[TrainConfig, Path], tmp_path: Path
) -> None:
    config, folder = run
    config = replace(config, regular=Regularisation(dropout=0.1, depth=0.2, left=8, chunks=(4, 8)))
    whole = finished(config, tmp_path / "whole", folder)
    finished(replace(config, optim=replace(config.optim, steps=2, decay_from=3)), tmp_path / "parts", folder)
    parts = finished(replace(config, loaders=1), tmp_path / "parts", folder)
    plain = finished(replace(config, regular=Regularisation()), tmp_path / "plain", folder)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    assert any(not torch.equal(value, plain[name]) for name, value in whole.items())


def test_a_run_can_start_from_smaller_weights(run: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    config, folder = run
    finished(replace(config, optim=replace(config.optim, steps=1)), tmp_path / "small", folder)
    larger = replace(config, model={**config.model, "expansion": 4}, init=str(tmp_path / "small" / "last.pt"))
    finished(larger, tmp_path / "large", folder)
    assert load_weights(tmp_path / "large" / "last.pt")[0].expansion == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine without a GPU")
def test_a_missing_device_is_told(run: tuple[TrainConfig, Path], tmp_path: Path) -> None:
    config, folder = run
    with pytest.raises(UsageError, match="device 'cuda'"):
        train(replace(config, device="cuda"), tmp_path / "out", features=folder)


def test_the_configuration_reads_regularisation(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[regular]\ndropout = 0.1\nchunks = [4, 8]\n", "utf-8")
    assert TrainConfig.load(path).regular == Regularisation(dropout=0.1, chunks=(4, 8))
    path.write_text("[regular]\ndropuot = 0.1\n", "utf-8")
    with pytest.raises(DataError, match="dropuot"):
        TrainConfig.load(path)
