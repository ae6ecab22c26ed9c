"""What every part of T-one's graph is written with: its weights, products, norms and activations, by form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rechka.export.arithmetic import ConvolutionArithmetic, FloatArithmetic
from rechka.export.graph import MICROSOFT, Graph
from rechka.export.quantize import Int8Arithmetic
from rechka.nn.tone_config import ToneConfig
from rechka.types import F32

RMS_GUARD = 1e-8
BATCH_NORM_EPSILON = 1e-5
SIGMOID_END = 7.0
SIGMOID = (0.24762925, -0.018240314, 0.0011952062, -5.0979942e-5, 1.2834697e-6, -1.7166605e-8, 9.3619881e-11)
"""x P(x * x) + 1/2 is the sigmoid within 0.001 if x is held within SIGMOID_END: the least largest error (Lawson).

That is a quarter of the smallest step that 8 bits can tell; without exponential and division it is much faster."""


class Parts:
    """The graph of one model while it is written. Shapes: B streams, T frames of 30 ms, R = B * T rows, D width."""

    batch: str
    """Name of the number of streams, (1,) int64."""

    def __init__(
        self, weights: Mapping[str, Any], config: ToneConfig, form: str, precision: str, state: str,
        *, rounded: bool = False,
    ) -> None:  # fmt: skip
        """``rounded``: what stands between the products will be rounded to 8 bits, and need not be more exact."""
        self.config = config
        self.rounded = rounded
        self.form, self.precision, self.state = form, precision, state
        self.graph = Graph()
        self.fused = form == "block"
        plain = FloatArithmetic(self.graph, half=precision == "fp16")
        self.plain = plain
        self.fast = (
            ConvolutionArithmetic(self.graph, half=precision == "fp16")
            if form == "portable"
            else Int8Arithmetic(self.graph) if precision == "int8" else plain
        )  # fmt: skip
        self.weights = weights
        self.parts: dict[str, list[str]] = {}

    def get(self, name: str) -> F32:
        """A weight by its un-prefixed name, float32."""
        return np.asarray(self.weights[name], np.float32)

    def length(self, x: str) -> str:
        """T of (B, T, ...) as (1,) int64."""
        return self.graph.op("Shape", x, start=1, end=2)

    def linear(self, name: str, x: str) -> str:
        """A linear layer of the checkpoint over rows."""
        return self.fast.linear(x, self.get(f"{name}.weight").T, self.get(f"{name}.bias"))

    def exact(self, x: str, weight: F32, name: str, bias: F32 | None = None, *, half: bool = False) -> str:
        """A product that stays in float32, under a name by which it is known; ``half``: how its weights are stored."""
        if self.form == "portable":
            return ConvolutionArithmetic(self.graph, half=half).linear(x, weight, bias, name=name)
        arithmetic = FloatArithmetic(self.graph, half=half)
        return arithmetic.decode(self.graph.op("MatMul", x, arithmetic.weight(weight), name=name), "", bias)

    def last(self, x: str, weight: F32, bias: F32) -> tuple[str, F32 | None]:
        """The last product of a part, and its bias if that is still to be added."""
        if isinstance(self.fast, ConvolutionArithmetic):
            return self.fast.linear(x, weight, bias), None
        return self.fast.linear(x, weight), bias

    def fold_batch_norm(self, conv: str, norm: str) -> tuple[F32, F32]:
        """A convolution's weight and bias with the BatchNorm after it worked in."""
        gain = self.get(f"{norm}.weight") / np.sqrt(self.get(f"{norm}.running_var") + BATCH_NORM_EPSILON)
        weight = self.get(f"{conv}.weight")
        bias = (self.get(f"{conv}.bias") - self.get(f"{norm}.running_mean")) * gain + self.get(f"{norm}.bias")
        return weight * gain.reshape(-1, *([1] * (weight.ndim - 1))), bias

    def silu(self, x: str) -> str:
        """x * sigmoid(x)."""
        if self.fused:
            return self.graph.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0)
        return self.graph.op("Mul", x, self.sigmoid(x))

    def sigmoid(self, x: str) -> str:
        """Exact, or the polynomial where what follows is rounded to 8 bits."""
        g = self.graph
        if not self.rounded:
            return g.op("Sigmoid", x)
        x = g.op("Clip", x, g.const(-SIGMOID_END), g.const(SIGMOID_END))
        square = g.op("Mul", x, x)
        fourth = g.op("Mul", square, square)
        # By halves, so that steps need not wait for each other.
        pairs = [self.multiply_add(square, g.const(SIGMOID[i + 1]), g.const(SIGMOID[i])) for i in (0, 2, 4)]
        low = self.multiply_add(fourth, pairs[1], pairs[0])
        high = self.multiply_add(fourth, g.const(SIGMOID[6]), pairs[2])
        total = self.multiply_add(high, g.op("Mul", fourth, fourth), low)
        return self.multiply_add(total, x, g.const(0.5))

    def multiply_add(self, one: str, other: str, third: str) -> str:
        """one * other + third."""
        return self.graph.op("Add", self.graph.op("Mul", one, other), third)

    def rms_norm(self, x: str, name: str) -> str:
        """RMSNorm over the last axis, written as the engine of the form knows it."""
        g, weight = self.graph, self.graph.const(self.get(f"{name}.weight"))
        if self.fused:
            # ONNX Runtime keeps this one in the default domain. Its guard is inside the root, hence the square.
            return g.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=RMS_GUARD**2)
        if self.form == "portable":  # the usual way to write it, which OpenVINO knows as one operation
            mean = g.op("ReduceMean", g.op("Pow", x, g.const(2.0)), axes=[-1], keepdims=1)
            root = g.op("Sqrt", g.op("Add", mean, g.const(RMS_GUARD**2)))
            return g.op("Mul", g.op("Mul", x, g.op("Div", g.const(1.0), root)), weight)
        norm = g.op("ReduceL2", x, axes=[-1], keepdims=1)
        rms = g.op("Mul", norm, g.const(1 / math.sqrt(len(self.get(f"{name}.weight")))))
        return g.op("Mul", g.op("Div", x, g.op("Add", rms, g.const(RMS_GUARD))), weight)

    def add_norm(self, x: str, change: str, bias: F32 | None, name: str, *, last: bool = False) -> tuple[str, str]:
        """RMSNorm(x + change + bias), and the sum itself unless it is the last use."""
        g = self.graph
        if not self.fused:
            if bias is not None:
                change = g.op("Add", change, self.plain.weight(bias))
            total = self.fast.add(x, change, self.config.d_model)
            return self.rms_norm(total, name), total
        assert bias is not None
        weight = g.const(self.get(f"{name}.weight"))
        normed, total = f"n_{name}", "" if last else f"s_{name}"
        g.ops(
            "SkipSimplifiedLayerNormalization", x, change, weight, g.const(bias), outputs=4, domain=MICROSOFT,
            names=[normed] if last else [normed, "", "", total], epsilon=RMS_GUARD**2,
        )  # fmt: skip
        return normed, total
