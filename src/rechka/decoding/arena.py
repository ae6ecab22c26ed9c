"""What the beams of one phrase share: the letter trie, language-model states, and the alignments so far.

Hypotheses of a beam are columns of two arrays, so that a search step is a fixed number of array operations. The rows
are named here. A hypothesis is told by a 64-bit hash of its tokens; its tokens are spelled out by following records,
each of which holds one finished token and points to the one before.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rechka.decoding.lexicon import LetterTrie

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rivals: TypeAlias = tuple[tuple[int, int, float], ...]
"""Hash of the hypothesis that won, last record of the one that lost, and its log-odds then."""

# Rows of the float array, natural logarithms.
PB = 0  # probability of all alignments that end in blank
PNB = 1  # ... that end in the last token
TOT = 2  # both
LM = 3  # language model and completed hotwords, words that are complete
BONUS = 4  # LM and what is expected of the begun word and hotword
WORD = 5  # language model's part for the begun word if it ended here; NaN until asked for
LOUD = 6  # log-probability of the last token where it was loudest
NUM_FLOATS = 7

# Rows of the integer array; the first four are those of a record.
RECORD = 0  # record of the token before the last
LAST = 1  # the last token
FRAME = 2  # where the last token was loudest
HASH = 3  # of the tokens
PARENT = 4  # hash without the last token
DEPTH = 5  # number of tokens
TRIE = 6  # state of the begun word
HOT = 7  # state of the hotword automaton
CONTEXT = 8  # index of the language model's state before the begun word
AFTER = 9  # ... and after it, set with WORD
NUM_INTS = 10

ROOT = np.int64(0x5851F42D4C957F2D)
_MULTIPLIER = np.int64(6364136223846793005)  # Knuth's MMIX generator
_ADDEND = np.int64(1442695040888963407)
_COMPACT = 1 << 15
_RIVALS = 4


def extend_hash(parent: Ints, token: Ints) -> Ints:
    """Hash of token sequences one longer; int64 arithmetic wraps."""
    mixed = (parent ^ (parent >> np.int64(29))) + (token + np.int64(1)) * _ADDEND
    return mixed * _MULTIPLIER


class Arena:
    """Append-only store of one phrase; beams of the phrase point into it.

    Attributes:
        lock: held while a beam of the phrase is advanced or read.
        contexts: states of the language model; index 0 is the sentence's beginning.
    """

    def __init__(self, trie: LetterTrie, contexts: list[Any]) -> None:
        self.lock = threading.Lock()
        self.trie = trie
        self.contexts = contexts
        self._places = {state: i for i, state in enumerate(contexts)}
        self.size = 0
        self._limit = _COMPACT
        self._ints = np.empty((4, 256), np.int64)  # previous record, token, frame, hash
        self._logps = np.empty(256, np.float64)

    def context(self, state: Any) -> int:
        """Index of a language-model state, the same for equal states."""
        index = self._places.get(state)
        if index is None:
            index = self._places[state] = len(self.contexts)
            self.contexts.append(state)
        return index

    def push(self, records: Ints, logps: Floats) -> int:
        """Add records, (4, k) and (k,); returns the index of the first."""
        begin, end = self.size, self.size + len(logps)
        if end > self._ints.shape[1]:
            more = max(end, 2 * self._ints.shape[1])
            self._ints = np.concatenate([self._ints, np.empty((4, more), np.int64)], axis=1)
            self._logps = np.concatenate([self._logps, np.empty(more, np.float64)])
        self._ints[:, begin:end] = records
        self._logps[begin:end] = logps
        self.size = end
        return begin

    def chain(self, record: int) -> list[tuple[int, int, float, int]]:
        """Token, frame, log-probability and hash of all tokens up to a record, the root's own left out."""
        found = []
        ints, logps = self._ints, self._logps
        while record >= 0:
            previous, token, frame, name = ints[:, record].tolist()
            if previous >= 0:
                found.append((token, frame, float(logps[record]), name))
            record = previous
        return found[::-1]

    def until(self, record: int, known: Mapping[int, int]) -> tuple[int | None, list[tuple[int, int]]]:
        """What is known of the last sequence with a known hash on the way to a record, and tokens and frames since."""
        found: list[tuple[int, int]] = []
        while record >= 0:
            previous, token, frame, name = self._ints[:, record].tolist()
            if name in known:
                return known[name], found[::-1]
            found.append((token, frame))
            record = previous
        return None, []

    def letters(self, record: int, stop: int) -> list[int]:
        """Tokens up to a record since the last ``stop`` token or the root."""
        found = []
        ints = self._ints
        while record >= 0 and ints[RECORD, record] >= 0 and ints[LAST, record] != stop:
            found.append(int(ints[LAST, record]))
            record = int(ints[RECORD, record])
        return found[::-1]

    def common(self, ints: Ints) -> tuple[int, int]:
        """Depth and last token of the longest sequence with which all hypotheses (columns of ``ints``) begin."""
        depth, hashes, last, record = (ints[row].copy() for row in (DEPTH, HASH, LAST, RECORD))
        level = int(depth.min())
        while True:
            deeper = np.flatnonzero(depth > level)
            if not len(deeper):
                if (hashes == hashes[0]).all():
                    return level, int(last[0])
                deeper = np.arange(len(depth))
                level -= 1
            at = record[deeper]
            depth[deeper] -= 1
            last[deeper] = self._ints[LAST, at]
            hashes[deeper] = self._ints[HASH, at]
            record[deeper] = self._ints[RECORD, at]

    def compact(self, ints: Ints, rivals: Rivals) -> tuple[Arena, Ints, Rivals]:
        """An arena with only what hypotheses and rivals need, and they pointing into it; itself if it has not grown."""
        if max(self.size, len(self.contexts)) < self._limit:
            return self, ints, rivals
        alive = np.zeros(self.size + 1, np.bool_)  # the last entry stands for -1
        self._mark(ints[RECORD], alive)
        names = {*self._ints[HASH, : self.size][alive[:-1]].tolist(), *ints[HASH].tolist()}
        rivals = notable([rival for rival in rivals if rival[0] in names])
        self._mark(np.array([rival[1] for rival in rivals], np.int64), alive)
        kept = np.flatnonzero(alive[:-1])
        place = np.full(self.size + 1, -1, np.int64)
        place[kept] = np.arange(len(kept))
        used = np.unique(ints[[CONTEXT, AFTER]])
        used = used[used > 0]
        seat = np.zeros(len(self.contexts) + 1, np.int64)
        seat[used] = np.arange(1, len(used) + 1)
        seat[-1] = -1
        arena = Arena(self.trie, [self.contexts[0], *(self.contexts[i] for i in used.tolist())])
        block = self._ints[:, kept]
        block[RECORD] = place[block[RECORD]]
        arena.push(block, self._logps[kept])
        arena._limit = max(_COMPACT, 2 * len(kept))
        ints = ints.copy()
        ints[RECORD] = place[ints[RECORD]]
        ints[CONTEXT] = seat[ints[CONTEXT]]
        ints[AFTER] = seat[ints[AFTER]]
        return arena, ints, tuple((name, int(place[record]), odds) for name, record, odds in rivals)

    def _mark(self, records: Ints, alive: NDArray[np.bool_]) -> None:
        """Set ``alive`` for records and all before them."""
        wave = np.unique(records)
        while len(wave := wave[~alive[wave]]):
            alive[wave] = True
            wave = np.unique(self._ints[RECORD, wave[wave >= 0]])


def notable(rivals: Sequence[tuple[int, int, float]]) -> Rivals:
    """The few likeliest rivals of each winner, in the order they came."""
    by_winner: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
    for rival in rivals:
        by_winner[rival[0]].append(rival)
    kept = {id(rival) for group in by_winner.values() for rival in sorted(group, key=lambda r: -r[2])[:_RIVALS]}
    return tuple(rival for rival in rivals if id(rival) in kept)


@dataclass(frozen=True, slots=True, eq=False)
class PrefixBeam:
    """The live hypotheses of a phrase after some frame; a value.

    Attributes:
        arena: what they share with beams before and after.
        floats: (NUM_FLOATS, B).
        ints: (NUM_INTS, B).
        parents, children: indexes of hypotheses of which one is the other without its last token.
        rivals: hypotheses that were dropped because a likelier one had the same future.
    """

    arena: Arena
    floats: Floats
    ints: Ints
    parents: Ints
    children: Ints
    rivals: Rivals = ()
