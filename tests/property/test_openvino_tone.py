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
        np.testing.assert_allclose(in_published_order(after), state, atol=1e-3)


def in_published_order(state: np.ndarray) -> np.ndarray:
    """The portable form's state, which lies frame by frame, channels last, as the other forms have it."""
    config = read_config(DATA / "mini_config.json")
    pieces, start = [], 0
    for part, shape in config.state_shapes.items():
        size = int(np.prod(shape))
        piece = state[:, start : start + size]
        if part == "conv":
            layers, width, past = shape
            piece = piece.reshape(-1, layers, past, width).transpose(0, 1, 3, 2)
        elif part.startswith("subsampling"):
            channels, past, mels = shape
            piece = piece.reshape(-1, past, mels, channels).transpose(0, 3, 1, 2)
        pieces.append(piece.reshape(len(state), -1))
        start += size
    return np.concatenate(pieces, axis=1)


def test_products_are_in_8_bits(models: dict[str, Path]) -> None:
    import onnx

    nodes = onnx.load(models["int8"]).graph.node
    by_weight = [n.op_type for n in nodes if n.op_type in ("MatMul", "Conv") and "_dq8_" in n.input[1]]
    assert len(by_weight) > 20
    assert {n.domain for n in nodes} == {""}


@pytest.mark.parametrize(
    ("engine", "precision", "limit"),
    [
        ("onnxruntime", "fp32", 1e-4),
        ("onnxruntime", "int8", 0.0),
        ("openvino", "fp32", 1e-4),
        ("openvino", "int8", 0.0),
    ],
)
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
    audio = (probe_signal(3, 37 * CHUNK) / 32767).astype(np.float32)
    alone = [model.step([one], [model.initial_state()])[0][0].values for one in audio]
    states = [model.initial_state()] * 3
    together: list[list[np.ndarray]] = [[], [], []]
    for i in range(37):  # alone in blocks of 30, 6 and 1, together one by one
        frames, states = model.step(list(audio[:, i * CHUNK : (i + 1) * CHUNK]), states)
        for stream, frame in zip(together, frames, strict=True):
            stream.append(frame.values)  # type: ignore[attr-defined]
    for one, pieces in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, np.concatenate(pieces), rtol=0, atol=limit)
    mixed, _ = model.step([audio[0], audio[1, : 3 * CHUNK], audio[2, :CHUNK]], [model.initial_state()] * 3)
    for one, frame in zip(alone, mixed, strict=True):
        np.testing.assert_allclose(one[: len(frame.values)], frame.values, rtol=0, atol=limit)  # type: ignore[attr-defined]


@pytest.mark.skipif(not is_installed(), reason="needs rechka[openvino]")
def test_prepared_shapes_are_all_that_live_streams_and_files_need(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECHKA_BACKEND", "openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = tone.load({"model": models["fp32"]}, {}, threads=1)
    assert isinstance(model, tone.ToneModel)
    model.prepare(16)
    compiled = set(model._backend._compiled)  # type: ignore[attr-defined]
    assert len(compiled) == len(tone.FIXED_RUNS)
    for streams, chunks in [(1, 1), (1, 43), (2, 1), (7, 1), (16, 1), (16, 2), (3, 8)]:
        audio = [np.zeros(chunks * CHUNK, np.float32)] * streams
        model.step(audio, [model.initial_state()] * streams)
    assert set(model._backend._compiled) == compiled  # type: ignore[attr-defined]


def test_rows_that_nobody_fills_and_states_of_before_change_nothing(models: dict[str, Path]) -> None:
    """Memory that is used again and again holds what others left there."""
    if not is_installed():
        pytest.skip("needs rechka[openvino]")
    from rechka.backends.openvino import OpenVinoBackend

    backend = OpenVinoBackend(models["int8"], threads=1)
    model = tone.ToneModel(backend, runs=((4, 1), (1, 1)))
    audio = (probe_signal(4, CHUNK) / 32767).astype(np.float32)
    fresh = [model.initial_state()] * 3
    frames, states = model.step(list(audio[:3]), fresh)
    kept = [[part.copy() for part in state.parts] for state in states]
    values = [frame.values.copy() for frame in frames]  # type: ignore[attr-defined]
    for _ in range(3):
        model.step(list(audio[::-1]), [*states, states[0]])
    ones = {
        name: np.ones((4, *(size or CHUNK for size in shape[1:])), kind)
        for name, (shape, kind) in backend.inputs.items()
    }
    for _ in range(backend._streams):  # ``run`` leaves its caller's arrays in every request
        backend.run(ones)
    for state, parts in zip(states, kept, strict=True):
        for part, copy in zip(state.parts, parts, strict=True):
            np.testing.assert_array_equal(part, copy)
    again, _ = model.step(list(audio[:3]), fresh)
    for frame, first, value in zip(again, frames, values, strict=True):
        np.testing.assert_array_equal(frame.values, value)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(first.values, value)  # type: ignore[attr-defined]
