"""Matrix products in 8-bit integers whose results do not depend on company.

Every row of the activations is quantised by itself (symmetric, scale = largest magnitude / 127), and every column of
the weights. A row's result then depends on that row alone: not on what else is in the batch, nor on how a recording was
cut into blocks. The usual dynamic quantisation takes one scale for the whole tensor and loses that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from rechka.export.arithmetic import FloatArithmetic
from rechka.export.graph import MICROSOFT, Graph
from rechka.types import F32

LEVELS = 127
ZERO_POINT = 128
TINY = 1e-20
"""Keeps the scale of an all-zero row positive."""
MIN_SIZE = 1024
"""Weights smaller than this stay as they are: nothing is gained."""


def quantise_columns(weight: F32) -> tuple[NDArray[np.int8], F32]:
    """Symmetric 8-bit weights (K, N) and one scale per column (N,): ``weight`` is about ``values * scale``."""
    scale = np.maximum(np.abs(weight).max(axis=0), TINY) / LEVELS
    return np.rint(weight / scale).clip(-LEVELS, LEVELS).astype(np.int8), scale.astype(np.float32)


@dataclass
class Int8Arithmetic(FloatArithmetic):
    """Integer products by ONNX Runtime's own fused operation; rows quantised once however many weights they meet."""

    _rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    _columns: dict[str, tuple[str, str]] = field(default_factory=dict)

    def encode(self, x: str) -> tuple[str, str]:
        """Unsigned 8-bit rows around 128, and the scale of every row."""
        if x not in self._rows:
            scale = self._scale(self.graph.op("ReduceMax", self.graph.op("Abs", x), axes=[1], keepdims=1))
            self._rows[x] = self._quantise(x, scale), scale
        return self._rows[x]

    def encode_windows(self, frames: str, count: int, step: int, width: int) -> tuple[str, str]:
        """As for floats; a row's scale is that of its loudest frame, so that no float row of all frames is written."""
        graph = self.graph
        peaks = graph.op("ReduceMax", graph.op("Abs", frames), axes=[2], keepdims=0)
        peaks = graph.op("MaxPool", graph.op("Unsqueeze", peaks, graph.ints(1)), kernel_shape=[count], strides=[step])
        scale = self._scale(graph.reshape(peaks, -1, 1))
        taps = [self._quantise(self._tap(frames, index, count, step, width), scale) for index in range(count)]
        return graph.concat(1, *taps), scale

    def _scale(self, peaks: str) -> str:
        """Scales (R, 1) from the largest magnitudes."""
        graph = self.graph
        return graph.op("Mul", graph.op("Max", peaks, graph.const(TINY)), graph.const(1.0 / LEVELS))

    def _quantise(self, x: str, scale: str) -> str:
        graph = self.graph
        if scale not in self._columns:
            flat = graph.reshape(scale, -1)
            zero = graph.op("Expand", graph.const(ZERO_POINT, "uint8"), graph.op("Shape", flat))
            self._columns[scale] = flat, zero
        return graph.op("QuantizeLinear", x, *self._columns[scale], axis=0)

    def multiply(self, rows: str, weight: F32) -> str:
        """Integer product with the columns' scales worked in, the rows' not yet."""
        graph = self.graph
        values, scale = quantise_columns(weight)
        factors = (graph.const(1.0), graph.const(scale), graph.const(ZERO_POINT, "uint8"))
        return graph.op("MatMulIntegerToFloat", rows, graph.const(values, "int8"), *factors, domain=MICROSOFT)


def quantise_products(model: ModelProto, *, skip: frozenset[str] = frozenset()) -> ModelProto:
    """A copy of any graph with its products by constant matrices in 8 bits, whatever exporter wrote it.

    Args:
        model: float32 graph; its ``MatMul`` nodes with a constant (K, N) right side are replaced.
        skip: names of nodes to leave alone.
    """
    quantised = ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    writer = Graph(prefix="q8_")
    arithmetic = Int8Arithmetic(writer)
    nodes = []
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" and node.name not in skip else None
        if weight is None or len(weight.dims) != 2 or int(np.prod(weight.dims)) < MIN_SIZE:
            nodes.append(node)
            continue
        _replace(writer, arithmetic, node, np.asarray(numpy_helper.to_array(weight), np.float32))
        nodes.extend(writer.take_nodes())
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *writer.constants])
    if MICROSOFT not in {entry.domain for entry in quantised.opset_import}:
        quantised.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return quantised


def _replace(writer: Graph, arithmetic: Int8Arithmetic, node: Any, weight: F32) -> None:
    x = node.input[0]
    rows = writer.reshape(x, -1, weight.shape[0])
    product = arithmetic.linear(rows, weight)
    shape = writer.concat(0, writer.op("Shape", x, end=-1), writer.ints(weight.shape[1]))
    writer.op("Reshape", product, shape, name=node.output[0])
