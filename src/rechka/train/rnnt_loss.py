"""The transducer's loss: minus the log-probability of a text, summed over all its alignments (Graves 2012).

A lattice of T frames and U tokens: at (t, u) a blank leads to (t + 1, u), the next token to (t, u + 1); a path starts
at (0, 0) and ends with a blank from (T - 1, U). Sums run over anti-diagonals t + u, all items and all cells of a
diagonal at once, in log space and float64; the gradient is exact: each arc's share of all paths. The lattice holds two
numbers per cell. What would not fit into memory is the joint network's output, (B, T, U + 1, V): ``transducer_loss``
computes it in slices of frames, and again for the gradient, so that no more than one slice is held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rechka.errors import DataError

INFINITE = float("-inf")
CELLS = 1 << 24
"""Numbers of the joint network's output that are held at once: 64 MiB, and several times that while it is computed."""


def rnnt_loss(logits: Tensor, targets: Tensor, frames: Tensor, lengths: Tensor, *, blank: int) -> Tensor:
    """Loss of each item from the joint network's whole output.

    Args:
        logits: (B, T, U + 1, V), not normalised; log-probabilities are left as they are by the normalisation.
        targets: (B, U) token ids, padded with anything from 0 to V - 1.
        frames: (B,) how many of T count, at least 1.
        lengths: (B,) how many of U count.
        blank: id of the blank.
    Returns:
        (B,) losses in natural log.
    """
    stays, moves = arcs(logits, targets, blank)
    return lattice_loss(stays, moves, frames, lengths)


def arcs(logits: Tensor, targets: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of blanks (B, T, U + 1) and of next tokens (B, T, U) from (B, T, U + 1, V), in float32."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    norm = wide.logsumexp(dim=-1)
    index = targets[:, None, :, None].expand(-1, wide.shape[1], -1, 1)
    tokens = wide[:, :, :-1].gather(-1, index)[..., 0]
    return wide[..., blank] - norm, tokens - norm[:, :, :-1]


def transducer_loss(
    joint: Callable[[Tensor, Tensor], Tensor],
    encoded: Tensor,
    predicted: Tensor,
    targets: Tensor,
    frames: Tensor,
    lengths: Tensor,
    *,
    blank: int,
    classes: int,
    cells: int = CELLS,
) -> Tensor:
    """Loss of each item, the joint network's output computed slice by slice.

    Args:
        joint: (B, t, D) frames and (B, U + 1, H) predictor outputs to (B, t, U + 1, V).
        encoded: (B, T, D).
        predicted: (B, U + 1, H), after no token, after one, ...
        targets, frames, lengths, blank: see ``rnnt_loss``.
        classes: the widest axis inside the joint network, V or its hidden layer.
        cells: numbers of its output that may be held at once.
    Returns:
        (B,) losses in natural log.
    """
    batch, total = encoded.shape[0], encoded.shape[1]
    size = max(1, cells // max(1, batch * predicted.shape[1] * classes))

    def part(piece: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        return arcs(joint(piece, predicted), targets, blank)

    if size >= total:
        pieces = [part(encoded, predicted)]
    else:
        pieces = [checkpoint(part, piece, predicted, use_reentrant=False) for piece in encoded.split(size, dim=1)]
    stays, moves = (torch.cat(tensors, dim=1) for tensors in zip(*pieces, strict=True))
    return lattice_loss(stays, moves, frames, lengths)


def lattice_loss(stays: Tensor, moves: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """Loss of each item from the arcs of its lattice.

    Args:
        stays: (B, T, U + 1) log-probabilities of a blank.
        moves: (B, T, U) log-probabilities of the next token.
        frames, lengths: (B,) how many of T, at least 1, and of U count.
    Raises:
        DataError: shapes or lengths that make no lattice.
    """
    batch, total, places = stays.shape
    if moves.shape != (batch, total, places - 1) or frames.shape != (batch,) or lengths.shape != (batch,):
        raise DataError(
            f"a lattice has arcs (B, T, U + 1) and (B, T, U) and lengths (B,), got {tuple(stays.shape)}, "
            f"{tuple(moves.shape)}, {tuple(frames.shape)} and {tuple(lengths.shape)}"
        )
    if batch and (int(frames.min()) < 1 or int(frames.max()) > total or int(lengths.min()) < 0):
        raise DataError(f"every item needs 1 to {total} frames, got {frames.tolist()}")
    if batch and int(lengths.max()) >= places:
        raise DataError(f"an item has at most {places - 1} tokens here, got {lengths.tolist()}")
    return _Lattice.apply(stays, moves, frames.to(stays.device), lengths.to(stays.device))


class _Lattice(torch.autograd.Function):
    """Forward sums from the start, backward sums from the end, and from both the share of every arc."""

    @staticmethod
    def forward(ctx: Any, stays: Tensor, moves: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        total, places = stays.shape[1:]
        rows = torch.arange(total, device=stays.device)[None, :, None]
        columns = torch.arange(places, device=stays.device)[None, None, :]
        inside = (rows < frames[:, None, None]) & (columns <= lengths[:, None, None])
        blank = _skewed(stays.double().masked_fill(~inside, INFINITE))
        inside = inside & (columns < lengths[:, None, None])
        token = torch.cat([moves.double(), moves.new_full((*moves.shape[:2], 1), INFINITE, dtype=torch.float64)], dim=2)
        token = _skewed(token.masked_fill(~inside, INFINITE))
        ahead = _from_start(blank, token)
        behind = _from_end(blank, token, frames, lengths)
        whole = behind[:, 0, 0]
        given = any(ctx.needs_input_grad[:2])
        if given:
            possible = torch.where(whole.isfinite(), whole, torch.zeros_like(whole))[:, None, None]
            here = ahead[:, :-1] - possible
            after = torch.cat([behind[:, 1:, 1:], torch.full_like(behind[:, 1:, :1], INFINITE)], dim=2)
            left = _straight((here + blank + behind[:, 1:]).exp(), total)
            up = _straight((here + token + after).exp(), total)[:, :, :-1]
            ctx.save_for_backward(left.to(stays.dtype), up.to(moves.dtype))
        return -whole.to(stays.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        left, up = ctx.saved_tensors
        scale = grads[0][:, None, None]
        return -left * scale, -up * scale, None, None


def _skewed(cells: Tensor) -> Tensor:
    """(B, T, U + 1) by frame to (B, T + U, U + 1) by diagonal t + u; cells of no frame hold minus infinity."""
    total, places = cells.shape[1:]
    diagonals = torch.arange(total + places - 1, device=cells.device)[:, None]
    rows = diagonals - torch.arange(places, device=cells.device)[None, :]
    there = (rows >= 0) & (rows < total)
    picked = cells.gather(1, rows.clamp(0, total - 1)[None].expand(cells.shape[0], -1, -1))
    return picked.masked_fill(~there, INFINITE)


def _straight(cells: Tensor, total: int) -> Tensor:
    """(B, T + U, U + 1) by diagonal to (B, T, U + 1) by frame."""
    rows = torch.arange(total, device=cells.device)[:, None] + torch.arange(cells.shape[2], device=cells.device)[None]
    return cells.gather(1, rows[None].expand(cells.shape[0], -1, -1))


def _from_start(blank: Tensor, token: Tensor) -> Tensor:
    """(B, N + 1, U + 1) log-sums of all paths from (0, 0) to each cell, by diagonal."""
    current = torch.full_like(blank[:, 0], INFINITE)
    current[:, 0] = 0.0
    sums = [current]
    for diagonal in range(blank.shape[1]):
        moved = (current + token[:, diagonal])[:, :-1]
        moved = torch.nn.functional.pad(moved, (1, 0), value=INFINITE)
        current = torch.logaddexp(current + blank[:, diagonal], moved)
        sums.append(current)
    return torch.stack(sums, dim=1)


def _from_end(blank: Tensor, token: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """(B, N + 1, U + 1) log-sums of all paths from each cell to the end of its item, by diagonal."""
    places = torch.arange(blank.shape[2], device=blank.device)[None, :]
    end = torch.where(places == lengths[:, None], 0.0, INFINITE).to(blank)
    last = (frames + lengths)[:, None]
    current = torch.where(last == blank.shape[1], end, torch.full_like(end, INFINITE))
    sums = [current]
    for diagonal in range(blank.shape[1] - 1, -1, -1):
        up = torch.nn.functional.pad(current[:, 1:], (0, 1), value=INFINITE)
        current = torch.logaddexp(current + blank[:, diagonal], up + token[:, diagonal])
        current = torch.where(last == diagonal, torch.logaddexp(current, end), current)
        sums.append(current)
    return torch.stack(sums[::-1], dim=1)
