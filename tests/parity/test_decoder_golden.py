"""The searches against T-one's decoders on its reference log-probs (data in tests/data/splitter, described there)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rechka.decoding import CtcBeam, CtcGreedy, load_lm
from rechka.decoding.lm import LN10, KenLm
from rechka.options import DecoderOptions
from rechka.types import LogProbs, Tokens

DATA = Path(__file__).parents[1] / "data"
LM_FILE = DATA / "tone" / "lm.arpa"
TOKENS = Tokens((*"абвгдеёжзийклмнопрстуфхцчшщъыьэюя", " ", ""), blank=34)
# pyctcdecode's unk_score_offset of -10 is a base-10 logarithm inside words and weighted by alpha.
TONE = DecoderOptions(beam_width=200, alpha=0.4, beta=0.9, unk_logp=-10 * 0.4 * LN10)


@pytest.fixture(scope="module")
def phrases() -> list[tuple[dict[str, Any], LogProbs]]:
    """The phrases that the reference did not cut by force, with the frames that its decoders were given."""
    golden = json.loads((DATA / "tone" / "splitter_decoder.json").read_text(encoding="utf-8"))["phrases"][:4]
    values = np.load(DATA / "tone" / "splitter_logprobs.npz")["logprobs"]
    begins = [phrase["start_frame"] - 3 for phrase in golden]
    return [
        (phrase, LogProbs(values[begin : begin + phrase["n_logprobs"]], begin))
        for phrase, begin in zip(golden, begins, strict=True)
    ]


def test_greedy_text(phrases: list[tuple[dict[str, Any], LogProbs]]) -> None:
    decoder = CtcGreedy(TOKENS)
    for golden, frames in phrases:
        [beam] = decoder.advance([decoder.begin()], [frames])
        assert TOKENS.text(decoder.best(beam).tokens) == golden["greedy"]


def test_beam_with_word_list(phrases: list[tuple[dict[str, Any], LogProbs]]) -> None:
    decoder = CtcBeam(TOKENS, TONE, lm=load_lm(LM_FILE))
    for golden, frames in phrases:
        [beam] = decoder.advance([decoder.begin()], [frames])
        best = decoder.best(beam)
        assert TOKENS.text(best.tokens) == golden["beam_lm"]
        # The same sum over alignments but for what either search prunes; ours may keep a little more.
        assert -1e-3 < best.score - golden["beam_lm_total_score"] < 0.1
        words = [word for word, _, _ in golden["beam_lm_text_frames"]]
        starts = [begin for _, begin, _ in golden["beam_lm_text_frames"]]
        firsts = [0, *(i + 1 for i, token in enumerate(best.tokens) if token == TOKENS.space)]
        assert TOKENS.text(best.tokens).split() == words
        for first, start in zip(firsts, starts, strict=True):  # ours the loudest frame of a run, theirs any
            assert abs(best.frames[first] - frames.start - start) <= 4


def test_beam_without_language_model(phrases: list[tuple[dict[str, Any], LogProbs]]) -> None:
    decoder = CtcBeam(TOKENS, TONE)
    for golden, frames in phrases:
        [beam] = decoder.advance([decoder.begin()], [frames])
        best = decoder.best(beam)
        assert TOKENS.text(best.tokens) == golden["beam_nolm"]
        assert -1e-3 < best.score - golden["beam_nolm_logit_score"] < 1.0


def test_beam_without_word_list_finds_more(phrases: list[tuple[dict[str, Any], LogProbs]]) -> None:
    """T-one gives pyctcdecode no word list. What ours finds then is at least as probable, by the same measure."""
    pytest.importorskip("kenlm")

    class Bare(KenLm):
        words = None  # type: ignore[assignment]

    decoder = CtcBeam(TOKENS, TONE, lm=Bare(LM_FILE))
    for golden, frames in phrases:
        [beam] = decoder.advance([decoder.begin()], [frames])
        best = decoder.best(beam)
        assert best.score >= golden["beam_lm_nounigrams_total_score"]
        same = sum(a == b for a, b in zip(TOKENS.text(best.tokens).split(), golden["greedy"].split(), strict=False))
        assert same + 3 >= len(golden["greedy"].split()) / 2
