"""The embedded model's network and front end: any chunking gives what one pass gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.features import bands

SAMPLES = np.random.default_rng(0).normal(0, 0.1, 80 * 60).astype(np.float32)
WHOLE = bands.push(SAMPLES, bands.BandState.initial())[0]


@given(st.lists(st.integers(0, 60), max_size=6))
def test_features_do_not_depend_on_chunking(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 60]
    state, parts = bands.BandState.initial(), []
    for low, high in itertools.pairwise(edges):
        features, state = bands.push(SAMPLES[80 * low : 80 * high], state)
        parts.append(features)
    np.testing.assert_allclose(np.concatenate(parts), WHOLE, atol=1e-5)


def test_features_refuse_half_frames() -> None:
    with pytest.raises(ValueError, match="multiples of 80"):
        bands.push(SAMPLES[:100], bands.BandState.initial())


def test_filters_have_equal_area_and_stay_in_the_telephone_band() -> None:
    bank = bands.filter_bank()
    np.testing.assert_allclose(bank.sum(axis=0) * bands.SAMPLE_RATE / bands.FFT, 1.0, rtol=0.15)
    hz = np.arange(len(bank)) * bands.SAMPLE_RATE / bands.FFT
    assert hz[bank.any(axis=1)].min() >= bands.LOW_HZ - 16
    assert hz[bank.any(axis=1)].max() <= bands.HIGH_HZ + 16


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_network_steps_equal_one_pass(lengths: list[int]) -> None:
    torch = pytest.importorskip("torch", reason="the network is a torch module")
    from rechka.nn.conformer import ConformerConfig, StreamingConformer

    torch.manual_seed(0)
    config = ConformerConfig(dim=16, heads=2, slow_blocks=2, expansion=2, channels=(4, 4), left=16)
    model = StreamingConformer(config).eval()
    unit = 4 * config.chunk
    features = torch.randn(2, unit * sum(lengths), config.bands)
    with torch.no_grad():
        expected, _ = model(features)
        state, parts, start = torch.zeros(2, model.layout.size), [], 0
        for length in lengths:
            out, state = model.step(features[:, start : start + unit * length], state)
            parts.append(out)
            start += unit * length
    assert torch.allclose(torch.cat(parts, 1), expected, atol=2e-5)
