"""Word lists and the letter trie over them, against plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding.lexicon import LetterTrie, Lexicon
from rechka.types import Tokens

TOKENS = Tokens(("а", "б", "в", "ба", " ", ""), blank=5)
LISTS = st.lists(st.text("абвг", min_size=1, max_size=5), max_size=12)


@settings(max_examples=100)
@given(LISTS, st.text("абвг", max_size=4))
def test_lexicon(words: list[str], prefix: str) -> None:
    lexicon = Lexicon(words)
    assert list(lexicon) == sorted(set(words))
    assert (prefix in lexicon) == (prefix in words)
    begin, end = lexicon.range(prefix)
    found = lexicon.words[begin:end]
    assert found == [word for word in sorted(set(words)) if word.startswith(prefix)]
    letters = sorted({word[len(prefix)] for word in found if len(word) > len(prefix)})
    children, begins = lexicon.children(len(prefix), begin, end)
    assert children == letters
    assert [lexicon.words[at][len(prefix)] for at in begins] == letters


@settings(max_examples=100)
@given(LISTS, LISTS, st.lists(st.integers(0, 4), max_size=10))
def test_trie(first: list[str], second: list[str], path: list[int]) -> None:
    trie = LetterTrie(TOKENS, [Lexicon(first), Lexicon(second)], -6.0)
    words = {*first, *second}
    state, prefix, count = 0, "", 0
    for token in path:
        ahead = float(trie.ahead[state, token])
        state = trie.step(state, token)
        prefix = "" if token == 4 else prefix + TOKENS.symbols[token]
        count = 0 if token == 4 else count + 1
        assert trie.partial[state] == ahead
        listed = not prefix or any(word.startswith(prefix) for word in words)
        assert (ahead == 0.0) == listed
        assert bool(trie.complete[state]) == (prefix in words)
        if listed:
            assert trie.prefixes[state] == prefix
        elif len(prefix) == count:  # no two-letter token on the way
            assert ahead == -6.0 * max(1.0, len(prefix) / 6)


def test_without_lists_every_begun_word_is_unlisted() -> None:
    trie = LetterTrie(TOKENS, [], -6.0)
    assert not trie.restricted
    state = 0
    for length in range(1, 80):
        state = trie.step(state, 0)
        assert trie.partial[state] == -6.0 * max(1.0, min(length, 64) / 6)
    assert trie.step(state, 4) == 0


def test_many_states() -> None:
    words = [a + b + c + d for a in "абвг" for b in "абвг" for c in "абвг" for d in "абв"]
    tokens = Tokens(("а", "б", "в", "г", " ", ""), blank=5)
    trie = LetterTrie(tokens, [Lexicon(words)], -1.0)
    for word in words:
        state = 0
        for letter in word:
            state = trie.step(state, tokens.symbols.index(letter))
        assert trie.complete[state]
        assert trie.prefixes[state] == word
    assert len(trie) == 65 + 4 + 16 + 64 + 192


def test_outlook_is_that_of_the_best_word_to_come() -> None:
    words = ["а", "аб", "абв", "ав", "ба"]
    outlook = np.array([-1.0, -2.0, -3.0, -0.5, -4.0], np.float32)
    trie = LetterTrie(TOKENS, [Lexicon(words, outlook)], -9.0, 0.5)
    for prefix in ("а", "аб", "абв", "ав", "б", "ба"):
        state = 0
        for letter in prefix:
            state = trie.step(state, TOKENS.symbols.index(letter))
        best = max(value for word, value in zip(words, outlook, strict=True) if word.startswith(prefix))
        assert trie.partial[state] == best / 2
    assert trie.ahead[0, 3] == -2.0  # the token of two letters
    assert trie.ahead[0, 2] == -9.0
