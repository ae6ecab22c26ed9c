"""Transducer searches against their definition, on a transducer made of random tables."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding import TransducerBeam, TransducerGreedy, build_decoder
from rechka.decoding.hotwords import compile_hotwords
from rechka.errors import IncompatibleParts, UsageError
from rechka.options import DecoderOptions
from rechka.types import Encoded, LogProbs, Tokens

TOKENS = Tokens((*" абвг", ""), blank=5)
DIM, HIDDEN = 6, 8


class Tables:
    """A recurrent predictor and a joiner of random numbers; counts how many rows it was asked for."""

    def __init__(self, seed: int, max_symbols: int = 3, skips: tuple[int, ...] = (5,), blank_bias: float = 1.5) -> None:
        rng = np.random.default_rng(seed)
        self.blank, self.skips, self.max_symbols = 5, skips, max_symbols
        self._embed = rng.normal(size=(len(TOKENS), HIDDEN))
        self._turn = rng.normal(size=(HIDDEN, HIDDEN)) / math.sqrt(HIDDEN)
        self._frame = rng.normal(size=(DIM, HIDDEN))
        self._out = rng.normal(size=(HIDDEN, len(TOKENS)))
        self._bias = np.where(np.arange(len(TOKENS)) == 5, blank_bias, 0.0)
        self.predicted_rows = 0

    def initial(self, n):
        return np.zeros((n, HIDDEN), np.float32), (np.zeros((n, HIDDEN)), np.zeros((n, 2, 1), np.int64))

    def predict(self, tokens, states):
        self.predicted_rows += len(tokens)
        hidden = np.stack([np.tanh(self._embed[t] + s @ self._turn) for t, s in zip(tokens, states[0], strict=True)])
        return hidden.astype(np.float32), (hidden, states[1] + 1)

    def join(self, encoded, predicted):
        rows = []
        for e, p in zip(encoded.astype(np.float64), predicted.astype(np.float64), strict=True):
            logits = np.tanh(e @ self._frame + p) @ self._out * 2.0 + self._bias
            rows.append(logits - np.logaddexp.reduce(logits))
        return np.array(rows, np.float32)


def audio(seed: int, length: int, start: int = 0) -> Encoded:
    values = np.random.default_rng(seed).normal(size=(length, DIM)).astype(np.float32)
    return Encoded(values, start)


def run(decoder, pieces):
    beam = decoder.begin()
    for piece in pieces:
        (beam,) = decoder.advance([beam], [piece])
    return beam


def plain_greedy(tables: Tables, piece: Encoded):
    """The search in its textbook form, one step at a time."""
    predicted, state = tables.initial(1)
    tokens, frames, score = [], [], 0.0
    for t, row in enumerate(piece.values):
        for _ in range(tables.max_symbols):
            logp = tables.join(row[None], predicted)[0]
            token = int(logp.argmax())
            score += float(logp[token])
            if token in tables.skips:
                break
            tokens.append(token)
            frames.append(piece.start + t)
            predicted, state = tables.predict(np.array([token]), state)
    return tuple(tokens), tuple(frames), score


def cut(piece: Encoded, places: list[int]) -> list[Encoded]:
    ends = [0, *sorted(min(p, len(piece)) for p in places), len(piece)]
    return [Encoded(piece.values[a:b], piece.start + a) for a, b in itertools.pairwise(ends)]


seeds = st.integers(0, 10_000)
limits = st.sampled_from([1, 3, 10])


@settings(max_examples=60, deadline=None)
@given(seeds, limits, st.integers(0, 12), st.sampled_from([(5,), (5, 1)]))
def test_greedy_is_the_textbook_search(seed, limit, length, skips):
    tables = Tables(seed, limit, skips)
    piece = audio(seed + 1, length, start=7)
    decoder = TransducerGreedy(tables, TOKENS)
    best = decoder.best(run(decoder, [piece]))
    tokens, frames, score = plain_greedy(tables, piece)
    assert (best.tokens, best.frames) == (tokens, frames)
    assert best.score == pytest.approx(score, abs=1e-4)
    assert len(best.logprobs) == len(tokens)


@settings(max_examples=60, deadline=None)
@given(seeds, limits, st.integers(1, 12))
def test_a_beam_of_one_is_greedy_search(seed, limit, length):
    tables = Tables(seed, limit)
    piece = audio(seed + 1, length)
    greedy = TransducerGreedy(tables, TOKENS)
    options = DecoderOptions(beam_width=1)
    beam = TransducerBeam(tables, TOKENS, options)
    one, other = beam.best(run(beam, [piece])), greedy.best(run(greedy, [piece]))
    assert (one.tokens, one.frames) == (other.tokens, other.frames)
    assert one.score == pytest.approx(other.score, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(seeds, limits, st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=3)), min_size=1,
                               max_size=4), st.booleans())  # fmt: skip
def test_any_mix_of_streams_and_any_cut_gives_the_same(seed, limit, streams, greedy):
    tables = Tables(seed, limit)
    hot = {"ба": 2.0} if not greedy else {}
    kind = "greedy" if greedy else "beam"
    decoder = build_decoder(TOKENS, DecoderOptions(kind=kind, beam_width=4, hotwords=hot), transducer=tables)
    whole = [audio(seed + k, length, start=k) for k, (length, _) in enumerate(streams)]
    alone = [decoder.best(run(decoder, [piece])) for piece in whole]
    parts = [cut(piece, places) for piece, (_, places) in zip(whole, streams, strict=True)]
    beams = [decoder.begin() for _ in streams]
    for turn in range(max(len(p) for p in parts)):
        who = [i for i, p in enumerate(parts) if turn < len(p)]
        before = [decoder.best(beams[i]) for i in who]
        moved = decoder.advance([beams[i] for i in who], [parts[i][turn] for i in who])
        assert [decoder.best(beams[i]) for i in who] == before, "a beam is a value"
        for i, beam in zip(who, moved, strict=True):
            beams[i] = beam
    for beam, expected in zip(beams, alone, strict=True):
        best = decoder.best(beam)
        assert (best.tokens, best.frames) == (expected.tokens, expected.frames)
        assert best.score == pytest.approx(expected.score, abs=1e-4)
        assert best.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(seeds, limits, st.integers(1, 10), st.integers(1, 10))
def test_stable_tokens_stay(seed, limit, first, more):
    tables = Tables(seed, limit)
    decoder = TransducerBeam(tables, TOKENS, DecoderOptions(beam_width=4))
    piece = audio(seed, first + more)
    early = run(decoder, [Encoded(piece.values[:first], 0)])
    kept = decoder.best(early).tokens[: decoder.stable(early)]
    (late,) = decoder.advance([early], [Encoded(piece.values[first:], first)])
    assert all(other.tokens[: len(kept)] == kept for other in decoder.nbest(late, 4))


def exhaustive(tables: Tables, piece: Encoded, vocabulary: int) -> dict[tuple[int, ...], float]:
    """Log-probability of every token sequence, summed over all alignments."""
    found: dict[tuple[int, ...], float] = {}

    def walk(t, count, tokens, predicted, state, score):
        if t == len(piece):
            found[tokens] = np.logaddexp(found.get(tokens, -np.inf), score)
            return
        logp = tables.join(piece.values[t : t + 1], predicted)[0].astype(np.float64)
        walk(t + 1, 0, tokens, predicted, state, score + logp[5])
        for token in range(vocabulary):
            out, after = tables.predict(np.array([token]), state)
            last = count + 1 == tables.max_symbols
            walk(t + last, 0 if last else count + 1, (*tokens, token), out, after, score + logp[token])

    walk(0, 0, (), *tables.initial(1), 0.0)
    return found


@settings(max_examples=10, deadline=None)
@given(seeds, st.sampled_from([(1, 3), (2, 2)]))
def test_a_beam_wide_enough_sums_all_alignments(seed, shape):
    limit, length = shape
    tables = Tables(seed, limit)
    piece = audio(seed, length)
    truth = exhaustive(tables, piece, 5)
    options = DecoderOptions(beam_width=10_000, beam_prune_logp=-np.inf, token_min_logp=-np.inf)
    decoder = TransducerBeam(tables, TOKENS, options)
    found = decoder.nbest(run(decoder, [piece]), 10_000)
    assert {h.tokens: pytest.approx(truth[h.tokens], abs=1e-3) for h in found} == {h.tokens: h.score for h in found}
    assert len(found) == len(truth)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    greedy = TransducerGreedy(tables, TOKENS)
    assert found[0].score >= greedy.best(run(greedy, [piece])).score - 1e-4


@pytest.mark.parametrize("seed", range(30))
def test_beam_search_finds_what_is_likelier_than_greedy(seed):
    tables = Tables(seed)
    piece = audio(seed, 25)
    greedy = TransducerGreedy(tables, TOKENS)
    options = DecoderOptions(beam_width=16, beam_prune_logp=-50.0, token_min_logp=-50.0)
    beam = TransducerBeam(tables, TOKENS, options)
    assert beam.best(run(beam, [piece])).score >= greedy.best(run(greedy, [piece])).score - 1e-4


def test_the_predictor_runs_once_per_token():
    tables = Tables(3)
    decoder = TransducerGreedy(tables, TOKENS)
    best = decoder.best(run(decoder, [audio(3, 40)]))
    assert tables.predicted_rows == len(best.tokens) > 3
    tables = Tables(3, blank_bias=30.0)
    beam = TransducerBeam(tables, TOKENS, DecoderOptions(beam_width=4))
    assert beam.best(run(beam, [audio(3, 40)])).tokens == ()
    assert tables.predicted_rows == 0


def test_hotwords_change_the_winner_and_are_given_back_when_incomplete():
    tables = Tables(11)
    piece = audio(5, 12)
    plain = TransducerBeam(tables, TOKENS, DecoderOptions(beam_width=8))
    usual = plain.best(run(plain, [piece]))
    assert "ваг" not in TOKENS.text(usual.tokens).split()
    hot = TransducerBeam(tables, TOKENS, DecoderOptions(beam_width=8, token_min_logp=-20.0, beam_prune_logp=-40.0,
                                                        hotwords={"ваг": 25.0}))  # fmt: skip
    best = hot.best(run(hot, [piece]))
    assert "ваг" in TOKENS.text(best.tokens).split()
    assert all(logp <= 0 for logp in best.logprobs)
    far = TransducerBeam(tables, TOKENS, DecoderOptions(beam_width=8, hotwords={"гггггггггггг": 0.5}))
    cold = far.best(run(far, [piece]))
    assert cold.tokens == usual.tokens
    assert cold.score == pytest.approx(usual.score, abs=1e-4)


def test_hotwords_over_pieces_end_with_the_phrase():
    pieces = Tokens((" а", "б", " в", "г", "<unk>", ""), blank=5, pieces=True)
    tables = Tables(2)
    hot = TransducerBeam(tables, pieces, DecoderOptions(beam_width=8, token_min_logp=-20.0, beam_prune_logp=-60.0,
                                                        hotwords={"вг": 40.0}))  # fmt: skip
    best = hot.best(run(hot, [audio(4, 3)]))
    assert "вг" in pieces.text(best.tokens).split()


@pytest.mark.parametrize("text", ["да река", "да, река.", "да Река!", "«река»"])
def test_hotwords_are_found_beside_punctuation_and_with_a_capital(text):
    letters = Tokens((*" ,.!«»адекраРб", ""), blank=14)
    table = compile_hotwords({"река": 3.0}, replace(letters, symbols=(*letters.symbols, " ")))

    def earned(words):
        state, total = table.start, 0.0
        for letter in words:
            token = letters.symbols.index(letter)
            total += table.earned[state, token]
            state = table.next[state, token]
        return total + table.earned[state, -1]

    assert earned(text) == pytest.approx(3.0)
    assert earned(text.replace("ка", "ка, река")) == pytest.approx(6.0)
    assert earned(text.replace("река", "рекаа").replace("Река", "Рекаа")) == 0.0


def test_length_norm_ranks_by_score_per_token():
    tables = Tables(5)
    piece = audio(9, 8)
    options = DecoderOptions(beam_width=8)
    plain = TransducerBeam(tables, TOKENS, options)
    normed = TransducerBeam(tables, TOKENS, replace(options, length_norm=True))
    found = normed.nbest(run(normed, [piece]), 8)
    ranks = [h.score / (len(h.tokens) + 2) for h in found]
    assert ranks == sorted(ranks, reverse=True)
    assert {h.tokens for h in found} == {h.tokens for h in plain.nbest(run(plain, [piece]), 8)}


def test_parts_that_do_not_fit_are_refused():
    tables = Tables(1)
    with pytest.raises(IncompatibleParts, match="blank"):
        TransducerGreedy(tables, Tokens(("", "а"), blank=0))
    with pytest.raises(IncompatibleParts, match="Encoded"):
        TransducerGreedy(tables, TOKENS).advance([None], [LogProbs(np.zeros((1, 6), np.float32))])
    with pytest.raises(UsageError, match="beam_width"):
        build_decoder(TOKENS, DecoderOptions(beam_width=0), transducer=tables)
    with pytest.raises(UsageError, match="greedy"):
        build_decoder(TOKENS, DecoderOptions(kind="greedy", hotwords={"а": 1.0}), transducer=tables)
    assert isinstance(build_decoder(TOKENS, DecoderOptions(kind="auto"), transducer=tables), TransducerGreedy)
    with pytest.raises(IncompatibleParts, match="max_symbols"):
        TransducerGreedy(Tables(1, max_symbols=0), TOKENS)
