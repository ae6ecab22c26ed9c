"""The operations of ``rechka.nn.fused`` as kernels in Triton: each reads its inputs once and writes its results once.

Written for rows of a few hundred numbers and batches of thousands of rows. Nothing here depends on the number of rows
at compile time, so that every size of a batch runs the same binaries. What they compute is tested against
``fused.Reference``, on a CPU by Triton's interpreter (``TRITON_INTERPRET=1``).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rechka.features import tone as frontend
from rechka.nn.fused import FP8, Depthwise, HeadNorms, Linear, Past, Reference, Rows, Scaled

GUARD = tl.constexpr(1e-8)
LAYER_NORM_GUARD = tl.constexpr(1e-5)
FP8_MAX = tl.constexpr(448.0)
MASKED = tl.constexpr(-10000.0)


@triton.jit
def _store_rows(out, scale, x, rows, columns, mask, num_rows, width, IN_8_BITS: tl.constexpr):
    """Rows in the type of ``out``, in 8 bits with the scale that each needs."""
    at = rows[:, None] * width + columns[None, :]
    if IN_8_BITS:
        largest = tl.maximum(tl.max(tl.where(mask, tl.abs(x), 0.0), axis=1), 1e-12) / FP8_MAX
        tl.store(scale + rows, largest, mask=rows < num_rows)
        x = tl.minimum(tl.maximum(x / largest[:, None], -FP8_MAX), FP8_MAX)
    tl.store(out + at, x.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _normalised(x, width):
    """Rows over their root mean square."""
    rms = tl.sqrt(tl.sum(x * x, axis=1) / width)
    return x / (rms[:, None] + GUARD)


@triton.jit
def rms_kernel(
    x, shift, weight, out, scale, num_rows, width,
    HAS_SHIFT: tl.constexpr, HAS_WEIGHT: tl.constexpr, IN_8_BITS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``x`` (+ ``shift``) over its root mean square (times ``weight``): (rows, width) to ``out``."""
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    mask = (rows[:, None] < num_rows) & (columns[None, :] < width)
    found = tl.load(x + rows[:, None] * width + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    if HAS_SHIFT:
        found += tl.load(shift + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    found = _normalised(found, width)
    if HAS_WEIGHT:
        found *= tl.load(weight + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    _store_rows(out, scale, found, rows, columns, mask, num_rows, width, IN_8_BITS)


@triton.jit
def finish_kernel(
    x, shift, weight, stream, out, scale, num_rows, width,
    IN_8_BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """``x`` + ``shift``, normalised and weighted, to ``stream``; the same normalised again to ``out``."""
    rows, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    mask = (rows[:, None] < num_rows) & (columns[None, :] < width)
    at = rows[:, None] * width + columns[None, :]
    found = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
    found += tl.load(shift + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    found = _normalised(found, width) * tl.load(weight + columns, mask=columns < width, other=0.0)[None, :]
    kept = found.to(stream.dtype.element_ty)
    tl.store(stream + at, kept, mask=mask)
    # The next norm sees what was stored, as it would if it read it.
    found = _normalised(kept.to(tl.float32), width)
    _store_rows(out, scale, found, rows, columns, mask, num_rows, width, IN_8_BITS)


@triton.jit
def gate_kernel(
    wide, out, scale, num_rows, width, IN_8_BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """SiLU of the first half of each row times the second: (rows, 2 * width) to ``out`` (rows, width)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (rows[:, None] < num_rows) & (columns[None, :] < width)
    at = wide + rows[:, None] * (2 * width) + columns[None, :]
    inner = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(at + width, mask=mask, other=0.0).to(tl.float32)
    _store_rows(out, scale, inner * tl.sigmoid(inner) * value, rows, columns, mask, num_rows, width, IN_8_BITS)


@triton.jit
def features_kernel(
    spectrum, mel, norm, out, num_rows, bins, mels, guard, ROWS: tl.constexpr, BINS: tl.constexpr, MELS: tl.constexpr
):  # fmt: skip
    """Features of spectra: log of the mel energies, normalised and weighted.

    ``spectrum`` is (rows, 2 * bins), real parts before imaginary ones; ``mel`` (bins, mels); ``out`` (rows, mels).
    """
    rows, steps, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BINS), tl.arange(0, MELS)
    mask = (rows[:, None] < num_rows) & (steps[None, :] < bins)
    at = spectrum + rows[:, None] * (2 * bins) + steps[None, :]
    real, imaginary = tl.load(at, mask=mask, other=0.0), tl.load(at + bins, mask=mask, other=0.0)
    filters = mel + steps[:, None] * mels + columns[None, :]
    filters = tl.load(filters, mask=(steps[:, None] < bins) & (columns[None, :] < mels), other=0.0)
    found = tl.log(tl.dot(real * real + imaginary * imaginary, filters, input_precision="ieee") + guard)
    mask = (rows[:, None] < num_rows) & (columns[None, :] < mels)
    found = _normalised(tl.where(mask, found, 0.0), mels)
    found *= tl.load(norm + columns, mask=columns < mels, other=0.0)[None, :]
    tl.store(out + rows[:, None] * mels + columns[None, :], found.to(out.dtype.element_ty), mask=mask)


@triton.jit
def open_kernel(x, heards, frames, width, before, COLUMNS: tl.constexpr):
    """One frame of one stream, in place."""
    stream, frame = tl.program_id(0) // frames, tl.program_id(0) % frames
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    at = x + tl.program_id(0).to(tl.int64) * width + columns
    found = tl.load(at, mask=columns < width, other=0.0).to(tl.float32)
    found = found * tl.sigmoid(found)
    found = tl.where((frame < before) & (tl.load(heards + stream) == 0), 0.0, found)
    tl.store(at, found.to(x.dtype.element_ty), mask=columns < width)


@triton.jit
def gated_kernel(
    x, weight, bias, out, num_rows,
    INNER: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A tile of a product whose first half opens the second: both halves of it are summed up side by side."""
    # Programs that follow one another share rows of x and columns of the weights, as far as the cache reaches.
    across: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    group = tl.program_id(0) // (GROUP * across)
    high = tl.minimum(tl.cdiv(num_rows, ROWS) - group * GROUP, GROUP)
    place = tl.program_id(0) % (GROUP * across)
    rows = (group * GROUP + place % high) * ROWS + tl.arange(0, ROWS)
    columns = (place // high) * COLUMNS + tl.arange(0, COLUMNS)
    steps = tl.arange(0, DEPTH)
    # Beyond the last row and column others are read instead, so that no load of the loop needs a mask.
    a_at = x + (rows % num_rows)[:, None] * INNER + steps[None, :]
    b_at = weight + (columns % WIDTH)[None, :] * INNER + steps[:, None]
    opens = tl.zeros((ROWS, COLUMNS), tl.float32)
    values = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, INNER, DEPTH):
        if INNER % DEPTH == 0:
            a, b, c = tl.load(a_at + start), tl.load(b_at + start), tl.load(b_at + start + WIDTH * INNER)
        else:
            left = start + steps < INNER
            a = tl.load(a_at + start, mask=left[None, :], other=0.0)
            b = tl.load(b_at + start, mask=left[:, None], other=0.0)
            c = tl.load(b_at + start + WIDTH * INNER, mask=left[:, None], other=0.0)
        opens = tl.dot(a, b, opens, input_precision="ieee")
        values = tl.dot(a, c, values, input_precision="ieee")
    inside = columns < WIDTH
    opens += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    values += tl.load(bias + WIDTH + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    found = opens * tl.sigmoid(opens) * values
    mask = (rows[:, None] < num_rows) & inside[None, :]
    tl.store(out + rows[:, None] * WIDTH + columns[None, :], found.to(out.dtype.element_ty), mask=mask)


@triton.jit
def depthwise_kernel(
    wide, ring, owners, firsts, heards, taps, bias, out, width,
    SIZE: tl.constexpr, NEW: tl.constexpr, FRAMES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One stream and some channels. A remembered or new frame is read once and added to all that it reaches."""
    stream = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    steps = tl.arange(0, FRAMES)
    first, heard = tl.load(firsts + stream), tl.load(heards + stream)
    past = ring + tl.load(owners + stream) * SIZE * width + columns
    sums = tl.zeros((FRAMES, COLUMNS), tl.float32)
    for age in range(SIZE):
        real = inside & (age >= SIZE - heard)
        frame = tl.load(past + (first + age) % SIZE * width, mask=real, other=0.0).to(tl.float32)
        tap = age - steps
        reach = tl.load(
            taps + tap[:, None] * width + columns[None, :], mask=(tap >= 0)[:, None] & inside[None, :], other=0.0
        )
        sums += frame[None, :] * reach
    # Every thread has read the old rows before any of them is overwritten.
    tl.debug_barrier()
    for step in range(NEW):
        at = wide + (stream * NEW + step) * (2 * width) + columns
        value = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        gate = tl.load(at + width, mask=inside, other=0.0).to(tl.float32)
        kept = (value * tl.sigmoid(gate)).to(ring.dtype.element_ty)
        tl.store(past + (first + step) % SIZE * width, kept, mask=inside)
        tap = step + SIZE - steps
        reaches = (tap >= 0) & (tap <= SIZE)
        reach = tl.load(
            taps + tap[:, None] * width + columns[None, :], mask=reaches[:, None] & inside[None, :], other=0.0
        )
        sums += kept.to(tl.float32)[None, :] * reach
    sums += tl.load(bias + columns, mask=inside, other=0.0)[None, :]
    at = (stream * NEW + steps)[:, None] * width + columns[None, :]
    mask = (steps < NEW)[:, None] & inside[None, :]
    tl.store(out + at, (sums * tl.sigmoid(sums)).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _head(
    x,
    weight,
    bias,
    cos,
    sin,
    rows,
    count,
    stride,
    skipped,
    SIZE: tl.constexpr,
    TURNED: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One head's rows, normalised and rotated: (rows, WIDE), zeros beyond SIZE."""
    columns = tl.arange(0, WIDE)
    inside = columns < SIZE
    half: tl.constexpr = TURNED // 2
    # The partner of a rotated dimension is half of the rotated ones away; it comes from a second, cached read.
    partner = tl.where(columns < half, columns + half, tl.where(columns < TURNED, columns - half, columns))
    mask = (rows < count)[:, None] & inside[None, :]
    found = tl.load(x + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    other = tl.load(x + rows[:, None] * stride + partner[None, :], mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(found, axis=1) / SIZE
    spread = tl.where(mask, found - mean[:, None], 0.0)
    factor = 1.0 / tl.sqrt(tl.sum(spread * spread, axis=1) / SIZE + LAYER_NORM_GUARD)
    weights, biases = tl.load(weight + columns, mask=inside, other=0.0), tl.load(bias + columns, mask=inside, other=0.0)
    normed = spread * factor[:, None] * weights[None, :] + biases[None, :]
    weights, biases = tl.load(weight + partner, mask=inside, other=0.0), tl.load(bias + partner, mask=inside, other=0.0)
    swapped = (other - mean[:, None]) * factor[:, None] * weights[None, :] + biases[None, :]
    swapped = tl.where((columns < half)[None, :], -swapped, swapped)
    turns = (rows < count)[:, None] & (columns < TURNED)[None, :]
    at = (rows + skipped)[:, None] * TURNED + columns[None, :]
    turned = normed * tl.load(cos + at, mask=turns, other=1.0) + swapped * tl.load(sin + at, mask=turns, other=0.0)
    return tl.where(mask, turned, 0.0)


@triton.jit
def attend_kernel(
    query, key, query_weight, query_bias, key_weight, key_bias, cos, sin, missing, out,
    frames, keys, query_stride, query_row, key_stride, key_row, root,
    HAS_MISSING: tl.constexpr, SIZE: tl.constexpr, TURNED: tl.constexpr,
    FRAMES: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One chunk and one head."""
    chunk, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    steps, seen = tl.arange(0, FRAMES), tl.arange(0, KEYS)
    x = query + chunk.to(tl.int64) * query_stride + head * SIZE
    mine = _head(x, query_weight, query_bias, cos, sin, steps, frames, query_row, keys - frames, SIZE, TURNED, WIDE)
    x = key + chunk.to(tl.int64) * key_stride + head * SIZE
    theirs = _head(x, key_weight, key_bias, cos, sin, seen, keys, key_row, 0, SIZE, TURNED, WIDE)
    scores = tl.dot(mine, tl.trans(theirs), input_precision="ieee") / root
    if HAS_MISSING:
        scores = tl.where((seen >= tl.load(missing + chunk))[None, :], scores, MASKED)
    scores = tl.where((seen < keys)[None, :], scores, -float("inf"))
    scores = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    scores /= tl.sum(scores, axis=1)[:, None]
    at = ((chunk * heads + head) * frames + steps)[:, None] * keys + seen[None, :]
    mask = (steps < frames)[:, None] & (seen < keys)[None, :]
    tl.store(out + at, scores.to(out.dtype.element_ty), mask=mask)


@triton.jit
def mix_kernel(
    weights, value, out, frames, keys, value_stride, value_row, width,
    SIZE: tl.constexpr, FRAMES: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One chunk and one head."""
    chunk, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    steps, seen, columns = tl.arange(0, FRAMES), tl.arange(0, KEYS), tl.arange(0, WIDE)
    at = ((chunk * heads + head) * frames + steps)[:, None] * keys + seen[None, :]
    mask = (steps < frames)[:, None] & (seen < keys)[None, :]
    share = tl.load(weights + at, mask=mask, other=0.0)
    at = chunk.to(tl.int64) * value_stride + seen[:, None] * value_row + head * SIZE + columns[None, :]
    mask = (seen < keys)[:, None] & (columns < SIZE)[None, :]
    mixed = tl.dot(share, tl.load(value + at, mask=mask, other=0.0), input_precision="ieee")
    at = (chunk * frames + steps)[:, None] * width + head * SIZE + columns[None, :]
    tl.store(out + at, mixed.to(out.dtype.element_ty), mask=(steps < frames)[:, None] & (columns < SIZE)[None, :])


def _wide(n: int, least: int = 16) -> int:
    return max(least, triton.next_power_of_2(n))


class Fused(Reference):
    """The operations as one kernel each."""

    name = "fused"
    NORM_ROWS = 4
    """Rows of a norm that one program takes."""
    CHANNELS = 64
    """Channels of the depthwise convolution that one program takes."""

    def rms(self, x: Tensor, shift: Tensor | None, weight: Tensor | None, in_8_bits: bool = False) -> Rows:
        """See ``Reference``."""
        rows, width = x.shape
        out, scale = _results(x, width, in_8_bits)
        rms_kernel[(triton.cdiv(rows, self.NORM_ROWS),)](
            x, shift, weight, out, scale, rows, width, HAS_SHIFT=shift is not None, HAS_WEIGHT=weight is not None,
            IN_8_BITS=in_8_bits, ROWS=self.NORM_ROWS, COLUMNS=_wide(width),
        )  # fmt: skip
        return out if scale is None else Scaled(out, scale)

    def finish(self, x: Tensor, shift: Tensor, weight: Tensor, in_8_bits: bool = False) -> tuple[Tensor, Rows]:
        """See ``Reference``."""
        rows, width = x.shape
        stream = torch.empty_like(x)
        out, scale = _results(x, width, in_8_bits)
        finish_kernel[(triton.cdiv(rows, self.NORM_ROWS),)](
            x, shift, weight, stream, out, scale, rows, width,
            IN_8_BITS=in_8_bits, ROWS=self.NORM_ROWS, COLUMNS=_wide(width),
        )  # fmt: skip
        return stream, out if scale is None else Scaled(out, scale)

    def gate(self, wide: Tensor, in_8_bits: bool = False) -> Rows:
        """See ``Reference``."""
        rows, width = wide.shape[0], wide.shape[1] // 2
        out, scale = _results(wide, width, in_8_bits)
        # A scale needs the whole row in one program.
        taken, columns = (1, _wide(width)) if in_8_bits else (self.NORM_ROWS, min(512, _wide(width)))
        gate_kernel[(triton.cdiv(rows, taken), triton.cdiv(width, columns))](
            wide, out, scale, rows, width, IN_8_BITS=in_8_bits, ROWS=taken, COLUMNS=columns
        )
        return out if scale is None else Scaled(out, scale)

    def depthwise(self, wide: Tensor, ring: Tensor, past: Past, conv: Depthwise) -> Tensor:
        """See ``Reference``; steps of many chunks, whose frames outnumber the ring's, are left to it."""
        batch, frames, width = wide.shape[0], wide.shape[1], ring.shape[2]
        if frames > 16:
            return super().depthwise(wide, ring, past, conv)
        out = torch.empty(batch * frames, width, dtype=wide.dtype, device=wide.device)
        columns = min(self.CHANNELS, _wide(width))
        depthwise_kernel[(batch, triton.cdiv(width, columns))](
            wide, ring, *(part.contiguous() for part in past), conv.taps, conv.bias, out, width,
            SIZE=ring.shape[1], NEW=frames, FRAMES=_wide(frames, 8), COLUMNS=columns, num_warps=2,
        )  # fmt: skip
        return out

    def attend(
        self, query: Tensor, key: Tensor, norms: HeadNorms, table: tuple[Tensor, Tensor], missing: Tensor | None
    ) -> Tensor:
        """See ``Reference``."""
        size, (cos, sin) = norms.query[0].shape[0], table
        chunks, frames, width = query.shape
        keys, heads = key.shape[1], width // size
        out = torch.empty(chunks, heads, frames, keys, dtype=query.dtype, device=query.device)
        attend_kernel[(chunks, heads)](
            query, key, *norms.query, *norms.key, cos, sin, missing, out, frames, keys,
            query.stride(0), query.stride(1), key.stride(0), key.stride(1), size**0.5,
            HAS_MISSING=missing is not None, SIZE=size, TURNED=cos.shape[1],
            FRAMES=_wide(frames), KEYS=_wide(keys), WIDE=_wide(size), num_warps=_warps(keys),
        )  # fmt: skip
        return out

    def features(self, spectrum: Tensor, mel: Tensor, norm: Tensor, dtype: torch.dtype) -> Tensor:
        """See ``Reference``."""
        rows, (bins, mels) = spectrum.shape[0], mel.shape
        out = torch.empty(rows, mels, dtype=dtype, device=spectrum.device)
        features_kernel[(triton.cdiv(rows, 16),)](
            spectrum, mel, norm, out, rows, bins, mels, frontend.LOG_GUARD, ROWS=16, BINS=_wide(bins), MELS=_wide(mels)
        )
        return out

    def open_bands(self, x: Tensor, heard: Tensor, before: int) -> Tensor:
        """See ``Reference``."""
        batch, frames, width = x.shape
        open_kernel[(batch * frames, triton.cdiv(width, 512))](
            x, heard.contiguous(), frames, width, before, COLUMNS=512
        )
        return x

    def mix(self, weights: Tensor, value: Tensor) -> Tensor:
        """See ``Reference``."""
        chunks, heads, frames, keys = weights.shape
        width = value.shape[2]
        out = torch.empty(chunks * frames, width, dtype=value.dtype, device=value.device)
        mix_kernel[(chunks, heads)](
            weights, value, out, frames, keys, value.stride(0), value.stride(1), width,
            SIZE=width // heads, FRAMES=_wide(frames), KEYS=_wide(keys), WIDE=_wide(width // heads),
            num_warps=_warps(keys),
        )  # fmt: skip
        return out


class Tiled(Fused):
    """The same, and the gate of the feed-forward parts inside the product before it, where its inputs are in registers.

    It saves writing and reading 12 kB a row; whether that outweighs a product that is not the vendor's, a device tells.
    """

    name = "tiled"
    ROWS, COLUMNS, DEPTH, STAGES, WARPS = 128, 128, 64, 4, 8
    NARROW = 16
    """Rows of a tile where there are few."""

    def gated(self, rows: Rows, linear: Linear, dtype: torch.dtype, in_8_bits: bool = False) -> Rows:
        """See ``Reference``; products in 8 bits, and in 32 on a GPU, where a tile would not fit, are left to it."""
        if in_8_bits or not isinstance(rows, Tensor) or (rows.is_cuda and rows.dtype == torch.float32):
            return super().gated(rows, linear, dtype, in_8_bits)
        assert isinstance(linear.weight, Tensor)
        count, inner = rows.shape
        width = linear.weight.shape[0] // 2
        out = torch.empty(count, width, dtype=dtype, device=rows.device)
        high = self.ROWS if count >= self.ROWS else self.NARROW
        tiles = triton.cdiv(count, high) * triton.cdiv(width, self.COLUMNS)
        gated_kernel[(tiles,)](
            rows, linear.weight, linear.bias, out, count, INNER=inner, WIDTH=width,
            ROWS=high, COLUMNS=self.COLUMNS, DEPTH=self.DEPTH, GROUP=8, num_warps=self.WARPS, num_stages=self.STAGES,
        )  # fmt: skip
        return out


def _warps(keys: int) -> int:
    """One warp holds a chunk of its own; what is remembered to the left of it would spill."""
    return 1 if keys <= 16 else 4


def _results(x: Tensor, width: int, in_8_bits: bool) -> tuple[Tensor, Tensor | None]:
    out = torch.empty(x.shape[0], width, dtype=FP8 if in_8_bits else x.dtype, device=x.device)
    return out, torch.empty(x.shape[0], 1, dtype=torch.float32, device=x.device) if in_8_bits else None
