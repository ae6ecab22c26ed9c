"""GigaAM as a torch module: a Conformer for whole phrases at 16 kHz with a CTC, RNN-T or emotion head, or bare.

Parameter names are those of the published checkpoints; v1, v2, v3 and multilingual are one class with other numbers.
A batch gives every item what it gets alone: each is framed for itself, and padding is masked in the subsampling, in the
attention, in the convolutions and in the pooling.

Facts: the description of salute-developers/GigaAM (MIT), checked against its golden vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rechka.features.gigaam import HIGH, HOP, LOW, NUM_MELS, log_mel
from rechka.nn.gigaam_config import GigaAmConfig
from rechka.nn.weights import check_names

MASKED = -10000.0
REL_POS_BASE = 10000.0


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """(B, frames) True where a frame is no padding."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


class _Spectrogram(nn.Module):
    def __init__(self, window: Tensor) -> None:
        super().__init__()
        self.register_buffer("window", window)


class _MelScale(nn.Module):
    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("fb", bank)


class _MelSpectrogram(nn.Module):
    """Holder of the tables, for the names ``featurizer.0.spectrogram.window`` and ``featurizer.0.mel_scale.fb``."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        tables = log_mel(config.n_fft, center=config.center, rounded=not config.center)
        self.spectrogram = _Spectrogram(torch.from_numpy(tables.window))
        self.mel_scale = _MelScale(torch.from_numpy(tables.fb))


class FrontEnd(nn.Module):
    """Samples to log-mel features with the checkpoint's own window and filter bank; always in float32."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.n_fft, self.center = config.n_fft, config.center
        self.featurizer = nn.Sequential(_MelSpectrogram(config))

    @property
    def shortest(self) -> int:
        """Samples that one frame needs; shorter items are followed by silence."""
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def forward(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) samples in [-1, 1] and their numbers (B,) to features (B, 64, F) and their numbers (B,)."""
        tables = self.featurizer[0]
        with torch.autocast(audio.device.type, enabled=False):
            items = []
            for row, length in zip(audio.float(), lengths.tolist(), strict=True):
                samples = functional.pad(row[:length], (0, max(0, self.shortest - length)))
                if self.center:
                    half = self.n_fft // 2
                    samples = functional.pad(samples[None], (half, half), mode="reflect")[0]
                spectrum = torch.fft.rfft(samples.unfold(0, self.n_fft, HOP) * tables.spectrogram.window)
                power = spectrum.real.square() + spectrum.imag.square()
                items.append((power @ tables.mel_scale.fb).clamp(float(LOW), float(HIGH)).log())
            counts = torch.tensor([len(item) for item in items], device=lengths.device)
            return nn.utils.rnn.pad_sequence(items, batch_first=True).transpose(1, 2), counts


class Subsampling(nn.Module):
    """Features to frames of 40 ms: two convolutions of stride 2, padding zeroed before each and after."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        dim, kernel, flat = config.d_model, config.subs_kernel, config.subsampling == "conv1d"
        conv, inputs = (nn.Conv1d, NUM_MELS) if flat else (nn.Conv2d, 1)
        self.conv = nn.Sequential(
            conv(inputs, dim, kernel, 2, (kernel - 1) // 2),
            nn.ReLU(),
            conv(dim, dim, kernel, 2, (kernel - 1) // 2),
            nn.ReLU(),
        )
        self.out = None if flat else nn.Linear(dim * (NUM_MELS // 4), dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 64, F) and lengths to (B, T, D) and lengths."""
        x = features if self.out is None else features.transpose(1, 2)[:, None]
        x = self._zeroed(x, lengths)
        for index in (0, 2):
            lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
            x = self.conv[index + 1](self._zeroed(self.conv[index](x), lengths))
        if self.out is None:
            return x.transpose(1, 2), lengths
        return self.out(x.transpose(1, 2).flatten(2)), lengths

    def _zeroed(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Zero behind the lengths: (B, C, T) or (B, C, T, mels)."""
        valid = valid_frames(lengths, x.shape[2])[:, None]
        return x.masked_fill(~(valid if x.dim() == 3 else valid[..., None]), 0.0)


class FeedForward(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.linear2(functional.silu(self.linear1(x)))


class Convolution(nn.Module):
    """Pointwise, GLU, depthwise, norm, SiLU, pointwise. The norm is called ``batch_norm`` whatever it is."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        dim, kernel = config.d_model, config.conv_kernel
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=(kernel - 1) // 2, groups=dim)
        self.batch_norm = nn.BatchNorm1d(dim) if config.conv_norm == "batch_norm" else nn.LayerNorm(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D), valid (B, T), to (B, T, D)."""
        x = functional.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1).masked_fill(~valid[:, None], 0.0)
        x = self.depthwise_conv(x)
        if isinstance(self.batch_norm, nn.LayerNorm):
            x = self.batch_norm(x.transpose(1, 2)).transpose(1, 2)
        else:
            x = self.batch_norm(x)
        return self.pointwise_conv2(functional.silu(x)).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention over the phrase. Rotary positions turn its *input*, before the projections of query and key."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        dim, heads = config.d_model, config.n_heads
        self.heads = heads
        for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
            setattr(self, name, nn.Linear(dim, dim))
        self.relative = config.attention == "rel_pos"
        if self.relative:
            self.linear_pos = nn.Linear(dim, dim, bias=False)
            self.pos_bias_u = nn.Parameter(torch.zeros(heads, dim // heads))
            self.pos_bias_v = nn.Parameter(torch.zeros(heads, dim // heads))

    def forward(self, x: Tensor, positions: Tensor, hidden: Tensor) -> Tensor:
        """(B, T, D), positions (``Encoder.positions``), what is added to scores (B, 1, 1, T); to (B, T, D)."""
        scores = hidden
        if self.relative:
            query = self.linear_q(x).unflatten(-1, (self.heads, -1))
            places = self.linear_pos(positions).unflatten(-1, (self.heads, -1))  # (2 T - 1, H, d)
            by_place = (query + self.pos_bias_v).transpose(1, 2) @ places.permute(1, 2, 0)
            scores = hidden + shifted(by_place) / math.sqrt(query.shape[-1])
            query, key = (query + self.pos_bias_u).transpose(1, 2), self._heads(self.linear_k(x))
        else:
            turned = rotate(x.unflatten(-1, (self.heads, -1)), positions).flatten(-2)
            query, key = self._heads(self.linear_q(turned)), self._heads(self.linear_k(turned))
        mixed = functional.scaled_dot_product_attention(
            query, key, self._heads(self.linear_v(x)), attn_mask=scores.to(query.dtype)
        )
        return self.linear_out(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """(B, T, H, d) turned by angles (T, d / 2), each dimension paired with the one half a head further."""
    cos, sin = (part[:, None].to(x.dtype) for part in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def shifted(x: Tensor) -> Tensor:
    """(B, H, T, 2 T - 1) by relative position T - 1 ... 1 - T to (B, H, T, T) by key (Dai et al. 2019)."""
    batch, heads, frames, places = x.shape
    x = functional.pad(x, (1, 0)).reshape(batch, heads, places + 1, frames)
    return x[:, :, 1:].reshape(batch, heads, frames, places)[..., :frames]


class Layer(nn.Module):
    """Conformer block: half feed-forward, attention, convolution, half feed-forward, each after a norm; a last norm."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        dim, hidden = config.d_model, config.d_model * config.ff_factor
        self.norm_feed_forward1 = nn.LayerNorm(dim)
        self.feed_forward1 = FeedForward(dim, hidden)
        self.norm_conv = nn.LayerNorm(dim)
        self.conv = Convolution(config)
        self.norm_self_att = nn.LayerNorm(dim)
        self.self_attn = Attention(config)
        self.norm_feed_forward2 = nn.LayerNorm(dim)
        self.feed_forward2 = FeedForward(dim, hidden)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, x: Tensor, positions: Tensor, hidden: Tensor, valid: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = x + 0.5 * self.feed_forward1(self.norm_feed_forward1(x))
        x = x + self.self_attn(self.norm_self_att(x), positions, hidden)
        x = x + self.conv(self.norm_conv(x), valid)
        x = x + 0.5 * self.feed_forward2(self.norm_feed_forward2(x))
        return self.norm_out(x)


class Encoder(nn.Module):
    """Features to frames of 40 ms."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_encode = Subsampling(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 64, F) and how many of F are real to (B, T, D) and how many of T are real; T = (F - 1) // 4 + 1."""
        x, lengths = self.pre_encode(features, lengths)
        valid = valid_frames(lengths, x.shape[1])
        hidden = torch.zeros_like(valid, dtype=x.dtype).masked_fill(~valid, MASKED)[:, None, None]
        positions = self.positions(x.shape[1]).to(x.device)
        for layer in self.layers:
            x = layer(x, positions, hidden, valid)
        return x, lengths

    def positions(self, frames: int) -> Tensor:
        """Rotary: angles (T, d / 2). Relative: sines and cosines in turn (2 T - 1, D) of distances T - 1 ... 1 - T."""
        config = self.config
        if config.attention == "rotary":
            depth = config.d_model // config.n_heads
            return _angles(torch.arange(frames, dtype=torch.float64), depth, config.position_base).float()
        distances = torch.arange(frames - 1, -frames, -1, dtype=torch.float64)
        angles = _angles(distances, config.d_model, REL_POS_BASE)
        return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def _angles(positions: Tensor, dim: int, base: float) -> Tensor:
    return positions[:, None] * base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)[None]


class CtcHead(nn.Module):
    """A linear layer over frames."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.decoder_layers = nn.Sequential(nn.Conv1d(config.d_model, config.num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, V) log-probabilities in float32."""
        return self.decoder_layers(x.transpose(1, 2)).transpose(1, 2).float().log_softmax(dim=-1)


class Predictor(nn.Module):
    """The RNN-T's language side: an embedding and an LSTM. The blank, which begins every phrase, is a zero vector."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.blank = config.num_classes - 1
        self.embed = nn.Embedding(config.num_classes, config.pred_hidden, padding_idx=self.blank)
        self.lstm = nn.LSTM(config.pred_hidden, config.pred_hidden, config.pred_layers, batch_first=True)

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, U) tokens and a state of two (layers, B, H), or None, to (B, U, H) and the next state."""
        embedded = self.embed(tokens).masked_fill((tokens == self.blank)[..., None], 0.0)
        return self.lstm(embedded, state)


class Joint(nn.Module):
    """Frames and predictor outputs to tokens."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.pred = nn.Linear(config.pred_hidden, config.joint_hidden)
        self.enc = nn.Linear(config.d_model, config.joint_hidden)
        self.joint_net = nn.Sequential(nn.ReLU(), nn.Linear(config.joint_hidden, config.num_classes))

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """(B, T, D) and (B, U, H) to (B, T, U, V) log-probabilities in float32."""
        both = self.enc(encoded)[:, :, None] + self.pred(predicted)[:, None]
        return self.joint_net(both).float().log_softmax(dim=-1)


class RnntHead(nn.Module):
    """Holder of predictor and joint, for their names."""

    def __init__(self, config: GigaAmConfig) -> None:
        super().__init__()
        self.decoder = Predictor(config)
        self.joint = Joint(config)


class GigaAm(nn.Module):
    """Audio to frames, and to what the head makes of them.

    Args:
        config: the architecture.
    """

    def __init__(self, config: GigaAmConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GigaAmConfig()
        self.preprocessor = FrontEnd(config)
        self.encoder = Encoder(config)
        self.head: nn.Module | None = None
        if config.task == "ctc":
            self.head = CtcHead(config)
        elif config.task == "rnnt":
            self.head = RnntHead(config)
        elif config.task == "emo":
            self.head = nn.Linear(config.d_model, config.num_classes)

    def forward(self, audio: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Whole phrases.

        Args:
            audio: (B, n) at 16 kHz in [-1, 1], padded at the end.
            lengths: (B,) samples of each, or None if none is padded.
        Returns:
            What ``hear`` gives.
        """
        if lengths is None:
            lengths = torch.full((audio.shape[0],), audio.shape[1], device=audio.device)
        return self.hear(*self.preprocessor(audio, lengths))

    def hear(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 64, F) and their numbers (B,) to the head's output and the number of frames (B,).

        CTC: (B, T, V) log-probabilities. Emotion: (B, C) log-probabilities. RNN-T and the bare encoder: (B, T, D).
        """
        x, lengths = self.encoder(features, lengths)
        if isinstance(self.head, CtcHead):
            return self.head(x), lengths
        if isinstance(self.head, nn.Linear):
            valid = valid_frames(lengths, x.shape[1])[..., None]
            mean = x.masked_fill(~valid, 0.0).sum(dim=1) / lengths[:, None]
            return self.head(mean).float().log_softmax(dim=-1), lengths
        return x, lengths


def load_gigaam(
    arrays: Mapping[str, np.ndarray[Any, Any]], config: GigaAmConfig, *, what: str = "the checkpoint"
) -> GigaAm:
    """The module with given weights, for inference; it shares their memory where it can.

    Args:
        arrays: by their published names without a prefix; see ``gigaam_config.completed``.
        config: the architecture.
        what: named in messages.
    Raises:
        BadModelFile: weights that do not fit the configuration.
    """
    with torch.device("meta"):
        skeleton = GigaAm(config)
    shapes = {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}
    check_names(arrays, shapes, what=what)
    state = {name: torch.from_numpy(np.require(array, requirements=["C", "W"])) for name, array in arrays.items()}
    skeleton.load_state_dict(state, assign=True)
    return skeleton.eval()
