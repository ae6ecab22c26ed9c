"""What fine-tuning computes is what the models compute: golden losses and gradients, chunks as in a stream, texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="training needs torch")
from rechka.export.source import Source, read_source  # noqa: E402
from rechka.nn.weights import read_weights  # noqa: E402
from rechka.train.finetune.learners import Learner, open_learner  # noqa: E402
from rechka.train.rnnt_loss import rnnt_loss  # noqa: E402

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def tone() -> Learner:
    config = json.loads((DATA / "tone/mini_config.json").read_text("utf-8"))
    path = DATA / "tone/mini.safetensors"
    learner = open_learner(Source(path, "mini", read_weights(path), config))
    learner.module.eval()
    return learner


def gigaam(name: str) -> Learner:
    folder = DATA / "gigaam" / name
    tokenizer = next(folder.glob("*_tokenizer.model"), None)
    learner = open_learner(read_source(folder, tokenizer=tokenizer))
    learner.module.eval()
    return learner


def test_tone_loss_and_gradients_are_the_golden_ones(tone: Learner) -> None:
    offline = np.load(DATA / "tone/mini_offline.npz")
    golden = json.loads((DATA / "tone/mini_grad_norms.json").read_text("utf-8"))
    audio = torch.from_numpy(offline["wave_int16"] / np.float32(32767))
    labels = [[int(i) for i in row if i >= 0] for row in offline["labels"]]
    losses = tone.losses(*tone.features(audio, torch.from_numpy(offline["wave_lens"])), labels)
    mean = (losses / torch.tensor([max(1, len(ids)) for ids in labels])).mean()
    assert mean.item() == pytest.approx(golden["ctc_loss_mean"], rel=1e-5)
    tone.module.zero_grad()
    mean.backward()
    for name, parameter in tone.module.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.norm().item() == pytest.approx(
            golden["grad_l2_norm_eval_mode"][name], rel=1e-3, abs=1e-6
        ), name


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_tone_hears_in_training_what_it_hears_in_a_stream(tone: Learner, seed: int | None) -> None:
    """Wherever speech begins within a chunk, attention sees what it sees chunk by chunk."""
    speech = np.random.default_rng(5).normal(0, 0.1, 7000).astype(np.float32)
    laid = tone.laid_out(speech, None if seed is None else np.random.default_rng(seed))
    assert len(laid) % 2400 == 0
    begin = int(np.flatnonzero(laid)[0])
    assert 2400 <= begin < 4800
    assert seed is not None or begin == 2400
    assert len(laid) - begin - 7000 >= 2400
    module: Any = tone.module
    audio = torch.from_numpy(laid)[None]
    with torch.no_grad():
        features, counts = tone.features(torch.nn.functional.pad(audio, (0, 4800)), torch.tensor([len(laid)]))
        whole, frames = module.hear(features, counts)
        state, parts = module.initial_state(), []
        for chunk in audio.split(2400, dim=1):
            part, state = module.step(chunk, state)
            parts.append(part)
    assert int(frames[0]) == tone.num_frames(len(laid)) == sum(part.shape[1] for part in parts)
    torch.testing.assert_close(whole[:, : int(frames[0])], torch.cat(parts, dim=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["v1_ctc", "v2_ctc", "v3_ctc", "v3_e2e_ctc", "v2_rnnt", "v3_e2e_rnnt"])
def test_gigaam_reads_the_golden_texts_in_a_batch(name: str) -> None:
    learner = gigaam(name)
    expected = json.loads((DATA / "gigaam" / name / "expected.json").read_text("utf-8"))["cases"]
    clips = [soundfile.read(DATA / "gigaam" / f"{case}.wav", dtype="float32")[0] for case in ("a", "b")]
    lengths = torch.tensor([len(clip) for clip in clips])
    audio = torch.zeros(2, int(lengths.max()))
    for row, clip in zip(audio, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    with torch.no_grad():
        features, counts = learner.features(audio, lengths)
        texts = learner.read(features, counts)
    assert texts == [expected[case]["text"].strip() for case in ("a", "b")]
    module: Any = learner.module
    for clip in clips:
        assert learner.num_frames(len(clip)) == int(module(torch.from_numpy(clip)[None])[1])


def test_rnnt_loss_is_that_of_the_whole_joint_network() -> None:
    learner = gigaam("v2_rnnt")
    features = torch.randn(2, 120, 64, generator=torch.Generator().manual_seed(0))
    counts, labels = torch.tensor([120, 90]), [[3, 3, 7], [1]]
    losses = learner.losses(features, counts, labels)
    module: Any = learner.module
    blank = learner.targets.blank
    for row in range(2):
        encoded, frames = module.hear(
            features[row : row + 1, : int(counts[row])].transpose(1, 2), counts[row : row + 1]
        )
        predicted, _ = module.head.decoder(torch.tensor([[blank, *labels[row]]]))
        joint = module.head.joint(encoded, predicted)
        lengths = torch.tensor([len(labels[row])])
        alone = rnnt_loss(joint, torch.tensor([labels[row]]), frames, lengths, blank=blank)
        assert losses[row].item() == pytest.approx(alone.item(), rel=1e-4)
    losses.sum().backward()
    assert module.head.decoder.embed.weight.grad[blank].abs().max() == 0  # a phrase begins with a zero vector, always
    assert module.encoder.layers[0].conv.pointwise_conv1.weight.grad.abs().max() > 0
