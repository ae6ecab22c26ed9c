"""Which weights move, how fast, and their average."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

import torch
from torch import nn

from rechka.errors import UsageError
from rechka.train.finetune.config import Optimisation
from rechka.train.finetune.learners import Learner

FLOOR = 0.01
"""The rate falls to this share of its peak."""
BETAS = (0.9, 0.98)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def make_optimizer(learner: Learner, optim: Optimisation) -> torch.optim.AdamW:
    """AdamW with a group for each layer and kind of weights; ``scale`` of a group is its share of the rate.

    Raises:
        UsageError: a pattern of ``freeze`` that fits nothing, or nothing left to train.
    """
    named = dict(learner.module.named_parameters())
    for pattern in optim.freeze:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise UsageError(
                f"optim.freeze has {pattern!r}, which fits no parameter", remedy="such as encoder.layers.0.*"
            )
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if not any(fnmatchcase(name, pattern) for pattern in optim.freeze):
            groups.setdefault((learner.depth(name), parameter.ndim > 1), []).append(parameter)
        else:
            parameter.requires_grad_(False)
    if not groups:
        raise UsageError("optim.freeze leaves nothing to train")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": optim.weight_decay if matrix else 0.0,
                "scale": scale_of(depth, learner.num_layers, optim),
                "depth": depth,
            }
            for (depth, matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=optim.rate,
        betas=BETAS,
    )


def scale_of(depth: int, num_layers: int, optim: Optimisation) -> float:
    """A layer's share of the rate."""
    if depth > num_layers:
        return optim.head_rate
    return float(optim.layer_decay ** (num_layers - depth))


def rate_at(share: float, optim: Optimisation) -> float:
    """The rate after a share of the run: a straight rise, then a cosine."""
    if share < optim.warmup:
        return optim.rate * share / optim.warmup
    rest = (min(share, 1.0) - optim.warmup) / max(1e-9, 1.0 - optim.warmup)
    return optim.rate * (FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + math.cos(math.pi * rest)))


def set_rates(optimizer: torch.optim.Optimizer, share: float, optim: Optimisation) -> float:
    """Give every group its rate, and freeze or release the lower layers; returns the rate of the last layer."""
    rate = rate_at(share, optim)
    frozen_to = optim.freeze_layers if optim.freeze_layers > 0 and share <= optim.freeze_until else -1
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
        moves = group["depth"] > frozen_to
        for parameter in group["params"]:
            parameter.requires_grad_(moves)
    return rate


def training_mode(module: nn.Module, *, freeze_norms: bool) -> None:
    """Dropout on; BatchNorm by its stored statistics if they are frozen."""
    module.train()
    if freeze_norms:
        for part in module.modules():
            if isinstance(part, NORMS):
                part.eval()


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, step: int, memory: float) -> None:
    """Move averaged weights; their memory grows with the run so that early steps are forgotten."""
    keep = min(memory, (step + 1) / (step + 10)) if memory else 0.0
    for mine, theirs in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if keep and mine.is_floating_point():
            mine.lerp_(theirs, 1.0 - keep)
        else:
            mine.copy_(theirs)
