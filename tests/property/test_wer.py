"""Properties of the alignment: a true edit path, symmetric and triangular distances."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rechka.evaluate.wer import align, counts

texts = st.text(alphabet="абв ", max_size=25)


@given(texts, texts)
def test_path_rebuilds_the_hypothesis(ref: str, hyp: str) -> None:
    rebuilt = ""
    for operation, i, j in align(ref, hyp):
        if operation == "equal":
            assert i is not None
            assert j is not None
            assert ref[i] == hyp[j]
            rebuilt += ref[i]
        elif j is not None:
            rebuilt += hyp[j]
    assert rebuilt == hyp


@given(texts, texts, texts)
def test_distance_is_a_metric(a: str, b: str, c: str) -> None:
    ab, ba = counts(a, b).errors, counts(b, a).errors
    assert ab == ba
    assert (ab == 0) == (a == b)
    assert counts(a, c).errors <= ab + counts(b, c).errors
    assert abs(len(a) - len(b)) <= ab <= max(len(a), len(b))
