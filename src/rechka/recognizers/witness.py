"""Two texts of one phrase: a streaming CTC model as the witness against what a stronger model may invent.

CTC writes letters where it hears them and nothing where it hears nothing. Stronger decoders write better words, but may
loop, go on after the end, or leave something out. So the second text is believed, except where the first says that
nothing of the kind was there. The letters of both are aligned (edit distance with gaps), and then:

1. A word of the second text is *witnessed* if at least half of its letters were heard. It stays.
2. A run of words without a witness stays if the first text has at least half as many letters in the same place:
   something was said there, and the second model reads it better. Runs of up to three letters stay too, since CTC often
   swallows short words. Otherwise nothing was said there, and the run is *dropped*. So end loops and credits.
3. A run of words of the first text, eight letters or more, that the second left out is *restored* if the first model
   was sure of it; so is any run whose place only dropped words took. Not if the words beside it hold digits, which may
   be the same words written otherwise.
4. If the second text is empty, or has less than half of the letters of a first text that was sure (digits excepted), or
   nothing of it stays, it is *rejected*, and the first stays.

What was dropped, restored or rejected stands in the segment's labels.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from rechka.types import Segment, Word

SURE = 0.6
"""Mean confidence of words that are believed against a stronger model."""
SHARE = 0.5
"""Share of its letters that a sure witness finds again in a text about the same sound; by chance a third or so."""
SHORT, LONG = 3, 8
"""Letters of a run that needs no witness, and of one that is worth restoring."""
SUBSTITUTE, OPEN, EXTEND = 2, 1, 2
"""Costs of aligning letters: of a wrong letter, of a gap, and of each letter in it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of two texts.

    Attributes:
        words: of the phrase.
        dropped: runs of the second text that nobody heard.
        restored: runs of the first text that the second left out.
        rejected: why the second text was not used at all: ``"empty"``, ``"other"``; else empty.
    """

    words: tuple[Word, ...]
    dropped: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    rejected: str = ""

    def segment(self, first: Segment, name: str) -> Segment | None:
        """The refined segment, labelled with what happened; None if there is nothing new to tell.

        Args:
            first: what the first pass said; the segment keeps its times, speaker and channel.
            name: of the model that refined it.
        """
        labels = {"dropped": list(self.dropped), "restored": list(self.restored), "rejected": self.rejected}
        told = {key: value for key, value in labels.items() if value}
        text = " ".join(word.text for word in self.words)
        if text == first.text and not told:
            return None
        return replace(first, text=text, words=self.words, labels={**first.labels, "refined_by": name, **told})


def judge(first: Sequence[Word], second: Sequence[Word]) -> Verdict:
    """The words of a phrase, by the rules above.

    Args:
        first: what the streaming model heard, with times and confidence.
        second: what the stronger model reads, times on the same clock.
    """
    heard, read = [letters(word.text) for word in first], [letters(word.text) for word in second]
    if not any(read):
        return Verdict(tuple(first), rejected="empty" if any(heard) else "")
    steps = _align("".join(heard), "".join(read))
    first_at, second_at = _owners(heard), _owners(read)
    matched = [0] * len(second)
    for _, j, same in steps:
        if same:
            matched[second_at[j]] += 1
    total = sum(map(len, heard))
    numerals = any(char.isdigit() for word in read for char in word)  # they share no letters with what was heard
    if sum(matched) < SHARE * total and total >= LONG and not numerals and _sure(first):
        return Verdict(tuple(first), rejected="other")
    kept, dropped = _with_witness(second, read, matched, steps, second_at)
    pairs = {(first_at[i], second_at[j]) for i, j, _ in steps if i >= 0 and j >= 0}
    missing = _missing(first, heard, pairs, set(kept), steps, first_at, second_at, second)
    if not kept:
        return Verdict(tuple(first), rejected="other")
    parts = [*((index, 0, [second[index]]) for index in kept), *((at, 1, run) for at, run in missing)]
    placed = sorted(parts, key=lambda part: part[:2])
    words = _ordered([word for _, _, run in placed for word in run])
    return Verdict(words, dropped, tuple(_text(run) for _, run in missing))


def letters(text: str) -> str:
    """The letters and digits of a word, as they are compared: lower case, ё as е."""
    return "".join(char for char in text.lower().replace("ё", "е") if char.isalnum())


def _owners(words: Sequence[str]) -> list[int]:
    """For each letter the index of its word."""
    return [index for index, word in enumerate(words) for _ in word]


def _sure(words: Sequence[Word]) -> bool:
    """True if the mean confidence is high; words without one count as sure."""
    return sum(1.0 if word.confidence is None else word.confidence for word in words) >= SURE * len(words)


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _with_witness(
    words: Sequence[Word], read: Sequence[str], matched: Sequence[int], steps: Sequence[_Step], owner: Sequence[int]
) -> tuple[list[int], tuple[str, ...]]:
    """Rules 1 and 2: the indexes of the words that stay, and the texts of the runs that do not."""
    believed = [2 * count >= len(word) for count, word in zip(matched, read, strict=True)]
    kept: list[int] = []
    dropped: list[str] = []
    for good, group in groupby(range(len(words)), key=lambda index: believed[index]):
        run = list(group)
        size = sum(len(read[index]) for index in run)
        if good or size <= SHORT or 2 * _heard_in(run, steps, owner) >= size:
            kept += run
        else:
            dropped.append(_text([words[index] for index in run]))
    return kept, tuple(dropped)


def _heard_in(run: Sequence[int], steps: Sequence[_Step], owner: Sequence[int]) -> int:
    """Letters of the first text in the place of a run of words of the second, between its neighbours' letters."""
    inside = [n for n, (_, j, _) in enumerate(steps) if j >= 0 and run[0] <= owner[j] <= run[-1]]
    if not inside:
        return 0
    first, last = inside[0], inside[-1]
    while first > 0 and steps[first - 1][1] < 0:
        first -= 1
    while last + 1 < len(steps) and steps[last + 1][1] < 0:
        last += 1
    return sum(i >= 0 for i, _, _ in steps[first : last + 1])


def _missing(
    first: Sequence[Word],
    heard: Sequence[str],
    pairs: Set[tuple[int, int]],
    kept: Set[int],
    steps: Sequence[_Step],
    owner: Sequence[int],
    second_owner: Sequence[int],
    second: Sequence[Word],
) -> list[tuple[int, list[Word]]]:
    """Rule 3: runs of the first text that are not in the second, with the index of the second's word before them."""
    found = []
    covered = {i for i, j in pairs if j in kept}
    replaced = {i for i, _ in pairs} - covered
    for gone, group in groupby(range(len(first)), key=lambda index: index not in covered):
        run = list(group)
        words = [first[index] for index in run]
        left_out = sum(len(heard[index]) for index in run) >= LONG and _sure(words)
        if not gone or not (left_out or replaced & set(run)):
            continue
        at = [n for n, (i, _, _) in enumerate(steps) if i >= 0 and run[0] <= owner[i] <= run[-1]]
        before = next((second_owner[j] for _, j, _ in reversed(steps[: at[0]]) if j >= 0), -1)
        beside = second[max(0, before - 1) : before + 3]  # two words on either side
        if not any(char.isdigit() for word in beside for char in word.text):
            found.append((before, words))
    return found


def _ordered(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words such that none begins before the one before it has ended."""
    clock, ordered = 0.0, []
    for word in words:
        start = max(word.start, clock)
        clock = max(word.end, start)
        ordered.append(replace(word, start=start, end=clock))
    return tuple(ordered)


_Step = tuple[int, int, bool]
"""A letter of each text (-1: of one only), and whether they are the same."""


def _align(first: str, second: str) -> list[_Step]:
    """The letters of two texts side by side at the least cost (Gotoh 1982).

    A gap costs more to open than to continue, so that a word keeps its letters together and does not lend them to
    words that were made up beside it.
    """
    best, skipped = _costs(_codes(first), _codes(second))
    steps: list[_Step] = []
    i, j = len(first), len(second)
    while i or j:
        same = i > 0 and j > 0 and first[i - 1] == second[j - 1]
        # Of equally good ways the one that leaves letters at the end alone: loops and credits come last.
        gaps = np.flatnonzero(best[i, :j] + EXTEND * np.arange(j, 0, -1) + OPEN == best[i, j])
        if len(gaps):
            steps += [(-1, k, False) for k in range(j - 1, int(gaps[-1]) - 1, -1)]
            j = int(gaps[-1])
        elif i and j and best[i, j] == best[i - 1, j - 1] + (0 if same else SUBSTITUTE):
            i, j = i - 1, j - 1
            steps.append((i, j, same))
        else:
            while i > 1 and skipped[i, j] == skipped[i - 1, j] + EXTEND:
                i -= 1
                steps.append((i, -1, False))
            i -= 1
            steps.append((i, -1, False))
    return steps[::-1]


def _codes(text: str) -> NDArray[np.int32]:
    return np.array([ord(char) for char in text], dtype=np.int32)


def _costs(first: NDArray[np.int32], second: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Least costs of all pairs of beginnings, (len(first) + 1, len(second) + 1), and of those ending in a gap."""
    columns = EXTEND * np.arange(len(second) + 1, dtype=np.int32)
    best = np.empty((len(first) + 1, len(second) + 1), dtype=np.int32)
    skipped = np.full_like(best, 1 << 20)
    best[0] = columns + OPEN
    best[0, 0] = 0
    for i, letter in enumerate(first, 1):
        skipped[i] = np.minimum(skipped[i - 1], best[i - 1] + OPEN) + EXTEND
        row = skipped[i].copy()
        row[1:] = np.minimum(row[1:], best[i - 1, :-1] + SUBSTITUTE * (second != letter))
        # Letters of the second text only, gaps of any length in one sweep.
        row[1:] = np.minimum(row[1:], np.minimum.accumulate(row - columns)[:-1] + columns[1:] + OPEN)
        best[i] = row
    return best, skipped
