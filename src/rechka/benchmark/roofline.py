"""What this CPU can do at best: its speed in matrix products, measured now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from rechka.backends.openvino import is_installed

TONE_GFLOP = 4.29
"""Arithmetic of T-one per second of audio, 2.146 G multiply-adds: counted layer by layer over the published sizes."""
ROWS, INNER, OUTER, LAYERS = 400, 384, 1536, 8
"""The products of the feed-forward parts, two thirds of the model, for forty chunks of 300 ms."""

Run = Callable[[], Any]


def peaks(rounds: int = 15) -> dict[str, float]:
    """Highest speed of matrix products on one core, in G operations per second of CPU time, by precision.

    The best of ONNX Runtime and OpenVINO, whose products take turns: ``fp32``, ``int8``, and ``bf16`` where
    the CPU has it.
    """
    runs: list[tuple[str, Run]] = []
    for precision, model in (("fp32", _products(in_8_bits=False)), ("int8", _products(in_8_bits=True))):
        runs.append((precision, _onnxruntime(model)))
        if is_installed():
            runs.append((precision, _openvino(model, "f32")))
    if is_installed() and has_bf16():
        runs.append(("bf16", _openvino(_products(in_8_bits=False), "bf16")))
    for _, run in runs:
        run()
    best: dict[str, float] = {}
    operations = 2.0 * ROWS * INNER * OUTER * LAYERS
    for _ in range(rounds):
        for precision, run in runs:
            start = time.process_time()
            run()
            speed = operations / (time.process_time() - start) / 1e9
            best[precision] = max(best.get(precision, 0.0), speed)
    return best


def has_bf16() -> bool:
    """Whether OpenVINO finds bfloat16 on this CPU."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _products(*, in_8_bits: bool) -> ModelProto:
    """A chain of products, wide and narrow by turns."""
    generator = np.random.default_rng(0)
    constants = [numpy_helper.from_array(np.float32(0.05), "s"), numpy_helper.from_array(np.uint8(128), "z")]
    nodes, x = [], "x"
    for i in range(LAYERS):
        shape = (INNER, OUTER) if i % 2 == 0 else (OUTER, INNER)
        if in_8_bits:
            constants += [
                numpy_helper.from_array(generator.integers(-127, 128, shape).astype(np.int8), f"w{i}"),
                numpy_helper.from_array(np.full(shape[1], 1e-3, np.float32), f"s{i}"),
            ]
            nodes += [
                helper.make_node("QuantizeLinear", [x, "s", "z"], [f"q{i}"]),
                helper.make_node("DequantizeLinear", [f"q{i}", "s", "z"], [f"d{i}"]),
                helper.make_node("DequantizeLinear", [f"w{i}", f"s{i}"], [f"v{i}"], axis=1),
                helper.make_node("MatMul", [f"d{i}", f"v{i}"], [f"y{i}"]),
            ]
        else:
            weight = generator.standard_normal(shape).astype(np.float32) / 30
            constants.append(numpy_helper.from_array(weight, f"w{i}"))
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"y{i}"]))
        x = f"y{i}"
    graph = helper.make_graph(
        nodes, "peak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, INNER])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [ROWS, INNER])], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _input() -> Any:
    return np.random.default_rng(1).standard_normal((ROWS, INNER)).astype(np.float32)


def _onnxruntime(model: ModelProto) -> Run:
    from rechka.backends.ort import OrtBackend

    backend, x = OrtBackend(model.SerializeToString(), threads=1), _input()
    return lambda: backend.run({"x": x})


def _openvino(model: ModelProto, precision: str) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings).create_infer_request()
    x = _input()
    return lambda: request.infer({"x": x}, share_inputs=True, share_outputs=True)
