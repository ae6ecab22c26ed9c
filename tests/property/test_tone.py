"""T-one: however audio is cut, whoever else is in the batch, a stream gets the same log-probabilities."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from rechka.backends.ort import OrtBackend  # noqa: E402
from rechka.errors import BadCard, BadModelFile, BadSamples  # noqa: E402
from rechka.export.onnx import read_config  # noqa: E402
from rechka.export.tone import build  # noqa: E402
from rechka.models.tone import CHUNK, ToneModel, load  # noqa: E402
from rechka.nn.tone import Tone  # noqa: E402
from rechka.nn.weights import read_weights  # noqa: E402
from rechka.protocols import AcousticModel  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "tone"
LENGTH = 8
TOLERANCE = 2e-4
"""Rounding only. One quantisation scale for all rows would already be off by more than 0.01."""
MODELS = [("block", "fp32"), ("block", "int8"), ("published", "fp32")]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache
def graph(form: str, precision: str) -> bytes:
    config = read_config(DATA / "mini_config.json")
    model = build(read_weights(DATA / "mini.safetensors"), config, form=form, precision=precision)
    return bytes(model.SerializeToString())


@lru_cache
def model(form: str, precision: str, max_chunks: int = 20) -> ToneModel:
    return ToneModel(OrtBackend(graph(form, precision), threads=1), max_chunks)


@lru_cache
def audio(stream: int) -> Any:
    """Streams of very different loudness."""
    noise = np.random.default_rng(stream).standard_normal(LENGTH * CHUNK)
    return (noise * (0.3, 0.002, 0.05, 0.9)[stream]).clip(-1, 1).astype(np.float32)


@lru_cache
def alone(form: str, precision: str, stream: int) -> Any:
    """Log-probabilities of a stream by itself, chunk by chunk."""
    return run(model(form, precision), [stream], [[1] * LENGTH])[0]


def run(tone: ToneModel, streams: list[int], cuts: list[list[int]]) -> list[Any]:
    """Streams together, each advancing by its own numbers of chunks; one that is through leaves the batch."""
    states = {stream: tone.initial_state() for stream in streams}
    position, out, turn = dict.fromkeys(streams, 0), {stream: [] for stream in streams}, 0
    while any(turn < len(cut) for cut in cuts):
        going = [(stream, cut[turn]) for stream, cut in zip(streams, cuts, strict=True) if turn < len(cut)]
        pieces = [audio(s)[position[s] * CHUNK : (position[s] + k) * CHUNK] for s, k in going]
        frames, after = tone.step(pieces, [states[s] for s, _ in going])
        for (stream, k), frame, state in zip(going, frames, after, strict=True):
            assert frame.start == 10 * position[stream]
            out[stream].append(frame.values)
            states[stream], position[stream] = state, position[stream] + k
        turn += 1
    return [np.concatenate(out[stream]) for stream in streams]


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    parts: list[int] = []
    while sum(parts) < LENGTH:
        parts.append(draw(st.integers(1, LENGTH - sum(parts))))
    return parts


@pytest.mark.parametrize(("form", "precision"), MODELS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_cut_and_any_company(form: str, precision: str, data: st.DataObject) -> None:
    streams = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
    chosen = [data.draw(cuts()) for _ in streams]
    tone = model(form, precision, data.draw(st.sampled_from([1, 3, 20])))
    for stream, found in zip(streams, run(tone, streams, chosen), strict=True):
        np.testing.assert_allclose(found, alone(form, precision, stream), atol=TOLERANCE)


@lru_cache
def module() -> Any:
    tone = Tone(read_config(DATA / "mini_config.json"))
    weights = read_weights(DATA / "mini.safetensors")
    tone.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return tone.eval()


@settings(max_examples=6, deadline=None)
@given(cut=cuts(), pairs=st.integers(1, LENGTH * 5 - 1), rest=st.integers(0, 239))
def test_torch_steps_equal_one_pass(cut: list[int], pairs: int, rest: int) -> None:
    both = torch.from_numpy(np.stack([audio(0), audio(2)]))
    with torch.no_grad():
        whole, _ = module()(both)
        state, parts = module().initial_state(2), []
        for piece in both.split([k * CHUNK for k in cut], dim=1):
            before = state.clone()
            logprobs, state = module().step(piece, state)
            parts.append(logprobs)
            assert torch.equal(before, before.clone())
        np.testing.assert_allclose(torch.cat(parts, dim=1), whole, atol=TOLERANCE)
        # A recording that ends early, padded by its neighbour's length, is what it is alone.
        samples = pairs * 480 + rest  # an even number of frames; see the docstring of forward about odd ones
        padded, lengths = module()(both, torch.tensor([samples, LENGTH * CHUNK]))
        single, _ = module()(both[:1, :samples])
        frames = int(lengths[0])
        assert frames == 2 * pairs
        np.testing.assert_allclose(padded[0, :frames], single[0, :frames], atol=TOLERANCE)


def test_training_mode_gives_finite_gradients_everywhere() -> None:
    tone = Tone(read_config(DATA / "mini_config.json")).train()
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(2, 12000, generator=generator) * 0.1
    waves[1, 5000:] = 0
    loss = tone.loss(waves, torch.tensor([12000, 5000]), torch.tensor([[1, 2, 3], [4, -100, -100]]))
    loss.backward()
    for name, parameter in tone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_many_threads_share_one_model() -> None:
    tone = model("block", "fp32")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda stream: run(tone, [stream], [[3, 1, 4]])[0], [0, 1, 2, 3] * 3))
    for i, found in enumerate(results):
        np.testing.assert_allclose(found, alone("block", "fp32", i % 4), atol=TOLERANCE)


def test_states_are_values() -> None:
    tone = model("block", "fp32")
    state = tone.initial_state()
    (first,), (after,) = tone.step([audio(0)[:CHUNK]], [state])
    kept = after.values.copy()
    assert not state.values.any()
    (again,), _ = tone.step([audio(0)[:CHUNK]], [state])
    tone.step([audio(0)[CHUNK : 3 * CHUNK]], [after])
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(after.values, kept)


def test_probabilities_sum_to_one() -> None:
    for form, precision in MODELS:
        np.testing.assert_allclose(np.exp(alone(form, precision, 0)).sum(axis=1), 1, atol=1e-4)


def test_the_model_fits_the_protocol_and_names_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph("block", "fp32"))
    tone = load({"model": path}, {"max_chunks": 4}, threads=1)
    assert isinstance(tone, AcousticModel)
    assert (tone.spec.sample_rate, tone.spec.hop, tone.spec.chunk, tone.spec.shift) == (8000, 240, 2400, 2400)
    assert (tone.spec.pad, tone.spec.lag) == (2400, 2640)
    state = tone.initial_state()
    for samples in (np.zeros(2399, np.float32), np.zeros(0, np.float32), np.zeros((2, 2400), np.float32)):
        with pytest.raises(BadSamples, match="2400 samples"):
            tone.step([samples], [state])
    with pytest.raises(BadSamples, match="NaN"):
        tone.step([np.full(2400, np.nan, np.float32)], [state])
    with pytest.raises(BadCard, match=r"files\.model"):
        load({}, {})
    with pytest.raises(BadCard, match="speed"):
        load({"model": path}, {"speed": 2})
    with pytest.raises(BadCard, match="max_chunks"):
        load({"model": path}, {"max_chunks": 0})


def test_a_graph_of_another_family_is_refused() -> None:
    from rechka.export.graph import Graph

    other = Graph()
    other.op("Identity", "x", name="y")
    content = other.model("other", {"x": ("float32", ["n"])}, {"y": ("float32", ["n"])}, {}).SerializeToString()
    with pytest.raises(BadModelFile, match="signal and state"):
        ToneModel(OrtBackend(content))
