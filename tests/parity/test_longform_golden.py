"""The long-form merge rule gives the boundaries of the original."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.errors import UsageError
from rechka.segmentation.longform import LongformOptions, merge_spans, samples_of

CASES = json.loads((Path(__file__).parents[1] / "data/longform/segmentation.json").read_text(encoding="utf-8"))
NAMES = {
    "max_duration": "max_s",
    "min_duration": "min_s",
    "strict_limit_duration": "limit_s",
    "new_chunk_threshold": "drop_s",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case: dict[str, Any]) -> None:
    options = LongformOptions(**{NAMES[name]: value for name, value in case["params"].items()})
    chunks = merge_spans(case["spans"], case["total_s"], options)
    assert chunks == [tuple(pair) for pair in case["boundaries"]]
    recording = range(round(case["total_s"] * 16000))
    assert [len(recording[samples_of(chunk, 16000)]) for chunk in chunks] == case["lengths_samples"]


@given(
    edges=st.lists(st.floats(0, 300), max_size=40).map(sorted),
    limit=st.floats(1, 40),
)
def test_chunks_keep_order_and_limit(edges: list[float], limit: float) -> None:
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    chunks = merge_spans(spans, 300.0, LongformOptions(limit_s=limit))
    assert all(start < end <= start + limit + 1e-9 for start, end in chunks)
    assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(chunks))


def test_limits_make_sense() -> None:
    with pytest.raises(UsageError, match="above 0"):
        LongformOptions(limit_s=0.0)
