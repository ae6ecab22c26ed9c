"""How a graph multiplies matrices: in float32, from float32 or float16 weights. ``quantize`` has the 8-bit way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rechka.export.graph import Graph
from rechka.types import F32


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

    def encode(self, x: str) -> tuple[str, str]:
        """Rows (R, K) as they are multiplied, and a factor (R, 1) that the product still needs, or an empty name."""
        return x, ""

    def encode_windows(self, frames: str, count: int, step: int, width: int) -> tuple[str, str]:
        """``count`` consecutive frames of (B, T, width) side by side every ``step`` frames, as rows, encoded."""
        taps = [self._tap(frames, index, count, step, width) for index in range(count)]
        return self.graph.concat(1, *taps), ""

    def _tap(self, frames: str, index: int, count: int, step: int, width: int) -> str:
        end = index - count + 1
        return self.graph.reshape(self.graph.slice(frames, 1, index, end or None, step), -1, width)

    def multiply(self, rows: str, weight: F32) -> str:
        """Encoded rows times a weight (K, N)."""
        return self.graph.op("MatMul", rows, self.weight(weight))

    def decode(self, product: str, factor: str, bias: F32 | None) -> str:
        """The product with its factor and the bias."""
        if factor:
            product = self.graph.op("Mul", product, factor)
        return product if bias is None else self.graph.op("Add", product, self.weight(bias))

    def linear(self, x: str, weight: F32, bias: F32 | None = None) -> str:
        """``x @ weight + bias`` of rows (R, K), weight (K, N)."""
        rows, factor = self.encode(x)
        return self.decode(self.multiply(rows, weight), factor, bias)


@dataclass
class ConvolutionArithmetic(FloatArithmetic):
    """Products with weights as convolutions of one tap over an image of one line, a row being a pixel.

    OpenVINO lays such an image out pixel by pixel, so the transpositions around it move nothing, and its 8-bit
    convolution is 10 to 15 % faster than its product of the same size.
    """

    def linear(self, x: str, weight: F32, bias: F32 | None = None) -> str:
        """``x @ weight + bias`` of rows (R, K), weight (K, N)."""
        graph = self.graph
        image = graph.transpose(graph.reshape(x, 1, 1, -1, len(weight)), 0, 3, 1, 2)
        constants = [self.weight(np.ascontiguousarray(weight.T)[:, :, None, None])]
        if bias is not None:
            constants.append(self.weight(bias))
        out = graph.op("Conv", image, *constants)
        return graph.reshape(graph.transpose(out, 0, 2, 3, 1), -1, weight.shape[1])
