"""T-one's attention as a graph: heads, positions, what a chunk may see, and what is remembered of the past."""

from __future__ import annotations

import math

import numpy as np

from rechka.export.tone_parts import Parts
from rechka.types import F32

MASKED = -10000.0
NORM_EPSILON = 1e-5


class AttentionParts(Parts):
    """The attention of ``rechka.export.tone``; shapes as in ``Parts``, H heads, k chunks."""

    def attention(self, index: int, x: str, weights: str, past: str | None) -> tuple[str, F32 | None, str, str]:
        """Rows, the last bias if not yet added, the attention weights, and what to remember of the input."""
        g, config = self.graph, self.config
        name = f"encoder.layers.{index}.self_attn"
        chunk = config.chunk_size // (2 if config.slow(index) else 1)
        left, kept, seen = 0, "", x
        if past is not None:
            left = config.mhsa_state_size // (2 if config.slow(index) else 1)
            seen, kept = self.remember(x, past, left)
        value = self.windows(self.linear(f"{name}.linear_v", seen), left, chunk)
        if config.recompute_scores[index]:
            query = self.rotated(self.heads(self.linear(f"{name}.linear_q", x), chunk), f"{name}.q_ln", left, chunk)
            key = self.windows(self.linear(f"{name}.linear_k", seen), left, chunk)
            key = self.rotated(key, f"{name}.k_ln", 0, left + chunk)
            scores = g.op("MatMul", query, g.transpose(key, 0, 1, 3, 2))
            if past is not None:
                scores = g.op("Add", scores, self.mask(left, chunk, seen))
            weights = g.op("Softmax", scores, axis=-1)
        # Layers that share scores share the mask too, hence the weights.
        mixed = g.reshape(g.transpose(g.op("MatMul", weights, value), 0, 2, 1, 3), -1, config.d_model)
        weight, bias = self.get(f"{name}.linear_out.weight").T, self.get(f"{name}.linear_out.bias")
        return *self.last(mixed, weight, bias), weights, kept

    def remember(self, x: str, past: str, left: int) -> tuple[str, str]:
        """Rows of the frames before and now, and the next cache (B, state size, D), right-aligned among zeros."""
        g, config = self.graph, self.config
        cached = g.reshape(past, 0, config.mhsa_state_size, config.d_model)
        used = g.slice(cached, 1, config.mhsa_state_size - left, None)
        joined = g.concat(1, used, g.reshape(x, self.batch, -1, config.d_model))
        kept = g.slice(joined, 1, -left, None)
        if left < config.mhsa_state_size:
            kept = g.op("Pad", kept, g.ints(0, config.mhsa_state_size - left, 0, 0, 0, 0))
        return g.reshape(joined, -1, config.d_model), kept

    def heads(self, x: str, length: int) -> str:
        """Rows to (chunks, H, length, D / H)."""
        g, config = self.graph, self.config
        return g.transpose(g.reshape(x, -1, length, config.n_heads, config.d_model // config.n_heads), 0, 2, 1, 3)

    def windows(self, x: str, left: int, chunk: int) -> str:
        """Rows of B * (left + T) to (B * k, H, left + chunk, D / H): for every chunk what it sees."""
        if left == 0:
            return self.heads(x, chunk)
        g, config = self.graph, self.config
        blocks = g.reshape(x, self.batch, -1, chunk, config.d_model)
        return self.heads(self.overlap(blocks, left // chunk), left + chunk)

    def overlap(self, blocks: str, behind: int) -> str:
        """(B, behind + k, chunk, ...) to (B, k, (behind + 1) * chunk, ...)."""
        g = self.graph
        ends: list[int | None] = [i - behind for i in range(behind)]
        return g.concat(2, *(g.slice(blocks, 1, i, end) for i, end in enumerate([*ends, None])))

    def mask(self, left: int, chunk: int, seen: str) -> str:
        """(B * k, 1, 1, left + chunk) to add to scores: very negative for frames from before the stream began."""
        g, config = self.graph, self.config
        rate = config.mhsa_state_size // left
        missing = g.op("Sub", g.const(config.mhsa_state_size), self.parts["mhsa_len"][0])
        missing = g.op("Floor", g.op("Div", missing, g.const(rate)))
        absent = g.cast(g.op("Less", g.const(np.arange(left)[None]), missing), "float32")
        length = self.length(g.reshape(seen, self.batch, -1, config.d_model))
        pads = g.concat(0, g.ints(0, 0, 0), g.op("Sub", length, g.ints(left)))
        absent = g.reshape(g.op("Pad", g.op("Mul", absent, g.const(MASKED)), pads), self.batch, -1, chunk)
        return g.reshape(self.overlap(absent, left // chunk), -1, 1, 1, left + chunk)

    def rotated(self, x: str, norm: str, first: int, length: int) -> str:
        """LayerNorm over heads, then positions; the query's 1/sqrt(d) is worked into its norm."""
        g, config = self.graph, self.config
        size, half = config.d_model // config.n_heads, config.rope_dim // 2
        scale = 1 / math.sqrt(size) if norm.endswith("q_ln") else 1.0
        weight, bias = (g.const(scale * self.get(f"{norm}.{part}")) for part in ("weight", "bias"))
        x = g.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=NORM_EPSILON)
        angle = np.arange(first, first + length)[:, None] * 10000.0 ** (-np.arange(half) / half)[None]
        cos, sin = g.const(np.cos(angle)), g.const(np.sin(angle))
        one, two, rest = g.split(x, 3, half, half, size - 2 * half)
        turned_one = g.op("Sub", g.op("Mul", one, cos), g.op("Mul", two, sin))
        turned_two = g.op("Add", g.op("Mul", two, cos), g.op("Mul", one, sin))
        return g.concat(3, turned_one, turned_two, rest)
