"""The decoders' edges: options, odd input, empty phrases, times of tokens."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from rechka.decoding import CtcBeam, CtcGreedy, arena, build_decoder
from rechka.decoding.beam import PrefixBeam
from rechka.decoding.lm import NgramLm
from rechka.decoding.ngram_file import pack_ngrams
from rechka.errors import IncompatibleParts, UsageError
from rechka.options import DecoderOptions
from rechka.types import Encoded, LogProbs, Tokens

TOKENS = Tokens(("а", "б", " ", ""), blank=3)
PIECES = Tokens(("▁а", "б", ""), blank=2)


def lm() -> NgramLm:
    words = ["<s>", "</s>", "<unk>", "аб", "ба"]
    return NgramLm(pack_ngrams(words, [np.arange(5, dtype=np.int32)[:, None]], [np.full(5, -0.7, np.float32)], []))


def sure(ids: str, *, winner: float = 0.97) -> LogProbs:
    """Frames won by the letters of ``ids``, where ``.`` is the blank."""
    probs = np.full((len(ids), 4), (1 - winner) / 3)
    for frame, letter in enumerate(ids):
        probs[frame, 3 if letter == "." else TOKENS.symbols.index(letter)] = winner
    return LogProbs(np.log(probs).astype(np.float32))


def decode(decoder: Any, frames: LogProbs) -> str:
    [beam] = decoder.advance([decoder.begin()], [frames])
    return TOKENS.text(decoder.best(beam).tokens)


BOTH = pytest.mark.parametrize("kind", ["greedy", "beam"])


@BOTH
@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ("", ""),
        ("....", ""),
        ("   ", ""),
        ("аа.а", "аа"),
        (" а б ", "а б"),
        ("аб.ба", "абба"),
        (". .аа бб. .", "а б"),
    ],
)
def test_collapsing(kind: str, ids: str, text: str) -> None:
    assert decode(build_decoder(TOKENS, DecoderOptions(kind=kind)), sure(ids)) == text


def test_spaces_in_a_row() -> None:
    assert decode(CtcGreedy(TOKENS), sure("а . б")) == "а  б"
    assert decode(CtcBeam(TOKENS), sure("а . б")) == "а б"


@BOTH
def test_the_loudest_frame_of_a_run(kind: str) -> None:
    values = sure("..аааа..б").values.copy()
    values[4, 0] += 0.02
    decoder = build_decoder(TOKENS, DecoderOptions(kind=kind))
    [beam] = decoder.advance([decoder.begin()], [LogProbs(values, 50)])
    best = decoder.best(beam)
    assert best.frames == (54, 58)
    assert best.logprobs == pytest.approx((min(0.0, np.log(0.97) + 0.02), np.log(0.97)), abs=1e-5)


@BOTH
def test_nothing_heard(kind: str) -> None:
    decoder = build_decoder(TOKENS, DecoderOptions(kind=kind), lm=None)
    beam = decoder.begin()
    assert decoder.best(beam).tokens == ()
    assert decoder.stable(beam) == 0
    assert decoder.advance([], []) == []
    [same] = decoder.advance([beam], [LogProbs(np.empty((0, 4), np.float32))])
    assert decoder.nbest(same, 3)[0].tokens == ()


def test_the_empty_phrase_is_scored_by_the_language_model() -> None:
    decoder = CtcBeam(TOKENS, DecoderOptions(alpha=0.5), lm=lm())
    assert decoder.best(decoder.begin()).score == pytest.approx(0.5 * lm().end(lm().start()))


@BOTH
def test_log_probs_that_are_no_numbers(kind: str) -> None:
    values = sure("аб.").values.copy()
    values[1] = np.nan
    values[2, :3] = -np.inf
    decoder = build_decoder(TOKENS, DecoderOptions(kind=kind))
    assert np.isfinite(decoder.best(decoder.advance([decoder.begin()], [LogProbs(values)])[0]).score)


@BOTH
def test_frames_of_another_kind(kind: str) -> None:
    decoder = build_decoder(TOKENS, DecoderOptions(kind=kind))
    with pytest.raises(IncompatibleParts, match="vocabulary of 4"):
        decoder.advance([decoder.begin()], [LogProbs(np.zeros((3, 5), np.float32))])
    with pytest.raises(IncompatibleParts, match="consumes LogProbs"):
        decoder.advance([decoder.begin()], [Encoded(np.zeros((3, 4), np.float32))])


def test_a_space_alone_does_not_make_a_hypothesis_twice() -> None:
    decoder = CtcBeam(TOKENS, lm=lm())
    values = sure("аб. ", winner=0.99999).values
    [beam] = decoder.advance([decoder.begin()], [LogProbs(values)])
    assert isinstance(beam, PrefixBeam)
    texts = [TOKENS.text(h.tokens) for h in decoder.nbest(beam, 100)]
    assert len(texts) == len(set(texts))


def test_memory_of_a_long_phrase_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "_COMPACT", 2000)
    decoder = CtcBeam(TOKENS, DecoderOptions(beam_width=30, token_min_logp=-8.0), lm=lm())
    rng = np.random.default_rng(0)
    beam, sizes, contexts = decoder.begin(), [], []
    for at in range(0, 1500, 50):
        piece = np.log(rng.dirichlet(np.full(4, 0.5), 50)).astype(np.float32)
        [beam] = decoder.advance([beam], [LogProbs(piece, at)])
        sizes.append(beam.arena.size)
        contexts.append(len(beam.arena.contexts))
    assert max(sizes) < 10_000  # without forgetting 17 000, all the same hypotheses
    assert max(contexts) < 100
    assert len(decoder.best(beam).tokens) > 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beam_width", 0),
        ("beam_prune_logp", 0.0),
        ("token_min_logp", 1.0),
        ("alpha", -0.1),
        ("beta", float("nan")),
        ("unk_logp", 1.0),
        ("kind", "lattice"),
    ],
)
def test_options_out_of_range(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        build_decoder(TOKENS, DecoderOptions(**{field: value}))


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(IncompatibleParts, match="no space"):
        build_decoder(PIECES, DecoderOptions(), lm=lm())
    with pytest.raises(UsageError, match="hotwords"):
        build_decoder(TOKENS, DecoderOptions(kind="greedy", hotwords={"аб": 1.0}))


def test_a_vocabulary_without_spaces() -> None:
    decoder = CtcBeam(PIECES)
    probs = np.full((4, 3), 0.001)
    probs[range(4), [0, 2, 0, 1]] = 0.998
    [beam] = decoder.advance([decoder.begin()], [LogProbs(np.log(probs).astype(np.float32))])
    assert PIECES.text(decoder.best(beam).tokens) == "▁а▁аб"
    assert decoder.stable(beam) >= 1


def test_the_language_model_mends_a_word() -> None:
    values = np.log(np.array([[0.97, 0.01, 0.01, 0.01], [0.1, 0.35, 0.05, 0.5]])).astype(np.float32)
    assert decode(CtcBeam(TOKENS), LogProbs(values)) == "а"
    assert decode(CtcBeam(TOKENS, lm=lm()), LogProbs(values)) == "аб"
    assert decode(CtcBeam(TOKENS, lm=lm()), sure("ааб.б.а..", winner=0.9999)) == "абба"  # unlisted, yet possible


def test_many_threads_share_a_decoder() -> None:
    decoder = CtcBeam(TOKENS, DecoderOptions(beam_width=20, token_min_logp=-6.0), lm=lm())
    rng = np.random.default_rng(0)
    pieces = [LogProbs(np.log(rng.dirichlet(np.ones(4), 60)).astype(np.float32)) for _ in range(8)]

    def run(piece: LogProbs) -> Any:
        [beam] = decoder.advance([decoder.begin()], [piece])
        return decoder.nbest(beam, 5)

    alone = [run(piece) for piece in pieces]
    found: list[Any] = [None] * 8

    def work(index: int) -> None:
        found[index] = run(pieces[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
