"""T-one's weights as inference on a device wants them: norms folded into products, products put together.

- Weights of RMSNorm go into the product behind it, BatchNorm into the convolution before it, the factor one half of the
  feed-forward parts into their second product.
- The first subsampling convolution, whose single input channel would leave matrix units idle, becomes one product over
  windows of frames (a banded matrix, three times the arithmetic of 1.5 % of the model); the second one keeps its form.
- The reduction's two convolutions become one matrix.
- Biases of products that add to the residual stream are kept apart and summed up, see ``rechka.nn.fused``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rechka.features import tone as frontend
from rechka.nn.fused import Depthwise, HeadNorms, Linear, rows_in_8_bits
from rechka.nn.tone import Tone, rotary_table
from rechka.nn.tone_config import ToneConfig
from rechka.nn.weights import check_names

Array = NDArray[Any]
Fold = NDArray[np.float64]

BATCH_NORM_GUARD = 1e-5


@dataclass(frozen=True, slots=True)
class Front:
    """Audio to frames. ``bands`` is the first convolution as a product, ``second`` the second one with its bias."""

    dft: Tensor
    mel: Tensor
    norm: Tensor
    bands: Linear
    second: tuple[Tensor, Tensor]
    out: Linear
    out_norm: Tensor


@dataclass(frozen=True, slots=True)
class FeedForward:
    """``inner`` gives gate and value side by side."""

    inner: Linear
    outer: Linear


@dataclass(frozen=True, slots=True)
class Attention:
    """Products of one layer's attention.

    Attributes:
        inner: queries, keys and values side by side; values alone where scores are those of the layer before.
        norms: where scores are computed.
        norm: weight of the RMSNorm before, where its output is remembered; elsewhere None: it is in ``inner``.
        outer: after the attention.
        table: cosines and sines of the keys' positions, where scores are computed.
    """

    inner: Linear
    norms: HeadNorms | None
    norm: Tensor | None
    outer: Linear
    table: tuple[Tensor, Tensor] | None


@dataclass(frozen=True, slots=True)
class Layer:
    """A Conformer block. ``shifts``: sums of residual biases before its second, third, fourth part and its end."""

    first: FeedForward
    attention: Attention
    gated: Linear
    depthwise: Depthwise
    pointwise: Linear
    second: FeedForward
    norm: Tensor
    shifts: tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Net:
    """All of the model on a device, in ``dtype``; what the front end computes with stays in float32."""

    config: ToneConfig
    dtype: torch.dtype
    in_8_bits: bool
    front: Front
    layers: tuple[Layer, ...]
    reduction: Linear
    head: Linear


class _Maker:
    """Reads arrays by name and puts tensors on a device."""

    def __init__(
        self, arrays: Mapping[str, Array], config: ToneConfig, device: torch.device, dtype: torch.dtype, in_8_bits: bool
    ) -> None:
        self.arrays, self.config, self.device, self.dtype, self.in_8_bits = arrays, config, device, dtype, in_8_bits

    def get(self, name: str) -> Fold:
        return np.asarray(self.arrays[name], np.float64)

    def tensor(self, array: Any, dtype: torch.dtype | None = None) -> Tensor:
        return torch.from_numpy(np.array(array, np.float64)).to(self.device, dtype or self.dtype).contiguous()

    def linear(self, weight: Fold, bias: Fold | None, in_8_bits: bool = False) -> Linear:
        made = self.tensor(weight, torch.float32 if in_8_bits else None)
        return Linear(
            rows_in_8_bits(made) if in_8_bits else made, None if bias is None else self.tensor(bias)
        )  # fmt: skip

    def batch_norm(self, name: str) -> tuple[Fold, Fold]:
        """Factor and offset per channel."""
        factor = self.get(f"{name}.weight") / np.sqrt(self.get(f"{name}.running_var") + BATCH_NORM_GUARD)
        return factor, self.get(f"{name}.bias") - self.get(f"{name}.running_mean") * factor

    def front(self) -> Front:
        config, at = self.config, "encoder.pre_encode"
        kernels = []
        for index in range(2):
            factor, offset = self.batch_norm(f"{at}.conv.{index}.1")
            kernel = self.get(f"{at}.conv.{index}.0.weight") * factor[:, None, None, None]
            kernels.append((kernel, self.get(f"{at}.conv.{index}.0.bias") * factor + offset))
        (first, bias), (second, second_bias) = kernels
        # Rows: frequency, then channel; columns: frame of the window, then mel.
        channels, _, taps, width = first.shape
        rows = config.mels_after[0]
        bands = np.zeros((rows, channels, taps, config.n_mels))
        for row in range(rows):
            bands[row, :, :, row : row + width] = first[:, 0]
        out = self.get(f"{at}.out.weight").reshape(config.d_model, config.conv_channels[1], config.mels_after[1])
        return Front(
            dft=self.tensor(frontend.dft_table(), torch.float32),
            mel=self.tensor(frontend.mel_table(config.n_mels), torch.float32),
            norm=self.tensor(self.get(f"{at}.pre_norm.weight"), torch.float32),
            bands=self.linear(bands.reshape(rows * channels, -1), np.tile(bias, rows)),
            second=(
                self.tensor(second).contiguous(memory_format=torch.channels_last), self.tensor(second_bias)
            ),
            out=self.linear(out.transpose(0, 2, 1).reshape(config.d_model, -1), None),
            out_norm=self.tensor(self.get(f"{at}.out_norm.weight"), torch.float32),
        )  # fmt: skip

    def feed_forward(self, at: str, norm: Fold) -> tuple[FeedForward, Fold]:
        """The part, and the bias that it leaves to be added."""
        inner = np.concatenate([self.get(f"{at}.linear1.weight"), self.get(f"{at}.linearv.weight")]) * norm
        bias = np.concatenate([self.get(f"{at}.linear1.bias"), self.get(f"{at}.linearv.bias")])
        outer = self.linear(0.5 * self.get(f"{at}.linear2.weight"), None, self.in_8_bits)
        return FeedForward(self.linear(inner, bias, self.in_8_bits), outer), 0.5 * self.get(f"{at}.linear2.bias")

    def attention(self, index: int) -> tuple[Attention, Fold]:
        config, at = self.config, f"encoder.layers.{index}.self_attn"
        stateful, computes = index in config.stateful_layers, config.recompute_scores[index]
        norm = self.get(f"encoder.layers.{index}.norm_self_att.weight")
        names = ("q", "k", "v") if computes else ("v",)
        weight = np.concatenate([self.get(f"{at}.linear_{name}.weight") for name in names])
        bias = np.concatenate([self.get(f"{at}.linear_{name}.bias") for name in names])
        norms = table = None
        if computes:
            weights, biases = (
                [self.tensor(self.get(f"{at}.{name}.{what}"), torch.float32) for name in ("q_ln", "k_ln")]
                for what in ("weight", "bias")
            )
            norms = HeadNorms(*zip(weights, biases, strict=True))
            rate = 2 if config.slow(index) else 1
            keys = (config.chunk_size + (config.mhsa_state_size if stateful else 0)) // rate
            cos, sin = rotary_table(keys, config.rope_dim)
            table = (cos.to(self.device), sin.to(self.device))
        inner = self.linear(weight if stateful else weight * norm, bias, self.in_8_bits and not stateful)
        outer = self.linear(self.get(f"{at}.linear_out.weight"), None)
        kept = self.tensor(norm, torch.float32) if stateful else None
        return Attention(inner, norms, kept, outer, table), self.get(f"{at}.linear_out.bias")

    def layer(self, index: int) -> Layer:
        at = f"encoder.layers.{index}"
        first, bias_1 = self.feed_forward(f"{at}.feed_forward1", self.get(f"{at}.norm_feed_forward1.weight"))
        attention, bias_2 = self.attention(index)
        second, bias_4 = self.feed_forward(f"{at}.feed_forward2", self.get(f"{at}.norm_feed_forward2.weight"))
        factor, offset = self.batch_norm(f"{at}.conv.batch_norm")
        taps = self.get(f"{at}.conv.depthwise_conv.conv.weight")[:, 0] * factor[:, None]
        bias = self.get(f"{at}.conv.depthwise_conv.conv.bias") * factor + offset
        gated = self.get(f"{at}.conv.pointwise_conv1.weight")[:, :, 0] * self.get(f"{at}.norm_conv.weight")
        pointwise = self.linear(self.get(f"{at}.conv.pointwise_conv2.weight")[:, :, 0], None)
        sums = np.cumsum([bias_1, bias_2, self.get(f"{at}.conv.pointwise_conv2.bias"), bias_4], axis=0)
        one, two, three, four = (self.tensor(row, torch.float32) for row in sums)
        return Layer(
            first, attention,
            self.linear(gated, self.get(f"{at}.conv.pointwise_conv1.bias"), self.in_8_bits),
            Depthwise(self.tensor(taps.T, torch.float32), self.tensor(bias, torch.float32)),
            pointwise, second, self.tensor(self.get(f"{at}.norm_out.weight"), torch.float32), (one, two, three, four),
        )  # fmt: skip

    def reduction(self) -> Linear:
        at, dim = "encoder.temportal_reduction", self.config.d_model
        wide = self.get(f"{at}.conv.weight")[:, 0]  # (multiplier * D, taps), the outputs of a channel side by side
        narrow = self.get(f"{at}.conv_pw.weight")[:, :, 0]
        matrix = np.einsum("ocm,cmt->otc", narrow.reshape(dim, dim, -1), wide.reshape(dim, -1, wide.shape[1]))
        bias = narrow @ self.get(f"{at}.conv.bias") + self.get(f"{at}.conv_pw.bias")
        return self.linear(matrix.reshape(dim, -1), bias)


def make_net(
    arrays: Mapping[str, Array],
    config: ToneConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    in_8_bits: bool = False,
) -> Net:
    """The model on a device.

    Args:
        arrays: a checkpoint by name, as ``read_weights`` gives it.
        config: its architecture.
        device: where it is to run.
        dtype: of weights, frames and what is remembered of streams.
        in_8_bits: the feed-forward parts, and the products behind a norm, in e4m3 with a scale per row.
    Raises:
        BadModelFile: names or shapes of another architecture.
    """
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in Tone(config).state_dict().items()}
    counters = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    check_names(
        counters, {k: v for k, v in expected.items() if not k.endswith("num_batches_tracked")}, what="the checkpoint"
    )
    make = _Maker(arrays, config, device, dtype, in_8_bits)
    head = make.get("decoder.decoder_layers.0.weight")[:, :, 0]
    return Net(
        config, dtype, in_8_bits, make.front(), tuple(make.layer(index) for index in range(config.n_layers)),
        make.reduction(), make.linear(head, make.get("decoder.decoder_layers.0.bias")),
    )  # fmt: skip


def arithmetic(config: ToneConfig) -> float:
    """Multiply-adds per chunk of one stream as this form computes them; the original counts a few per cent less."""
    frames, dim, hidden = config.chunk_size, config.d_model, config.d_model * config.ff_expansion_factor
    mels, (rows, rows_2) = config.n_mels, config.mels_after
    channels, channels_2 = config.conv_channels
    (taps, _), (taps_2, width_2) = config.conv_kernels
    total = 3.0 * frames * (frontend.WINDOW * (frontend.WINDOW + 2) + (frontend.WINDOW // 2 + 1) * mels)
    total += (3 * frames + taps_2 - 3) * taps * mels * rows * channels
    total += frames * rows_2 * channels_2 * (channels * taps_2 * width_2 + dim)
    for index in range(config.n_layers):
        count = frames // 2 if config.slow(index) else frames
        left = (config.mhsa_state_size * count // frames) if index in config.stateful_layers else 0
        keys = count + left
        total += count * 6 * dim * hidden + count * (3 + 1) * dim * dim  # feed-forward; convolution and attention's out
        total += count * dim * (config.conv_kernel_size + keys)
        total += keys * dim * dim + (config.recompute_scores[index] and (count + keys) * dim * dim + count * keys * dim)
    total += math.ceil(frames / 2) * config.reduction_kernel_size * dim * dim
    return total + frames * dim * config.num_tokens


def num_weights(config: ToneConfig) -> int:
    """Parameters of the original: 71.7 M as published."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Tone(config).parameters())
