"""GigaAM's encoder and its heads as an ONNX graph, under the names of the reference's own export.

| task | inputs | outputs |
|---|---|---|
| ctc | ``features`` (B, 64, F), ``feature_lengths`` (B,) | ``log_probs`` (B, T, V), ``encoded_lengths`` (B,) |
| rnnt, ssl | ``audio_signal``, ``length`` | ``encoded`` (B, D, T), ``encoded_len`` |
| emo | ``features``, ``feature_lengths`` | ``probs`` (B, C) |

Padding is masked everywhere, so that an item gets in a batch what it gets alone; positions are computed from the
length, so that no input is too long. Standard operations of opset 17, except in 8 bits. Frames of all items are rows of
one matrix wherever a row's result depends on that row alone; in 8 bits each row has a scale of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from onnx import TensorProto, numpy_helper

from rechka.export.arithmetic import FloatArithmetic
from rechka.export.graph import ELEMENT, Graph
from rechka.export.quantize import Int8Arithmetic
from rechka.features.gigaam import NUM_MELS
from rechka.nn.gigaam import MASKED, REL_POS_BASE
from rechka.nn.gigaam_config import GigaAmConfig
from rechka.types import F32

PRECISIONS = ("fp32", "int8")
NORM_EPSILON = 1e-5
LARGE = 1 << 16
"""Constants of more bytes are not compared with the others, and may lie outside the file."""
ALIGNED = 4096
"""Bytes to which outside constants are aligned, so that they can be mapped into memory."""
Table = Mapping[str, Any]
Interface = dict[str, tuple[str, Sequence[int | str]]]


class WeightGraph(Graph):
    """A graph whose large constants are stored as they come, inside it or in a file beside it.

    Args:
        outside: an open file for them; for models beyond the two gigabytes that a protocol buffer may have.
        name: of that file, as the graph refers to it.
    """

    def __init__(self, outside: BinaryIO | None = None, name: str = "") -> None:
        super().__init__()
        self._outside, self._name = outside, name

    def const(self, value: Any, dtype: str = "float32") -> str:
        """Name of a constant."""
        if np.size(value) * np.dtype(dtype).itemsize <= LARGE:
            return super().const(value, dtype)
        array = np.ascontiguousarray(value, dtype)
        name = f"w{len(self._constants)}"
        self._constants[name] = (
            numpy_helper.from_array(array, name) if self._outside is None else self._put(array, name)
        )
        return name

    def _put(self, array: Any, name: str) -> Any:
        assert self._outside is not None
        self._outside.seek(-self._outside.tell() % ALIGNED, 1)
        entries = {"location": self._name, "offset": str(self._outside.tell()), "length": str(array.nbytes)}
        self._outside.write(array.data)
        tensor = TensorProto(name=name, dims=array.shape, data_type=ELEMENT[str(array.dtype)])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        return tensor


def metadata(config: GigaAmConfig, precision: str) -> dict[str, str]:
    """Texts stored in the main graph: what sherpa-onnx asks for, and where the file comes from."""
    texts = {
        "normalize_type": "",
        "subsampling_factor": "4",
        "version": "1",
        "language": "Russian",
        "is_giga_am": "1",
        "url": "https://github.com/salute-developers/GigaAM",
        "comment": f"exported by rechka: {config.name or config.task}, {precision}",
        "rechka_family": "gigaam",
        "rechka_precision": precision,
    }
    if config.task == "ctc":
        texts |= {"model_type": "EncDecCTCModel", "vocab_size": str(config.num_classes)}
    elif config.task == "rnnt":  # here sherpa-onnx counts without the blank
        texts |= {"model_type": "EncDecRNNTBPEModel", "vocab_size": str(config.num_classes - 1)}
        texts |= {"pred_rnn_layers": str(config.pred_layers), "pred_hidden": str(config.pred_hidden)}
    return texts


def build_main(
    weights: Table, config: GigaAmConfig, *, precision: str = "fp32", outside: BinaryIO | None = None, name: str = ""
) -> Any:
    """The ``onnx.ModelProto`` of the encoder, with the head of a CTC or emotion model.

    Args:
        weights: arrays by their published names.
        config: the architecture.
        precision: ``"fp32"``, or ``"int8"``: products in 8 bits, but for the first convolution and the head.
        outside, name: see ``WeightGraph``.
    """
    return _Writer(weights, config, precision, WeightGraph(outside, name)).model()


class _Writer:
    """B items, F feature frames, T frames of 40 ms, R = B * T rows, D width."""

    def __init__(self, weights: Table, config: GigaAmConfig, precision: str, graph: WeightGraph) -> None:
        self.weights, self.config, self.precision, self.graph = weights, config, precision, graph
        self.plain = FloatArithmetic(graph)
        self.fast = Int8Arithmetic(graph) if precision == "int8" else self.plain
        self.batch = self.time = self.valid = self.hidden = self.places = ""

    def get(self, name: str) -> F32:
        return np.asarray(self.weights[name], np.float32)

    # ---- the whole ----

    def model(self) -> Any:
        g, config = self.graph, self.config
        named = ("features", "feature_lengths") if config.task in ("ctc", "emo") else ("audio_signal", "length")
        self.batch = g.op("Shape", named[0], end=1)
        x, lengths = self.subsample(*named)
        self.time = self.size(g.reshape(x, self.batch, -1, config.d_model), 1)
        mask = self.mask(lengths, self.time)
        self.valid = g.reshape(mask, -1, 1)
        absent = g.op("Mul", g.op("Sub", mask, g.const(1.0)), g.const(-MASKED))
        self.hidden = g.reshape(absent, self.batch, 1, 1, -1)
        self.places = self.positions()
        for index in range(config.n_layers):
            x = self.layer(f"encoder.layers.{index}", x)
        outputs = self.head(x, mask, lengths)
        if config.task != "emo":
            counts = "encoded_lengths" if config.task == "ctc" else "encoded_len"
            g.op("Cast", lengths, to=ELEMENT["int32"], name=counts)
            outputs[counts] = ("int32", ["batch"])
        inputs: Interface = {named[0]: ("float32", ["batch", NUM_MELS, "time"]), named[1]: ("int64", ["batch"])}
        return g.model("gigaam", inputs, outputs, metadata(config, self.precision))

    def head(self, x: str, mask: str, lengths: str) -> Interface:
        g, config = self.graph, self.config
        if config.task == "ctc":
            weight, bias = self.get("head.decoder_layers.0.weight")[:, :, 0].T, self.get("head.decoder_layers.0.bias")
            logits = g.reshape(self.plain.linear(x, weight, bias), self.batch, -1, config.num_classes)
            g.op("LogSoftmax", logits, axis=-1, name="log_probs")
            return {"log_probs": ("float32", ["batch", "frames", config.num_classes])}
        frames = g.reshape(x, self.batch, -1, config.d_model)
        if config.task == "emo":  # the mean over what is no padding
            total = g.op("ReduceSum", g.op("Mul", frames, g.op("Unsqueeze", mask, g.ints(2))), g.ints(1), keepdims=0)
            mean = g.op("Div", total, g.reshape(g.cast(lengths, "float32"), -1, 1))
            logits = self.plain.linear(mean, self.get("head.weight").T, self.get("head.bias"))
            g.op("Softmax", logits, axis=-1, name="probs")
            return {"probs": ("float32", ["batch", config.num_classes])}
        g.op("Transpose", frames, perm=[0, 2, 1], name="encoded")
        return {"encoded": ("float32", ["batch", config.d_model, "frames"])}

    # ---- features to frames ----

    def size(self, x: str, axis: int) -> str:
        """One size of ``x`` as (1,) int64."""
        return self.graph.op("Shape", x, start=axis, end=axis + 1)

    def mask(self, lengths: str, size: str) -> str:
        """(B, size) one where a frame is no padding, else zero."""
        g = self.graph
        places = g.op("Range", g.const(0, "int64"), g.op("Squeeze", size), g.const(1, "int64"))
        return g.cast(g.op("Less", g.op("Unsqueeze", places, g.ints(0)), g.reshape(lengths, -1, 1)), "float32")

    def halved(self, lengths: str) -> str:
        g = self.graph
        return g.op("Div", g.op("Add", lengths, g.const(1, "int64")), g.const(2, "int64"))

    def convolve(self, x: str, name: str) -> str:
        """A subsampling convolution in float32."""
        weight, bias = self.get(f"{name}.weight"), self.get(f"{name}.bias")
        pads = [(size - 1) // 2 for size in weight.shape[2:]]
        constants = self.plain.weight(weight), self.plain.weight(bias)
        return self.graph.op("Conv", x, *constants, strides=[2] * len(pads), pads=[*pads, *pads])

    def subsample(self, features: str, lengths: str) -> tuple[str, str]:
        """Rows (R, D) and their numbers (B,)."""
        g, flat = self.graph, self.config.subsampling == "conv1d"
        mask = g.op("Unsqueeze", self.mask(lengths, self.size(features, 2)), g.ints(1))
        x = g.op("Mul", features, mask)
        if not flat:
            x = g.op("Unsqueeze", g.transpose(x, 0, 2, 1), g.ints(1))
        for index in (0, 2):
            lengths = self.halved(lengths)
            name = f"encoder.pre_encode.conv.{index}"
            if index and self.precision == "int8":
                return self.second_in_8_bits(x, name, lengths), lengths
            x = self.convolve(x, name)
            mask = g.op("Unsqueeze", self.mask(lengths, self.size(x, 2)), g.ints(1))
            x = g.op("Relu", g.op("Mul", x, mask if flat else g.op("Unsqueeze", mask, g.ints(3))))
        if flat:
            return g.reshape(g.transpose(x, 0, 2, 1), -1, self.config.d_model), lengths
        rows = g.reshape(g.transpose(x, 0, 2, 1, 3), -1, self.config.d_model * (NUM_MELS // 4))
        return self.linear("encoder.pre_encode.out", rows), lengths

    def second_in_8_bits(self, x: str, name: str, lengths: str) -> str:
        """The second convolution as one matrix product, and the projection after it; to rows (R, D).

        The frames that an output frame sees make one row, which is the unit of quantisation.
        """
        g, dim = self.graph, self.config.d_model
        weight, bias = self.get(f"{name}.weight"), self.get(f"{name}.bias")
        taps, pad = weight.shape[2], (weight.shape[2] - 1) // 2
        if self.config.subsampling == "conv1d":
            frames = g.op("Pad", g.transpose(x, 0, 2, 1), g.ints(0, pad, 0, 0, pad, 0))
            rows, factor = self.fast.encode_windows(frames, taps, 2, dim)
            product = self.fast.multiply(rows, weight.transpose(2, 1, 0).reshape(-1, dim))
            x = self.fast.decode(product, factor, bias)
            return g.op("Relu", g.op("Mul", x, self.row_mask(x, lengths)))
        bands, width = NUM_MELS // 4, (NUM_MELS // 2 + 2 * pad) * dim
        frames = g.op("Pad", g.transpose(x, 0, 2, 3, 1), g.ints(0, pad, pad, 0, 0, pad, pad, 0))
        rows, factor = self.fast.encode_windows(g.reshape(frames, self.batch, -1, width), taps, 2, width)
        rows = g.reshape(rows, -1, taps, width)
        starts = [2 * band * dim for band in range(bands)]
        windows = [g.reshape(g.slice(rows, 2, start, start + taps * dim), -1, 1, taps * taps * dim) for start in starts]
        matrix = weight.transpose(2, 3, 1, 0).reshape(-1, dim)
        product = self.fast.multiply(g.reshape(g.concat(1, *windows), -1, taps * taps * dim), matrix)
        x = self.fast.decode(g.reshape(product, -1, bands * dim), factor, np.tile(bias, bands))
        x = g.op("Relu", g.op("Mul", x, self.row_mask(x, lengths)))
        # The checkpoint's order of inputs is channel-major, the order here is band-major.
        out = self.get("encoder.pre_encode.out.weight").reshape(dim, dim, bands).transpose(2, 1, 0).reshape(-1, dim)
        return self.fast.linear(x, out, self.get("encoder.pre_encode.out.bias"))

    def row_mask(self, rows: str, lengths: str) -> str:
        """(R, 1) for rows (R, any)."""
        g = self.graph
        time = g.op("Div", self.size(rows, 0), self.batch)
        return g.reshape(self.mask(lengths, time), -1, 1)

    # ---- Conformer blocks ----

    def layer(self, name: str, x: str) -> str:
        g = self.graph
        x = g.op("Add", x, self.feed_forward(f"{name}.feed_forward1", self.norm(f"{name}.norm_feed_forward1", x)))
        x = g.op("Add", x, self.attention(f"{name}.self_attn", self.norm(f"{name}.norm_self_att", x)))
        x = g.op("Add", x, self.convolution(f"{name}.conv", self.norm(f"{name}.norm_conv", x)))
        x = g.op("Add", x, self.feed_forward(f"{name}.feed_forward2", self.norm(f"{name}.norm_feed_forward2", x)))
        return self.norm(f"{name}.norm_out", x)

    def norm(self, name: str, x: str) -> str:
        scale, bias = (self.plain.weight(self.get(f"{name}.{part}")) for part in ("weight", "bias"))
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=NORM_EPSILON)

    def linear(self, name: str, x: str, factor: float = 1.0) -> str:
        """A layer of the checkpoint over rows, its result times a factor."""
        bias = self.weights.get(f"{name}.bias")
        bias = None if bias is None else np.float32(factor) * np.asarray(bias, np.float32)
        return self.fast.linear(x, np.float32(factor) * self.get(f"{name}.weight").T, bias)

    def silu(self, x: str) -> str:
        return self.graph.op("Mul", x, self.graph.op("Sigmoid", x))

    def feed_forward(self, name: str, x: str) -> str:
        return self.linear(f"{name}.linear2", self.silu(self.linear(f"{name}.linear1", x)), 0.5)

    def convolution(self, name: str, x: str) -> str:
        g, dim = self.graph, self.config.d_model
        weight, bias = self.get(f"{name}.pointwise_conv1.weight")[:, :, 0].T, self.get(f"{name}.pointwise_conv1.bias")
        value, gate = g.split(self.fast.linear(x, weight, bias), 1, dim, dim)
        gated = g.op("Mul", g.op("Mul", value, g.op("Sigmoid", gate)), self.valid)
        # With a second axis of length one, ONNX Runtime takes its depthwise kernel: several times as fast as in 1-d.
        columns = g.op("Unsqueeze", g.transpose(g.reshape(gated, self.batch, -1, dim), 0, 2, 1), g.ints(2))
        weight, bias = self.depthwise(name)
        pad = (weight.shape[2] - 1) // 2
        constants = self.plain.weight(weight[:, :, None]), self.plain.weight(bias)
        mixed = g.op("Squeeze", g.op("Conv", columns, *constants, group=dim, pads=[0, pad, 0, pad]), g.ints(2))
        rows = g.reshape(g.transpose(mixed, 0, 2, 1), -1, dim)
        if self.config.conv_norm == "layer_norm":
            rows = self.norm(f"{name}.batch_norm", rows)
        weight, bias = self.get(f"{name}.pointwise_conv2.weight")[:, :, 0].T, self.get(f"{name}.pointwise_conv2.bias")
        return self.fast.linear(self.silu(rows), weight, bias)

    def depthwise(self, name: str) -> tuple[F32, F32]:
        """Weight and bias, with the BatchNorm after it worked in if that is what follows."""
        weight, bias = self.get(f"{name}.depthwise_conv.weight"), self.get(f"{name}.depthwise_conv.bias")
        if self.config.conv_norm == "layer_norm":
            return weight, bias
        norm = f"{name}.batch_norm"
        gain = self.get(f"{norm}.weight") / np.sqrt(self.get(f"{norm}.running_var") + np.float32(NORM_EPSILON))
        return weight * gain[:, None, None], (bias - self.get(f"{norm}.running_mean")) * gain + self.get(f"{norm}.bias")

    # ---- attention ----

    def positions(self) -> str:
        """Rotary: cosines and sines (2, T, 1, d / 2). Relative: rows (2 T - 1, D) of distances T - 1 ... 1 - T."""
        g, config = self.graph, self.config
        rotary = config.attention == "rotary"
        depth, base = (
            (config.d_model // config.n_heads, config.position_base) if rotary else (config.d_model, REL_POS_BASE)
        )
        last = g.op("Squeeze", self.time)
        first = g.const(0, "int64") if rotary else g.op("Sub", last, g.const(1, "int64"))
        places = g.op("Range", first, last if rotary else g.op("Neg", last), g.const(1 if rotary else -1, "int64"))
        steps = base ** (-np.arange(0, depth, 2) / depth)
        angles = g.op("Mul", g.reshape(g.cast(places, "float32"), -1, 1), g.const(steps[None]))
        if rotary:
            turns = [g.reshape(g.op(kind, angles), 1, -1, 1, depth // 2) for kind in ("Cos", "Sin")]
            return g.concat(0, *turns)
        pair = [g.op("Unsqueeze", g.op(kind, angles), g.ints(2)) for kind in ("Sin", "Cos")]
        return g.reshape(g.concat(2, *pair), -1, depth)

    def heads(self, x: str) -> str:
        """Rows to (B, T, H, d)."""
        config = self.config
        return self.graph.reshape(x, self.batch, -1, config.n_heads, config.d_model // config.n_heads)

    def attention(self, name: str, x: str) -> str:
        g, dim = self.graph, self.config.d_model
        scale = 1 / math.sqrt(dim // self.config.n_heads)  # worked into the query
        value = g.transpose(self.heads(self.linear(f"{name}.linear_v", x)), 0, 2, 1, 3)
        if self.config.attention == "rotary":
            turned = self.rotated(x)
            query = g.transpose(self.heads(self.linear(f"{name}.linear_q", turned, scale)), 0, 2, 1, 3)
            key = g.transpose(self.heads(self.linear(f"{name}.linear_k", turned)), 0, 2, 3, 1)
            scores = g.op("MatMul", query, key)
        else:
            query = self.heads(self.linear(f"{name}.linear_q", x, scale))
            key = g.transpose(self.heads(self.linear(f"{name}.linear_k", x)), 0, 2, 3, 1)
            biased = [
                g.transpose(g.op("Add", query, g.const(scale * self.get(f"{name}.pos_bias_{part}"))), 0, 2, 1, 3)
                for part in "uv"
            ]
            scores = g.op("Add", g.op("MatMul", biased[0], key), self.relative(name, biased[1]))
        weights = g.op("Softmax", g.op("Add", scores, self.hidden), axis=-1)
        mixed = g.reshape(g.transpose(g.op("MatMul", weights, value), 0, 2, 1, 3), -1, dim)
        return self.linear(f"{name}.linear_out", mixed)

    def rotated(self, x: str) -> str:
        """Rows turned by their positions, head by head."""
        g, config = self.graph, self.config
        half = config.d_model // config.n_heads // 2
        cos, sin = g.split(self.places, 0, 1, 1)
        one, two = g.split(self.heads(x), 3, half, half)
        turned_one = g.op("Sub", g.op("Mul", one, cos), g.op("Mul", two, sin))
        turned_two = g.op("Add", g.op("Mul", two, cos), g.op("Mul", one, sin))
        return g.reshape(g.concat(3, turned_one, turned_two), -1, config.d_model)

    def relative(self, name: str, query: str) -> str:
        """Scores by position: (B, H, T, d) against all distances, each row shifted to begin at its own."""
        g, config = self.graph, self.config
        depth = config.d_model // config.n_heads
        rows = g.reshape(self.linear(f"{name}.linear_pos", self.places), -1, config.n_heads, depth)
        scores = g.op("MatMul", query, g.transpose(rows, 1, 2, 0))  # (B, H, T, 2 T - 1)
        scores = g.op("Pad", scores, g.ints(0, 0, 0, 1, 0, 0, 0, 0))
        scores = g.slice(g.reshape(scores, 0, 0, -1, self.time), 2, 1, None)
        scores = g.reshape(scores, self.batch, config.n_heads, self.time, -1)
        return g.op("Slice", scores, g.ints(0), self.time, g.ints(3))
