"""Word n-gram language models: the interface that a search needs, and the readers behind ``load_lm``."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rechka.decoding.arpa import read_arpa
from rechka.decoding.kenlm_file import read_vocabulary
from rechka.decoding.lexicon import Lexicon
from rechka.decoding.ngram_file import MAGIC, Ngrams, read_ngrams
from rechka.errors import BadLanguageModel, MissingExtra

LmState: TypeAlias = Any
"""What a model remembers of the words before: a hashable value, opaque to everyone but the model."""

LN10 = 2.302585092994046
_CACHED = 1 << 18
_SPECIAL = frozenset({"<s>", "</s>", "<unk>", "<UNK>"})


class LanguageModel(ABC):
    """Probabilities of words given the words before. Stateless and thread-safe; states are values."""

    @property
    @abstractmethod
    def order(self) -> int:
        """Words in the longest n-gram."""

    @property
    @abstractmethod
    def words(self) -> Lexicon | None:
        """The word list, or None if the model does not tell it."""

    @abstractmethod
    def start(self) -> LmState:
        """The state at the beginning of a sentence."""

    @abstractmethod
    def score(self, state: LmState, word: str) -> tuple[float, LmState]:
        """Natural-log probability of ``word`` after ``state``, and the state after it."""

    @abstractmethod
    def end(self, state: LmState) -> float:
        """Natural-log probability that the sentence ends after ``state``."""

    @abstractmethod
    def __contains__(self, word: object) -> bool:
        """True if the model knows the word."""


class NgramLm(LanguageModel):
    """A back-off model over arrays in memory or in a mapped file.

    Args:
        ngrams: the model.
    """

    def __init__(self, ngrams: Ngrams) -> None:
        self._ngrams = ngrams
        self._ids = {word: i for i, word in enumerate(ngrams.words)}
        self._unk = self._ids["<unk>"]
        self._end = self._ids["</s>"]
        self._scores: dict[tuple[tuple[int, ...], int], tuple[float, tuple[int, ...]]] = {}
        self._nodes: dict[tuple[int, ...], int] = {}

    @property
    def order(self) -> int:
        """Words in the longest n-gram."""
        return self._ngrams.order

    @cached_property
    def words(self) -> Lexicon:
        """The vocabulary without sentence marks."""
        places = [i for i, word in enumerate(self._ngrams.words) if word not in _SPECIAL]
        return Lexicon([self._ngrams.words[i] for i in places], self._ngrams.logp[places] * np.float32(LN10))

    def start(self) -> LmState:
        """The state at the beginning of a sentence: the words before, longest known context, as ids."""
        return (self._ids["<s>"],) if self.order > 1 else ()

    def score(self, state: LmState, word: str) -> tuple[float, LmState]:
        """Natural-log probability of ``word`` after ``state``, and the state after it."""
        return self._cached(state, self._ids.get(word, self._unk))

    def end(self, state: LmState) -> float:
        """Natural-log probability that the sentence ends after ``state``."""
        return self._cached(state, self._end)[0]

    def __contains__(self, word: object) -> bool:
        return word in self._ids and word not in _SPECIAL

    def _cached(self, state: tuple[int, ...], word: int) -> tuple[float, tuple[int, ...]]:
        key = (state, word)
        found = self._scores.get(key)
        if found is None:
            if len(self._scores) > _CACHED:
                self._scores.clear()
                self._nodes.clear()
            found = self._scores[key] = self._score(state, word)
        return found

    def _score(self, context: tuple[int, ...], word: int) -> tuple[float, tuple[int, ...]]:
        levels, backoff = self._ngrams.levels, 0.0
        while context:
            node = self._node(context)
            if node >= 0:
                found = levels[len(context) - 1].find(node, word)
                if found >= 0:
                    return (levels[len(context) - 1].logp[found] + backoff) * LN10, self._known((*context, word))
                backoff += self._backoff(context, node)
            context = context[1:]
        return (float(self._ngrams.logp[word]) + backoff) * LN10, self._known((word,))

    def _backoff(self, context: tuple[int, ...], node: int) -> float:
        if len(context) == 1:
            return float(self._ngrams.backoff[node])
        values = self._ngrams.levels[len(context) - 2].backoff
        return 0.0 if values is None else values[node]

    def _known(self, words: tuple[int, ...]) -> tuple[int, ...]:
        """The longest end of ``words`` that is an n-gram and short enough to be a context."""
        words = words[max(0, len(words) - self.order + 1) :]
        while words and self._node(words) < 0:
            words = words[1:]
        return words

    def _node(self, words: tuple[int, ...]) -> int:
        """Index of an n-gram among those of its order, or -1."""
        if len(words) == 1:
            return words[0]
        node = self._nodes.get(words)
        if node is None:
            before = self._node(words[:-1])
            node = -1 if before < 0 else self._ngrams.levels[len(words) - 2].find(before, words[-1])
            self._nodes[words] = node
        return node


class KenLm(LanguageModel):
    """A model read by the ``kenlm`` package: any file it knows, of any size, memory-mapped.

    Args:
        path: a KenLM binary or an ARPA file.
        words: the word list; by default the one stored in a binary file, if it was built with one.
    Raises:
        MissingExtra: ``kenlm`` is not installed.
        BadLanguageModel: it refuses the file.
    """

    def __init__(self, path: str | os.PathLike[str], words: Lexicon | None = None) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise MissingExtra(
                f"language model {path} is a KenLM binary, which the package kenlm reads",
                remedy="install it with: pip install 'rechka[lm]'",
            ) from error
        try:
            self._model = kenlm.Model(os.fspath(path))
        except (OSError, RuntimeError) as error:
            raise BadLanguageModel(f"KenLM cannot read language model {path}: {error}") from error
        self._new_state = kenlm.State
        if words is None:
            vocabulary = read_vocabulary(path)
            words = None if vocabulary is None else Lexicon(word for word in vocabulary if word not in _SPECIAL)
        self._words = words

    @property
    def order(self) -> int:
        """Words in the longest n-gram."""
        return int(self._model.order)

    @property
    def words(self) -> Lexicon | None:
        """The word list, or None if the file was built without one."""
        return self._words

    def start(self) -> LmState:
        """The state at the beginning of a sentence."""
        state = self._new_state()
        self._model.BeginSentenceWrite(state)
        return state

    def score(self, state: LmState, word: str) -> tuple[float, LmState]:
        """Natural-log probability of ``word`` after ``state``, and the state after it."""
        # Not cached: asking takes a microsecond.
        after = self._new_state()
        return self._model.BaseScore(state, word, after) * LN10, after

    def end(self, state: LmState) -> float:
        """Natural-log probability that the sentence ends after ``state``."""
        return float(self._model.BaseScore(state, "</s>", self._new_state()) * LN10)

    def __contains__(self, word: object) -> bool:
        return word in self._model and word not in _SPECIAL


def load_lm(path: str | os.PathLike[str]) -> LanguageModel:
    """Read a language model: ``.rlm``, ARPA (``.arpa``, ``.arpa.gz``), or a KenLM binary, told by the first bytes.

    Raises:
        BadLanguageModel: not such a file, or a damaged one.
        MissingExtra: a KenLM binary, and ``kenlm`` is not installed.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise BadLanguageModel(f"cannot open language model {path}: {error}") from error
    if head.startswith(MAGIC):
        return NgramLm(read_ngrams(path))
    if head.startswith(b"mmap lm "):
        return KenLm(path)
    return NgramLm(read_arpa(path))
