"""Kaldi features piece by piece are those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.features import kaldi


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 900), max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
def test_incremental_equals_offline(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = (0.1 * rng.standard_normal(sum(sizes))).astype(np.float32)
    state = kaldi.FbankState.initial()
    parts = []
    at = 0
    for size in sizes:
        part, state = kaldi.push(samples[at : at + size], state)
        parts.append(part)
        at += size
    parts.append(kaldi.flush(state))
    whole = kaldi.fbank(samples)
    assert len(whole) == kaldi.num_frames(len(samples))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


def test_frames_come_as_soon_as_their_samples_do() -> None:
    state = kaldi.FbankState.initial()
    early, state = kaldi.push(np.ones(kaldi.REACH - 1, np.float32), state)
    first, state = kaldi.push(np.ones(1, np.float32), state)
    then, state = kaldi.push(np.ones(5 * kaldi.HOP, np.float32), state)
    assert (len(early), len(first), len(then)) == (0, 1, 5)
    assert len(state.tail) < kaldi.WINDOW


def test_long_audio_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(1).uniform(-1, 1, 16000).astype(np.float32)
    whole = kaldi.fbank(samples)
    monkeypatch.setattr(kaldi, "BLOCK", 7)
    np.testing.assert_allclose(kaldi.fbank(samples), whole, atol=1e-4)
