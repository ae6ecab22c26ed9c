"""T-one in 8 bits throughout: what is written, and that company and blocks change nothing, on either engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs rechka[export]")

from rechka.backends.openvino import is_installed
from rechka.backends.ort import OrtBackend
from rechka.export import tone as writer
from rechka.export.onnx import read_config
from rechka.export.verify import Drift, probe_signal, run_chunks
from rechka.models import tone
from rechka.nn.weights import read_weights

DATA = Path(__file__).parent.parent / "data/tone"
CHUNK = 2400


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small model in the portable form, by precision, and in the block form."""
    folder = tmp_path_factory.mktemp("portable")
    weights, config = read_weights(DATA / "mini.safetensors"), read_config(DATA / "mini_config.json")
    made = {}
    for form, precision in [("block", "fp32"), ("portable", "fp32"), ("portable", "fp16"), ("portable", "int8")]:
        name = "block" if form == "block" else precision
        made[name] = folder / f"{name}.onnx"
        model = writer.build(weights, config, form=form, precision=precision)
        made[name].write_bytes(model.SerializeToString())
    return made


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("fp16", 3e-2), ("int8", 0.2)])
def test_the_portable_form_says_what_the_block_form_says(models: dict[str, Path], precision: str, limit: float) -> None:
    signal = probe_signal(2, 6 * CHUNK)
    expected, state = run_chunks(models["block"], signal, chunk=CHUNK)
    found, after = run_chunks(models[precision], signal, chunk=CHUNK, per_run=3)
    assert Drift.between(expected, found).max_prob < limit
    assert state.shape == after.shape
    if precision == "fp32":
        np.testing.assert_allclose(after, state, atol=1e-3)


def test_products_are_in_8_bits(models: dict[str, Path]) -> None:
    import onnx

    nodes = onnx.load(models["int8"]).graph.node
    by_weight = [n.op_type for n in nodes if n.op_type in ("MatMul", "Conv") and n.input[1].endswith("_dq8_1")]
    assert len(by_weight) > 20
    assert {n.domain for n in nodes} == {""}


# OpenVINO 2026.4 crashes on the small model's 128 columns in 8 bits, chunk by chunk; it is tested in float32.
@pytest.mark.parametrize(("engine", "precision", "limit"), [("onnxruntime", "int8", 0.0), ("openvino", "fp32", 1e-4)])
def test_company_and_blocks_change_nothing(
    models: dict[str, Path], engine: str, precision: str, limit: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if engine == "openvino" and not is_installed():
        pytest.skip("needs rechka[openvino]")
    monkeypatch.setenv("RECHKA_BACKEND", engine)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = tone.load({"model": models[precision]}, {}, threads=1)
    assert isinstance(model, tone.ToneModel)
    assert isinstance(model._backend, OrtBackend) == (engine == "onnxruntime")
    audio = (probe_signal(3, 27 * CHUNK) / 32767).astype(np.float32)
    alone = [model.step([one], [model.initial_state()])[0][0].values for one in audio]
    states = [model.initial_state()] * 3
    together: list[list[np.ndarray]] = [[], [], []]
    for i in range(27):
        frames, states = model.step(list(audio[:, i * CHUNK : (i + 1) * CHUNK]), states)
        for stream, frame in zip(together, frames, strict=True):
            stream.append(frame.values)  # type: ignore[attr-defined]
    for one, pieces in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, np.concatenate(pieces), rtol=0, atol=limit)
    mixed, _ = model.step([audio[0], audio[1, : 3 * CHUNK], audio[2, :CHUNK]], [model.initial_state()] * 3)
    for one, frame in zip(alone, mixed, strict=True):
        np.testing.assert_allclose(one[: len(frame.values)], frame.values, rtol=0, atol=limit)  # type: ignore[attr-defined]
