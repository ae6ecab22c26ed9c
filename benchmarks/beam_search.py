"""Beam search side by side with pyctcdecode: CPU time, and the scores of what both find.

    python benchmarks/beam_search.py [--lm FILE.arpa] [--rounds 3] [--phrases 6] [--width 200] [--json FILE]

Runs where pyctcdecode is, which wants numpy below 2: an environment of its own (benchmarks/requirements.txt). Part of
``benchmarks/suite.py``.

Log-probs are synthetic: random words of the language model, one to two frames a letter, nought to two blanks between,
33 frames a second, phrases of five seconds. The winner of a frame has a probability drawn from the level's range, the
others share the rest by a Dirichlet(1) draw; one letter in ten, or none, is replaced by a wrong one. Both decoders
work phrase by phrase in turns, so that a disturbance of the machine hits both; times are CPU seconds of this process,
which runs one thread.

The score of a text is computed apart from both decoders: the exact CTC probability of its letters (all alignments),
plus the language model's part as pyctcdecode defines it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from record import Record, Row, finish, missing, versions

from rechka.decoding import CtcBeam, LanguageModel, load_lm
from rechka.decoding.lm import LN10
from rechka.options import DecoderOptions
from rechka.types import LogProbs, Tokens

LETTERS = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
TOKENS = Tokens((*LETTERS, " ", ""), blank=34)
LM_FILE = Path(__file__).parents[1] / "tests" / "data" / "tone" / "lm.arpa"
LEVELS = {"confident": (0.9, 0.995), "noisy": (0.35, 0.9)}
CASES = [("noisy", 0.1), ("noisy", 0.0), ("confident", 0.1), ("confident", 0.0)]
"""Levels, and the share of wrong letters; the last has next to nothing to search."""
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
    """A way to decode, with the CPU seconds of every round and the texts it found."""

    decode: Callable[[np.ndarray], str]
    seconds: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def ours(width: int, lm: LanguageModel | None) -> Contestant:
    """Our beam search."""
    options = DecoderOptions(beam_width=width, alpha=ALPHA, beta=BETA, unk_logp=UNK * ALPHA * LN10)
    decoder = CtcBeam(TOKENS, options, lm=lm)

    def decode(values: np.ndarray) -> str:
        [beam] = decoder.advance([decoder.begin()], [LogProbs(values)])
        return TOKENS.text(decoder.best(beam).tokens)

    return Contestant(decode)


def theirs(width: int, lm_path: Path | None, unigrams: list[str] | None) -> Contestant:
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

    return Contestant(decode)


def race(phrases: list[np.ndarray], members: list[Contestant], rounds: int) -> None:
    """Decode every phrase by every member in turn, once in each round, after one warm-up."""
    for member in members:
        member.decode(phrases[0])
    for _ in range(rounds):
        seconds = dict.fromkeys(range(len(members)), 0.0)
        texts: list[list[str]] = [[] for _ in members]
        for values in phrases:
            for i, member in enumerate(members):
                begin = time.process_time()
                text = member.decode(values)
                seconds[i] += time.process_time() - begin
                texts[i].append(text.strip())
        for i, member in enumerate(members):
            member.seconds.append(seconds[i])
            member.texts = texts[i]


def compared(phrases: list[np.ndarray], texts: list[list[str]], lm: LanguageModel | None) -> str:
    """Mean scores of both, and in how many phrases ours is not lower."""
    own, other = (
        np.array(
            [ctc_score(x, text) + (lm_score(lm, text) if lm else 0.0) for x, text in zip(phrases, found, strict=True)]
        )
        for found in texts
    )
    higher, lower = int((own - other > 1e-4).sum()), int((other - own > 1e-4).sum())
    told = f"score {own.mean():.1f} against {other.mean():.1f}: higher in {higher} of {len(own)}"
    return told + (f", **lower in {lower}**" if lower else "")


def main() -> int:
    """Run all races and print them."""
    parser = argparse.ArgumentParser(description="Beam search side by side with pyctcdecode.")
    parser.add_argument("--lm", type=Path, default=LM_FILE, help="ARPA file (default: the tests' bigram of 30 words)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--phrases", type=int, default=6, help="of five seconds each (default 6)")
    parser.add_argument("--width", type=int, default=200, help="beam width (default 200, T-one's)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    record = Record("beam", versions=versions(sys.executable, "pyctcdecode", "kenlm", "numpy"))
    why = missing(sys.executable, "pyctcdecode, kenlm")
    if why:
        record.skipped["pyctcdecode"] = why
        finish(record, arguments.json)
        return 0
    lm = load_lm(arguments.lm)
    words = [word for word in lm.words or [] if set(word) <= set(LETTERS)]
    ways: list[tuple[str, LanguageModel | None, Path | None, list[str] | None]] = [
        ("LM as T-one runs it", lm, arguments.lm, None),
        ("LM and word list", lm, arguments.lm, list(lm.words or [])),
        ("no LM", None, None, None),
    ]
    for level, wrong in CASES:
        phrases = [synthetic(words, LEVELS[level], seed, wrong) for seed in range(arguments.phrases)]
        # Without wrong letters the language model makes the difference: the search alone has been seen above.
        for way, model, path, known in ways if wrong else ways[:2]:
            members = [ours(arguments.width, model), theirs(arguments.width, path, known)]
            race(phrases, members, arguments.rounds)
            told = f"beam {arguments.width}, {way}; {level}, {100 * wrong:g} % wrong letters"
            both = compared(phrases, [member.texts for member in members], model)
            audio_s = len(phrases) * FRAMES * 0.03
            record.rows.append(Row(told, "pyctcdecode", audio_s, members[0].seconds, members[1].seconds, both))
            print(told, *(round(member.seconds[-1], 3) for member in members), file=sys.stderr, flush=True)
    finish(record, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
