"""GigaAM's predictor and joint network as ONNX graphs, under the names of the reference's own export.

| graph | inputs | outputs |
|---|---|---|
| decoder | ``x`` (B, 1) int64, ``hi``, ``ci`` (layers, B, H) | ``dec`` (B, 1, H), ``ho``, ``co`` |
| joiner | ``enc`` (B, D, 1), ``dec`` (B, H, 1) | ``joint`` (B, 1, 1, V) log-probabilities |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rechka.export.arithmetic import FloatArithmetic
from rechka.export.graph import Graph
from rechka.nn.gigaam_config import GigaAmConfig
from rechka.types import F32

Table = Mapping[str, Any]


def build_decoder(weights: Table, config: GigaAmConfig) -> Any:
    """The predictor of an RNN-T: one token of each item and the LSTM's state to an output and the next state.

    The blank begins a phrase: its embedding is a zero vector here, as in the reference, whatever the checkpoint holds.
    """
    g, hidden = Graph(), config.pred_hidden
    embedding = np.array(weights["head.decoder.embed.weight"], np.float32)
    embedding[config.num_classes - 1] = 0.0
    x = g.transpose(g.op("Gather", g.const(embedding), "x"), 1, 0, 2)
    states = [g.split(name, 0, *[1] * config.pred_layers) for name in ("hi", "ci")]
    after: list[list[str]] = [[], []]
    for layer in range(config.pred_layers):
        kernels = [_gates(weights, f"weight_{part}_l{layer}")[None] for part in ("ih", "hh")]
        biases = [_gates(weights, f"bias_{part}_l{layer}")[None] for part in ("ih", "hh")]
        constants = [g.const(array) for array in (*kernels, np.concatenate(biases, axis=1))]
        given = [state[layer] for state in states]
        out, *following = g.ops("LSTM", x, *constants, "", *given, outputs=3, hidden_size=hidden)
        x = g.op("Squeeze", out, g.ints(1))
        for kept, value in zip(after, following, strict=True):
            kept.append(value)
    g.op("Transpose", x, perm=[1, 0, 2], name="dec")
    for name, parts in zip(("ho", "co"), after, strict=True):
        g.op("Concat", *parts, axis=0, name=name)
    state: tuple[str, list[int | str]] = ("float32", [config.pred_layers, "batch", hidden])
    return g.model(
        "gigaam_decoder",
        {"x": ("int64", ["batch", 1]), "hi": state, "ci": state},
        {"dec": ("float32", ["batch", 1, hidden]), "ho": state, "co": state},
        {"rechka_family": "gigaam"},
    )


def _gates(weights: Table, name: str) -> F32:
    """Torch orders the gates input, forget, cell, output; ONNX input, output, forget, cell."""
    i, f, c, o = np.split(np.asarray(weights[f"head.decoder.lstm.{name}"], np.float32), 4)
    return np.concatenate([i, o, f, c])


def build_joiner(weights: Table, config: GigaAmConfig) -> Any:
    """The joint network of an RNN-T: a frame and a predictor output of each item to log-probabilities."""
    g = Graph()
    plain = FloatArithmetic(g)

    def linear(x: str, name: str) -> str:
        weight, bias = (np.asarray(weights[f"head.joint.{name}.{part}"], np.float32) for part in ("weight", "bias"))
        return plain.linear(x, weight.T, bias)

    parts = [linear(g.transpose(source, 0, 2, 1), name) for source, name in (("enc", "enc"), ("dec", "pred"))]
    both = g.op("Add", g.op("Unsqueeze", parts[0], g.ints(2)), g.op("Unsqueeze", parts[1], g.ints(1)))
    g.op("LogSoftmax", linear(g.op("Relu", both), "joint_net.1"), axis=-1, name="joint")
    return g.model(
        "gigaam_joiner",
        {"enc": ("float32", ["batch", config.d_model, 1]), "dec": ("float32", ["batch", config.pred_hidden, 1])},
        {"joint": ("float32", ["batch", 1, 1, config.num_classes])},
        {"rechka_family": "gigaam"},
    )
