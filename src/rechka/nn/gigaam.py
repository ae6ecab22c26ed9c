"""GigaAM in torch: encoder of v1 (relative positions), v2, v3 and multilingual (rotary), heads CTC, RNN-T and emotion.

Names of parameters and buffers are those of the published checkpoints. Frames beyond an item's length never reach its
valid frames, so a batch gives what each item gets alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rechka.errors import BadModelFile

NUM_MELS = 64
TASKS = ("ctc", "rnnt", "ssl", "emo")


@dataclass(frozen=True, slots=True)
class GigaAmConfig:
    """Sizes of a model; defaults are those that v1 and v2 configurations leave out.

    Attributes:
        task: ``ctc``, ``rnnt``, ``ssl`` or ``emo``.
        layers, dim, heads: of the encoder.
        attention: ``rotary`` or ``rel_pos``.
        subsampling: ``conv2d`` or ``conv1d``; ``subsampling_kernel`` its kernel.
        conv_kernel, conv_norm: of the convolution module; ``batch_norm`` or ``layer_norm``.
        expansion: of the feed-forward modules.
        positions: base of the rotary angles, and the longest input in frames of 40 ms.
        classes: outputs of the head, blank included; 0 without a head.
        hidden, joint: width of the RNN-T's predictor and joiner.
    """

    task: str
    layers: int = 16
    dim: int = 768
    heads: int = 16
    attention: str = "rotary"
    subsampling: str = "conv2d"
    subsampling_kernel: int = 3
    conv_kernel: int = 31
    conv_norm: str = "batch_norm"
    expansion: int = 4
    positions: int = 5000
    classes: int = 0
    hidden: int = 320
    joint: int = 320

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> GigaAmConfig:
        """Read the sections of a checkpoint's ``cfg``; only the last part of a ``_target_`` is looked at.

        Raises:
            BadModelFile: a section that is missing, or a value that this family does not have.
        """
        try:
            encoder = config["encoder"]
            if _target(encoder) != "ConformerEncoder":
                raise BadModelFile(f"expected a ConformerEncoder, got {_target(encoder)}")
            task, sizes = _head(config)
            made = cls(
                task, int(encoder["n_layers"]), int(encoder["d_model"]), int(encoder["n_heads"]),
                str(encoder.get("self_attention_model", "rotary")), str(encoder.get("subsampling", "conv2d")),
                int(encoder.get("subs_kernel_size", 3)), int(encoder.get("conv_kernel_size", 31)),
                str(encoder.get("conv_norm_type", "batch_norm")), int(encoder.get("ff_expansion_factor", 4)),
                int(encoder.get("pos_emb_max_len", 5000)), **sizes,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadModelFile(f"the configuration is not GigaAM's: {error!r}") from error
        made.check(int(encoder.get("feat_in", NUM_MELS)), int(encoder.get("subsampling_factor", 4)))
        return made

    def check(self, features: int = NUM_MELS, factor: int = 4) -> None:
        """Raise BadModelFile for values out of this family's range."""
        choices = (
            (self.task, TASKS), (self.attention, ("rotary", "rel_pos")), (self.subsampling, ("conv1d", "conv2d")),
            (self.conv_norm, ("batch_norm", "layer_norm")), (features, (NUM_MELS,)), (factor, (4,)),
        )  # fmt: skip
        for value, known in choices:
            if value not in known:
                raise BadModelFile(f"the configuration has {value!r} where GigaAM has {' or '.join(map(str, known))}")
        numbers = (
            (self.layers, 64), (self.dim, 4096), (self.heads, 128), (self.positions, 100_000), (self.expansion, 16),
            (self.conv_kernel, 255), (self.subsampling_kernel, 15), (self.hidden, 8192), (self.joint, 8192),
        )  # fmt: skip
        odd = self.conv_kernel % 2 and self.subsampling_kernel % 2
        if not odd or self.dim % (2 * self.heads) or any(not 1 <= value <= most for value, most in numbers):
            raise BadModelFile(f"the configuration has impossible sizes: {self}")
        if not 0 <= self.classes <= 100_000 or (self.task != "ssl" and not self.classes):
            raise BadModelFile(f"the configuration has a head of {self.classes} classes")


def _target(section: Mapping[str, Any]) -> str:
    return str(section.get("_target_", "")).rpartition(".")[2]


def _head(config: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """The task that a head is for, and its sizes."""
    head = config.get("head")
    if not head:
        return "ssl", {}
    kind = _target(head)
    if kind == "CTCHead":
        return "ctc", {"classes": int(head["num_classes"])}
    if kind == "RNNTHead":
        decoder, joint = head["decoder"], head["joint"]
        if int(decoder.get("pred_rnn_layers", 1)) != 1:
            raise BadModelFile("expected an RNN-T predictor of one layer")
        return "rnnt", {
            "classes": int(joint["num_classes"]), "hidden": int(decoder["pred_hidden"]),
            "joint": int(joint["joint_hidden"]),
        }  # fmt: skip
    if kind == "Linear":
        return "emo", {"classes": int(head["out_features"])}
    raise BadModelFile(f"unknown head {kind!r}; known are CTCHead, RNNTHead and Linear")


def valid(lengths: Tensor, frames: int) -> Tensor:
    """(B, T) True where a frame is inside its item."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


class Subsampling(nn.Module):
    """Two convolutions of stride two: 10 ms to 40 ms. Padding is zeroed before each, so it never leaks."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        kernel, pad, dim = config.subsampling_kernel, (config.subsampling_kernel - 1) // 2, config.dim
        self.flat = config.subsampling == "conv1d"
        make = nn.Conv1d if self.flat else nn.Conv2d
        first = NUM_MELS if self.flat else 1
        self.conv = nn.Sequential(
            make(first, dim, kernel, 2, pad), nn.ReLU(), make(dim, dim, kernel, 2, pad), nn.ReLU()
        )
        if not self.flat:
            self.out = nn.Linear(dim * NUM_MELS // 4, dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 64, T) to (B, T', D) and the items' new lengths."""
        x = features if self.flat else features.transpose(1, 2)[:, None]
        x = self._masked(x, lengths)
        for place in (0, 2):
            lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
            x = self.conv[place + 1](self._masked(self.conv[place](x), lengths))
        if self.flat:
            return x.transpose(1, 2), lengths
        return self.out(x.transpose(1, 2).flatten(2)), lengths

    def _masked(self, x: Tensor, lengths: Tensor) -> Tensor:
        inside = valid(lengths, x.shape[2])
        return x * (inside[:, None, :] if self.flat else inside[:, None, :, None]).to(x.dtype)


class FeedForward(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, dim * expansion)
        self.linear2 = nn.Linear(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.linear2(functional.silu(self.linear1(x)))


class Convolution(nn.Module):
    """Pointwise, gate, depthwise, norm, SiLU, pointwise. The norm is called ``batch_norm`` in either kind."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        dim, kernel = config.dim, config.conv_kernel
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=(kernel - 1) // 2, groups=dim)
        self.layered = config.conv_norm == "layer_norm"
        self.batch_norm = nn.LayerNorm(dim) if self.layered else nn.BatchNorm1d(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """(B, T, D) with (B, T) valid frames to (B, T, D)."""
        x = functional.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        x = self.depthwise_conv(x * inside[:, None, :].to(x.dtype))
        x = self.batch_norm(x.transpose(1, 2)).transpose(1, 2) if self.layered else self.batch_norm(x)
        return self.pointwise_conv2(functional.silu(x)).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention over the valid frames of each item.

    Rotary angles are applied to the input, before the projections of queries and keys; values see it unrotated.
    Relative positions are those of Transformer-XL (Dai et al. 2019).
    """

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.base = config.positions
        self.linear_q, self.linear_k = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.linear_v, self.linear_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.relative = config.attention == "rel_pos"
        if self.relative:
            self.linear_pos = nn.Linear(dim, dim, bias=False)
            self.pos_bias_u = nn.Parameter(torch.zeros(config.heads, dim // config.heads))
            self.pos_bias_v = nn.Parameter(torch.zeros(config.heads, dim // config.heads))

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """(B, T, D) with (B, T) valid frames to (B, T, D)."""
        turned = x if self.relative else self._rotate(x)
        query, key, value = (
            self._split(layer(y)) for layer, y in ((self.linear_q, turned), (self.linear_k, turned), (self.linear_v, x))
        )
        scale = (self.linear_q.out_features // self.heads) ** -0.5
        scores = self._relative(query, key) if self.relative else query @ key.transpose(-1, -2)
        scores = (scores * scale).masked_fill(~inside[:, None, None, :], -10000.0)
        mixed = scores.softmax(-1) @ value
        return self.linear_out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _rotate(self, x: Tensor) -> Tensor:
        """Half-split rotary: pair i with i + half, angle t * base^(-2 i / width)."""
        heads = x.unflatten(2, (self.heads, -1))
        width = heads.shape[-1]
        half = width // 2
        steps = torch.arange(half, device=x.device, dtype=torch.float32)
        time = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        angle = time[:, None] * torch.pow(float(self.base), -2.0 * steps / width)[None, :]
        cos, sin = angle.cos().to(x.dtype)[:, None, :], angle.sin().to(x.dtype)[:, None, :]
        one, two = heads[..., :half], heads[..., half:]
        return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1).flatten(2)

    def _relative(self, query: Tensor, key: Tensor) -> Tensor:
        frames, dim = query.shape[2], self.linear_pos.in_features
        distance = torch.arange(frames - 1, -frames, -1, device=query.device, dtype=torch.float32)
        steps = torch.arange(0, dim, 2, device=query.device, dtype=torch.float32)
        angle = distance[:, None] * torch.exp(steps * (-math.log(10000.0) / dim))[None, :]
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(query.dtype)
        position = self._split(self.linear_pos(table)[None])
        content = (query + self.pos_bias_u[:, None, :]) @ key.transpose(-1, -2)
        shifted = (query + self.pos_bias_v[:, None, :]) @ position.transpose(-1, -2)
        # Query i and key j need column j - i + T - 1: pad one column left, fold, drop the first row, keep T columns.
        padded = functional.pad(shifted, (1, 0))
        folded = padded.reshape(padded.shape[0], self.heads, 2 * frames, frames)[:, :, 1:]
        return content + folded.reshape(padded.shape[0], self.heads, frames, 2 * frames - 1)[..., :frames]


class Layer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm; each behind a layer norm."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.norm_feed_forward1 = nn.LayerNorm(config.dim)
        self.feed_forward1 = FeedForward(config.dim, config.expansion)
        self.norm_conv = nn.LayerNorm(config.dim)
        self.conv = Convolution(config)
        self.norm_self_att = nn.LayerNorm(config.dim)
        self.self_attn = Attention(config)
        self.norm_feed_forward2 = nn.LayerNorm(config.dim)
        self.feed_forward2 = FeedForward(config.dim, config.expansion)
        self.norm_out = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """(B, T, D) with (B, T) valid frames to (B, T, D)."""
        x = x + 0.5 * self.feed_forward1(self.norm_feed_forward1(x))
        x = x + self.self_attn(self.norm_self_att(x), inside)
        x = x + self.conv(self.norm_conv(x), inside)
        x = x + 0.5 * self.feed_forward2(self.norm_feed_forward2(x))
        return self.norm_out(x)


class Encoder(nn.Module):
    """Log-mel features to frames of 40 ms."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.pre_encode = Subsampling(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 64, T) and the items' lengths (B,) to (B, D, T') and their lengths in it."""
        x, lengths = self.pre_encode(features, lengths)
        inside = valid(lengths, x.shape[1])
        for layer in self.layers:
            x = layer(x, inside)
        return x.transpose(1, 2), lengths


class CtcHead(nn.Module):
    """Encoder frames to log-probabilities."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.decoder_layers = nn.Sequential(nn.Conv1d(config.dim, config.classes, 1))

    def forward(self, encoded: Tensor) -> Tensor:
        """(B, D, T) to (B, T, V)."""
        return self.decoder_layers(encoded).transpose(1, 2).log_softmax(-1)


class Predictor(nn.Module):
    """The RNN-T's memory of the tokens so far. The row of the blank is zero: it stands for the beginning."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.classes, config.hidden, padding_idx=config.classes - 1)
        self.lstm = nn.LSTM(config.hidden, config.hidden, batch_first=True)

    def forward(self, tokens: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, U) tokens and (1, B, H) states to (B, U, H) and the new states."""
        out, (hidden, cell) = self.lstm(self.embed(tokens), (hidden, cell))
        return out, hidden, cell


class Joint(nn.Module):
    """Encoder frames and predictor outputs to log-probabilities of the next token."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.pred = nn.Linear(config.hidden, config.joint)
        self.enc = nn.Linear(config.dim, config.joint)
        self.joint_net = nn.Sequential(nn.ReLU(), nn.Linear(config.joint, config.classes))

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """(B, T, D) and (B, U, H) to (B, T, U, V)."""
        summed = self.enc(encoded)[:, :, None] + self.pred(predicted)[:, None]
        return self.joint_net(summed).log_softmax(-1)


class RnntHead(nn.Module):
    """Predictor and joiner."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.decoder = Predictor(config)
        self.joint = Joint(config)


class GigaAm(nn.Module):
    """A whole model; ``front`` holds window and mel filters as the checkpoint stores them."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        heads = {"ctc": CtcHead, "rnnt": RnntHead}
        if config.task == "emo":
            self.head: nn.Module = nn.Linear(config.dim, config.classes)
        elif config.task != "ssl":
            self.head = heads[config.task](config)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the task gives.

        Args:
            features: (B, 64, T) log-mel.
            lengths: (B,) valid frames.
        Returns:
            ctc: (B, T', V) log-probabilities and lengths. rnnt, ssl: (B, D, T') and lengths. emo: (B, V)
            probabilities, averaged over the valid frames, and lengths.
        """
        encoded, lengths = self.encoder(features, lengths)
        if self.config.task == "ctc":
            return self.head(encoded), lengths
        if self.config.task == "emo":
            inside = valid(lengths, encoded.shape[2])[:, None].to(encoded.dtype)
            mean = (encoded * inside).sum(-1) / inside.sum(-1)
            return self.head(mean).softmax(-1), lengths
        return encoded, lengths
