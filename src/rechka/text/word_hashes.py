"""Words as numbers for small models: the word itself and its beginnings and endings, each hashed into a table.

Endings tell a Russian word's part of speech and form, so that words which training never saw are understood, too.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

NUM_WORDS = 16384
NUM_PIECES = 8192
"""Rows of the two tables. Row 0 stands for nothing."""
BEGINNINGS = (2, 3, 4)
ENDINGS = (1, 2, 3, 4, 5)
"""Letters of the pieces; a word has those that are shorter than itself."""

_DIGITS = re.compile(r"[0-9]+(?:[.,:/-]*[0-9]+)*")
_OTHER = re.compile(r"[^\w%-]+|_")
MAX_LETTERS = 64
"""What of a longer word counts."""


def folded(word: str) -> str:
    """The form in which a word is looked up: lower case, ё as е, no marks, every number as 0."""
    text = _OTHER.sub("", _DIGITS.sub("0", word[:MAX_LETTERS].lower())).strip("-")
    return text.replace("ё", "е")


def hashes(words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the two tables for each word.

    Returns:
        (N,) in [0, NUM_WORDS) and (N, 8) in [0, NUM_PIECES); 0 in place of a piece that the word is too short for.
    """
    width = len(BEGINNINGS) + len(ENDINGS)
    rows = np.array([_rows(folded(word)) for word in words], np.int64).reshape(len(words), 1 + width)
    return rows[:, 0], rows[:, 1:]


@lru_cache(maxsize=20_000)
def _rows(word: str) -> tuple[int, ...]:
    whole = 1 + zlib.crc32(word.encode()) % (NUM_WORDS - 1) if word else 0
    begins = (word[:size] + "-" if size < len(word) else "" for size in BEGINNINGS)
    ends = ("-" + word[-size:] if size < len(word) else "" for size in ENDINGS)
    pieces = (1 + zlib.crc32(piece.encode()) % (NUM_PIECES - 1) if piece else 0 for piece in (*begins, *ends))
    return (whole, *pieces)
