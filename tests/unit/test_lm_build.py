"""Language-model building: Kneser-Ney by hand, sums to one, pruning, files, the held-out wall."""

from __future__ import annotations

import gzip
import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rechka.decoding.ngram_file import read_ngrams
from rechka.errors import DataError, OutputError, UsageError
from rechka.train import kneser_ney as kn
from rechka.train.lm import (
    END,
    START,
    UNKNOWN,
    LanguageModel,
    build,
    file_bytes,
    perplexity,
    prune,
    targets,
    vocabulary,
    word_counts,
    write_arpa,
    write_rlm,
)
from rechka.train.text import held_out

TEXTS = ["мама мыла раму", "мама мыла окно", "папа мыл окно", "мама спит", "папа спит", "мама мыла раму и окно"]


def _words(texts: list[str]) -> list[str]:
    return sorted({word for text in texts for word in text.split()})


def _prob(lm: LanguageModel, history: list[str], word: str) -> float:
    """p(word | history) by the definition of a back-off model, one n-gram at a time."""
    ids = {name: i for i, name in enumerate(lm.words)}
    listed = [
        {tuple(row): i for i, row in enumerate(kn.rows(lm.model, n).tolist())} for n in range(1, lm.model.order + 1)
    ]
    context = [ids[name] for name in history][-(lm.model.order - 1) :] if lm.model.order > 1 else []
    weight = 1.0
    while True:
        row = listed[len(context)].get((*context, ids[word]))
        if row is not None:
            return weight * float(lm.model.prob[len(context)][row])
        if context and (at := listed[len(context) - 1].get(tuple(context))) is not None:
            weight *= float(lm.model.backoff[len(context) - 1][at])
        context = context[1:]


def test_bigram_by_hand() -> None:
    """Two sentences «а б», «а в»: fallback discounts, every number worked out on paper.

    Continuation counts: а 1 (after <s>), б 1, в 1, </s> 2 (after б, в); 5 in all. Discounts 0.5 and 1.
    Unigram interpolation weight (3 * 0.5 + 1) / 5 = 0.5, spread over а б в </s> <unk>: 0.1 each.
    """
    lm = build(["а б", "а в"], ["а", "б", "в"], order=2)
    assert _prob(lm, [], "а") == pytest.approx(0.5 / 5 + 0.1)
    assert _prob(lm, [], END) == pytest.approx(1 / 5 + 0.1)
    assert _prob(lm, [], UNKNOWN) == pytest.approx(0.1)
    # after а: б once, в once: (1 - 0.5) / 2 + (2 * 0.5 / 2) * p(б)
    assert _prob(lm, ["а"], "б") == pytest.approx(0.25 + 0.5 * 0.2)
    # after <s>: а twice: (2 - 1) / 2 + 1 / 2 * p(а)
    assert _prob(lm, [START], "а") == pytest.approx(0.5 + 0.5 * 0.2)
    assert _prob(lm, ["а"], END) == pytest.approx(0.5 * 0.3)


def test_adjusted_counts() -> None:
    """Trigram model of «а б», «в б», «а б»: the bigram «<s> а» keeps its count, «б </s>» has two left neighbours."""
    lm = build(["а б", "в б", "а б"], ["а", "б", "в"], order=3)
    ids = {word: i for i, word in enumerate(lm.words)}
    counts = kn.adjusted(lm.model.grams)
    bigrams = dict(zip(map(tuple, kn.rows(lm.model, 2).tolist()), counts[1].tolist(), strict=True))
    assert bigrams[ids[START], ids["а"]] == 2
    assert bigrams[ids["б"], ids[END]] == 2
    assert bigrams[ids["а"], ids["б"]] == 1
    trigrams = dict(zip(map(tuple, kn.rows(lm.model, 3).tolist()), counts[2].tolist(), strict=True))
    assert trigrams[ids["а"], ids["б"], ids[END]] == 2


def test_discounts_by_formula() -> None:
    counts = np.array([1] * 10 + [2] * 4 + [3] * 2 + [4] + [9], np.int64)
    y = 10 / 18
    assert kn.discounts(counts) == pytest.approx((1 - 2 * y * 0.4, 2 - 3 * y * 0.5, 3 - 4 * y * 0.5))
    assert kn.discounts(np.array([1, 2], np.int64)) == kn.FALLBACK_DISCOUNTS


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_sums_to_one_for_every_context(order: int) -> None:
    lm = build(TEXTS, [*_words(TEXTS), "неслыханный"], order=order)
    contexts = [[], [START], ["мама"], ["мама", "мыла"], [START, "мама", "мыла"], ["неслыханный"], ["окно", "папа"]]
    for context in contexts:
        total = sum(_prob(lm, context, word) for word in lm.words if word != START)
        assert total == pytest.approx(1.0, abs=1e-9), context


def test_pruned_model_sums_to_one_and_is_smaller() -> None:
    lm = build(TEXTS, [*_words(TEXTS), "неслыханный"], order=3)
    scores = np.concatenate(kn.importance(lm.model))
    assert (scores > -1e-12).all()  # leaving an n-gram out never helps on the model's own distribution
    small = prune(lm, threshold=float(np.median(scores)))
    assert sum(small.model.sizes) < sum(lm.model.sizes)
    for context in ([], [START], ["мама"], ["мама", "мыла"], [START, "мама"]):
        total = sum(_prob(small, context, word) for word in lm.words if word != START)
        assert total == pytest.approx(1.0, abs=1e-9), context
    cut = prune(lm, threshold=-1.0, least=(1, 2))
    assert cut.model.sizes[1] == lm.model.sizes[1]
    assert cut.model.sizes[2] == int((lm.model.grams[2].number >= 2).sum())


def test_pruning_nothing_changes_nothing() -> None:
    lm = build(TEXTS, _words(TEXTS), order=3)
    same = prune(lm, threshold=-1.0)
    for ours, theirs in zip(same.model.backoff, lm.model.backoff, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_text_outside_the_vocabulary_is_a_wall() -> None:
    lm = build(["а б в", "а б в"], ["а", "в"], order=2)
    ids = {word: i for i, word in enumerate(lm.words)}
    pairs = set(map(tuple, kn.rows(lm.model, 2).tolist()))
    assert (ids["а"], ids["в"]) not in pairs
    assert not any(ids[UNKNOWN] in pair for pair in pairs)
    result = perplexity(lm, ["а б в", "а"])
    assert (result.unknown, result.words, result.sentences) == (1, 4, 2)


def test_perplexity_is_the_definition() -> None:
    lm = build(TEXTS, _words(TEXTS), order=3)
    sentence = "папа мыла раму и спит"
    words = [START, *sentence.split(), END]
    logs = [math.log(_prob(lm, words[:i], words[i])) for i in range(1, len(words))]
    assert perplexity(lm, [sentence]).perplexity == pytest.approx(math.exp(-sum(logs) / len(logs)))
    small = prune(lm, threshold=1e-2)
    logs = [math.log(_prob(small, words[:i], words[i])) for i in range(1, len(words))]
    assert perplexity(small, [sentence]).perplexity == pytest.approx(math.exp(-sum(logs) / len(logs)))


def test_held_out_sentences_never_reach_the_model() -> None:
    sentences = [f"редкое{'а' * i} слово" for i in range(1, 200)]
    kept = list(targets(sentences))
    assert kept == [sentence for sentence in sentences if not held_out(sentence)]
    assert len(kept) < len(sentences)
    with pytest.raises(DataError):
        list(targets([f"дом {i}" for i in range(10)]))


def test_vocabulary_prefers_frequent_words_then_known_families() -> None:
    counts = Counter({"звонить": 50, "звонили": 9, "и": 90, "абракадабра": 1, "звонишь": 1, "звонок": 1})
    assert vocabulary(counts, 3) == ["и", "звонить", "звонили"]
    assert vocabulary(counts, 4)[-1] == "звонишь"
    assert len(vocabulary(counts, 100)) == 6
    assert word_counts(["да да", "нет"]) == {"да": 2, "нет": 1}


def _read_arpa(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    grams = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            grams[tuple(fields[1].split())] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)
    return grams


def test_arpa_holds_the_model(tmp_path: Path) -> None:
    lm = build(TEXTS, _words(TEXTS), order=3)
    grams = _read_arpa(write_arpa(lm, tmp_path / "lm.arpa.gz"))
    assert grams == _read_arpa(write_arpa(lm, tmp_path / "lm.arpa"))
    assert len(grams) == sum(lm.model.sizes)
    assert 10 ** grams["мама", "мыла", "раму"][0] == pytest.approx(_prob(lm, ["мама", "мыла"], "раму"), rel=1e-5)
    assert 10 ** (grams["мама", "мыла"][1] + grams["мыла",][1] + grams["папа",][0]) == pytest.approx(
        _prob(lm, ["мама", "мыла"], "папа"), rel=1e-5
    )
    with pytest.raises(OutputError):
        write_arpa(lm, tmp_path / "absent" / "lm.arpa")


def test_rlm_holds_the_model_and_its_size_is_foretold(tmp_path: Path) -> None:
    texts = [
        " ".join(words) for words in itertools.product(["да", "нет", "алло"], ["ну", "вот", "так"], ["и", "я", "мы"])
    ]
    lm = build(texts, _words(texts), order=3)
    path = write_rlm(lm, tmp_path / "lm.rlm")
    assert path.stat().st_size == pytest.approx(file_bytes(lm.words, lm.model.sizes[1:]), abs=4096)
    read = read_ngrams(path)
    assert sorted(read.words) == sorted(lm.words)
    assert read.order == 3
    logp = dict(zip(read.words, read.logp.tolist(), strict=True))
    assert 10 ** logp["да"] == pytest.approx(_prob(lm, [], "да"), rel=1e-5)


def test_prune_to_a_size() -> None:
    texts = [f"{a} {b} {c}" for a in "абвгд" for b in "абвгд" for c in "абв"]
    lm = build(texts, _words(texts), order=3)
    whole = file_bytes(lm.words, lm.model.sizes[1:])
    small = prune(lm, max_bytes=whole // 2 + 100)
    assert file_bytes(small.words, small.model.sizes[1:]) <= whole // 2 + 100
    assert small.model.sizes[1] > 0
    with pytest.raises(UsageError, match="cannot hold"):
        prune(lm, max_bytes=10)


def test_build_refuses_nonsense() -> None:
    with pytest.raises(UsageError, match="order"):
        build(TEXTS, ["мама"], order=5)
    with pytest.raises(UsageError, match="differ"):
        build(TEXTS, ["мама", "мама"])
    for texts in ([], ["чужие слова"]):
        with pytest.raises(DataError, match="vocabulary"):
            build(texts, ["мама"])
    with pytest.raises(DataError, match="sentence"):
        perplexity(build(TEXTS, ["мама"]), [])
