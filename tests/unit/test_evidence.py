"""Evidence of speech from CTC output."""

from __future__ import annotations

import numpy as np
import pytest

from rechka.errors import IncompatibleParts
from rechka.segmentation import BlankEvidence, blank_evidence
from rechka.types import Encoded, LogProbs, Tokens


def test_what_blank_and_space_leave() -> None:
    values = np.log(np.array([[0.05, 0.15, 0.8], [0.7, 0.1, 0.2], [1e-30, 1.0, 1e-30]], dtype=np.float32))
    np.testing.assert_allclose(blank_evidence(LogProbs(values), (1, 2)), [0.05, 0.7, 0.0], atol=1e-6)
    np.testing.assert_allclose(BlankEvidence(Tokens(("а", " ", ""), 2))(LogProbs(values)), [0.05, 0.7, 0.0], atol=1e-6)
    np.testing.assert_allclose(BlankEvidence(Tokens(("а", "б", ""), 2))(LogProbs(values)), [0.2, 0.8, 1.0], atol=1e-6)


def test_it_stays_in_range_when_rows_sum_to_slightly_more_than_one() -> None:
    evidence = blank_evidence(LogProbs(np.full((2, 2), 1e-3, dtype=np.float32)), (0, 1))
    assert evidence.dtype == np.float32
    assert (evidence == 0.0).all()


def test_parts_that_do_not_fit() -> None:
    values = np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(IncompatibleParts, match="vocabulary of 3"):
        blank_evidence(LogProbs(values), (3,))
    with pytest.raises(IncompatibleParts, match="LogProbs"):
        BlankEvidence(Tokens(("а", ""), 1))(Encoded(values))
