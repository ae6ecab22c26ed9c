"""A small streaming Conformer with a CTC head: the embedded model's network.

Frames of 10 ms become frames of 40 ms in two causal convolutions; one block works there, the middle blocks work at
80 ms, one more block follows at 40 ms on top of a skip connection (a time U-net). Attention sees its own chunk and a
fixed number of frames before it; convolutions are causal. A forward pass over a whole recording therefore equals
chunk-by-chunk steps, which is how it is exported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rechka.errors import BadModelFile
from rechka.nn.weights import check_names

SUBSAMPLING = 4
"""10 ms features per 40 ms frame."""
REDUCTION = 2
"""40 ms frames per 80 ms frame."""


@dataclass(frozen=True, slots=True)
class ConformerConfig:
    """The architecture as numbers.

    Attributes:
        bands: features per 10 ms.
        channels: maps of the two subsampling convolutions.
        dim, heads, expansion: width, attention heads, feed-forward factor.
        slow_blocks: blocks at 80 ms, between one block before and one after at 40 ms.
        kernel: taps of the causal depthwise convolutions, in frames of the block's rate.
        chunk: 40 ms frames that are computed together (8: 320 ms).
        left: 40 ms frames of the past that attention sees.
        vocabulary: outputs, blank included.
    """

    bands: int = 15
    channels: tuple[int, int] = (24, 48)
    dim: int = 192
    heads: int = 4
    expansion: int = 3
    slow_blocks: int = 6
    kernel: int = 9
    chunk: int = 8
    left: int = 48
    vocabulary: int = 34

    def to_dict(self) -> dict[str, Any]:
        """As stored in checkpoints and cards."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ConformerConfig:
        """The inverse of ``to_dict``; TOML and JSON lists become tuples."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


def rotary(positions: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, dim) of the rotary embedding with base 10000 (Su et al. 2021), half-split layout."""
    inverse = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim)
    angle = positions.float()[:, None] * inverse[None, :]
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotary embedding to (..., T, dim)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def chunk_mask(frames: int, chunk: int, left: int, device: torch.device | None = None) -> Tensor:
    """(T, T) True where a query frame may look: its own chunk and ``left`` frames before the chunk."""
    index = torch.arange(frames, device=device)
    first = index // chunk * chunk
    key = index[None, :]
    return (key < (first + chunk)[:, None]) & (key >= (first - left)[:, None])


class Thinning(nn.Module):
    """What a residual branch goes through in training: dropout of its numbers, and of the whole branch.

    Attributes:
        dropout: chance of each number to be set to zero.
        depth: chance that a recording skips the branch (stochastic depth, Huang et al. 2016).
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropout = 0.0
        self.depth = 0.0

    def forward(self, branch: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D) of the same mean; as it came outside training."""
        if self.training and self.dropout:
            branch = functional.dropout(branch, self.dropout)
        if self.training and self.depth:
            stays = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.depth
            branch = branch * (stays / (1.0 - self.depth)).to(branch.dtype)
        return branch


class FeedForward(nn.Module):
    """LayerNorm, expansion, SiLU, projection."""

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, dim * expansion)
        self.down = nn.Linear(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        return self.down(functional.silu(self.up(self.norm(x))))


class Attention(nn.Module):
    """Rotary self-attention over a chunk and cached frames before it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, mask: Tensor, table: tuple[Tensor, Tensor], cache: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (B, T, D) frames.
            mask: True where allowed, broadcast to (B, heads, T, P + T).
            table: rotary tables of the P + T key positions.
            cache: (B, P, 2 D) keys (not rotated) and values of earlier frames, or None.
        Returns:
            (B, T, D) and keys and values (B, P + T, 2 D).
        """
        batch, frames, dim = x.shape
        query, both = self.qkv(self.norm(x)).split([dim, 2 * dim], dim=-1)
        if cache is not None:
            both = torch.cat([cache, both], dim=1)
        key, value = both.chunk(2, dim=-1)

        def split(y: Tensor) -> Tensor:
            return y.reshape(batch, -1, self.heads, dim // self.heads).transpose(1, 2)

        cos, sin = table
        query = rotate(split(query), cos[-frames:], sin[-frames:])
        mixed = functional.scaled_dot_product_attention(
            query, rotate(split(key), cos, sin), split(value), attn_mask=mask
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, frames, dim)), both


class Convolution(nn.Module):
    """Pointwise, gate, causal depthwise, norm, SiLU, pointwise; remembers the gated frames it will need again."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, kernel, groups=dim)
        self.middle = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) with the cache (B, kernel - 1, D) to (B, T, D) and the new cache."""
        gated = torch.cat([cache, functional.glu(self.gate(self.norm(x)), dim=-1)], dim=1)
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.out(functional.silu(self.middle(mixed))), gated[:, gated.shape[1] - (self.kernel - 1) :]


class Block(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward, norm."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.first = FeedForward(config.dim, config.expansion)
        self.attention = Attention(config.dim, config.heads)
        self.convolution = Convolution(config.dim, config.kernel)
        self.second = FeedForward(config.dim, config.expansion)
        self.norm = nn.LayerNorm(config.dim)
        self.thin = Thinning()

    def forward(
        self, x: Tensor, mask: Tensor, table: tuple[Tensor, Tensor], keys: Tensor | None, history: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block; returns frames, keys-and-values of all positions, and the convolution's history."""
        x = x + self.thin(0.5 * self.first(x))
        attended, keys = self.attention(x, mask, table, keys)
        x = x + self.thin(attended)
        convolved, history = self.convolution(x, history)
        x = x + self.thin(convolved)
        return self.norm(x + self.thin(0.5 * self.second(x))), keys, history


class Subsampling(nn.Module):
    """Two causal 2-d convolutions (stride 2 in time each, 2 in frequency once), then a projection: 10 ms to 40 ms."""

    TAPS = (5, 3)
    """Kernel sizes in time; each output frame ends with the last of its two inputs."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        first, second = config.channels
        self.one = nn.Conv2d(1, first, (self.TAPS[0], 5), stride=(2, 1), padding=(0, 2))
        self.two = nn.Conv2d(first, second, (self.TAPS[1], 3), stride=(2, 2), padding=(0, 1))
        self.out = nn.Linear(second * ((config.bands + 1) // 2), config.dim)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, features: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 4 T, bands) to (B, T, D).

        Args:
            one: (B, 1, 3, bands) the features before.
            two: (B, channels, 1, bands) the first convolution's output before.
        """
        x = torch.cat([one, features[:, None]], dim=2)
        one = x[:, :, x.shape[2] - (self.TAPS[0] - 2) :]
        y = torch.cat([two, functional.silu(self.one(x))], dim=2)
        two = y[:, :, y.shape[2] - (self.TAPS[1] - 2) :]
        z = functional.silu(self.two(y))
        return self.norm(self.out(z.transpose(1, 2).flatten(2))), one, two


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Shapes of the tensors that a stream carries, in order, without the batch axis."""

    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Numbers in the flat state."""
        return sum(math.prod(shape) for shape in self.shapes)

    def split(self, flat: Tensor) -> list[Tensor]:
        """(B, size) to tensors (B, *shape)."""
        parts = flat.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    @staticmethod
    def join(parts: list[Tensor]) -> Tensor:
        """The inverse of ``split``."""
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class StreamingConformer(nn.Module):
    """Features to CTC log-probabilities; one pass for training, ``step`` for streaming."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.slow_blocks + 2))
        self.reduce = nn.Linear(REDUCTION * config.dim, config.dim)
        self.widen = nn.Linear(config.dim, REDUCTION * config.dim)
        self.head = nn.Linear(config.dim, config.vocabulary)
        self.middle_head = nn.Linear(config.dim, REDUCTION * config.vocabulary)
        self.feedback = nn.Linear(REDUCTION * config.vocabulary, config.dim)

    @property
    def layout(self) -> StateLayout:
        """The state: frames heard (1), subsampling, then per block keys-and-values and convolution history."""
        config = self.config
        shapes: list[tuple[int, ...]] = [(1,), (1, Subsampling.TAPS[0] - 2, config.bands)]
        shapes.append((config.channels[0], Subsampling.TAPS[1] - 2, config.bands))
        for index in range(len(self.blocks)):
            left = config.left if self._fast(index) else config.left // REDUCTION
            shapes += [(left, 2 * config.dim), (config.kernel - 1, config.dim)]
        return StateLayout(tuple(shapes))

    def _fast(self, index: int) -> bool:
        return index in (0, len(self.blocks) - 1)

    def _encode(
        self, features: Tensor, subsampling: list[Tensor], masks: list[Tensor], tables: list[tuple[Tensor, Tensor]],
        keys: list[Tensor | None], histories: list[Tensor],
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor], list[Tensor]]:  # fmt: skip
        x, one, two = self.subsampling(features, *subsampling)
        new_keys: list[Tensor] = []
        new_histories: list[Tensor] = []
        middle = len(self.blocks) // 2
        skip = x
        inner = x
        for index, block in enumerate(self.blocks):
            rate = 0 if self._fast(index) else 1
            if index == 1:
                skip = x
                x = self.reduce(x.reshape(x.shape[0], -1, REDUCTION * x.shape[-1]))
            if index == len(self.blocks) - 1:
                x = skip + self.widen(x).reshape(skip.shape)
            x, key, history = block(x, masks[rate], tables[rate], keys[index], histories[index])
            if index == middle:
                # Self-conditioned CTC (Nozaki and Komatsu 2021): later blocks see what this one would have said.
                inner = self.middle_head(x)
                pairs = inner.reshape(*inner.shape[:2], REDUCTION, -1)
                x = x + self.feedback(pairs.softmax(dim=-1).flatten(2))
            new_keys.append(key)
            new_histories.append(history)
        inner = inner.reshape(inner.shape[0], -1, self.config.vocabulary)
        return self.head(x).log_softmax(-1), inner.log_softmax(-1), [one, two], new_keys, new_histories

    def thin(self, dropout: float, depth: float) -> None:
        """Regularise training: dropout of all residual branches, stochastic depth rising linearly to the last block."""
        for index, block in enumerate(self.blocks, 1):
            block.thin.dropout, block.thin.depth = dropout, depth * index / len(self.blocks)

    def forward(self, features: Tensor, chunk: int | None = None, left: int | None = None) -> tuple[Tensor, Tensor]:
        """A whole batch at once, for training.

        Args:
            features: (B, T, bands), T a multiple of four times the chunk; padded at the end.
            chunk: 40 ms frames per chunk if other than the configuration's (even).
            left: 40 ms frames of the past if other than the configuration's (even).
        Returns:
            (B, T / 4, V) log-probabilities, and the same from the middle block.
        """
        config, batch = self.config, features.shape[0]
        chunk = config.chunk if chunk is None else chunk
        left = config.left if left is None else left
        device = features.device
        frames = features.shape[1] // SUBSAMPLING
        slow = frames // REDUCTION
        masks = [
            chunk_mask(frames, chunk, left, device),
            chunk_mask(slow, chunk // REDUCTION, left // REDUCTION, device),
        ]
        head = config.dim // config.heads
        tables = [rotary(torch.arange(count, device=device), head) for count in (frames, slow)]
        zeros = [features.new_zeros(batch, *shape) for shape in self.layout.shapes[1:3]]
        none: list[Tensor | None] = [None] * len(self.blocks)
        histories = [features.new_zeros(batch, config.kernel - 1, config.dim)] * len(self.blocks)
        final, inner, *_ = self._encode(features, zeros, masks, tables, none, histories)
        return final, inner

    def step(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next chunks of each stream.

        Args:
            features: (B, 4 * chunk * k, bands).
            state: (B, layout.size); zeros at the start.
        Returns:
            (B, chunk * k, V) log-probabilities and the next state.
        """
        config = self.config
        heard, one, two, *rest = self.layout.split(state)
        frames = features.shape[1] // SUBSAMPLING
        slow = frames // REDUCTION
        masks = [
            self._step_mask(frames, config.chunk, config.left, heard),
            self._step_mask(slow, config.chunk // REDUCTION, config.left // REDUCTION, heard // REDUCTION),
        ]
        head = config.dim // config.heads
        tables = [
            rotary(torch.arange(config.left + frames), head),
            rotary(torch.arange(config.left // REDUCTION + slow), head),
        ]
        final, _, parts, keys, histories = self._encode(features, [one, two], masks, tables, rest[0::2], rest[1::2])
        new: list[Tensor] = [(heard + frames).clamp(max=config.left), *parts]
        for key, history, old in zip(keys, histories, rest[0::2], strict=True):
            new += [key[:, key.shape[1] - old.shape[1] :], history]
        return final, StateLayout.join(new)

    @staticmethod
    def _step_mask(frames: int, chunk: int, left: int, heard: Tensor) -> Tensor:
        """(B, 1, T, left + T): the chunk rule, and nothing from before the stream began."""
        query = torch.arange(frames) // chunk * chunk + left
        key = torch.arange(left + frames)
        allowed = (key[None, :] < (query + chunk)[:, None]) & (key[None, :] >= (query - left)[:, None])
        real = key[None, :] >= (left - heard)
        return (allowed[None] & real[:, None, :])[:, None]


def load_conformer(arrays: Mapping[str, Any], config: Mapping[str, Any] | None, *, what: str) -> StreamingConformer:
    """The network of some weights.

    Args:
        arrays: by the names of the module's parameters.
        config: as ``ConformerConfig.to_dict`` gives it.
        what: the weights are of, for messages.
    Raises:
        BadModelFile: weights or a configuration that do not fit.
    """
    try:
        module = StreamingConformer(ConformerConfig.from_dict(dict(config or {})))
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise BadModelFile(f"{what}: the configuration makes no Conformer: {error!s:.200}") from None
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    check_names(arrays, shapes, what=what)
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return module
