"""Sentences as people wrote them, taken apart into bare words and what is to be put back: marks and capitals."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rechka.errors import DataError
from rechka.text.punctuation import CASES, MARKS
from rechka.text.word_hashes import folded
from rechka.train.text import Overlap, held_out, read_sentences, unique

I64 = NDArray[np.int64]
I8 = NDArray[np.int8]

DEV_PERCENT = 1
"""Share of the training side, by another hash, on which weights are chosen."""
ASK_MASKED = -1
"""A label that is not asked for."""

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*", re.UNICODE)
_NONE, _COMMA, _STOP, _QUESTION, _EXCLAMATION, _ELLIPSIS = range(len(MARKS))
_LOWER, _CAPITAL, _UPPER = range(len(CASES))
_FINAL = frozenset((_STOP, _QUESTION, _EXCLAMATION, _ELLIPSIS))


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sentence: bare folded words, for each the number of the mark behind it and of its capitals."""

    words: tuple[str, ...]
    marks: tuple[int, ...]
    cases: tuple[int, ...]


def labelled(sentence: str) -> Labelled | None:
    """The sentence taken apart; None if it is no whole, cleanly written sentence.

    Whole: begins with a capital, ends with ``. ? ! …``. Semicolon and colon count as a comma; a dash, quotation marks
    and brackets as nothing; ``?!`` as a question mark.
    """
    words: list[str] = []
    marks: list[int] = []
    cases: list[int] = []
    for token in re.sub(r"\.{2,}", "…", sentence).split():
        found = _WORD.search(token)
        if found is None:
            if words:
                marks[-1] = _stronger(marks[-1], _mark(token))
            continue
        behind = token[found.end() :]
        if _WORD.search(behind):
            return None  # two words without a space between: somebody's typing error
        core = found[0]
        words.append(folded(core))
        marks.append(_mark(behind))
        cases.append(_UPPER if len(core) > 1 and core.isupper() else _CAPITAL if core[0].isupper() else _LOWER)
    if not words or not all(words) or cases[0] == _LOWER or marks[-1] not in _FINAL:
        return None
    if len(words) > 1 and 2 * cases.count(_UPPER) > len(words):
        return None  # shouted, or a headline
    return Labelled(tuple(words), tuple(marks), tuple(cases))


def _mark(text: str) -> int:
    for letters, mark in (("?", _QUESTION), ("!", _EXCLAMATION), ("…", _ELLIPSIS), (".", _STOP), (",;:", _COMMA)):
        if any(letter in text for letter in letters):
            return mark
    return _NONE


def _stronger(first: int, second: int) -> int:
    order = (_NONE, _COMMA, _STOP, _ELLIPSIS, _EXCLAMATION, _QUESTION)
    return max(first, second, key=order.index)


@dataclass(frozen=True)
class Texts:
    """Many sentences in flat arrays.

    Attributes:
        vocabulary: the different words.
        words, marks, cases: (N,) of all sentences behind one another; words as numbers in the vocabulary.
        starts: (S + 1,) where sentences begin.
        source: (S,) number of the file each came from.
    """

    vocabulary: tuple[str, ...]
    words: I64
    marks: I8
    cases: I8
    starts: I64
    source: I8

    def __len__(self) -> int:
        return len(self.starts) - 1

    def save(self, path: Path) -> None:
        """As .npz."""
        np.savez_compressed(
            path, vocabulary=np.array(self.vocabulary), words=self.words, marks=self.marks, cases=self.cases,
            starts=self.starts, source=self.source,
        )  # fmt: skip

    @staticmethod
    def load(path: Path) -> Texts:
        """What ``save`` wrote."""
        with np.load(path) as found:
            parts = {name: found[name] for name in found.files}
        return Texts(tuple(map(str, parts.pop("vocabulary"))), **parts)


def gathered(found: Sequence[tuple[int, Labelled]]) -> Texts:
    """Labelled sentences, each with its file's number, as arrays."""
    vocabulary: dict[str, int] = {}
    words = [vocabulary.setdefault(word, len(vocabulary)) for _, item in found for word in item.words]
    lengths = [len(item.words) for _, item in found]
    return Texts(
        tuple(vocabulary),
        np.array(words, np.int64),
        np.array([mark for _, item in found for mark in item.marks], np.int8),
        np.array([case for _, item in found for case in item.cases], np.int8),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([number for number, _ in found], np.int8),
    )


def prepare(files: Sequence[Path], *, run: int = 6) -> dict[str, Texts]:
    """``train``, ``dev`` and ``test`` of text files.

    The files are shuffled lines, so they cannot be split by document. The test side is what
    ``rechka.train.text.held_out`` keeps from all training; sentences of the other side that share ``run`` words in a
    row with it are dropped, and so are repeated ones.

    Raises:
        DataError: a file that cannot be read, or no usable sentence on some side.
    """
    sides: dict[str, list[tuple[int, Labelled]]] = {"train": [], "dev": [], "test": []}
    rest: list[tuple[int, Labelled]] = []
    number_of = {sentence: number for number, path in enumerate(files) for sentence in read_sentences(path)}
    for sentence in unique(number_of):
        item = labelled(sentence)
        if item is not None:
            (sides["test"] if held_out(sentence) else rest).append((number_of[sentence], item))
    overlap = Overlap((" ".join(item.words) for _, item in sides["test"]), run=run)
    for number, item in rest:
        text = " ".join(item.words)
        if not overlap(text):
            digest = hashlib.sha256(b"dev:" + text.encode()).digest()
            sides["dev" if int.from_bytes(digest[:8], "big") % 100 < DEV_PERCENT else "train"].append((number, item))
    for name, found in sides.items():
        if not found:
            raise DataError(
                f"the texts hold no whole sentence for {name}", remedy="give files with punctuated sentences"
            )
    return {name: gathered(found) for name, found in sides.items()}
