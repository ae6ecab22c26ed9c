"""Beam search side by side with pyctcdecode: CPU time as ratios, and the scores of what both find.

    pip install "numpy<2" pyctcdecode kenlm && pip install -e .    # in an environment of its own
    python benchmarks/beam_search.py [--lm FILE.arpa] [--phrases 12] [--width 200] [--wrong 0.1]

Log-probs are synthetic: random words of the language model, one to two frames a letter, nought to two blanks between,
33 frames a second, phrases of five seconds. The winner of a frame has a probability drawn from the level's range, the
others share the rest by a Dirichlet(1) draw; one letter in ten (``--wrong``) is replaced by a wrong one. Both decoders
work phrase by phrase in turns, so that a disturbance of the machine hits both; times are CPU seconds of this process,
which runs one thread.

The score of a text is computed apart from both decoders: the exact CTC probability of its letters (all alignments),
plus the language model's part as pyctcdecode defines it. Without the packages above, only our side is timed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rechka.decoding import CtcBeam, LanguageModel, load_lm
from rechka.decoding.lm import LN10
from rechka.options import DecoderOptions
from rechka.types import LogProbs, Tokens

LETTERS = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
TOKENS = Tokens((*LETTERS, " ", ""), blank=34)
LM_FILE = Path(__file__).parents[1] / "tests" / "data" / "tone" / "lm.arpa"
LEVELS = {"confident": (0.9, 0.995), "noisy": (0.35, 0.9)}
ALPHA, BETA, UNK = 0.4, 0.9, -10.0
FRAMES = 166


def synthetic(words: list[str], level: tuple[float, float], seed: int, wrong: float = 0.1) -> np.ndarray:
    """(FRAMES, V) float32 natural-log probabilities of one phrase."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    while len(ids) < FRAMES:
        for letter in words[rng.integers(len(words))] + " ":
            right = TOKENS.symbols.index(letter)
            heard = int(rng.integers(33)) if letter != " " and rng.random() < wrong else right
            ids += [heard] * int(rng.integers(1, 3)) + [TOKENS.blank] * int(rng.integers(0, 3))
    probs = np.zeros((FRAMES, len(TOKENS)))
    for frame, winner in enumerate(ids[:FRAMES]):
        sure = rng.uniform(*level)
        probs[frame] = rng.dirichlet(np.ones(len(TOKENS))) * (1 - sure)
        probs[frame, winner] += sure
    return np.log(probs).astype(np.float32)


def ctc_score(values: np.ndarray, text: str) -> float:
    """Natural-log probability of a text, summed over all alignments; spaces in a row or at the ends do not count."""
    letters = [TOKENS.symbols.index(letter) for letter in f" {text} "]  # position 0: nothing but spaces yet
    path = np.array(letters)
    space = path == TOKENS.space
    again = np.concatenate(([False], path[1:] == path[:-1]))
    blank = np.full(len(path), -np.inf)
    token = np.full(len(path), -np.inf)
    blank[0] = 0.0
    for row in values.astype(np.float64):
        total = np.logaddexp(blank, token)
        come = np.where(again, np.roll(blank, 1), np.roll(total, 1))
        come[0] = -np.inf
        token = np.logaddexp(np.where(space, total, token), come) + row[path]
        blank = total + row[TOKENS.blank]
    total = np.logaddexp(blank, token)
    return float(np.logaddexp(total[-1], total[-2]) if text else total[0])


def lm_score(lm: LanguageModel, text: str) -> float:
    """The language model's part of a text's score."""
    state, total = lm.start(), 0.0
    for word in text.split():
        logp, state = lm.score(state, word)
        total += ALPHA * (logp + (0.0 if word in lm else UNK * LN10)) + BETA
    return total + ALPHA * lm.end(state)


@dataclass
class Contestant:
    """A way to decode, with the CPU time it took and the texts it found."""

    name: str
    decode: Callable[[np.ndarray], str]
    uses_lm: bool
    seconds: float = 0.0
    texts: list[str] | None = None


def ours(name: str, width: int, lm: LanguageModel | None) -> Contestant:
    """Our beam search."""
    options = DecoderOptions(beam_width=width, alpha=ALPHA, beta=BETA, unk_logp=UNK * ALPHA * LN10)
    decoder = CtcBeam(TOKENS, options, lm=lm)

    def decode(values: np.ndarray) -> str:
        [beam] = decoder.advance([decoder.begin()], [LogProbs(values)])
        return TOKENS.text(decoder.best(beam).tokens)

    return Contestant(name, decode, lm is not None)


def theirs(name: str, width: int, lm_path: Path | None, unigrams: list[str] | None) -> Contestant:
    """pyctcdecode's, with its defaults but for the width."""
    import kenlm
    from pyctcdecode.decoder import Alphabet, BeamSearchDecoderCTC
    from pyctcdecode.language_model import LanguageModel as TheirModel

    model = None
    if lm_path is not None:
        model = TheirModel(kenlm.Model(str(lm_path)), unigrams, alpha=ALPHA, beta=BETA, unk_score_offset=UNK)
    decoder = BeamSearchDecoderCTC(Alphabet(list(TOKENS.symbols), False), model)

    def decode(values: np.ndarray) -> str:
        return str(decoder.decode_beams(values, beam_width=width)[0][0])

    return Contestant(name, decode, lm_path is not None)


def contestants(lm_path: Path, lm: LanguageModel, width: int) -> list[tuple[str, list[Contestant]]]:
    """Pairs to compare, each with a heading; the first of a pair is ours."""
    known = list(lm.words or [])
    with_lm = ours(f"rechka, beam {width}", width, lm)
    small = ours("rechka, beam 48", 48, lm)
    without = ours(f"rechka, beam {width}, no LM", width, None)
    try:
        return [
            ("LM, as T-one runs it", [with_lm, small, theirs("pyctcdecode, no word list", width, lm_path, None)]),
            ("LM and word list", [with_lm, small, theirs("pyctcdecode, word list", width, lm_path, known)]),
            ("no LM", [without, theirs("pyctcdecode", width, None, None)]),
        ]
    except ImportError as error:
        print(f"pyctcdecode is not compared ({error}); see the head of this file for how to install it\n")
        return [("LM", [with_lm, small]), ("no LM", [without])]


def race(phrases: list[np.ndarray], members: list[Contestant]) -> None:
    """Decode every phrase by every member in turn, after one warm-up."""
    for member in members:
        member.decode(phrases[0])
        member.seconds, member.texts = 0.0, []
    for values in phrases:
        for member in members:
            begin = time.process_time()
            text = member.decode(values)
            member.seconds += time.process_time() - begin
            assert member.texts is not None
            member.texts.append(text.strip())


def report(heading: str, phrases: list[np.ndarray], members: list[Contestant], lm: LanguageModel) -> None:
    """Times, ratios and scores of one race."""
    print(f"  {heading}")
    scores: dict[str, list[float]] = {}
    reference = members[-1]
    minutes = len(phrases) * FRAMES * 0.03 / 60
    for member in members:
        part: Any = lm_score if member.uses_lm else lambda _lm, _text: 0.0
        scores[member.name] = [
            ctc_score(values, text) + part(lm, text) for values, text in zip(phrases, member.texts or [], strict=True)
        ]
        own = scores[member.name]
        line = f"    {member.name:26} {member.seconds / minutes:8.3f} s an audio minute, mean score {np.mean(own):9.3f}"
        print(line + (f", {reference.seconds / member.seconds:6.1f} x" if member is not reference else ""))
    last = np.array(scores[members[-1].name])
    for member in members[:-1]:
        gain = np.array(scores[member.name]) - last
        print(
            f"    {member.name} against {members[-1].name}: score higher in {int((gain > 1e-4).sum())}, "
            f"equal in {int((abs(gain) <= 1e-4).sum())}, lower in {int((gain < -1e-4).sum())} of {len(gain)} phrases"
        )


def main() -> int:
    """Run all races and print them."""
    parser = argparse.ArgumentParser(description="Beam search side by side with pyctcdecode.")
    parser.add_argument("--lm", type=Path, default=LM_FILE, help="ARPA file (default: the tests' bigram of 30 words)")
    parser.add_argument("--phrases", type=int, default=12, help="of five seconds each (default 12)")
    parser.add_argument("--width", type=int, default=200, help="beam width (default 200, T-one's)")
    parser.add_argument("--wrong", type=float, default=0.1, help="share of wrong letters (default 0.1)")
    arguments = parser.parse_args()
    lm = load_lm(arguments.lm)
    words = [word for word in lm.words or [] if set(word) <= set(LETTERS)]
    pairs = contestants(arguments.lm, lm, arguments.width)
    for name, level in LEVELS.items():
        print(f"{name} log-probs, winner's probability {level[0]} to {level[1]}")
        phrases = [synthetic(words, level, seed, arguments.wrong) for seed in range(arguments.phrases)]
        for heading, members in pairs:
            race(phrases, members)
            report(heading, phrases, members, lm)
    return 0


if __name__ == "__main__":
    sys.exit(main())
