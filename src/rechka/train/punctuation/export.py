"""The trained network as an ONNX graph whose weights are stored in 8 bits and computed with as floats.

Activations stay floats: a scale taken from all words of an input would make a word's marks depend on words far away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from rechka.errors import BadModelFile
from rechka.export.graph import Graph, check_model
from rechka.text.punctuation import CASES, MARKS, PAUSE_EDGES_S
from rechka.text.word_hashes import BEGINNINGS, ENDINGS
from rechka.train.punctuation.net import Layer, NetOptions, PunctuationNet
from rechka.types import F32

LEVELS = 127
Ports: TypeAlias = "dict[str, tuple[str, Sequence[int | str]]]"


def load(checkpoint: Path) -> PunctuationNet:
    """The network of a checkpoint, in evaluation mode."""
    found = torch.load(checkpoint, weights_only=True)
    net = PunctuationNet(NetOptions(**found["options"]))
    net.load_state_dict(found["net"])
    return net.eval()


def export(net: PunctuationNet, path: Path, notes: dict[str, str]) -> float:
    """Write the graph.

    Args:
        net: in evaluation mode.
        path: of the file.
        notes: put into its metadata.
    Returns:
        The largest difference of a probability from torch on 300 random words.
    """
    graph = Graph()
    found = graph.concat(
        1, _rows(graph, _array(net.words.weight), "words"),
        graph.op("ReduceSum", _rows(graph, _array(net.pieces.weight), "pieces"), graph.ints(1), keepdims=0),
    )  # fmt: skip
    entered = _linear(graph, found, net.enter)
    x = graph.op("Add", entered, _rows(graph, _array(net.pauses.weight), "pauses"))
    for layer in net.layers:
        x = _layer(graph, x, layer)
    x = _linear(graph, _norm(graph, x, net.norm), net.leave)
    num = len(MARKS)
    for name, first, end in (("marks", 0, num), ("cases", num, num + len(CASES))):
        graph.op("LogSoftmax", graph.slice(x, 1, first, end), name=name, axis=-1)
    model = _model(graph, net.options, notes)
    check_model(model)
    path.write_bytes(model.SerializeToString())
    return _difference(net, path)


def _array(weight: torch.Tensor) -> F32:
    return weight.detach().numpy().astype(np.float32)


def _rows(graph: Graph, table: F32, index: str) -> str:
    """Rows of a table of which each has its own scale."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / LEVELS
    values = graph.op("Gather", graph.const(np.rint(table / scale), "int8"), index)
    values = graph.cast(values, "float32")
    return graph.op("Mul", values, graph.op("Gather", graph.const(scale), index))


def _linear(graph: Graph, x: str, linear: torch.nn.Linear) -> str:
    weight = _array(linear.weight).T  # (in, out), one scale a column
    scale = np.maximum(np.abs(weight).max(axis=0, keepdims=True), 1e-12) / LEVELS
    values = graph.cast(graph.const(np.rint(weight / scale), "int8"), "float32")
    product = graph.op("MatMul", x, graph.op("Mul", values, graph.const(scale)))
    return graph.op("Add", product, graph.const(_array(linear.bias)))


def _norm(graph: Graph, x: str, norm: torch.nn.LayerNorm) -> str:
    return graph.op(
        "LayerNormalization", x, graph.const(_array(norm.weight)), graph.const(_array(norm.bias)), epsilon=norm.eps
    )


def _layer(graph: Graph, x: str, layer: Layer) -> str:
    padded = graph.op("Pad", _norm(graph, x, layer.norm), graph.ints(layer.behind, 0, layer.ahead, 0))
    taps = _array(layer.taps)
    last = len(taps) - 1
    mixed = ""
    for tap, weight in enumerate(taps):
        part = graph.slice(padded, 0, tap, tap - last if tap < last else None)
        part = graph.op("Mul", part, graph.const(weight))
        mixed = graph.op("Add", mixed, part) if mixed else part
    value, gate = graph.split(_linear(graph, mixed, layer.up), -1, *[taps.shape[1]] * 2)
    gated = graph.op("Mul", value, graph.op("Sigmoid", gate))
    return graph.op("Add", x, _linear(graph, gated, layer.down))


def _model(graph: Graph, options: NetOptions, notes: dict[str, str]) -> Any:
    pieces = len(BEGINNINGS) + len(ENDINGS)
    about = {
        "kind": "rechka.punctuation", "marks": json.dumps(MARKS, ensure_ascii=False), "cases": json.dumps(CASES),
        "pause_edges_s": json.dumps(PAUSE_EDGES_S), "behind": str(options.layers * options.behind),
        "look_ahead": str(options.look_ahead), "sizes": json.dumps(asdict(options)), **notes,
    }  # fmt: skip
    inputs: Ports = {"words": ("int64", ["N"]), "pieces": ("int64", ["N", pieces]), "pauses": ("int64", ["N"])}
    outputs: Ports = {"marks": ("float32", ["N", len(MARKS)]), "cases": ("float32", ["N", len(CASES)])}
    return graph.model("punctuation", inputs, outputs, about)


def _difference(net: PunctuationNet, path: Path) -> float:
    import onnxruntime

    rng = np.random.default_rng(0)
    words, pieces = rng.integers(1, net.words.num_embeddings, 300), rng.integers(0, net.pieces.num_embeddings, (300, 8))
    pauses = rng.integers(0, net.pauses.num_embeddings, 300)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    marks, cases = session.run(["marks", "cases"], {"words": words, "pieces": pieces, "pauses": pauses})
    with torch.no_grad():
        feeds = (torch.from_numpy(array)[None] for array in (words, pieces, pauses))
        scores = net(*feeds, torch.ones(1, 300))[0]
    num = len(MARKS)
    expected = [scores[:, :num].softmax(-1).numpy(), scores[:, num:].softmax(-1).numpy()]
    worst = max(float(np.abs(np.exp(a) - b).max()) for a, b in zip((marks, cases), expected, strict=True))
    if not worst < 0.5:
        raise BadModelFile(f"the graph differs from the network by {worst:.3f}", remedy="this is a fault of the export")
    return worst
