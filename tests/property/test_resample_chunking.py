"""Any packets of the same audio give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.audio import Resampler
from rechka.testing import chunkings

NUM = 6000
NOISE = np.random.default_rng(2).standard_normal(NUM).astype(np.float32)
RATES = [(16000, 8000), (44100, 8000), (48000, 16000), (8000, 16000), (11025, 16000), (22255, 8000), (8000, 8000)]


@pytest.mark.parametrize(("in_rate", "out_rate"), RATES)
@given(sizes=chunkings(NUM), length=st.integers(0, NUM))
@settings(max_examples=25, deadline=None)
def test_chunking_changes_no_bit(in_rate: int, out_rate: int, sizes: list[int], length: int) -> None:
    audio = NOISE[:length]
    whole = Resampler(in_rate, out_rate)
    expected = np.concatenate([whole.push(audio), whole.flush()])
    resampler = Resampler(in_rate, out_rate)
    parts, at = [], 0
    for size in sizes:
        parts.append(resampler.push(audio[at : at + size]))
        at += size
    parts.append(resampler.flush())
    assert np.array_equal(np.concatenate(parts), expected)


@given(in_rate=st.integers(1000, 200_000), out_rate=st.sampled_from([8000, 16000]), length=st.integers(0, 3000))
@settings(max_examples=15, deadline=None)
def test_any_rate_gives_the_right_length_and_keeps_a_slow_tone(in_rate: int, out_rate: int, length: int) -> None:
    time = np.arange(length) / in_rate
    audio = np.cos(2 * np.pi * 30.0 * time).astype(np.float32)
    resampler = Resampler(in_rate, out_rate)
    out = np.concatenate([resampler.push(audio), resampler.flush()])
    assert len(out) == -(-length * out_rate // in_rate)
    edge = -(-60 * out_rate // min(in_rate, out_rate))
    expected = np.cos(2 * np.pi * 30.0 * np.arange(len(out)) / out_rate)
    assert np.abs(out - expected)[edge : len(out) - edge].max(initial=0.0) < 1e-3
