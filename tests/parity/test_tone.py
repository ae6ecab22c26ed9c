"""The T-one module against vectors of the original implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rechka.nn.tone import Tone  # noqa: E402
from rechka.nn.tone_config import ToneConfig  # noqa: E402
from rechka.nn.weights import read_weights, recipe_weights  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "tone"
TOLERANCE = 1e-4
"""On log-probabilities and features; the original agrees with itself to 2e-5."""


def wave(samples: Any) -> Any:
    return torch.from_numpy(np.asarray(samples)).float() / 32767


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mini() -> Any:
    model = Tone(ToneConfig.from_dict(json.loads((DATA / "mini_config.json").read_text())))
    weights = read_weights(DATA / "mini.safetensors")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


@pytest.fixture(scope="module")
def offline() -> Any:
    return np.load(DATA / "mini_offline.npz")


def test_published_architecture() -> None:
    with torch.device("meta"):
        model = Tone()
    assert sum(parameter.numel() for parameter in model.parameters()) == 71_685_347
    assert len(model.state_dict()) == 567
    assert model.config.state_size == 219_729
    assert "encoder.temportal_reduction.conv_pw.weight" in model.state_dict()
    assert "encoder.layers.1.self_attn.linear_q.weight" not in model.state_dict()


def test_state_layout_of_the_published_model() -> None:
    offsets = np.cumsum([0, *(int(np.prod(shape)) for shape in ToneConfig().state_shapes.values())])
    np.testing.assert_array_equal(offsets, [0, 1, 81, 23121, 207441, 208081, 219345, 219729])


def test_recipe_reproduces_the_stored_mini_weights(mini: Any) -> None:
    shapes = {name: tuple(value.shape) for name, value in mini.state_dict().items()}
    made, stored = recipe_weights(shapes, 20250101), read_weights(DATA / "mini.safetensors")
    assert made.keys() == stored.keys()
    for name, array in made.items():
        np.testing.assert_array_equal(array, stored[name], err_msg=name)


def test_streaming_logprobs_and_state(mini: Any) -> None:
    golden = np.load(DATA / "mini_streaming.npz")
    state = mini.initial_state(2)
    for audio, logprobs, state_next in zip(golden["audio"], golden["logprobs"], golden["state_next"], strict=True):
        with torch.no_grad():
            out, state = mini.step(wave(audio), state)
        np.testing.assert_allclose(out, logprobs, atol=TOLERANCE)
        np.testing.assert_allclose(state, state_next, atol=TOLERANCE)


def test_features(mini: Any, offline: Any) -> None:
    features = mini.features(wave(offline["wave_int16"])).transpose(1, 2)
    for got, expected, length in zip(features, offline["features"], offline["feature_lens"], strict=True):
        np.testing.assert_allclose(got[:, :length], expected[:, :length], atol=TOLERANCE)


def test_offline_logprobs_of_a_ragged_batch(mini: Any, offline: Any) -> None:
    with torch.no_grad():
        out, lengths = mini(wave(offline["wave_int16"]), torch.from_numpy(offline["wave_lens"]))
    np.testing.assert_array_equal(lengths, offline["logprob_lens"])
    for got, expected, length in zip(out, offline["logprobs"], lengths, strict=True):
        np.testing.assert_allclose(got[:length], expected[:length], atol=TOLERANCE)


def test_loss_and_gradients(mini: Any, offline: Any) -> None:
    golden = json.loads((DATA / "mini_grad_norms.json").read_text())
    mini.zero_grad()
    loss = mini.loss(*(torch.from_numpy(np.asarray(x)) for x in (
        offline["wave_int16"] / np.float32(32767), offline["wave_lens"], offline["labels"]
    )))  # fmt: skip
    assert loss.item() == pytest.approx(float(offline["ctc_loss"]), rel=1e-5)
    assert loss.item() == pytest.approx(golden["ctc_loss_mean"], rel=1e-5)
    loss.backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in mini.named_parameters()}
    assert norms.keys() == golden["grad_l2_norm_eval_mode"].keys()
    for name, expected in golden["grad_l2_norm_eval_mode"].items():
        assert norms[name] == pytest.approx(expected, rel=1e-3, abs=1e-6), name


@pytest.mark.slow
def test_full_size_streaming() -> None:
    golden = np.load(DATA / "full_streaming.npz")
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Tone().state_dict().items()}
    model = Tone().eval()
    weights = recipe_weights(shapes, int(golden["weight_seed"]))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, assign=True)
    audio = wave(golden["audio"])
    np.testing.assert_allclose(model.features(audio.reshape(1, -1))[0].T, golden["features"], atol=TOLERANCE)
    state = model.initial_state()
    layout = golden["state_layout"]
    with torch.no_grad():
        for chunk, logprobs, summary in zip(audio, golden["logprobs"], golden["state_summary"], strict=True):
            out, state = model.step(chunk[None], state)
            np.testing.assert_allclose(out[0], logprobs, atol=2e-4)
            for (begin, end), (total, magnitude, first, last) in zip(layout, summary, strict=True):
                part = state[0, begin:end].double()
                assert part.abs().sum().item() == pytest.approx(magnitude, rel=1e-4)
                assert part.sum().item() == pytest.approx(total, abs=1e-4 * max(1.0, magnitude))
                assert part[0].item() == pytest.approx(first, abs=1e-3)
                assert part[-1].item() == pytest.approx(last, abs=1e-3)
        np.testing.assert_allclose(state[0], golden["state_last_fp16"].astype(np.float32), rtol=2e-3, atol=2e-3)
        whole, _ = model(audio.reshape(1, -1))
    np.testing.assert_allclose(whole[0], golden["logprobs"].reshape(-1, 35), atol=2e-4)
