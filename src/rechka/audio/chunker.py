"""Regrouping of audio blocks: many small ones become blocks of one length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from rechka.types import F32


def regroup(blocks: Iterable[F32], size: int) -> Iterator[F32]:
    """The same audio in blocks of exactly ``size`` samples, the last one shorter; never an empty one.

    Args:
        blocks: (n,) or (n, channels) each, any n.
        size: samples per block, at least 1.
    """
    waiting: list[F32] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count < size:
            continue
        whole = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        for start in range(0, count - size + 1, size):
            yield whole[start : start + size]
        rest = whole[count - count % size :].copy()  # a view would keep the whole block alive
        waiting, count = [rest], len(rest)
    if count:
        yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
