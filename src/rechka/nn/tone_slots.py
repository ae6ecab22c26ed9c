"""T-one for many streams whose states stay on the device: one step of any of them, in place.

A stream owns a slot. What it must remember lies in tensors with a slot axis, most of it in rings of which a step
overwrites the oldest rows; nothing is shifted, gathered into a batch or scattered back. Where a stream stands in its
rings follows from the number of chunks that it has heard, which comes with the audio; a stream that has heard nothing
sees zeros wherever a slot's last owner left something, so giving away a slot costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from rechka.features import tone as frontend
from rechka.nn.fused import Past, Reference, Rows, recall, remember
from rechka.nn.tone_config import ToneConfig
from rechka.nn.tone_net import Attention, FeedForward, Layer, Net

Out = TypeVar("Out")


def period(config: ToneConfig) -> int:
    """Chunks after which every ring is full and stands as at the beginning: 6 for the published model."""
    sizes = [(config.conv_kernel_size - 1, config.chunk_size), (config.conv_kernel_size - 1, config.chunk_size // 2)]
    sizes += [(config.mhsa_state_size, config.chunk_size)]
    turns = math.lcm(*(size // math.gcd(size, step) for size, step in sizes))
    longest = max(math.ceil(size / step) for size, step in sizes)
    return turns * math.ceil(longest / turns)


def clock(chunks: int, turns: int) -> int:
    """What a step must know of the number of chunks heard: itself at first, then its place in the ``period``."""
    return chunks if chunks < turns else turns + chunks % turns


@dataclass(frozen=True, slots=True)
class Slots:
    """What streams remember, a slot each; the last one is for rows of a batch that stand for no stream.

    Attributes:
        audio: (slots, 80) the last samples, 16-bit integers.
        mels: (slots, 18, mels) the last normalised features; those of the first convolution's output that the second
            one needs are computed again from them, which is cheaper than to remember them.
        conv: per layer (slots, kernel - 1, D) gated frames, a ring.
        attended: per layer that sees frames before its chunk (slots, left, D) its normalised input, a ring.
        reduction: (slots, D) the last frame before the reduction.
    """

    audio: Tensor
    mels: Tensor
    conv: tuple[Tensor, ...]
    attended: tuple[Tensor, ...]
    reduction: Tensor

    @classmethod
    def make(cls, net: Net, count: int) -> Slots:
        """Room for ``count`` streams."""
        config, device = net.config, net.reduction.weight.device  # type: ignore[union-attr]

        def room(*shape: int, dtype: torch.dtype = net.dtype) -> Tensor:
            return torch.zeros(count + 1, *shape, dtype=dtype, device=device)

        back = sum(
            kernel[0] - stride[0] for kernel, stride in zip(config.conv_kernels, config.conv_strides, strict=True)
        )
        return cls(
            room(frontend.CONTEXT, dtype=torch.int16),
            room(back, config.n_mels),
            tuple(room(config.conv_kernel_size - 1, config.d_model) for _ in range(config.n_layers)),
            tuple(room(config.mhsa_state_size // _rate(config, i), config.d_model) for i in config.stateful_layers),
            room(config.d_model),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in a fixed order."""
        return (self.audio, self.mels, *self.conv, *self.attended, self.reduction)

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one stream."""
        return sum(tensor[0].numel() * tensor.element_size() for tensor in self.tensors)


def step(net: Net, slots: Slots, owners: Tensor, heard: Tensor, signal: Tensor, ops: Reference) -> Tensor:
    """The next chunks of some streams.

    Args:
        net: the model.
        slots: what the streams remember; changed in place.
        owners: (B,) slot of each stream.
        heard: (B,) ``clock`` of each stream.
        signal: (B, k * 2400) 16-bit samples, any whole k >= 1.
        ops: what computes.
    Returns:
        (B, 10 * k, V) log-probabilities in float32.
    """
    config = net.config
    batch, chunks = signal.shape[0], signal.shape[1] // config.chunk_samples
    x = _front(net, slots, owners, heard, signal, ops)
    skip, weights = x, None
    full = config.chunk_size
    pasts = {frames: _past(owners, heard, slots.conv[0], frames) for frames in (full, full // 2)}
    rows = ops.rms(x, None, None, net.in_8_bits)
    for index, layer in enumerate(net.layers):
        frames = chunks * config.chunk_size // _rate(config, index)
        _feed_forward(ops, net, x, rows, layer.first)
        weights = _attention(net, slots, owners, heard, x, weights, index, frames, ops)
        wide = ops.product(ops.rms(x, layer.shifts[1], None, net.in_8_bits), layer.gated, net.dtype)
        past = pasts[frames // chunks]
        mixed = ops.depthwise(wide.unflatten(0, (batch, frames)), slots.conv[index], past, layer.depthwise)
        ops.accumulate(x, mixed, layer.pointwise)
        _feed_forward(ops, net, x, ops.rms(x, layer.shifts[2], None, net.in_8_bits), layer.second)
        x, rows = ops.finish(x, layer.shifts[3], layer.norm, net.in_8_bits)
        if index == config.reduction_position:
            skip, x = x, _reduce(net, slots, owners, heard, x.unflatten(0, (batch, frames)))
            rows = ops.rms(x, None, None, net.in_8_bits)
        if index == config.upsample_position:
            x = (x[:, None] + skip.unflatten(0, (-1, 2))).flatten(0, 1)
            rows = ops.rms(x, None, None, net.in_8_bits)
    logits = ops.product(x, net.head, net.dtype).float()
    return logits.log_softmax(dim=-1).unflatten(0, (batch, -1))


def _rate(config: ToneConfig, layer: int) -> int:
    return 2 if config.slow(layer) else 1


def _past(owners: Tensor, heard: Tensor, ring: Tensor, frames: int) -> Past:
    """Where streams stand in a ring that takes so many rows per chunk."""
    size = ring.shape[1]
    return Past(owners, heard * frames % size, (heard * frames).clamp(max=size))


def _known(remembered: Tensor, heard: Tensor) -> Tensor:
    """Zeros for streams that have heard nothing; (B, ...)."""
    return torch.where((heard > 0).view(-1, *[1] * (remembered.dim() - 1)), remembered, 0)


def _front(net: Net, slots: Slots, owners: Tensor, heard: Tensor, signal: Tensor, ops: Reference) -> Tensor:
    """16-bit samples to frames (B * T, D)."""
    front, batch = net.front, signal.shape[0]
    wave = torch.cat([_known(slots.audio[owners], heard), signal], dim=1)
    slots.audio[owners] = signal[:, -frontend.CONTEXT :]
    windows = (wave.float() / frontend.SCALE).unfold(1, frontend.WINDOW, frontend.HOP)
    spectrum = (windows @ front.dft).flatten(0, 1)
    normed = ops.features(spectrum, front.mel, front.norm, net.dtype).unflatten(0, (batch, -1))
    seen = torch.cat([_known(slots.mels[owners], heard), normed], dim=1)
    slots.mels[owners] = seen[:, -slots.mels.shape[1] :]
    taps = net.config.conv_kernels[0][0]
    frames, num_mels = seen.shape[1] - taps + 1, seen.shape[2]
    bands = seen.as_strided((batch, frames, taps * num_mels), (seen.stride(0), num_mels, 1)).reshape(batch * frames, -1)
    first = functional.linear(bands, front.bands.weight, front.bands.bias).unflatten(0, (batch, frames))
    # The second convolution's past at the beginning is zeros, and not what silence would have given.
    first = ops.open_bands(first, heard, frames - normed.shape[1])
    planes = first.unflatten(2, (-1, front.second[0].shape[1])).permute(0, 3, 1, 2)
    second = functional.silu(functional.conv2d(planes, *front.second, stride=net.config.conv_strides[1]))
    rows = second.permute(0, 2, 3, 1).flatten(2).flatten(0, 1)
    found = ops.rms(functional.linear(rows, front.out.weight), None, front.out_norm)
    assert isinstance(found, Tensor)
    return found


def _feed_forward(ops: Reference, net: Net, x: Tensor, rows: Rows, part: FeedForward) -> None:
    ops.accumulate(x, ops.gated(rows, part.inner, net.dtype, net.in_8_bits), part.outer)


def _attention(
    net: Net, slots: Slots, owners: Tensor, heard: Tensor, x: Tensor, weights: Tensor | None,
    index: int, frames: int, ops: Reference,
) -> Tensor:  # fmt: skip
    """Add a layer's attention to ``x``; its weights, which the next layers may share."""
    config, layer = net.config, net.layers[index]
    part, chunk = layer.attention, config.chunk_size // _rate(config, index)
    if index in config.stateful_layers:
        weights, value = _attention_to_the_left(net, slots, owners, heard, x, layer, index, frames, ops)
    else:
        both = ops.product(ops.rms(x, layer.shifts[0], None, net.in_8_bits), part.inner, net.dtype)
        both = both.unflatten(0, (-1, chunk))
        value = both[..., -config.d_model :]
        if part.norms is not None:
            assert part.table is not None
            query, key = both[..., : config.d_model], both[..., config.d_model : 2 * config.d_model]
            weights = ops.attend(query, key, part.norms, part.table, None)
    assert weights is not None  # the configuration makes the first layer compute them
    ops.accumulate(x, ops.mix(weights, value), part.outer)
    return weights


def _attention_to_the_left(
    net: Net, slots: Slots, owners: Tensor, heard: Tensor, x: Tensor, layer: Layer, index: int, frames: int,
    ops: Reference,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Weights and values of a layer that sees remembered frames, chunk by chunk."""
    config, part, batch = net.config, layer.attention, owners.shape[0]
    chunk = config.chunk_size // _rate(config, index)
    ring = slots.attended[index - config.mhsa_stateless_layers]
    left, dim, chunks = ring.shape[1], config.d_model, frames // chunk
    normed = ops.rms(x, layer.shifts[0], part.norm)
    assert isinstance(normed, Tensor)
    assert part.norms is not None
    assert part.table is not None
    past = _past(owners, heard, ring, chunk)
    fresh = normed.unflatten(0, (batch, frames))
    seen = torch.cat([recall(ring, past), fresh], dim=1)
    remember(ring, past, fresh)
    query, others = _split(part, dim)
    queries = functional.linear(normed, *query).unflatten(0, (-1, chunk))
    both = _windows(functional.linear(seen, *others), left, chunk)
    later = torch.arange(chunks, device=heard.device)
    missing = (left - (heard[:, None] + later) * chunk).clamp(min=0).flatten()
    weights = ops.attend(queries, both[..., :dim], part.norms, part.table, missing)
    return weights, both[..., dim:]


def _split(part: Attention, dim: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Weights and biases of the queries, and of keys and values."""
    weight, bias = part.inner.weight, part.inner.bias
    assert isinstance(weight, Tensor)
    assert bias is not None
    return (weight[:dim], bias[:dim]), (weight[dim:], bias[dim:])


def _windows(seen: Tensor, left: int, chunk: int) -> Tensor:
    """(B, left + k * chunk, D) to (B * k, left + chunk, D): for every chunk itself and what is before it."""
    if seen.shape[1] == left + chunk:
        return seen
    return seen.unfold(1, left + chunk, chunk).transpose(2, 3).flatten(0, 1)


def _reduce(net: Net, slots: Slots, owners: Tensor, heard: Tensor, x: Tensor) -> Tensor:
    """(B, T, D) to (B * T / 2, D): every frame of 60 ms from three of 30 ms, one of them shared with the one before."""
    seen = torch.cat([_known(slots.reduction[owners], heard)[:, None], x], dim=1)
    slots.reduction[owners] = x[:, -1]
    batch, frames, dim = x.shape
    triples = seen.as_strided((batch, frames // 2, 3 * dim), (seen.stride(0), 2 * dim, 1)).reshape(-1, 3 * dim)
    return functional.linear(triples, net.reduction.weight, net.reduction.bias)


def published_state(net: Net, slots: Slots, owner: int, chunks: int) -> Tensor:
    """A slot's stream in the layout of the published model, (state_size,) float32: ``Tone.step`` could go on with it.

    Args:
        net: the model.
        slots: what its streams remember.
        owner: the slot.
        chunks: how many chunks the stream has heard.
    """
    config, device = net.config, slots.audio.device
    owners = torch.tensor([owner], device=device)
    heard = torch.tensor([clock(chunks, period(config))], device=device)
    histories = [
        recall(ring, _past(owners, heard, ring, config.chunk_size // _rate(config, i)))[0].float().t()
        for i, ring in enumerate(slots.conv)
    ]
    attended = [
        functional.pad(
            recall(ring, _past(owners, heard, ring, config.chunk_size // _rate(config, i)))[0].float(),
            (0, 0, config.mhsa_state_size - ring.shape[1], 0),
        )
        for i, ring in zip(config.stateful_layers, slots.attended, strict=True)
    ]
    mels = _known(slots.mels[owners], heard)
    taps = config.conv_kernels[0][0]
    bands = mels.unfold(1, taps, 1).transpose(2, 3).flatten(2)
    first = functional.silu(functional.linear(bands, net.front.bands.weight, net.front.bands.bias))
    planes = _known(first, heard)[0].float().unflatten(1, (-1, config.conv_channels[0])).permute(2, 0, 1)
    parts = {
        "mhsa_len": torch.tensor([min(config.mhsa_state_size, chunks * config.chunk_size)], device=device).float(),
        "preprocessing": _known(slots.audio[owners], heard).float() / frontend.SCALE,
        "mhsa": torch.stack(attended),
        "conv": torch.stack(histories),
        "subsampling_1": mels[:, 1 - taps :].float(),
        "subsampling_2": planes,
        "reduction": _known(slots.reduction[owners], heard).float(),
    }
    return torch.cat([parts[name].flatten() for name in config.state_shapes])
