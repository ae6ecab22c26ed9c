"""Weights stored in half: the file shrinks, names stay, the answer is the rounded weights' answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from rechka.backends.ort import OrtBackend  # noqa: E402
from rechka.export.half import halve  # noqa: E402


def graph(path: Path, weight: np.ndarray, bias: np.ndarray) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["x", "model.w"], ["p"]), helper.make_node("Add", ["p", "model.b"], ["y"])]
    whole = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(weight)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [numpy_helper.from_array(weight, "model.w"), numpy_helper.from_array(bias, "model.b")],
    )  # fmt: skip
    onnx.save(helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))
    return path


def test_large_weights_are_halved_and_small_ones_stay(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(64, 64)).astype(np.float32), rng.normal(size=64).astype(np.float32)
    whole = graph(tmp_path / "a.onnx", weight, bias)
    assert halve(whole, tmp_path / "b.onnx") == 1
    assert (tmp_path / "b.onnx").stat().st_size < 0.6 * whole.stat().st_size
    kinds = {t.name: t.data_type for t in onnx.load(str(tmp_path / "b.onnx")).graph.initializer}
    assert kinds == {"model.w": onnx.TensorProto.FLOAT16, "model.b": onnx.TensorProto.FLOAT}
    x = rng.normal(size=(5, 64)).astype(np.float32)
    got = OrtBackend(tmp_path / "b.onnx", threads=1).run({"x": x})["y"]
    np.testing.assert_allclose(got, x @ weight.astype(np.float16).astype(np.float32) + bias, atol=1e-4)
    assert np.abs(got - (x @ weight + bias)).max() > 1e-5  # it was rounded indeed
    assert halve(tmp_path / "b.onnx", tmp_path / "c.onnx") == 0  # what is half stays
