"""Word lists, and the lazily built character trie that tells a search which letters can go on."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rechka.types import F32, Tokens

_AFTER = "\U0010ffff"
"""Sorts after every letter."""
_UNLISTED = 64


class Lexicon:
    """A sorted word list; looking up a word or the words that begin with a prefix is a bisection.

    Args:
        words: the words; sorted and made distinct here unless they already ascend.
        outlook: per ascending word (n,) what a search may expect of it, natural log; 0 for all if None.
    """

    def __init__(self, words: Iterable[str], outlook: F32 | None = None) -> None:
        listed = list(words)
        if any(a >= b for a, b in pairwise(listed)):
            listed = sorted(set(listed))
        self.words = listed
        self.outlook = outlook
        if outlook is not None and len(outlook) != len(listed):
            raise ValueError(f"expected an outlook for each of {len(listed)} ascending words, got {len(outlook)}")

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        if not isinstance(word, str):
            return False
        at = bisect_left(self.words, word)
        return at < len(self.words) and self.words[at] == word

    def range(self, prefix: str, low: int = 0, high: int | None = None) -> tuple[int, int]:
        """First index, and one past the last, of the words that begin with ``prefix``; looked for in a wider range."""
        high = len(self.words) if high is None else high
        low = bisect_left(self.words, prefix, low, high)
        return low, bisect_left(self.words, prefix + _AFTER, low, high)

    def children(self, length: int, low: int, high: int) -> tuple[list[str], list[int]]:
        """Distinct letters at index ``length`` of the words in a range that share their first ``length`` letters.

        Returns:
            The letters, and where the words of each begin; they end where the next begin, the last at ``high``.
        """
        words = self.words
        letters: list[str] = []
        begins: list[int] = []
        if low < high and len(words[low]) == length:  # sorts before all longer ones
            low += 1
        while low < high:
            word = words[low]
            letters.append(word[length])
            begins.append(low)
            low = bisect_left(words, word[: length + 1] + _AFTER, low, high)
        return letters, begins


class LetterTrie:
    """States for the begun word, over word lists, made when a search first reaches them.

    State 0 is the empty word. States 1 to 64 stand for begun words that no listed word begins with, by their length;
    once there, a word stays there until a space leads back to state 0. Without lists every begun word is there.
    Thread-safe; meant to be shared by all phrases of a decoder.

    Args:
        tokens: the vocabulary; symbols may be longer than a letter.
        lexicons: a word counts as listed if any of them has it.
        unlisted: partial score (natural log) of a begun word that is not listed, times its length over six from seven
            letters on. Source of the six: pyctcdecode.
        weight: a begun word that can become a listed one scores the best outlook of those it can become, times this.

    Attributes:
        next: (states, V) int32: state after a token, -1 if not made yet.
        ahead: (states, V) float32: partial score of that next state, known even if it was not made.
        partial: (states,) float64: partial score of the state itself.
        complete: (states,) bool: the letters so far are a listed word.
        prefixes: the letters so far, by state; "" for states 0 to 64.
    """

    def __init__(self, tokens: Tokens, lexicons: Sequence[Lexicon], unlisted: float, weight: float = 1.0) -> None:
        self._symbols = tokens.symbols
        self._weight = weight
        self._closing = [tokens.blank] if tokens.space is None else [tokens.blank, tokens.space]
        self._letters = {symbol: i for i, symbol in enumerate(tokens.symbols) if len(symbol) == 1}
        self._long = [(i, symbol) for i, symbol in enumerate(tokens.symbols) if len(symbol) > 1]
        self._lexicons = tuple(lexicons)
        self._lock = threading.Lock()
        size, num_tokens = 256, len(tokens)
        self.next: NDArray[np.int32] = np.zeros((size, num_tokens), np.int32)
        self.ahead: F32 = np.zeros((size, num_tokens), np.float32)
        self.partial = np.zeros(size, np.float64)
        self.complete = np.zeros(size, np.bool_)
        self.prefixes = [""] * (_UNLISTED + 1)
        self._ranges: list[tuple[tuple[int, int], ...]] = [()] * (_UNLISTED + 1)
        lengths = np.arange(1, _UNLISTED + 1)
        self.partial[lengths] = unlisted * np.maximum(1.0, lengths / 6)
        for state in range(_UNLISTED + 1):
            after = min(state + 1, _UNLISTED)
            self.next[state], self.ahead[state] = after, self.partial[after]
        self.next[:, self._closing], self.ahead[:, self._closing] = 0, 0.0
        if lexicons:
            self._ranges[0] = tuple((0, len(lexicon)) for lexicon in lexicons)
            self._fill(0, "", self._ranges[0])

    def __len__(self) -> int:
        return len(self.prefixes)

    @property
    def restricted(self) -> bool:
        """True if there are word lists."""
        return bool(self._lexicons)

    def spelled(self, states: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for states that tell the letters of the begun word."""
        told: NDArray[np.bool_] = (states == 0) | (states > _UNLISTED)
        return told

    def step(self, state: int, token: int) -> int:
        """The state after ``token``, made if need be."""
        with self._lock:
            known = int(self.next[state, token])
            if known >= 0:
                return known
            prefix = self.prefixes[state] + self._symbols[token]
            ranges = tuple(
                lexicon.range(prefix, *within)
                for lexicon, within in zip(self._lexicons, self._ranges[state], strict=True)
            )
            made = len(self.prefixes)
            if made == len(self.partial):
                self._grow()
            self._fill(made, prefix, ranges)
            self.prefixes.append(prefix)
            self._ranges.append(ranges)
            self.partial[made] = self.ahead[state, token]
            self.next[state, token] = made
            return made

    def _fill(self, state: int, prefix: str, ranges: tuple[tuple[int, int], ...]) -> None:
        """Write the rows of a listed state: to an unlisted one with every letter that no listed word goes on with."""
        unlisted = min(len(prefix) + 1, _UNLISTED)
        row, ahead = self.next[state], self.ahead[state]
        row[:], ahead[:] = unlisted, self.partial[unlisted]
        for lexicon, (low, high) in zip(self._lexicons, ranges, strict=True):
            if low == high:
                continue
            self.complete[state] |= lexicon.words[low] == prefix
            for token, hope in self._going_on(lexicon, prefix, low, high):
                ahead[token] = hope if row[token] >= 0 else max(float(ahead[token]), hope)
                row[token] = -1
        row[self._closing], ahead[self._closing] = 0, 0.0

    def _going_on(self, lexicon: Lexicon, prefix: str, low: int, high: int) -> Iterator[tuple[int, float]]:
        """Tokens with which words of a range go on, and the partial score after each."""
        letters, begins = lexicon.children(len(prefix), low, high)
        hopes = [0.0] * len(letters)
        if letters and lexicon.outlook is not None:
            first = begins[0]
            best = np.maximum.reduceat(lexicon.outlook[first:high], np.array(begins) - first)
            hopes = (self._weight * best).tolist()
        for letter, hope in zip(letters, hopes, strict=True):
            token = self._letters.get(letter)
            if token is not None:
                yield token, hope
        for token, symbol in self._long:
            begin, end = lexicon.range(prefix + symbol, low, high)
            if begin < end:
                yield token, 0.0 if lexicon.outlook is None else self._weight * float(lexicon.outlook[begin:end].max())

    def _grow(self) -> None:
        """Double the arrays. Readers keep the old ones, which stay right: what they lack reads as not made yet."""
        self.next = np.concatenate([self.next, np.zeros_like(self.next)])
        self.ahead = np.concatenate([self.ahead, np.zeros_like(self.ahead)])
        self.partial = np.concatenate([self.partial, np.zeros_like(self.partial)])
        self.complete = np.concatenate([self.complete, np.zeros_like(self.complete)])
