"""The operations that T-one's step on a device is made of, in plain torch: what the kernels in Triton must equal.

Each stands between two matrix products and does all that can be done there in one pass over memory. Rows are frames:
(M, D) of all streams, one after the other. The residual stream is kept without the biases of the products that were
added to it; whoever reads it adds them up as ``shift``, so that a product can add to it in place.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from rechka.features import tone as frontend
from rechka.nn.tone import SCORE_MASKED, RMSNorm, rotate

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
"""Largest number of e4m3."""
LAYER_NORM_GUARD = 1e-5


class Scaled(NamedTuple):
    """Rows in 8 bits: ``values`` (M, K) e4m3 and ``scale`` (M, 1) float32; their product is meant."""

    values: Tensor
    scale: Tensor


Rows: TypeAlias = "Tensor | Scaled"


class Linear(NamedTuple):
    """A product: ``weight`` (N, K), or in 8 bits with a scale per output (N, 1); ``bias`` (N,) or none."""

    weight: Rows
    bias: Tensor | None


class Depthwise(NamedTuple):
    """A causal depthwise convolution with its normalisation: ``taps`` (kernel, D), oldest first, ``bias`` (D,)."""

    taps: Tensor
    bias: Tensor


class HeadNorms(NamedTuple):
    """Weights and biases (D / H,) of the layer norms of queries and keys."""

    query: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]


class Past(NamedTuple):
    """Where the frames before a step are: rings of R rows, one per slot, of which each step overwrites the oldest.

    Attributes:
        slots: (B,) slot of each stream; streams that count for nothing share one that nobody reads.
        first: (B,) row of the step's first frame, which is that of the oldest one remembered.
        heard: (B,) how many rows were ever written, at most R; the others count as zeros.
    """

    slots: Tensor
    first: Tensor
    heard: Tensor


def rows_in_8_bits(x: Tensor) -> Scaled:
    """Every row with the scale that its largest number needs."""
    wide = x.float()
    scale = wide.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / FP8_MAX
    return Scaled((wide / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale)


def recall(ring: Tensor, past: Past) -> Tensor:
    """The frames before a step, (B, R, D), oldest first, from a ring (slots, R, D)."""
    size = ring.shape[1]
    steps = torch.arange(size, device=ring.device)
    found = ring[past.slots[:, None], (past.first[:, None] + steps) % size]
    return torch.where((steps >= size - past.heard[:, None])[:, :, None], found, 0.0)


def remember(ring: Tensor, past: Past, frames: Tensor) -> None:
    """Write the last of a step's frames (B, T, D) over the oldest of the ring."""
    size, total = ring.shape[1], frames.shape[1]
    kept = min(size, total)
    rows = (past.first[:, None] + torch.arange(total - kept, total, device=ring.device)) % size
    ring[past.slots[:, None], rows] = frames[:, total - kept :].to(ring.dtype)


class Reference:
    """The operations in plain torch, on any device. Statistics and sums are taken in float32."""

    name = "eager"

    def rms(self, x: Tensor, shift: Tensor | None, weight: Tensor | None, in_8_bits: bool = False) -> Rows:
        """(M, D): ``x + shift`` over its root mean square, times ``weight``."""
        wide = x.float() if shift is None else x.float() + shift.float()
        rms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        out = wide / (rms + RMSNorm.GUARD)
        out = out if weight is None else out * weight.float()
        return rows_in_8_bits(out) if in_8_bits else out.to(x.dtype)

    def finish(self, x: Tensor, shift: Tensor, weight: Tensor, in_8_bits: bool = False) -> tuple[Tensor, Rows]:
        """The end of a layer: the new residual stream (M, D), and what the next layer's first part reads of it."""
        out = self.rms(x, shift, weight)
        assert isinstance(out, Tensor)
        return out, self.rms(out, None, None, in_8_bits)

    def gate(self, wide: Tensor, in_8_bits: bool = False) -> Rows:
        """(M, 2 H) to (M, H): SiLU of the first half times the second."""
        inner, value = wide.float().chunk(2, dim=-1)
        out = functional.silu(inner) * value
        return rows_in_8_bits(out) if in_8_bits else out.to(wide.dtype)

    def depthwise(self, wide: Tensor, ring: Tensor, past: Past, conv: Depthwise) -> Tensor:
        """GLU, depthwise convolution, SiLU over the frames before and these; the ring takes the gated frames.

        Args:
            wide: (B, T, 2 D), values and gates.
            ring: (slots, kernel - 1, D) gated frames; changed in place.
            past: where this step stands in the ring.
            conv: the convolution.
        Returns:
            (B * T, D).
        """
        gated = functional.glu(wide.float(), dim=-1).to(wide.dtype)
        joined = torch.cat([recall(ring, past).to(wide.dtype), gated], dim=1).transpose(1, 2).float()
        mixed = functional.conv1d(joined, conv.taps.t()[:, None].float(), conv.bias.float(), groups=joined.shape[1])
        remember(ring, past, gated)
        return functional.silu(mixed).transpose(1, 2).reshape(-1, joined.shape[1]).to(wide.dtype)

    def attend(
        self, query: Tensor, key: Tensor, norms: HeadNorms, table: tuple[Tensor, Tensor], missing: Tensor | None
    ) -> Tensor:
        """Attention weights.

        Args:
            query: (N, T, D) of a chunk.
            key: (N, K, D): those of the chunk come last.
            norms: of queries and keys; their size tells the number of heads.
            table: cosines and sines (K, rotated dimensions).
            missing: (N,) how many leading keys do not exist, or None.
        Returns:
            (N, H, T, K) of the query's type.
        """
        size = norms.query[0].shape[0]
        turned = []
        for x, (weight, bias), skipped in (
            (query, norms.query, key.shape[1] - query.shape[1]), (key, norms.key, 0),
        ):  # fmt: skip
            heads = x.float().unflatten(-1, (-1, size)).transpose(1, 2)
            normed = functional.layer_norm(heads, (size,), weight.float(), bias.float(), LAYER_NORM_GUARD)
            turned.append(rotate(normed, table[0][skipped:], table[1][skipped:]))
        scores = turned[0] @ turned[1].transpose(-1, -2) / size**0.5
        if missing is not None:
            there = torch.arange(key.shape[1], device=key.device) >= missing[:, None]
            scores = scores.masked_fill(~there[:, None, None, :], SCORE_MASKED)
        return scores.softmax(dim=-1).to(query.dtype)

    def mix(self, weights: Tensor, value: Tensor) -> Tensor:
        """(N, H, T, K) and (N, K, D) to (N * T, D)."""
        heads = value.unflatten(-1, (weights.shape[1], -1)).transpose(1, 2)
        return (weights @ heads).transpose(1, 2).reshape(-1, value.shape[-1])

    def features(self, spectrum: Tensor, mel: Tensor, norm: Tensor, dtype: torch.dtype) -> Tensor:
        """Spectra to normalised log-mel features.

        Args:
            spectrum: (M, 2 * bins) real parts, then imaginary, in float32.
            mel: (bins, mels).
            norm: (mels,) weight of the RMSNorm.
            dtype: of the result.
        Returns:
            (M, mels).
        """
        real, imaginary = spectrum.chunk(2, dim=-1)
        mels = ((real.square() + imaginary.square()) @ mel + frontend.LOG_GUARD).log()
        found = self.rms(mels, None, norm)
        assert isinstance(found, Tensor)
        return found.to(dtype)

    def open_bands(self, x: Tensor, heard: Tensor, before: int) -> Tensor:
        """SiLU of (B, T, D), in place; zeros in the first ``before`` frames of streams that have heard nothing."""
        functional.silu(x, inplace=True)
        early = torch.arange(x.shape[1], device=x.device) < before
        return x.masked_fill_((early & (heard == 0)[:, None])[:, :, None], 0.0)

    def gated(self, rows: Rows, linear: Linear, dtype: torch.dtype, in_8_bits: bool = False) -> Rows:
        """(M, K) to (M, N / 2): a product whose first half opens the second."""
        return self.gate(self.product(rows, linear, dtype), in_8_bits)

    def product(self, rows: Rows, linear: Linear, dtype: torch.dtype) -> Tensor:
        """(M, K) to (M, N)."""
        if isinstance(rows, Tensor):
            assert isinstance(linear.weight, Tensor)
            return functional.linear(rows, linear.weight, linear.bias)
        return _product_in_8_bits(rows, linear, dtype)

    def accumulate(self, x: Tensor, rows: Rows, linear: Linear) -> None:
        """Add a product (M, N) to the residual stream, without its bias."""
        if isinstance(rows, Tensor):
            assert isinstance(linear.weight, Tensor)
            x.addmm_(rows, linear.weight.t())
        else:
            x.add_(_product_in_8_bits(rows, linear._replace(bias=None), x.dtype))


def _product_in_8_bits(rows: Scaled, linear: Linear, dtype: torch.dtype) -> Tensor:
    assert isinstance(linear.weight, Scaled)
    weight, scale = linear.weight
    if rows.values.is_cuda:
        return torch._scaled_mm(
            rows.values, weight.t(), scale_a=rows.scale, scale_b=scale.t(), bias=linear.bias, out_dtype=dtype
        )
    out = (rows.values.float() @ weight.float().t()) * rows.scale * scale.t()
    return (out if linear.bias is None else out + linear.bias.float()).to(dtype)


class Compiled(Reference):
    """The same, each operation compiled by torch into kernels of its own. Batches may vary without compiling again."""

    name = "compiled"

    def __init__(self) -> None:
        for operation in ("rms", "finish", "gate", "depthwise", "attend", "mix", "features", "open_bands"):
            setattr(self, operation, torch.compile(getattr(self, operation), dynamic=True))
