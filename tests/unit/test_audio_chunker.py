"""Regrouping of blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rechka.audio.chunker import regroup
from rechka.testing import chunkings


@given(sizes=chunkings(1000), size=st.integers(1, 1200))
def test_same_samples_in_blocks_of_one_size(sizes: list[int], size: int) -> None:
    audio = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    pieces = np.split(audio, np.cumsum(sizes)[:-1])
    blocks = list(regroup(pieces, size))
    assert np.array_equal(np.concatenate(blocks), audio)
    assert all(len(block) == size for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= size


def test_nothing_gives_no_block() -> None:
    assert list(regroup([np.zeros(0, np.float32)], 10)) == []
