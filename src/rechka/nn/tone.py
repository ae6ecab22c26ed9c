"""T-one: a streaming Conformer with a CTC head for 8 kHz telephone speech, as a torch module.

Parameter names are those of the published checkpoint. One function computes everything: frames with the state before
them to frames with the state after them. A whole recording is one call with an empty state, a stream is many calls;
both see the same chunks of attention, so they agree. The module keeps nothing between calls.

Facts: the description of voicekit-team/T-one (Apache-2.0), checked against its golden vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rechka.errors import BadModelFile
from rechka.features import tone as frontend
from rechka.nn.tone_config import ToneConfig

SCORE_MASKED = -10000.0


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis; the guard is outside the root. Always in float32."""

    GUARD = 1e-8

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        wide = x.float()
        rms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) / math.sqrt(x.shape[-1])
        return (wide / (rms + self.GUARD) * self.weight).to(x.dtype)


class FeedForward(nn.Module):
    """Gated feed-forward: linear2(SiLU(linear1(x)) * linearv(x))."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linearv = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.linear2(self.dropout(functional.silu(self.linear1(x)) * self.linearv(x)))


class CausalDepthwise(nn.Module):
    """Holder of the depthwise convolution, for the name ``depthwise_conv.conv``; its past comes with the input."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, kernel - 1 + T) to (B, D, T)."""
        return self.conv(x)


class Convolution(nn.Module):
    """Pointwise, GLU, causal depthwise, BatchNorm, SiLU, pointwise."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise_conv = CausalDepthwise(dim, kernel)
        self.batch_norm = nn.BatchNorm1d(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1)

    def forward(self, x: Tensor, valid: Tensor | None, history: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) with the gated history (B, D, kernel - 1) to (B, T, D) and the next history."""
        gated = functional.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        if valid is not None:
            gated = gated.masked_fill(~valid[:, None, :], 0.0)
        joined = torch.cat([history, gated], dim=2)
        mixed = functional.silu(self.batch_norm(self.depthwise_conv(joined)))
        return self.pointwise_conv2(mixed).transpose(1, 2), joined[:, :, joined.shape[2] - history.shape[2] :]


@dataclass(frozen=True, slots=True)
class Context:
    """What attention may see at one layer.

    Attributes:
        chunk: frames per chunk at the layer's rate.
        left: frames before the chunk, a multiple of ``chunk``, or 0.
        allowed: (B, k, 1, 1 or chunk, left + chunk) True for pairs of query and key that exist, or None if all do.
    """

    chunk: int
    left: int
    allowed: Tensor | None

    def windows(self, x: Tensor) -> Tensor:
        """(B, left + T, ...) to (B, k, left + chunk, ...): for every chunk its own frames and those before it."""
        blocks = x.unflatten(1, (-1, self.chunk))
        behind = self.left // self.chunk
        count = blocks.shape[1] - behind
        return torch.cat([blocks[:, i : i + count] for i in range(behind + 1)], dim=2)

    def pairs(self, queries: Tensor | None, keys: Tensor) -> Tensor:
        """``allowed`` from the frames that exist: (B, T), or None if all do, and (B, left + T)."""
        allowed = self.windows(keys)[:, :, None, None, :]
        return allowed if queries is None else allowed & queries.unflatten(1, (-1, self.chunk))[:, :, None, :, None]


class Attention(nn.Module):
    """Chunked self-attention with normalised queries and keys and partial rotary positions."""

    def __init__(self, config: ToneConfig, recompute: bool) -> None:
        super().__init__()
        dim = config.d_model
        self.heads = config.n_heads
        self.rope_dim = config.rope_dim
        self.recompute = recompute
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)
        if recompute:
            self.linear_q = nn.Linear(dim, dim)
            self.linear_k = nn.Linear(dim, dim)
            self.q_ln = nn.LayerNorm(dim // self.heads)
            self.k_ln = nn.LayerNorm(dim // self.heads)
        self.dropout = nn.Dropout(config.dropout_att)

    def forward(self, x: Tensor, past: Tensor | None, context: Context, scores: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (B, T, D) normalised frames; T need not be a whole number of chunks.
            past: (B, left, D) normalised frames before them, or None if the context is the chunk alone.
            context: which frames a chunk sees.
            scores: of the layer before, (B, k, H, chunk, left + chunk); used if this layer does not recompute.
        Returns:
            (B, T, D) and the scores before masking.
        """
        frames = x.shape[1]
        x = functional.pad(x, (0, 0, 0, -frames % context.chunk))
        seen = x if past is None else torch.cat([past, x], dim=1)
        value = self._heads(context.windows(self.linear_v(seen)))
        if self.recompute:
            query = self.q_ln(self._heads(self.linear_q(x).unflatten(1, (-1, context.chunk))))
            key = self.k_ln(self._heads(context.windows(self.linear_k(seen))))
            table = rotary_table(context.left + context.chunk, self.rope_dim)
            cos, sin = (part.to(query) for part in table)
            query = rotate(query, cos[context.left :], sin[context.left :])
            scores = query @ rotate(key, cos, sin).transpose(-1, -2) / math.sqrt(query.shape[-1])
        if scores is None:
            raise BadModelFile("the first T-one layer must compute its attention scores")
        weights = masked_softmax(scores, context.allowed)
        mixed = (self.dropout(weights) @ value).transpose(2, 3).flatten(3).flatten(1, 2)
        return self.linear_out(mixed[:, :frames]), scores

    def _heads(self, x: Tensor) -> Tensor:
        """(B, k, T, D) to (B, k, H, T, D / H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(2, 3)


def masked_softmax(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Softmax over the last axis among allowed keys; a row with none is all zeros."""
    if allowed is None:
        return scores.softmax(dim=-1)
    return scores.masked_fill(~allowed, SCORE_MASKED).softmax(dim=-1).masked_fill(~allowed, 0.0)


def rotary_table(length: int, dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, dim), half-split layout, base 10000 (Su et al. 2021)."""
    inverse = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * inverse[None, :]
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the leading dimensions of (..., T, D) that the table covers; the rest pass."""
    dim = cos.shape[-1]
    turned, rest = x[..., :dim], x[..., dim:]
    half = dim // 2
    swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
    return torch.cat([turned * cos + swapped * sin, rest], dim=-1)


class Layer(nn.Module):
    """Conformer block: half feed-forward, attention, convolution, half feed-forward, norm."""

    def __init__(self, config: ToneConfig, recompute: bool) -> None:
        super().__init__()
        dim, hidden = config.d_model, config.d_model * config.ff_expansion_factor
        self.norm_feed_forward1 = RMSNorm(dim)
        self.feed_forward1 = FeedForward(dim, hidden, config.dropout)
        self.norm_self_att = RMSNorm(dim)
        self.self_attn = Attention(config, recompute)
        self.norm_conv = RMSNorm(dim)
        self.conv = Convolution(dim, config.conv_kernel_size)
        self.norm_feed_forward2 = RMSNorm(dim)
        self.feed_forward2 = FeedForward(dim, hidden, config.dropout)
        self.norm_out = RMSNorm(dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        context: Context,
        scores: Tensor | None,
        past: Tensor | None,
        history: Tensor,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames, scores, the attention's normalised input, and the next convolution history."""
        x = x + 0.5 * self.dropout(self.feed_forward1(self.norm_feed_forward1(x)))
        normed = self.norm_self_att(x)
        attended, scores = self.self_attn(normed, past, context, scores)
        x = x + self.dropout(attended)
        convolved, history = self.conv(self.norm_conv(x), valid, history)
        x = x + self.dropout(convolved)
        x = x + 0.5 * self.dropout(self.feed_forward2(self.norm_feed_forward2(x)))
        return self.norm_out(x), scores, normed, history


class Subsampling(nn.Module):
    """Two causal convolutions over time and frequency and a projection: 10 ms features to 30 ms frames."""

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        inputs = (1, config.conv_channels[0])
        self.pre_norm = RMSNorm(config.n_mels)
        self.conv = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, out, kernel, stride), nn.BatchNorm2d(out), nn.SiLU())
            for channels, out, kernel, stride in zip(
                inputs, config.conv_channels, config.conv_kernels, config.conv_strides, strict=True
            )
        )
        self.out = nn.Linear(config.conv_channels[1] * config.mels_after[1], config.d_model, bias=False)
        self.out_norm = RMSNorm(config.d_model)

    def forward(self, features: Tensor, pasts: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(B, F, mels) with the inputs of each convolution before it to (B, F // 3, D) and the next such inputs."""
        x = self.pre_norm(features)[:, None]
        kept = []
        for conv, past in zip(self.conv, pasts, strict=True):
            x = torch.cat([past, x], dim=2)
            kept.append(x[:, :, x.shape[2] - past.shape[2] :])
            x = conv(x)
        return self.out_norm(self.out(x.transpose(1, 2).flatten(2))), kept


class Reduction(nn.Module):
    """Pairs of frames to one: a causal depthwise convolution of stride 2 that widens, then a pointwise one."""

    MULTIPLIER = 4

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        dim, wide = config.d_model, config.d_model * self.MULTIPLIER
        self.conv = nn.Conv1d(dim, wide, config.reduction_kernel_size, config.reduction_factor, groups=dim)
        self.conv_pw = nn.Conv1d(wide, dim, 1)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) with the frame before (B, D, 1) to (B, ceil(T / 2), D) and the last frame."""
        x = torch.cat([past, x.transpose(1, 2)], dim=2)
        kept = x[:, :, x.shape[2] - past.shape[2] :]
        x = functional.pad(x, (0, (x.shape[2] - past.shape[2]) % 2))
        return self.conv_pw(self.conv(x)).transpose(1, 2), kept


class Encoder(nn.Module):
    """Features to frames of 30 ms."""

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_encode = Subsampling(config)
        self.temportal_reduction = Reduction(config)  # misspelled in the published checkpoint
        self.layers = nn.ModuleList(Layer(config, recompute) for recompute in config.recompute_scores)

    def forward(
        self, features: Tensor, lengths: Tensor | None, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """(B, F, mels), features per stream (None: all of them), state; to frames, their number, and the next state."""
        config = self.config
        x, (first, second) = self.pre_encode(features, (state["subsampling_1"], state["subsampling_2"]))
        lengths = None if lengths is None else lengths // 3
        frames, skip, reduction = x.shape[1], x, state["reduction"]
        scores: Tensor | None = None
        histories, attended = [], []
        for index, layer in enumerate(self.layers):
            rate = 2 if config.slow(index) else 1
            real = None if lengths is None else lengths // rate
            context = self._context(index, x.shape[1], real, state["mhsa_len"])
            past = None
            if index in config.stateful_layers:
                cached = state["mhsa"][:, index - config.mhsa_stateless_layers]
                past = cached[:, cached.shape[1] - context.left :]
            valid = _valid(x.shape[1], real)
            x, scores, normed, history = layer(x, context, scores, past, state["conv"][:, index], valid)
            histories.append(history)
            if past is not None:
                attended.append(self._remember(past, normed))
            if index == config.reduction_position:
                skip = x
                x, reduction = self.temportal_reduction(x, reduction)
            if index == config.upsample_position:
                x = x.repeat_interleave(2, dim=1)[:, :frames] + skip
        following = {
            "mhsa_len": (state["mhsa_len"] + frames).clamp(max=config.mhsa_state_size),
            "mhsa": torch.stack(attended, dim=1),
            "conv": torch.stack(histories, dim=1),
            "subsampling_1": first,
            "subsampling_2": second,
            "reduction": reduction,
        }
        return x, None if lengths is None else lengths // 2 * 2, following

    def _remember(self, past: Tensor, normed: Tensor) -> Tensor:
        """The last frames an attention needs next time, right-aligned among zeros."""
        kept = torch.cat([past, normed], dim=1)[:, -past.shape[1] :]
        return functional.pad(kept, (0, 0, self.config.mhsa_state_size - kept.shape[1], 0))

    def _context(self, layer: int, frames: int, lengths: Tensor | None, cached: Tensor) -> Context:
        """What attention sees at a layer, given frames and lengths at its rate and how many 30 ms frames were heard."""
        config = self.config
        rate = 2 if config.slow(layer) else 1
        chunk = config.chunk_size // rate
        padded = frames + (-frames % chunk)
        queries = _valid(padded, lengths)
        if layer not in config.stateful_layers:
            plain = Context(chunk, 0, None)
            return plain if queries is None else Context(chunk, 0, plain.pairs(queries, queries))
        plain = Context(chunk, config.mhsa_state_size // rate, None)
        missing = torch.div(config.mhsa_state_size - cached, rate, rounding_mode="floor")
        past = torch.arange(plain.left, device=cached.device)[None, :] >= missing
        now = past.new_ones((past.shape[0], padded)) if queries is None else queries
        return Context(chunk, plain.left, plain.pairs(queries, torch.cat([past, now], dim=1)))


def _valid(frames: int, lengths: Tensor | None) -> Tensor | None:
    """(B, frames) True for frames that are no padding, or None if there is none."""
    return None if lengths is None else torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]


class Decoder(nn.Module):
    """The CTC head."""

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        self.decoder_layers = nn.Sequential(nn.Conv1d(config.d_model, config.num_tokens, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, V) log-probabilities in float32."""
        return self.decoder_layers(x.transpose(1, 2)).transpose(1, 2).float().log_softmax(dim=-1)


class Tone(nn.Module):
    """Audio to CTC log-probabilities.

    Audio is float (B, n) in [-1, 1], which is the integer samples divided by 32767.
    """

    def __init__(self, config: ToneConfig | None = None) -> None:
        super().__init__()
        self.config = config or ToneConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        dft = torch.from_numpy(frontend.dft_table().copy())
        mel = torch.from_numpy(frontend.mel_table(self.config.n_mels).copy())
        self.register_buffer("_dft", dft, persistent=False)
        self.register_buffer("_mel", mel, persistent=False)

    def initial_state(self, batch: int = 1) -> Tensor:
        """(B, state_size): streams that have heard nothing."""
        return torch.zeros(batch, self.config.state_size, device=self._dft.device)

    def features(self, audio: Tensor, past: Tensor | None = None) -> Tensor:
        """Log-mel features (B, n // 80, mels) of (B, n) audio, given the 80 samples before it; in float32 always."""
        with torch.autocast(audio.device.type, enabled=False):
            audio = audio.float()
            past = audio.new_zeros(audio.shape[0], frontend.CONTEXT) if past is None else past.float()
            frames = torch.cat([past, audio], dim=1).unfold(1, frontend.WINDOW, frontend.HOP)
            real, imaginary = (frames @ self._dft).chunk(2, dim=-1)
            return ((real.square() + imaginary.square()) @ self._mel + frontend.LOG_GUARD).log().to(audio.dtype)

    def forward(self, audio: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Whole recordings at once, each as if streamed chunk by chunk.

        Args:
            audio: (B, n), padded at the end.
            lengths: (B,) samples of each, or None if none is padded.
        Returns:
            (B, n // 240, V) log-probabilities and how many frames of each count. An odd number loses its last frame,
            which the last layer still sees, as in the original: pad recordings to an even number of frames.
        """
        if lengths is None:
            lengths = torch.full((audio.shape[0],), audio.shape[1], device=audio.device)
        return self.hear(self.features(audio), lengths // frontend.HOP)

    def hear(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` gives, from (B, F, mels) features and how many of F count."""
        state = self._split(self.initial_state(features.shape[0]))
        x, frames, _ = self.encoder(features, lengths, state)
        assert frames is not None  # lengths were given
        return self.decoder(x), frames

    def step(self, audio: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next chunks of each stream.

        Args:
            audio: (B, k * 2400), any whole k >= 1.
            state: (B, state_size); not modified.
        Returns:
            (B, 10 * k, V) log-probabilities and the next state.
        """
        parts = self._split(state)
        x, _, following = self.encoder(self.features(audio, parts["preprocessing"]), None, parts)
        following["preprocessing"] = audio[:, audio.shape[1] - frontend.CONTEXT :]
        return self.decoder(x), torch.cat([following[name].flatten(1) for name in self.config.state_shapes], dim=1)

    def loss(self, audio: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Mean CTC loss; ``labels`` (B, L) ids, padded with anything negative."""
        logprobs, frames = self(audio, lengths)
        real = labels >= 0
        return functional.ctc_loss(
            logprobs.transpose(0, 1),
            labels[real],
            frames,
            real.sum(dim=1),
            blank=self.config.num_tokens - 1,
            reduction="mean",
            zero_infinity=True,
        )

    def _split(self, state: Tensor) -> dict[str, Tensor]:
        shapes = self.config.state_shapes
        parts = state.split([math.prod(shape) for shape in shapes.values()], dim=1)
        return {name: part.reshape(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
