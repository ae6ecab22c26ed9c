"""The searches: exact where nothing is pruned, equal for any chunking, and stable where they say so."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding import CtcBeam, CtcGreedy, arena
from rechka.decoding.lm import NgramLm
from rechka.decoding.ngram_file import pack_ngrams
from rechka.options import DecoderOptions
from rechka.protocols import Decoder
from rechka.testing import chunkings
from rechka.types import LogProbs, Tokens

TOKENS = Tokens(("а", "б", " ", ""), blank=3)
LETTERS = Tokens((*"абвгдежз ", ""), blank=9)
WORDS = ["<s>", "</s>", "<unk>", "а", "аб", "ба", "ббб", "баба", "где", "вдаа", "аз", "жз"]
HOT = {"аб ба": 2.5, "ба": 1.5, "бб": -2.0, "где": 3.0}


def model() -> NgramLm:
    rng = np.random.default_rng(5)
    size = len(WORDS)
    pairs = np.array([pair for pair in itertools.product(range(size), repeat=2) if rng.random() < 0.4], np.int32)
    return NgramLm(
        pack_ngrams(
            WORDS,
            [np.arange(size, dtype=np.int32)[:, None], pairs],
            [-rng.random(size) * 3 - 0.1, -rng.random(len(pairs)) * 2],
            [-rng.random(size)],
        )
    )


MODEL = model()


def noise(seed: int, num_frames: int, tokens: Tokens, sharpness: float) -> np.ndarray:
    """(num_frames, V) float32 log-probs; larger sharpness, surer frames."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((num_frames, len(tokens))) * sharpness
    logits[:, tokens.blank] += rng.random() * sharpness
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def decoders(tokens: Tokens = LETTERS, **changes: Any) -> dict[str, Decoder[Any]]:
    options = DecoderOptions(**{"beam_width": 6, "token_min_logp": -4.0, "unk_logp": -3.0, **changes})
    hot = replace(options, hotwords=HOT)
    return {
        "greedy": CtcGreedy(tokens),
        "plain": CtcBeam(tokens, options),
        "lm": CtcBeam(tokens, options, lm=MODEL),
        "lm and hotwords": CtcBeam(tokens, hot, lm=MODEL),
        "hotwords": CtcBeam(tokens, hot),
    }


KINDS = list(decoders())
NAMES = st.sampled_from(KINDS)


def text_score(text: str, *, lm: bool, hot: dict[str, float], options: DecoderOptions) -> float:
    """What a text gets besides its probability, counted by hand."""
    score = 0.0
    if lm:
        state = MODEL.start()
        for word in text.split():
            logp, state = MODEL.score(state, word)
            listed = word in MODEL or any(word in entry.split() for entry in hot)
            score += options.alpha * logp + options.beta + (0.0 if listed else options.unk_logp)
        score += options.alpha * MODEL.end(state)
    words = text.split()
    for entry, boost in hot.items():
        size = len(entry.split())
        score += boost * sum(words[i : i + size] == entry.split() for i in range(len(words)))
    return score


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans(), st.booleans())
def test_without_pruning_the_search_is_exact(seed: int, num_frames: int, lm: bool, hot: bool) -> None:
    values = noise(seed, num_frames, TOKENS, 1.5)
    sums: dict[str, float] = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(4), repeat=num_frames):
        letters = [token for i, token in enumerate(path) if i == 0 or token != path[i - 1]]
        text = " ".join(TOKENS.text(letters).split())
        sums[text] = float(np.logaddexp(sums[text], values[range(num_frames), path].astype(np.float64).sum()))
    entries = {entry: boost for entry, boost in HOT.items() if entry != "где"} if hot else {}
    options = DecoderOptions(
        beam_width=10**6,
        beam_prune_logp=-1e6,
        token_min_logp=-1e6,
        unk_logp=-2.0,
        alpha=0.7,
        recombine=False,
        hotwords=entries,
    )
    expected = {text: s + text_score(text, lm=lm, hot=entries, options=options) for text, s in sums.items()}
    decoder = CtcBeam(TOKENS, options, lm=MODEL if lm else None)
    [beam] = decoder.advance([decoder.begin()], [LogProbs(values)])
    found = decoder.nbest(beam, 10**6)
    assert {TOKENS.text(h.tokens): pytest.approx(h.score, abs=1e-6) for h in found} == expected
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    decoder = CtcBeam(TOKENS, replace(options, recombine=True), lm=MODEL if lm else None)
    [beam] = decoder.advance([decoder.begin()], [LogProbs(values)])
    rest = {h.tokens: h.score for h in found}
    for hypothesis in decoder.nbest(beam, 10**6):  # what a dropped one had is lost to its heirs, never counted twice
        assert hypothesis.score <= rest[hypothesis.tokens] + 1e-6


def test_recombination_rarely_costs_the_best_text() -> None:
    """It is an approximation: the share of texts it changes without pruning is known and small."""
    options = DecoderOptions(beam_width=10**6, beam_prune_logp=-1e6, token_min_logp=-1e6, recombine=False)
    same = 0
    for seed in range(200):
        values = LogProbs(noise(seed, 5, TOKENS, 1.5))
        best = []
        for recombine in (False, True):
            decoder = CtcBeam(TOKENS, replace(options, recombine=recombine), lm=MODEL)
            [beam] = decoder.advance([decoder.begin()], [values])
            best.append(decoder.best(beam).tokens)
        same += best[0] == best[1]
    assert same >= 190


@settings(deadline=None, max_examples=40)
@given(st.data(), NAMES, st.integers(0, 10**6), st.floats(0.5, 6.0))
def test_any_chunking_gives_the_same_to_the_last_bit(data: st.DataObject, kind: str, seed: int, sharp: float) -> None:
    decoder = decoders()[kind]
    values = noise(seed, 40, LETTERS, sharp)
    [whole] = decoder.advance([decoder.begin()], [LogProbs(values, 7)])
    beam, at = decoder.begin(), 0
    for size in data.draw(chunkings(len(values))):
        [beam] = decoder.advance([beam], [LogProbs(values[at : at + size], 7 + at)])
        decoder.best(beam)  # a look at the beam changes nothing
        at += size
    assert decoder.nbest(beam, 20) == decoder.nbest(whole, 20)
    assert decoder.best(beam) == decoder.best(whole)
    assert decoder.stable(beam) == decoder.stable(whole)


@settings(deadline=None, max_examples=40)
@given(NAMES, st.integers(0, 10**6), st.floats(0.5, 6.0))
def test_what_is_stable_stays(kind: str, seed: int, sharp: float) -> None:
    decoder = decoders(beam_width=4, beam_prune_logp=-3.0)[kind]
    values = noise(seed, 60, LETTERS, sharp)
    beam, fixed = decoder.begin(), ()
    for at in range(0, 60, 4):
        [beam] = decoder.advance([beam], [LogProbs(values[at : at + 4], at)])
        hypotheses = decoder.nbest(beam, 10)
        for hypothesis in hypotheses:
            assert hypothesis.tokens[: len(fixed)] == fixed
        num = decoder.stable(beam)
        assert len(fixed) <= num <= len(hypotheses[0].tokens)
        fixed = hypotheses[0].tokens[:num]


def test_stable_parts_grow_with_recombination() -> None:
    lags = {True: 0, False: 0}
    for recombine in lags:
        decoder = CtcBeam(LETTERS, DecoderOptions(beam_width=40, alpha=0.0, recombine=recombine), lm=MODEL)
        for seed in range(4):
            [beam] = decoder.advance([decoder.begin()], [LogProbs(noise(seed, 120, LETTERS, 3.0))])
            lags[recombine] += len(decoder.best(beam).tokens) - decoder.stable(beam)
    assert 0 < lags[True] < lags[False] * 0.8


@settings(deadline=None, max_examples=20)
@given(NAMES, st.integers(0, 10**6))
def test_beams_are_values(kind: str, seed: int) -> None:
    decoder = decoders()[kind]
    values = noise(seed, 30, LETTERS, 2.0)
    [early] = decoder.advance([decoder.begin()], [LogProbs(values[:15])])
    before = decoder.nbest(early, 9)
    other = LogProbs(values[::-1][:15], 15)
    [left], [right], [again] = (
        decoder.advance([early], [piece]) for piece in (LogProbs(values[15:], 15), other, LogProbs(values[15:], 15))
    )
    assert decoder.nbest(left, 9) == decoder.nbest(again, 9)
    assert decoder.nbest(early, 9) == before
    together = decoder.advance([early, early], [LogProbs(values[15:], 15), other])
    assert [decoder.nbest(beam, 9) for beam in together] == [decoder.nbest(left, 9), decoder.nbest(right, 9)]


@settings(deadline=None, max_examples=20)
@given(NAMES, st.integers(0, 10**6))
def test_forgetting_what_no_hypothesis_needs_changes_nothing(kind: str, seed: int) -> None:
    decoder = decoders()[kind]
    values = noise(seed, 60, LETTERS, 2.0)
    [whole] = decoder.advance([decoder.begin()], [LogProbs(values)])
    beam = decoder.begin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena, "_COMPACT", 1)
        for at in range(0, 60, 5):
            [beam] = decoder.advance([beam], [LogProbs(values[at : at + 5], at)])
    assert decoder.nbest(beam, 20) == decoder.nbest(whole, 20)
    assert decoder.best(beam) == decoder.best(whole)


@settings(deadline=None, max_examples=40)
@given(NAMES, st.integers(0, 10**6), st.integers(1, 50), st.floats(0.5, 6.0))
def test_tokens_have_frames_in_order(kind: str, seed: int, num_frames: int, sharp: float) -> None:
    decoder = decoders()[kind]
    values = noise(seed, num_frames, LETTERS, sharp)
    [beam] = decoder.advance([decoder.begin()], [LogProbs(values, 100)])
    for hypothesis in decoder.nbest(beam, 5):
        assert len(hypothesis.tokens) == len(hypothesis.frames) == len(hypothesis.logprobs)
        assert all(a < b for a, b in itertools.pairwise(hypothesis.frames))
        for token, frame, logp in zip(hypothesis.tokens, hypothesis.frames, hypothesis.logprobs, strict=True):
            assert logp == pytest.approx(values[frame - 100, token], abs=1e-6)
        text = LETTERS.text(hypothesis.tokens)
        assert text == text.strip()
        assert kind == "greedy" or "  " not in text


@settings(deadline=None, max_examples=30)
@given(NAMES, st.integers(0, 10**6), st.floats(0.5, 6.0))
def test_posteriors_belong_to_words(kind: str, seed: int, sharp: float) -> None:
    decoder = decoders(beam_width=12)[kind]
    [beam] = decoder.advance([decoder.begin()], [LogProbs(noise(seed, 50, LETTERS, sharp))])
    best = decoder.best(beam)
    first = decoder.nbest(beam, 1)[0]
    assert replace(best, posteriors=()) == first
    if kind == "greedy" or not best.tokens:
        assert best.posteriors == ()
        return
    assert len(best.posteriors) == len(best.tokens)
    assert all(0.0 < p <= 1.0 for p in best.posteriors)
    for (a, p), (b, q) in itertools.pairwise(zip(best.tokens, best.posteriors, strict=True)):
        assert p == q or LETTERS.space in (a, b)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_posteriors_are_near_those_of_all_texts(seed: int) -> None:
    """Two words, the first one heard badly: its posterior is its share of all that could have been said there."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.6, 0.95)
    probs = np.full((9, 10), 1e-6)
    for frame, letter in enumerate("азз ггдде"):
        probs[frame, LETTERS.symbols.index(letter)] = 1.0
    probs[1:3, LETTERS.symbols.index("з")], probs[1:3, LETTERS.symbols.index("в")] = share, 1 - share
    decoder = CtcBeam(LETTERS, DecoderOptions(beam_width=20, alpha=0.0, beta=0.0), lm=None)
    [beam] = decoder.advance([decoder.begin()], [LogProbs(np.log(probs).astype(np.float32))])
    best = decoder.best(beam)
    assert LETTERS.text(best.tokens) == "аз где"
    right = share**2  # the runs "зз" against "вв", "зв" and "вз", each another word
    assert best.posteriors[0] == pytest.approx(right, abs=0.02)
    assert best.posteriors[-1] > 0.99
