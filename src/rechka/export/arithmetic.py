"""How a graph multiplies matrices: in float32, from float32 or float16 weights. ``quantize`` has the 8-bit way."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    def add(self, x: str, change: str, width: int) -> str:
        """The sum of rows (R, width)."""
        return self.graph.op("Add", x, change)

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

    images: dict[str, str] = field(default_factory=dict)
    """The image behind rows that came from one."""

    def linear(
        self, x: str, weight: F32, bias: F32 | None = None, *, silu: bool = False, name: str | None = None
    ) -> str:
        """``x @ weight + bias`` of rows (R, K), weight (K, N); with ``silu`` right behind it, for engines to join.

        ``name``: of the convolution's result.
        """
        graph = self.graph
        image = graph.transpose(graph.reshape(x, 1, 1, -1, len(weight)), 0, 3, 1, 2)
        constants = [self.weight(np.ascontiguousarray(weight.T)[:, :, None, None])]
        if bias is not None:
            constants.append(self.weight(bias))
        out = graph.op("Conv", image, *constants, name=name)
        return self.rows(graph.op("Mul", out, graph.op("Sigmoid", out)) if silu else out, weight.shape[1])

    def add(self, x: str, change: str, width: int) -> str:
        """The sum of rows (R, width), where possible without leaving the image."""
        if change not in self.images:
            return self.graph.op("Add", x, change)
        image = self.images.get(x)
        if image is None:
            image = self.graph.transpose(self.graph.reshape(x, 1, 1, -1, width), 0, 3, 1, 2)
        return self.rows(self.graph.op("Add", image, self.images[change]), width)

    def rows(self, image: str, width: int) -> str:
        """Rows (R, width) of an image (1, width, 1, R)."""
        made = self.graph.reshape(self.graph.transpose(image, 0, 2, 3, 1), -1, width)
        self.images[made] = image
        return made
