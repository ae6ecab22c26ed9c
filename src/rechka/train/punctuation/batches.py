"""Batches of words as a recogniser would hand them over: sentences in a row, some cut short, misheard, with pauses.

The texts hold single sentences in random order, so the sentences of a row have nothing to do with one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rechka.text.punctuation import PAUSE_EDGES_S
from rechka.text.word_hashes import hashes
from rechka.train.punctuation.sentences import ASK_MASKED, I64, Texts

LENGTHS = (8, 16, 32, 64)
"""Words of a row; a batch has rows of one length."""
_CAPITAL_FOLLOWS = (2, 3, 4)
"""Marks behind which every word has a capital: there is nothing to learn."""
_FINAL = (2, 3, 4, 5)

NUMERALS = frozenset(
    ("ноль", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять", "десять", "одиннадцать", "двенадцать",
     "тринадцать", "четырнадцать", "пятнадцать", "шестнадцать", "семнадцать", "восемнадцать", "девятнадцать",
     "двадцать", "тридцать", "сорок", "пятьдесят", "шестьдесят", "семьдесят", "восемьдесят", "девяносто", "сто",
     "двести", "триста", "четыреста", "пятьсот", "шестьсот", "семьсот", "восемьсот", "девятьсот")
)  # fmt: skip
_MISHEARD = (
    ("о", "а"), ("а", "о"), ("е", "и"), ("и", "е"), ("я", "и"), ("д", "т"), ("т", "д"), ("б", "п"), ("г", "к"),
    ("з", "с"), ("ж", "ш"), ("в", "ф"), ("тс", "ц"), ("ться", "тся"), ("ого", "ова"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Noise:
    """How the input is spoilt. All are shares.

    Attributes:
        cut: rows that end within a sentence.
        timed: rows with pauses; the others have none measured.
        noisy: rows with recognition errors, and
        misheard, lost: of their words.
        digits: numerals written as a number.
    """

    cut: float = 0.3
    timed: float = 0.5
    noisy: float = 0.25
    misheard: float = 0.06
    lost: float = 0.03
    digits: float = 0.2


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows (B, T): words as numbers of the vocabulary (-1 beyond the end), pauses, labels (-1: not asked for)."""

    words: I64
    pauses: I64
    marks: I64
    cases: I64


class Vocabulary:
    """Hashes of all words that batches may hold: as written, misheard, and a number, behind one another."""

    def __init__(self, words: Sequence[str]) -> None:
        self.size = len(words)
        self.numerals = np.array([word in NUMERALS for word in words])
        self.number = 2 * self.size
        self.rows, self.pieces = hashes([*words, *map(misheard, words), "0", ""])


def misheard(word: str) -> str:
    """The word with one likely error; the same error every time."""
    for old, new in _MISHEARD[len(word) % 5 :] + _MISHEARD[: len(word) % 5]:
        place = word.rfind(old)
        if place > 0:
            return word[:place] + new + word[place + len(old) :]
    return word[:-1] or word


def pause_classes(seconds: NDArray[np.float64]) -> I64:
    """Classes of measured pauses; negative ones (overlapping words) count as none."""
    return 1 + np.searchsorted(PAUSE_EDGES_S, seconds, side="right").astype(np.int64)


def batches(
    texts: Texts, vocabulary: Vocabulary, noise: Noise, *, num_words: int, seed: Sequence[int], augment: bool = True
) -> Iterator[Batch]:
    """One pass over sentences in random order.

    Args:
        texts: whose sentences.
        vocabulary: of them.
        noise: see ``Noise``; ``augment=False`` leaves only pauses, for the rows that shall have them, and cuts.
        num_words: in a batch, with what is empty.
        seed: of everything.
    """
    rng = np.random.default_rng(list(seed))
    waiting: dict[int, list[list[int]]] = {length: [] for length in LENGTHS}
    row: list[int] = []
    length, taken = int(rng.choice(LENGTHS)), 0
    sizes = np.diff(texts.starts)
    for sentence in rng.permutation(len(texts)).tolist():
        row.append(sentence)
        taken += int(sizes[sentence])
        if taken >= length or (len(row) == 1 and rng.random() < 0.15):
            length = next((fit for fit in LENGTHS if fit >= taken), LENGTHS[-1]) if taken < length else length
            waiting[length].append(row)
            if len(waiting[length]) * length >= num_words:
                yield _built(texts, vocabulary, noise, waiting[length], length, rng, augment)
                waiting[length] = []
            row, taken, length = [], 0, int(rng.choice(LENGTHS))


def _built(
    texts: Texts, vocabulary: Vocabulary, noise: Noise, rows: list[list[int]], length: int,
    rng: np.random.Generator, augment: bool,
) -> Batch:  # fmt: skip
    shape = len(rows), length
    words = np.full(shape, -1, np.int64)
    marks, cases = np.full(shape, ASK_MASKED, np.int64), np.full(shape, ASK_MASKED, np.int64)
    for place, row in enumerate(rows):
        ends = np.cumsum([texts.starts[s + 1] - texts.starts[s] for s in row])
        if ends[-1] > length and len(row) > 1 and rng.random() >= noise.cut:
            row = row[:-1]
        parts = [slice(texts.starts[s], texts.starts[s + 1]) for s in row]
        for target, source in ((words, texts.words), (marks, texts.marks), (cases, texts.cases)):
            flat = np.concatenate([source[part] for part in parts])[:length]
            target[place, : len(flat)] = flat
    before = np.concatenate([np.full((len(rows), 1), _FINAL[0]), marks[:, :-1]], axis=1)
    cases[np.isin(before, _CAPITAL_FOLLOWS)] = ASK_MASKED
    timed = (rng.random(len(rows)) < noise.timed)[:, None]
    pauses = np.where(timed, pause_classes(simulated_pauses(marks, rng)), 0)
    last = (words >= 0) & (np.concatenate([words[:, 1:], np.full((len(rows), 1), -1)], axis=1) < 0)
    pauses[last | (words < 0)] = 0  # what comes after the end is not known
    if augment:
        words = _spoilt(words, vocabulary, noise, rng)
    return Batch(words, pauses, marks, cases)


def _spoilt(words: I64, vocabulary: Vocabulary, noise: Noise, rng: np.random.Generator) -> I64:
    there = words >= 0
    words = np.where(
        there & vocabulary.numerals[words] & (rng.random(words.shape) < noise.digits), vocabulary.number, words
    )
    noisy = there & (rng.random(len(words)) < noise.noisy)[:, None] & (words < vocabulary.size)
    draw = rng.random(words.shape)
    words = np.where(noisy & (draw < noise.misheard), words + vocabulary.size, words)
    # A lost word would shift all labels; another word in its place teaches the same: not to trust a single word.
    other = rng.integers(0, vocabulary.size, words.shape)
    return np.where(noisy & (draw > 1 - noise.lost), other, words)


def simulated_pauses(marks: I64, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds (B, T) behind words that speakers of different habits, one a row, would pause for.

    Medians of 0.25 to 1.2 s at sentence ends and of 0.06 to 0.5 s at commas by speaker, a hesitation at up to 10 % of
    the other words, every fourth comma or so without a pause.
    """
    count = (len(marks), 1)
    ends, commas = np.isin(marks, _FINAL), marks == 1
    at_end = rng.uniform(0.25, 1.2, count) * rng.lognormal(0, 0.6, marks.shape)
    at_comma = rng.uniform(0.06, 0.5, count) * rng.lognormal(0, 0.7, marks.shape)
    within = rng.uniform(0.0, 0.12, count) * rng.lognormal(0, 0.5, marks.shape)
    hesitates = rng.random(marks.shape) < rng.uniform(0, 0.1, count)
    seconds = np.where(hesitates, rng.uniform(0.2, 0.6, count) * rng.lognormal(0, 0.6, marks.shape), within)
    seconds = np.where(commas & (rng.random(marks.shape) > 0.25), at_comma, seconds)
    return np.where(ends & (rng.random(marks.shape) > 0.05), at_end, seconds)
