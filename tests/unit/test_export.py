"""Export: what is written, what is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from rechka.backends.ort import OrtBackend  # noqa: E402
from rechka.errors import BadModelFile, ModelNotFound, UsageError  # noqa: E402
from rechka.export import tone as writer  # noqa: E402
from rechka.export.graph import Graph, check_model  # noqa: E402
from rechka.export.onnx import export_tone, read_config  # noqa: E402
from rechka.export.quantize import quantise_columns, quantise_products  # noqa: E402
from rechka.export.verify import Drift  # noqa: E402
from rechka.nn.tone_config import ToneConfig  # noqa: E402
from rechka.nn.weights import read_weights  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "tone"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config() -> ToneConfig:
    return read_config(DATA / "mini_config.json")


@pytest.mark.parametrize(
    ("form", "precision", "state", "largest"),
    [
        ("published", "fp32", "float32", 1e-3),
        ("published", "fp16", "float16", 5e-2),
        ("block", "fp32", "float32", 1e-3),
        ("block", "int8", "float32", 1.5),
    ],
)
def test_inputs_outputs_and_drift(
    form: str, precision: str, state: str, largest: float, config: ToneConfig, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "model.onnx"
    drift = export_tone(DATA / "mini.safetensors", path, config=config, form=form, precision=precision)
    assert drift.max_logprob < largest
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    backend = OrtBackend(path, threads=1)
    samples = 2400 if form == "published" else None
    assert dict(backend.inputs) == {
        "signal": ((None, samples, 1), np.dtype(np.int32)),
        "state": ((None, config.state_size), np.dtype(state)),
    }
    assert backend.outputs == ("logprobs", "state_next")
    # What sherpa-onnx asks for.
    assert {key: backend.metadata[key] for key in ("model_type", "frame_length_ms", "sample_rate", "state_dim")} == {
        "model_type": "t-one",
        "frame_length_ms": "300",
        "sample_rate": "8000",
        "state_dim": str(config.state_size),
    }
    assert ToneConfig.from_dict(json.loads(backend.metadata["rechka_config"])) == config


def test_published_float_form_uses_standard_operations_only(config: ToneConfig) -> None:
    weights = read_weights(DATA / "mini.safetensors")
    for precision in ("fp32", "fp16"):
        model = writer.build(weights, config, form="published", precision=precision)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
        check_model(model)


def test_sizes_of_the_files(config: ToneConfig) -> None:
    weights = read_weights(DATA / "mini.safetensors")
    sizes = {p: writer.build(weights, config, form="published", precision=p).ByteSize() for p in writer.PRECISIONS}
    assert sizes["fp16"] < 0.65 * sizes["fp32"]
    assert sizes["int8"] < 0.65 * sizes["fp32"]


def broken_build(*args: Any, **kwargs: Any) -> Any:
    model = BUILD(*args, **kwargs)
    (matrix,) = (t for t in model.graph.initializer if tuple(t.dims) == (32, 35))
    damaged = np.roll(onnx.numpy_helper.to_array(matrix), 1, axis=1)
    matrix.CopyFrom(onnx.numpy_helper.from_array(damaged, matrix.name))
    return model


BUILD = writer.build


def test_a_wrong_graph_is_refused_and_the_old_file_stays(
    config: ToneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(writer, "build", broken_build)
    with pytest.raises(BadModelFile, match="was not written"):
        export_tone(DATA / "mini.safetensors", path, config=config)
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_not_a_number_is_refused(config: ToneConfig, tmp_path: Path) -> None:
    weights = dict(read_weights(DATA / "mini.safetensors"))
    weights["decoder.decoder_layers.0.bias"] = np.full(35, np.nan, np.float32)
    with pytest.raises(BadModelFile, match="was not written"):
        export_tone(weights, tmp_path / "model.onnx", config=config)


def test_mistakes_are_named(config: ToneConfig, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(BadModelFile, match=r"wrong shapes|lacks"):
        export_tone(DATA / "mini.safetensors", path)  # the full-size configuration
    for mistake in ({"form": "cubic"}, {"precision": "int3"}, {"state": "float64"}):
        with pytest.raises(UsageError, match=next(iter(mistake))):
            export_tone(DATA / "mini.safetensors", path, config=config, **mistake)
    with pytest.raises(ModelNotFound):
        read_config(tmp_path / "config.json")
    for text in ("[1]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(BadModelFile):
            read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"layers": 3}')
    with pytest.raises(BadModelFile, match="layers"):
        read_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    "change",
    [
        {"n_layers": 17},
        {"n_heads": 7},
        {"mhsa_state_size": 25},
        {"recompute_scores": (True,) + (False,) * 15},
        {"upsample_position": 3},
    ],
)
def test_contradictory_configurations(change: dict[str, Any]) -> None:
    with pytest.raises(BadModelFile, match="must satisfy"):
        ToneConfig.from_dict({**ToneConfig().to_dict(), **change})


def test_configuration_survives_json() -> None:
    assert ToneConfig.from_dict(json.loads(json.dumps(ToneConfig().to_dict()))) == ToneConfig()


def test_drift_of_known_distributions() -> None:
    reference = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32))
    other = np.log(np.array([[0.4, 0.6], [0.9, 0.1]], np.float32))
    drift = Drift.between(reference, other)
    assert drift.max_prob == pytest.approx(0.1, abs=1e-6)
    assert drift.max_logprob == pytest.approx(np.log(0.5 / 0.4), abs=1e-6)
    assert drift.kl == pytest.approx(0.5 * (0.5 * np.log(0.5 / 0.4) + 0.5 * np.log(0.5 / 0.6)), abs=1e-6)
    assert drift.agreement == 0.5


def test_quantised_columns_are_within_half_a_step() -> None:
    weight = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32) * np.geomspace(1e-3, 1e3, 8)
    weight[:, 3] = 0
    values, scale = quantise_columns(weight.astype(np.float32))
    assert np.abs(values).max() <= 127
    assert (np.abs(values * scale - weight) <= 0.51 * scale).all()


def test_any_graph_can_be_quantised_row_by_row() -> None:
    rng = np.random.default_rng(1)
    graph = Graph()
    hidden = graph.op("Relu", graph.op("MatMul", "x", graph.const(rng.standard_normal((64, 96)) / 8)))
    graph.op("MatMul", hidden, graph.const(rng.standard_normal((96, 40)) / 10), name="y")
    model = graph.model("net", {"x": ("float32", ["b", "t", 64])}, {"y": ("float32", ["b", "t", 40])}, {})
    exact, eight = (OrtBackend(m.SerializeToString(), threads=1) for m in (model, quantise_products(model)))
    x = rng.standard_normal((3, 5, 64)).astype(np.float32)
    x[1] *= 1000  # a loud neighbour: with one scale per tensor the others would be lost
    x[2, 0] = 0
    expected, found = exact.run({"x": x})["y"], eight.run({"x": x})["y"]
    size = np.abs(expected).max(axis=-1, keepdims=True)
    assert (np.abs(found - expected) <= 0.03 * size + 1e-12).all()
    np.testing.assert_array_equal(eight.run({"x": x[:1, 2:3]})["y"], found[:1, 2:3])
