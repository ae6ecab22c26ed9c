"""How a graph multiplies matrices: in float32, from float16 weights, or in 8-bit integers.

The integer path quantises every row of the activations by itself (symmetric, scale = largest magnitude / 127) and every
column of the weights by itself. A row's result then depends on that row alone: not on what else is in the batch, nor on
how a recording was cut into blocks. The usual dynamic quantisation takes one scale for the whole tensor and loses that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rechka.export.graph import MICROSOFT, Graph
from rechka.types import F32

LEVELS = 127
ZERO_POINT = 128
TINY = 1e-20
"""Keeps the scale of an all-zero row positive."""


def quantise_columns(weight: F32) -> tuple[NDArray[np.int8], F32]:
    """Symmetric 8-bit weights (K, N) and one scale per column (N,): ``weight`` is about ``values * scale``."""
    scale = np.maximum(np.abs(weight).max(axis=0), TINY) / LEVELS
    return np.rint(weight / scale).clip(-LEVELS, LEVELS).astype(np.int8), scale.astype(np.float32)


@dataclass
class FloatArithmetic:
    """Plain matrix products. With ``half`` the weights are stored as float16 and widened when the graph is loaded.

    Computing stays in float32: float16 arithmetic is no faster on x86 and has been wrong on some ARM builds.
    """

    graph: Graph
    half: bool = False

    def weight(self, array: F32) -> str:
        """A constant of the model's weights, in the width that is stored."""
        if not self.half:
            return self.graph.const(array)
        return self.graph.cast(self.graph.const(array.astype(np.float16), "float16"), "float32")

    def linear(self, x: str, weight: F32, bias: F32 | None = None) -> str:
        """``x @ weight + bias`` of rows (R, K), weight (K, N)."""
        product = self.graph.op("MatMul", x, self.weight(weight))
        return product if bias is None else self.graph.op("Add", product, self.weight(bias))


@dataclass
class Int8Arithmetic(FloatArithmetic):
    """Integer products by ONNX Runtime's own fused operation; rows quantised once however many weights they meet."""

    _rows: dict[str, tuple[str, str]] = field(default_factory=dict)

    def linear(self, x: str, weight: F32, bias: F32 | None = None) -> str:
        """``x @ weight + bias`` of rows (R, K), weight (K, N)."""
        graph = self.graph
        rows, scale = self._quantise(x)
        values, column_scale = quantise_columns(weight)
        product = graph.op(
            "MatMulIntegerToFloat",
            rows,
            graph.const(values, "int8"),
            graph.const(1.0),
            graph.const(column_scale),
            graph.const(ZERO_POINT, "uint8"),
            domain=MICROSOFT,
        )
        product = graph.op("Mul", product, scale)
        return product if bias is None else graph.op("Add", product, graph.const(bias))

    def _quantise(self, x: str) -> tuple[str, str]:
        """Unsigned rows around 128, and the scale of every row (R, 1)."""
        if x not in self._rows:
            graph = self.graph
            peak = graph.op("ReduceMax", graph.op("Abs", x), axes=[1], keepdims=1)
            scale = graph.op("Mul", graph.op("Max", peak, graph.const(TINY)), graph.const(1.0 / LEVELS))
            flat = graph.reshape(scale, -1)
            zero = graph.op("Expand", graph.const(ZERO_POINT, "uint8"), graph.op("Shape", flat))
            self._rows[x] = graph.op("QuantizeLinear", x, flat, zero, axis=0), scale
        return self._rows[x]
