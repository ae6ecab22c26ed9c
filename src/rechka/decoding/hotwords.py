"""Hotwords as an Aho-Corasick automaton over letters: credit while one is being spelled, given back if it fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rechka.errors import UsageError
from rechka.types import Tokens

_AS_SPACE = str.maketrans(dict.fromkeys('.,!?;:\u2026"«»()', " "))
"""Letters of end-to-end vocabularies that stand between words."""


@dataclass(frozen=True, slots=True, eq=False)
class Hotwords:
    """Tables of the automaton (S states, V tokens).

    Attributes:
        words: single words of all entries; they count as listed words of the search.
        start: state at the beginning of a phrase.
        next: (S, V) int32.
        earned: (S, V) float64: boosts of the entries that a token completes; kept for good.
        credit: (S,) float64: part of a boost for an entry begun, lost when it does not go on.
        ahead: (S, V) float64: earned by the token, plus the credit of the state after it.
    """

    words: frozenset[str]
    start: int
    next: NDArray[np.int32]
    earned: NDArray[np.float64]
    credit: NDArray[np.float64]
    ahead: NDArray[np.float64]


class _Node:
    __slots__ = ("credit", "earned", "fail", "index", "letter", "next")

    def __init__(self, index: int, letter: str = "") -> None:
        self.index = index
        self.letter = letter
        self.next: dict[str, _Node] = {}
        self.fail: _Node = self
        self.credit = 0.0
        self.earned = 0.0


def compile_hotwords(entries: Mapping[str, float], tokens: Tokens) -> Hotwords | None:
    """The automaton for words or phrases and their boosts; None for no entries.

    An entry matches whole words only, and punctuation ends a word as a space does. Where the vocabulary has capitals,
    an entry in small letters also matches with its first letter capital. A positive boost is credited letter by letter;
    a negative one is charged when the entry is complete. Entries that overlap add up.

    Raises:
        UsageError: an entry is empty, has a letter that the vocabulary lacks, or a boost that is not a number.
    """
    if not entries:
        return None
    alphabet = set("".join(tokens.symbols))
    nodes = [_Node(0)]
    root = nodes[0]
    words: set[str] = set()
    for phrase, boost in _variants(entries, alphabet):
        words.update(phrase.split())
        node = root
        for depth, letter in enumerate(f" {phrase} "):
            if letter not in node.next:
                nodes.append(_Node(len(nodes), letter))
                node.next[letter] = nodes[-1]
            node = node.next[letter]
            if depth <= len(phrase):  # the space at the end is the last step, and earns the whole
                node.credit = max(node.credit, boost * depth / (len(phrase) + 1))
        node.earned += boost
    _link(root)
    size, num_tokens = len(nodes), len(tokens)
    goto = np.zeros((size, num_tokens), np.int32)
    earned = np.zeros((size, num_tokens), np.float64)
    for node in nodes:
        for token, symbol in enumerate(tokens.symbols):
            if token == tokens.blank:
                continue
            at = node
            for letter in symbol.translate(_AS_SPACE):
                if letter == " " == at.letter:
                    continue  # a space after punctuation is no second one
                at = _follow(at, letter)
                earned[node.index, token] += at.earned
            goto[node.index, token] = at.index
    credit = np.array([node.credit for node in nodes])
    return Hotwords(frozenset(words), _follow(root, " ").index, goto, earned, credit, earned + credit[goto])


def _variants(entries: Mapping[str, float], alphabet: set[str]) -> list[tuple[str, float]]:
    """The entries as they may be written, with their boosts."""
    found: dict[str, float] = {}
    capitals = {}
    for entry, boost in entries.items():
        phrase = _spelled(entry, boost, alphabet)
        spaced = " ".join(phrase.translate(_AS_SPACE).split()) or phrase
        found[spaced] = found.get(spaced, 0.0) + boost
        if spaced[0].upper() != spaced[0] and spaced[0].upper() in alphabet:
            capitals[spaced[0].upper() + spaced[1:]] = boost
    return [*found.items(), *((phrase, boost) for phrase, boost in capitals.items() if phrase not in found)]


def _spelled(entry: str, boost: float, alphabet: set[str]) -> str:
    """The entry in the letters of the vocabulary."""
    phrase = " ".join(entry.split())
    if not phrase:
        raise UsageError("a hotword is empty", remedy="give a word or a phrase")
    if not np.isfinite(boost):
        raise UsageError(f"hotword {phrase!r}: the boost must be a finite number, got {boost}")
    if set(phrase) - alphabet and not set(phrase.lower()) - alphabet:
        phrase = phrase.lower()
    strange = sorted(set(phrase) - alphabet - {" "})
    if strange:
        raise UsageError(
            f"hotword {phrase!r} has {', '.join(map(repr, strange))}, which the model's vocabulary lacks",
            remedy="spell it with the model's letters",
        )
    return phrase


def _link(root: _Node) -> None:
    """Set the fail links, breadth first, and let each node inherit what its suffixes earn and are credited."""
    queue: deque[_Node] = deque()
    for child in root.next.values():
        child.fail = root
        queue.append(child)
    while queue:
        node = queue.popleft()
        node.credit = max(node.credit, node.fail.credit)
        node.earned += node.fail.earned
        for letter, child in node.next.items():
            child.fail = _follow(node.fail, letter)
            queue.append(child)


def _follow(node: _Node, letter: str) -> _Node:
    while letter not in node.next and node.fail is not node:
        node = node.fail
    return node.next.get(letter, node)
