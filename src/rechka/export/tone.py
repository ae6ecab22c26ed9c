"""T-one as an ONNX graph.

One function writes both forms. The published form reads one chunk of 300 ms: ``signal`` int32 [batch, 2400, 1] and
``state`` [batch, 219729] in, ``logprobs`` [batch, 10, 35] and ``state_next`` out. The block form reads any whole number
of chunks in one pass, [batch, 2400 * k, 1], with the same state; what attention may see is built into it, so a block
equals its chunks one by one. Frames of all streams are rows of one matrix wherever a row's result depends on the row
alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from rechka.export.arithmetic import ConvolutionArithmetic, FloatArithmetic
from rechka.export.quantize import Int8Arithmetic
from rechka.export.quantize_static import calibrate, quantise_static
from rechka.export.tone_attention import AttentionParts
from rechka.export.verify import probe_signal
from rechka.features import tone as frontend
from rechka.nn.tone_config import VOCABULARY, ToneConfig
from rechka.types import F32

PRECISIONS = ("fp32", "fp16", "int8")
FORMS = ("block", "published", "portable")
STATES = ("float32", "float16")
LAYERED = ("mhsa", "conv")
"""Parts of the state that have one piece per layer."""
EXACT = ("spectrum", "mel", "scores")
"""Products that stay in float32: the front end, whose values span many powers of ten, and the last one."""
PIECE = 512
"""Inner channels of the gated feed-forward parts computed together: what is between them stays in the cache."""
TOGETHER = (22, 2)
"""Neighbouring frequencies per row of the products that stand for the two subsampling convolutions; measured."""


def metadata(config: ToneConfig, form: str, precision: str) -> dict[str, str]:
    """Texts stored in the file: what sherpa-onnx asks for, and what ``rechka.models.tone`` reads."""
    return {
        "model_type": "t-one",
        "version": "1",
        "language": "Russian",
        "sample_rate": str(frontend.SAMPLE_RATE),
        "frame_length_ms": str(config.chunk_samples * 1000 // frontend.SAMPLE_RATE),
        "state_dim": str(config.state_size),
        "url": "https://github.com/voicekit-team/T-one",
        "comment": f"exported by rechka: {form} form, {precision}",
        "rechka_family": "tone",
        "rechka_form": form,
        "rechka_precision": precision,
        "rechka_config": json.dumps(config.to_dict()),
    }


def build(
    weights: Mapping[str, Any],
    config: ToneConfig,
    *,
    form: str = "block",
    precision: str = "fp32",
    state: str = "float32",
    calibration: NDArray[np.int32] | None = None,
) -> Any:
    """The ``onnx.ModelProto`` of a model.

    Args:
        weights: arrays by un-prefixed name, as ``nn.weights.read_weights`` gives them.
        form: ``"block"`` (any number of chunks, fused operations of ONNX Runtime), ``"published"`` (one chunk,
            standard operations only unless int8) or ``"portable"`` (any number of chunks, standard operations only,
            so written that OpenVINO is fast; the state in one input per part and layer).
        precision: ``"fp32"``, ``"fp16"`` (weights stored in half, computed in float32) or ``"int8"``.
        state: element type of the state, ``"float32"`` or ``"float16"``; the portable form knows float32 only.
        calibration: for the portable form in int8, speech (B, n) as integers of 16 bits, a few seconds or more of what
            the model will meet; None means synthetic sound, which is no substitute for it.
    """
    if (form, precision) != ("portable", "int8"):
        return _Writer(weights, config, form, precision, state).model()
    exact = frozenset(EXACT)
    model = _Writer(weights, config, form, "fp32", state, rounded=True).model()
    signal = probe_signal(2, 20 * config.chunk_samples, seed=5) if calibration is None else calibration
    model = quantise_static(model, calibrate(model, _blocks(signal, config), skip=exact), skip=exact)
    helper.set_model_props(model, metadata(config, form, precision))
    return model


def _blocks(signal: NDArray[np.int32], config: ToneConfig) -> Iterator[dict[str, Any]]:
    """The signal in blocks of at most twenty chunks, each from silence."""
    length = 20 * config.chunk_samples
    whole = signal.shape[1] // config.chunk_samples * config.chunk_samples
    for start in range(0, whole, length):
        part = signal[:, start : min(start + length, whole), None]
        states = {n: np.zeros((len(part), s), np.float32) for n, s in state_inputs(config, "portable").items()}
        yield {"signal": part, **states}


def state_inputs(config: ToneConfig, form: str) -> dict[str, int]:
    """Names and sizes of the inputs that carry the state: one, or in the portable form one per part and layer."""
    if form != "portable":
        return {"state": config.state_size}
    sizes: dict[str, int] = {}
    for part, shape in config.state_shapes.items():
        if part in LAYERED:
            sizes |= {f"state_{part}_{layer}": math.prod(shape[1:]) for layer in range(shape[0])}
        else:
            sizes[f"state_{part}"] = math.prod(shape)
    return sizes


def _part(name: str) -> str:
    """The part of the state that an input of the portable form belongs to."""
    stem = name.removeprefix("state_")
    return next((part for part in LAYERED if stem.startswith(f"{part}_") and stem[len(part) + 1 :].isdigit()), stem)


class _Writer(AttentionParts):
    """The graph of one model: front end, subsampling, encoder, head."""

    def model(self) -> Any:
        """The whole graph as ``onnx.ModelProto``."""
        g, config = self.graph, self.config
        sources = state_inputs(config, self.form)
        self.batch = g.op("Shape", next(iter(sources)), end=1)
        if self.form == "portable":
            for name in sources:
                self.parts.setdefault(_part(name), []).append(name)
        else:
            state = g.cast("state", "float32") if self.state == "float16" else "state"
            sizes = [math.prod(shape) for shape in config.state_shapes.values()]
            for part, whole in zip(config.state_shapes, g.split(state, 1, *sizes), strict=True):
                size = math.prod(config.state_shapes[part])
                count = config.state_shapes[part][0] if part in LAYERED else 1
                self.parts[part] = g.split(whole, 1, *[size // count] * count) if count > 1 else [whole]
        following: dict[str, list[str]] = {name: [] for name in config.state_shapes}
        x = self.subsample(self.features(following), following)
        x = self.encode(x, following)
        head = self.get("decoder.decoder_layers.0.weight")[:, :, 0].T
        bias = self.get("decoder.decoder_layers.0.bias")
        logits = self.exact(x, head, EXACT[2], bias, half=self.precision == "fp16")
        logits = g.reshape(logits, self.batch, -1, config.num_tokens)
        g.op("LogSoftmax", logits, axis=-1, name="logprobs")
        if self.form == "portable":
            pieces = [piece for part in config.state_shapes for piece in following[part]]
            for name, last in zip(sources, pieces, strict=True):
                g.op("Reshape", last, g.op("Concat", self.batch, g.ints(-1), axis=0), name=f"{name}_next")
        else:
            flat = [g.reshape(piece, self.batch, -1) for pieces in following.values() for piece in pieces]
            if self.state == "float16":
                g.op("Cast", g.concat(1, *flat), to=10, name="state_next")
            else:
                g.op("Concat", *flat, axis=1, name="state_next")
        samples: int | str = config.chunk_samples if self.form == "published" else "samples"
        frames: int | str = config.chunk_size if self.form == "published" else "frames"
        return g.model(
            "tone",
            {
                "signal": ("int32", ["batch_size", samples, 1]),
                **{name: (self.state, ["batch_size", size]) for name, size in sources.items()},
            },
            {
                "logprobs": ("float32", ["batch_size", frames, config.num_tokens]),
                **{f"{name}_next": (self.state, ["batch_size", size]) for name, size in sources.items()},
            },
            metadata(config, self.form, self.precision),
        )

    def features(self, following: dict[str, list[str]]) -> str:
        """Log-mel rows (B * F, mels)."""
        g, config = self.graph, self.config
        audio = g.op("Mul", g.cast("signal", "float32"), g.const(1 / frontend.SCALE))
        joined = g.concat(1, self.parts["preprocessing"][0], g.reshape(audio, 0, -1))
        following["preprocessing"] = [g.slice(joined, 1, -frontend.CONTEXT, None)]
        hops = g.reshape(joined, 0, -1, frontend.HOP)
        frames = g.concat(2, g.slice(hops, 1, 0, -1), g.slice(hops, 1, 1, None))
        spectrum = self.exact(g.reshape(frames, -1, frontend.WINDOW), frontend.dft_table(), EXACT[0])
        bins = frontend.WINDOW // 2 + 1
        real, imaginary = g.split(g.op("Mul", spectrum, spectrum), 1, bins, bins)
        power = g.op("Add", real, imaginary)
        mel = g.op("MatMul", power, g.const(frontend.mel_table(config.n_mels)), name=EXACT[1])
        return g.op("Log", g.op("Add", mel, g.const(frontend.LOG_GUARD)))

    def subsample(self, features: str, following: dict[str, list[str]]) -> str:
        """Rows (R, D) of 30 ms from log-mel rows."""
        g, config = self.graph, self.config
        x = self.rms_norm(features, "encoder.pre_encode.pre_norm")
        x = g.reshape(x, self.batch, -1, config.n_mels)
        for index, part in enumerate(("subsampling_1", "subsampling_2")):
            channels, past, mels = config.state_shapes[part]
            cached = self.parts[part][0]
            if self.form != "portable":  # which keeps it as it is used
                cached = g.transpose(g.reshape(cached, 0, channels, past, mels), 0, 2, 3, 1)
            x = g.concat(1, g.reshape(cached, 0, past, mels * channels), x)
            kept = g.slice(x, 1, -past, None)
            if self.form != "portable":
                kept = g.transpose(g.reshape(kept, 0, past, mels, channels), 0, 3, 1, 2)
            following[part] = [kept]
            arithmetic = self.fast if index else self.plain  # the features themselves are not rounded to 8 bits
            x = self.convolve(index, x, arithmetic)
            x = g.reshape(x, self.batch, -1, config.mels_after[index] * config.conv_channels[index])
        x = g.reshape(x, -1, config.mels_after[1] * config.conv_channels[1])
        # The checkpoint's order of inputs is channel-major, the order here is frequency-major.
        weight = self.get("encoder.pre_encode.out.weight").reshape(-1, config.conv_channels[1], config.mels_after[1])
        x = self.fast.linear(x, weight.transpose(2, 1, 0).reshape(-1, config.d_model))
        return self.rms_norm(x, "encoder.pre_encode.out_norm")

    def convolve(self, index: int, x: str, arithmetic: FloatArithmetic) -> str:
        """A subsampling convolution and SiLU as a matrix product: (B, past + T, in) to rows (B * T / stride, out).

        Frames are frequency-major, channel-minor. The frames that an output frame sees make one row, which is also the
        unit of quantisation; from it, windows of frequencies are cut that yield ``together`` neighbouring outputs at
        once. That wastes a few products with zeros and makes the matrices wide enough to be fast.
        """
        g, config = self.graph, self.config
        name = f"encoder.pre_encode.conv.{index}"
        weight, bias = self.fold_batch_norm(f"{name}.0", f"{name}.1")
        out, channels, taps, width = weight.shape
        step, mels = config.conv_strides[index][0], config.mels_after[index]
        if not self.fused and not isinstance(arithmetic, Int8Arithmetic) and (index or self.form == "published"):
            x = g.transpose(g.reshape(x, 0, -1, mels + width - 1, channels), 0, 3, 1, 2)
            x = g.op("Conv", x, arithmetic.weight(weight), arithmetic.weight(bias), strides=[step, 1])
            # Exact, as OpenVINO rounds right behind it, in the convolution itself.
            x = g.op("Mul", x, g.op("Sigmoid", x))
            return g.reshape(g.transpose(x, 0, 2, 3, 1), -1, mels * out)
        together = next(size for size in (TOGETHER[index], 2, 1) if mels % size == 0)
        rows, factor = arithmetic.encode_windows(x, taps, step, (mels + width - 1) * channels)
        span = (together + width - 1) * channels
        rows = g.reshape(rows, -1, taps, (mels + width - 1) * channels)
        starts = range(0, mels * channels, together * channels)
        windows = [g.reshape(g.slice(rows, 2, start, start + span), -1, 1, taps * span) for start in starts]
        matrix = np.zeros((taps, together + width - 1, channels, together, out), np.float32)
        for position in range(together):
            matrix[:, position : position + width, :, position] = weight.transpose(2, 3, 1, 0)
        rows = g.reshape(g.concat(1, *windows), -1, taps * span)
        weight = matrix.reshape(taps * span, together * out)
        if isinstance(self.fast, ConvolutionArithmetic):
            return g.reshape(self.fast.linear(rows, weight, np.tile(bias, together), silu=True), -1, mels * out)
        product = g.reshape(arithmetic.multiply(rows, weight), -1, mels * out)
        return self.silu(arithmetic.decode(product, factor, np.tile(bias, mels)))

    def encode(self, x: str, following: dict[str, list[str]]) -> str:
        """The Conformer blocks over rows (R, D)."""
        g, config = self.graph, self.config
        heard = self.parts["mhsa_len"][0]
        histories, attended = self.parts["conv"], self.parts["mhsa"]
        frames = g.cast(self.length(g.reshape(x, self.batch, -1, config.d_model)), "float32")
        limit = g.const(config.mhsa_state_size)
        following["mhsa_len"] = [g.op("Min", g.op("Add", heard, frames), limit)]
        skip, weights = x, ""
        for index in range(config.n_layers):
            past = attended[index - config.mhsa_stateless_layers] if index in config.stateful_layers else None
            x, weights, normed, history = self.layer(index, x, weights, past, histories[index])
            following["conv"].append(history)
            if normed:
                following["mhsa"].append(normed)
            if index == config.reduction_position:
                skip = x
                x = self.reduce(x, following)
            if index == config.upsample_position:
                pair = g.reshape(x, -1, 1, config.d_model)
                x = g.op("Add", g.reshape(g.concat(1, pair, pair), -1, config.d_model), skip)
        return x

    def layer(self, index: int, x: str, weights: str, past: str | None, history: str) -> tuple[str, str, str, str]:
        """One block: rows, attention weights to share, what attention and convolution remember."""
        name = f"encoder.layers.{index}"
        normed = self.rms_norm(x, f"{name}.norm_feed_forward1")
        normed, x = self.add_norm(x, *self.feed_forward(normed, f"{name}.feed_forward1"), f"{name}.norm_self_att")
        out, bias, weights, kept = self.attention(index, normed, weights, past)
        normed, x = self.add_norm(x, out, bias, f"{name}.norm_conv")
        out, bias, history = self.convolution(normed, f"{name}.conv", history)
        normed, x = self.add_norm(x, out, bias, f"{name}.norm_feed_forward2")
        x, _ = self.add_norm(x, *self.feed_forward(normed, f"{name}.feed_forward2"), f"{name}.norm_out", last=True)
        return x, weights, kept, history

    def feed_forward(self, x: str, name: str) -> tuple[str, F32 | None]:
        """Half of the gated feed-forward, and its last bias if it is not yet added."""
        g, linear = self.graph, self.fast.linear
        gates, values = (self.get(f"{name}.{part}.weight").T for part in ("linear1", "linearv"))
        gate_bias, value_bias = (self.get(f"{name}.{part}.bias") for part in ("linear1", "linearv"))
        inner = len(gate_bias)
        size = PIECE if self.form == "portable" and inner % PIECE == 0 else inner
        pieces = []
        for start in range(0, inner, size):
            piece = slice(start, start + size)
            gate = linear(x, gates[:, piece], gate_bias[piece])
            value = linear(x, values[:, piece], value_bias[piece])
            if self.form == "portable":
                # So that no engine works the SiLU into the product before it.
                pieces.append(g.op("Mul", g.op("Mul", gate, value), self.sigmoid(gate)))
            else:
                pieces.append(g.op("Mul", self.silu(gate), value))
        return self.last(
            g.concat(1, *pieces), 0.5 * self.get(f"{name}.linear2.weight").T, 0.5 * self.get(f"{name}.linear2.bias")
        )

    def convolution(self, x: str, name: str, history: str) -> tuple[str, F32 | None, str]:
        """The convolution module, its last bias if not yet added, and its history (B, D, kernel - 1)."""
        g, config = self.graph, self.config
        dim, past = config.d_model, config.conv_kernel_size - 1
        weight, bias = self.get(f"{name}.pointwise_conv1.weight")[:, :, 0].T, self.get(f"{name}.pointwise_conv1.bias")
        value = self.fast.linear(x, weight[:, :dim], bias[:dim])
        gate = self.fast.linear(x, weight[:, dim:], bias[dim:])
        gated = g.reshape(g.op("Mul", value, self.sigmoid(gate)), self.batch, -1, dim)
        weight, bias = self.fold_batch_norm(f"{name}.depthwise_conv.conv", f"{name}.batch_norm")
        if self.form == "portable":  # the history frame by frame, as all is: no transposition moves anything
            joined = g.concat(1, g.reshape(history, 0, past, dim), gated)
            kept = g.slice(joined, 1, -past, None)
            planes = g.transpose(g.op("Unsqueeze", joined, g.ints(1)), 0, 3, 1, 2)
            constants = self.plain.weight(weight[:, :, None]), self.plain.weight(bias)
            mixed = g.transpose(self.silu(g.op("Conv", planes, *constants, group=dim)), 0, 2, 3, 1)
        else:
            joined = g.concat(2, g.reshape(history, 0, dim, past), g.transpose(gated, 0, 2, 1))
            kept = g.slice(joined, 2, -past, None)
            mixed = g.transpose(self.silu(self.depthwise(joined, weight, bias)), 0, 2, 1)
        weight, bias = self.get(f"{name}.pointwise_conv2.weight")[:, :, 0].T, self.get(f"{name}.pointwise_conv2.bias")
        return *self.last(g.reshape(mixed, -1, dim), weight, bias), kept

    def depthwise(self, x: str, weight: F32, bias: F32) -> str:
        """(B, D, kernel - 1 + T) to (B, D, T)."""
        g, group = self.graph, len(weight)
        if not self.fused:
            return g.op("Conv", x, self.plain.weight(weight), self.plain.weight(bias), group=group)
        # With a second axis of length one, ONNX Runtime takes its depthwise kernel: several times as fast as in 1-d.
        constants = self.plain.weight(weight[:, :, None]), self.plain.weight(bias)
        return g.op("Squeeze", g.op("Conv", g.op("Unsqueeze", x, g.ints(2)), *constants, group=group), g.ints(2))

    def reduce(self, x: str, following: dict[str, list[str]]) -> str:
        """Pairs of rows to one. The depthwise and the pointwise convolution are one matrix: nothing is between them."""
        g, config = self.graph, self.config
        dim = config.d_model
        depthwise = self.get("encoder.temportal_reduction.conv.weight")[:, 0]  # (4 D, 3)
        pointwise = self.get("encoder.temportal_reduction.conv_pw.weight")[:, :, 0]  # (D, 4 D)
        grouped = pointwise.reshape(dim, dim, -1), depthwise.reshape(dim, -1, depthwise.shape[1])
        weight = np.einsum("oim,imt->tio", *grouped).reshape(-1, dim)
        bias = self.get("encoder.temportal_reduction.conv_pw.bias") + pointwise @ self.get(
            "encoder.temportal_reduction.conv.bias"
        )
        frames = g.reshape(x, self.batch, -1, dim)
        following["reduction"] = [g.slice(frames, 1, -1, None)]
        before = g.concat(1, g.reshape(self.parts["reduction"][0], 0, 1, dim), g.slice(frames, 1, 1, -1, step=2))
        taps = g.concat(2, before, g.reshape(frames, self.batch, -1, 2 * dim))
        return self.fast.linear(g.reshape(taps, -1, 3 * dim), weight, bias)


def tokens_text() -> str:
    """``tokens.txt`` as sherpa-onnx wants it: a symbol and its id per line."""
    return "".join(f"{symbol} {index}\n" for index, symbol in enumerate([*VOCABULARY, "<blk>"]))
