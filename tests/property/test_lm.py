"""Any text gives a language model that is a probability distribution after every context, pruned or not."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.train import kneser_ney as kn
from rechka.train.lm import START, LanguageModel, build, prune

WORDS = ["а", "б", "в", "г"]
sentences = st.lists(
    st.lists(st.sampled_from([*WORDS, "чужое"]), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12
)


def _totals(lm: LanguageModel, contexts: list[list[int]]) -> list[float]:
    """Sum over the vocabulary of p(w | context), scored by the model's own batch scorer."""
    start = lm.words.index(START)
    totals = []
    for context in contexts:
        words = [word for word in range(len(lm.words)) if word != start]
        tokens = np.array([token for word in words for token in (*context, word, -1)], np.int64)
        logs = kn.log10_probabilities(lm.model, tokens)[len(context) :: len(context) + 2]
        totals.append(float((10**logs).sum()))
    return totals


@settings(max_examples=40, deadline=None)
@given(sentences, st.integers(1, 4), st.floats(-1.0, 0.1))
def test_sums_to_one(texts: list[str], order: int, threshold: float) -> None:
    if not any(word in WORDS for text in texts for word in text.split()):
        texts = [*texts, "а"]
    lm = build(texts, WORDS, order=order)
    a, b, s = (lm.words.index(word) for word in ("а", "б", START))
    contexts = [[], [a], [b], [s], [a, b], [s, a], [b, a, b], [s, a, a]]
    for model in (lm, prune(lm, threshold=threshold)):
        np.testing.assert_allclose(_totals(model, contexts), 1.0, rtol=1e-6)
