"""A larger network that says at first exactly what the smaller one said: more hidden units in the feed-forwards.

New units have random inputs and outputs of zero, so nothing changes until training moves the outputs (Net2Net, Chen et
al. 2016, without its copies). Width and number of blocks cannot grow this way: each block ends with a norm.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from rechka.errors import UsageError
from rechka.nn.conformer import ConformerConfig


def grow(weights: dict[str, Tensor], old: ConformerConfig, new: ConformerConfig, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a network with a wider feed-forward that computes what the given one computes.

    Args:
        weights: the smaller network's, by parameter name.
        old, new: the two architectures.
        seed: of the new units' inputs, drawn as ``nn.Linear`` draws them.
    Raises:
        UsageError: they differ in more than the feed-forward factor, or the new factor is smaller.
    """
    if new.expansion < old.expansion or replace(old, expansion=new.expansion) != new:
        raise UsageError(
            f"weights can only grow in their feed-forward: expected {old.to_dict()} with expansion {old.expansion} "
            f"or more, got {new.to_dict()}",
            remedy='make the [model] of the run equal to that of "init" but for a larger expansion, or start afresh',
        )
    added = (new.expansion - old.expansion) * old.dim
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(old.dim)

    def drawn(*shape: int) -> Tensor:
        return torch.empty(*shape).uniform_(-bound, bound, generator=generator)

    grown = {}
    for name, value in weights.items():
        if name.endswith(".up.weight"):
            value = torch.cat([value, drawn(added, old.dim)])
        elif name.endswith(".up.bias"):
            value = torch.cat([value, drawn(added)])
        elif name.endswith(".down.weight"):
            value = torch.cat([value, value.new_zeros(old.dim, added)], dim=1)
        grown[name] = value
    return grown
