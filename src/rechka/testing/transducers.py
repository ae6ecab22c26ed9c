"""Transducers with random weights in icefall's ONNX layout: small, meaningless, exact in names, shapes and metadata.

Both sherpa-onnx and ``rechka.models.zipformer`` load what ``write_transducer`` writes, so that their tokens can be
compared without a trained model. The encoder is no zipformer inside: a convolution over time, ``depth`` feed-forward
layers, and every state mixed in with weights of its own, so that a state that is lost, late or another stream's changes
the tokens. Needs ``onnx``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.export.graph import Graph

KINDS = ("offline", "zipformer2", "zipformer", "conformer", "lstm")
BANDS = 80
CONTEXT = 2
_SYLLABLES = [a + b for a in "бвгдклмнпрст" for b in "аеио"]
PIECES = (
    "<blk>", "<sos/eos>", "<unk>",
    *(f"\u2581{text}" for text in _SYLLABLES[:24]), *_SYLLABLES[24:], *"аеиоуыьй", "\u2581",
)  # fmt: skip
"""Sixty pieces, word starts with U+2581."""

State = tuple[str, tuple[int | str, ...], str]
"""Name, shape with "N" for the batch, dtype."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """Feature frames of a chunk, and how many of them are new."""

    length: int
    shift: int


_CHUNKS = {
    "zipformer2": Chunking(45, 32),
    "zipformer": Chunking(39, 32),
    "conformer": Chunking(41, 32),
    "lstm": Chunking(9, 4),
}


def write_transducer(
    folder: Path,
    kind: str,
    *,
    seed: int = 0,
    width: int = 16,
    depth: int = 0,
    layers: int = 2,
    left: int = 8,
    spread: float = 12.0,
    blank: float = 16.0,
    names: str = "{}.onnx",
    tokens: str = "tokens.txt",
) -> Path:
    """Write ``encoder``, ``decoder``, ``joiner`` and the token table.

    Args:
        folder: where to; made if absent.
        kind: one of ``KINDS``.
        seed: of the weights.
        width: of the encoder and the joiner, a multiple of 4.
        depth: feed-forward layers of the encoder, each of 8 width^2 weights.
        layers: layers that have states.
        left: left context of the states, in frames.
        spread: of the logits; the larger, the farther apart are the best two.
        blank: added to the blank's logit.
        names: of the graphs, relative to the folder.
        tokens: of the table, relative to the folder.
    """
    rng = np.random.default_rng(seed)
    graphs = {
        "encoder": _encoder(rng, kind, width, depth, layers, left),
        "decoder": _decoder(rng, width),
        "joiner": _joiner(rng, width, spread, blank),
    }
    for role, model in graphs.items():
        path = folder / names.format(role)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
    table = folder / tokens
    table.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{symbol} {i}" for i, symbol in enumerate((*PIECES, "#0", "#1"))]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _encoder(rng: np.random.Generator, kind: str, width: int, depth: int, layers: int, left: int) -> Any:
    graph = Graph()
    chunks = _CHUNKS.get(kind)
    kernel = 9 if chunks is None else chunks.length - chunks.shift + 4  # exactly a frame per four new ones
    weights = _normal(rng, (width, BANDS, kernel), 1 / np.sqrt(BANDS * kernel))
    weights -= weights.mean(axis=2, keepdims=True)  # hears what changes, so that frames differ
    hidden = graph.op("Conv", graph.transpose("x", 0, 2, 1), graph.const(weights), strides=[4])
    ones, zeros = graph.const(np.ones(width)), graph.const(np.zeros(width))
    hidden = graph.op("LayerNormalization", graph.transpose(hidden, 0, 2, 1), ones, zeros, epsilon=0.01)
    for _ in range(depth):
        up = graph.op("MatMul", hidden, graph.const(_normal(rng, (width, 4 * width), 1 / np.sqrt(width))))
        down = graph.const(_normal(rng, (4 * width, width), 0.3 / np.sqrt(width)))
        hidden = graph.op("Add", hidden, graph.op("MatMul", graph.op("Relu", up), down))
    if depth:
        hidden = graph.op("LayerNormalization", hidden, ones, zeros, epsilon=0.01)
    inputs: dict[str, tuple[str, tuple[int | str, ...]]] = {"x": ("float32", ("N", "T", BANDS))}
    outputs: dict[str, tuple[str, tuple[int | str, ...]]] = {"encoder_out": ("float32", ("N", "frames", width))}
    metadata: dict[str, Any] = {"version": "1", "model_author": "rechka", "comment": "random weights"}
    if chunks is None:
        metadata["model_type"] = "zipformer2"
        inputs["x_lens"] = ("int64", ("N",))
        outputs["encoder_out_lens"] = ("int64", ("N",))
        beyond = graph.op("Sub", "x_lens", graph.const(9, "int64"))
        whole = graph.op("Div", beyond, graph.const(4, "int64"))
        graph.op("Add", whole, graph.const(1, "int64"), name="encoder_out_lens")
    else:
        states, more = _states(kind, width, layers, left)
        metadata |= {"model_type": kind, "T": chunks.length, "decode_chunk_len": chunks.shift} | more
        inputs["x"] = ("float32", ("N", chunks.length, BANDS))
        for name, shape, dtype in states:
            inputs[name] = (dtype, shape)
        mixer = _Mixer(graph, rng, width, 1.0 / np.sqrt(len(states)))
        for name, shape, dtype in states:
            if name == "processed_lens" and kind == "conformer":  # counted by whoever runs the graph
                hidden = mixer.count(name, hidden)
                continue
            outputs[f"new_{name}"] = (dtype, shape)
            if dtype == "int64":
                hidden = mixer.count(name, hidden)
                graph.op("Add", name, graph.const(chunks.shift // 2, "int64"), name=f"new_{name}")
            else:
                hidden = mixer.state(name, shape, hidden)
    graph.op("Identity", hidden, name="encoder_out")
    return graph.model("encoder", inputs, outputs, {key: str(value) for key, value in metadata.items()})


def _states(kind: str, width: int, layers: int, left: int) -> tuple[list[State], dict[str, Any]]:
    """States and the rest of the metadata, as icefall's export scripts of that kind write them."""
    if kind == "conformer":
        attention: State = ("cached_attn", (layers, left, "N", width), "float32")
        convolution: State = ("cached_conv", (layers, 30, "N", width), "float32")
        conformer: dict[str, Any] = {
            "num_encoder_layers": layers, "left_context": left, "encoder_dim": width, "pad_length": 9,
            "cnn_module_kernel": 31,
        }  # fmt: skip
        return [attention, convolution, ("processed_lens", ("N",), "int64")], conformer
    if kind == "lstm":
        both: list[State] = [("h", (layers, "N", width), "float32"), ("c", (layers, "N", 2 * width), "float32")]
        return both, {"num_encoder_layers": layers, "rnn_hidden_size": 2 * width, "d_model": width}
    kernels = [31, 15]
    groups = [layers - layers // 2, layers // 2]
    context = [left, max(1, left // 2)]
    more: dict[str, Any] = {
        "num_encoder_layers": _commas(groups), "encoder_dims": _commas([width, width]),
        "cnn_module_kernels": _commas(kernels), "left_context_len": _commas(context),
    }  # fmt: skip
    states: list[State] = []
    if kind == "zipformer":
        shapes: dict[str, Any] = {
            "cached_len": lambda g, c, k: ((g, "N"), "int64"),
            "cached_avg": lambda g, c, k: ((g, "N", width), "float32"),
            "cached_key": lambda g, c, k: ((g, c, "N", width), "float32"),
            "cached_val": lambda g, c, k: ((g, c, "N", width // 2), "float32"),
            "cached_val2": lambda g, c, k: ((g, c, "N", width // 2), "float32"),
            "cached_conv1": lambda g, c, k: ((g, "N", width, k - 1), "float32"),
            "cached_conv2": lambda g, c, k: ((g, "N", width, k - 1), "float32"),
        }
        for name, shape in shapes.items():
            for i, sizes in enumerate(zip(groups, context, kernels, strict=True)):
                states.append((f"{name}_{i}", *shape(*sizes)))
        return states, more | {"attention_dims": _commas([width, width])}
    more |= {"query_head_dims": "4,4", "value_head_dims": "3,3", "num_heads": "2,2"}
    place = 0
    for group, length, kernel in zip(groups, context, kernels, strict=True):
        for _ in range(group):
            states += [
                (f"cached_key_{place}", (length, "N", 8), "float32"),
                (f"cached_nonlin_attn_{place}", (1, "N", length, 3 * width // 4), "float32"),
                (f"cached_val1_{place}", (length, "N", 6), "float32"),
                (f"cached_val2_{place}", (length, "N", 6), "float32"),
                (f"cached_conv1_{place}", ("N", width, kernel // 2), "float32"),
                (f"cached_conv2_{place}", ("N", width, kernel // 2), "float32"),
            ]
            place += 1
    return [*states, ("embed_states", ("N", 128, 3, 19), "float32"), ("processed_lens", ("N",), "int64")], more


@dataclass(frozen=True, slots=True)
class _Mixer:
    """Mixes states into frames (N, T, width) and frames into states, with weights of their own for every element."""

    graph: Graph
    rng: np.random.Generator
    width: int
    share: float
    """How much one state moves the frames."""

    def state(self, name: str, shape: tuple[int | str, ...], hidden: str) -> str:
        """Frames that have heard of a state; the state after them becomes the output ``new_<name>``."""
        graph, rng = self.graph, self.rng
        axis = shape.index("N")
        order = [axis, *(i for i in range(len(shape)) if i != axis)]
        sizes = [int(size) for size in shape if size != "N"]
        total = int(np.prod(sizes))
        flat = graph.reshape(graph.transpose(name, *order), -1, total)
        heard = graph.op("Tanh", graph.op("MatMul", flat, graph.const(_normal(rng, (total, 1), 4 / np.sqrt(total)))))
        told = graph.op("MatMul", heard, graph.const(_normal(rng, (1, self.width), self.share)))
        last = graph.op("ReduceMean", hidden, axes=[1], keepdims=0)
        news = graph.op("Tanh", graph.op("MatMul", last, graph.const(_normal(rng, (self.width, 1), 1.0))))
        kept = graph.op("Mul", flat, graph.const(0.6))
        after = graph.op("Add", kept, graph.op("MatMul", news, graph.const(_normal(rng, (1, total), 0.4))))
        back = [order.index(i) for i in range(len(shape))]
        graph.op("Transpose", graph.reshape(after, -1, *sizes), perm=back, name=f"new_{name}")
        return graph.op("Add", hidden, graph.op("Unsqueeze", told, graph.ints(1)))

    def count(self, name: str, hidden: str) -> str:
        """Frames that depend on a counter, (N,) or (layers, N)."""
        graph = self.graph
        number = graph.cast(name, "float32")
        if name.startswith("cached_len"):
            number = graph.op("ReduceMean", number, axes=[0], keepdims=0)
        wave = graph.op("Sin", graph.op("Mul", graph.reshape(number, -1, 1, 1), graph.const(0.013)))
        weights = _normal(self.rng, (1, 1, self.width), self.share)
        return graph.op("Add", hidden, graph.op("Mul", wave, graph.const(weights)))


def _decoder(rng: np.random.Generator, width: int) -> Any:
    """Embedding of the last two tokens, zeros for -1, a weight per place, ReLU, projection."""
    graph = Graph()
    table = graph.const(_normal(rng, (len(PIECES), width), 1.0))
    zero = graph.const(0, "int64")
    embedded = graph.op("Gather", table, graph.op("Max", "y", zero))
    there = graph.cast(graph.op("Sub", graph.const(1, "int64"), _negative(graph, "y")), "float32")
    embedded = graph.op("Mul", embedded, graph.op("Unsqueeze", there, graph.ints(2)))
    placed = graph.op("Mul", embedded, graph.const(_normal(rng, (1, CONTEXT, width), 1.0)))
    summed = graph.op("Relu", graph.op("ReduceSum", placed, graph.ints(1), keepdims=0))
    graph.op("MatMul", summed, graph.const(_normal(rng, (width, width), 1.2 / np.sqrt(width))), name="decoder_out")
    return graph.model(
        "decoder",
        {"y": ("int64", ("N", CONTEXT))},
        {"decoder_out": ("float32", ("N", width))},
        {"context_size": str(CONTEXT), "vocab_size": str(len(PIECES))},
    )


def _negative(graph: Graph, name: str) -> str:
    return graph.cast(graph.op("Less", name, graph.const(0, "int64")), "int64")


def _joiner(rng: np.random.Generator, width: int, spread: float, blank: float) -> Any:
    graph = Graph()
    bias = np.zeros(len(PIECES))
    bias[0] = blank
    bias[1] = -1000.0  # nobody trains <sos/eos> to come out
    both = graph.op("Tanh", graph.op("Add", "encoder_out", "decoder_out"))
    scores = graph.op("MatMul", both, graph.const(_normal(rng, (width, len(PIECES)), spread / np.sqrt(width))))
    graph.op("Add", scores, graph.const(bias), name="logit")
    return graph.model(
        "joiner",
        {"encoder_out": ("float32", ("N", width)), "decoder_out": ("float32", ("N", width))},
        {"logit": ("float32", ("N", len(PIECES)))},
        {"joiner_dim": str(width)},
    )


def _normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> NDArray[np.float32]:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def _commas(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))
