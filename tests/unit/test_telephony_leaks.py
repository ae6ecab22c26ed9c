"""The language model's own telephone texts hold no test sentence, whole or by a run of six words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rechka.train.telephony import read_templates, sentences

RECIPE = Path(__file__).parents[2] / "recipes" / "embedded"
RUN = 6


def hashes(texts: Iterable[str]) -> set[int]:
    return {int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts}


def test_no_test_sentence_is_in_the_telephone_texts() -> None:
    with np.load(RECIPE / "lm_sets.npz") as sets:
        used, tests, runs = (set(sets[name].tolist()) for name in ("sentences", "test_sentences", "test_runs"))
    assert len(used) > 50_000
    assert len(tests) > 500
    assert len(runs) > 500
    assert not used & tests
    templates = [template for path in sorted((RECIPE / "telephony").glob("*.txt")) for template in read_templates(path)]
    phrases = [text for text in dict.fromkeys(sentences(templates)) if " " in text]
    known = dict(zip((next(iter(hashes([text]))) for text in phrases), phrases, strict=True))
    assert len(used & known.keys()) > 0.99 * len(used)  # the rest is the training half of the prompts
    for name in used & known.keys():
        words = known[name].split()
        pieces = [" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]
        assert not hashes(pieces) & runs, known[name]
