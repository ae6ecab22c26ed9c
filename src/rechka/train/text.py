"""Sentences for training and language models: reading, filtering, de-duplication, and the held-out rule.

Every consumer of text (speech synthesis prompts, language model, recorded prompts) asks :func:`held_out` first, so that
no test sentence can reach any training set by another road.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rechka.errors import DataError, DataNotFound
from rechka.text.normalize import scoring

ALPHABET = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
"""The letters of training targets: 32, ё being folded to е."""

HELD_OUT_PERCENT = 15
"""Share of all sentences, by hash, that belongs to no training set of any kind."""

MIN_WORDS, MAX_WORDS = 2, 20

_LETTERS = frozenset(ALPHABET + " ")
# Roots, not words: prefixes and endings vary. Matched at a word start after an optional common prefix.
_PROFANE = re.compile(
    r"\b(?:на|по|за|от|об|о|вы|до|про|при|под|у|не|ни|недо|пере|рас|раз|ис|из)?ъ?"
    r"(?:ху[йияюе]|пизд|еб[аеиулнс]|бля(?:д|т|\b)|пид[оа]р|муда[кч]|муди[лш]|залуп|гандон|шлюх)"
)


def held_out(text: str) -> bool:
    """Whether the sentence is reserved for tests: sha256 of its scoring form, as an integer, modulo 100, below 15.

    Depends on letters only: case, punctuation and ё do not matter.
    """
    digest = hashlib.sha256(scoring(text).encode("utf-8")).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT


def training(text: str) -> str:
    """The text as a training target: lower case, ё folded to е, the 32 letters and single spaces; a hyphen is a space.

    Raises:
        DataError: digits or letters that are not Russian remain, so nobody can know what was said.
    """
    folded = scoring(text)
    strange = sorted(set(folded) - _LETTERS)
    if strange:
        raise DataError(
            f"a training target may hold Russian letters and spaces only, got {''.join(strange)!r} in {text[:80]!r}",
            remedy="write numbers and foreign words out in Russian letters, or drop the sentence",
        )
    return folded


def profane(text: str) -> bool:
    """Whether a word of the text begins with one of a short list of profane roots."""
    return _PROFANE.search(scoring(text)) is not None


def usable(text: str, *, min_words: int = MIN_WORDS, max_words: int = MAX_WORDS) -> bool:
    """Whether a sentence can be spoken and spelled: 2 to 20 words, Russian letters only, no digits, not profane."""
    folded = scoring(text)
    words = folded.count(" ") + 1 if folded else 0
    return min_words <= words <= max_words and _LETTERS.issuperset(folded) and not profane(folded)


def read_sentences(path: str | Path) -> Iterator[str]:
    """The non-empty lines of a UTF-8 text file, ``.txt`` or ``.txt.gz``, stripped, in order.

    Raises:
        DataError: the file is missing, not UTF-8, or not gzip although its name says so.
    """
    source = Path(path)
    try:
        with (
            gzip.open(source, "rt", encoding="utf-8") if source.suffix == ".gz" else source.open(encoding="utf-8") as f
        ):
            for line in f:
                if sentence := line.strip():
                    yield sentence
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataNotFound.or_unreadable(
            error,
            f"sentences must be a readable UTF-8 text file, one a line, got {source.name}: {error}",
            remedy="give a .txt or .txt.gz file",
        ) from error


def read_texts(path: str | Path) -> Iterator[str]:
    """The sentences of a text file, or the ``text`` fields of a JSONL manifest, audio or not.

    Raises:
        DataError: the file cannot be read, or a line of a manifest is no JSON; names the record.
    """
    source = Path(path)
    for number, line in enumerate(read_sentences(source), start=1):
        if source.suffix != ".jsonl":
            yield line
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:  # besides no JSON: numbers too long, brackets too deep
            raise DataError(f"{source}, record {number}: expected one JSON object, got {line[:80]!r}") from error
        if isinstance(fields, dict) and fields.get("text"):
            yield str(fields["text"])


def unique(sentences: Iterable[str]) -> Iterator[str]:
    """The sentences without repetitions: the first of those that fold to the same letters stays."""
    seen: set[bytes] = set()
    for sentence in sentences:
        key = hashlib.blake2b(scoring(sentence).encode("utf-8"), digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            yield sentence


class Overlap:
    """Finds sentences that repeat a forbidden text, whole or a run of it: what test sets hold must not be learnt.

    Args:
        forbidden: the texts, in any form.
        run: a sentence that shares this many words in a row with one of them is caught, as is an equal sentence.
    """

    def __init__(self, forbidden: Iterable[str], *, run: int = 6) -> None:
        self._run = run
        self._whole: set[tuple[str, ...]] = set()
        self._runs: set[tuple[str, ...]] = set()
        for text in forbidden:
            words = tuple(scoring(text).split())
            self._whole.add(words)
            self._runs.update(self._cut(words))

    def __call__(self, sentence: str) -> bool:
        words = tuple(scoring(sentence).split())
        return words in self._whole or not self._runs.isdisjoint(self._cut(words))

    def _cut(self, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        return (words[i : i + self._run] for i in range(len(words) - self._run + 1))


def select(sentences: Iterable[str], *, test: bool = False) -> Iterator[str]:
    """Usable, different sentences of one side of the wall: not held out, or with ``test`` only held out."""
    return unique(sentence for sentence in sentences if usable(sentence) and held_out(sentence) is test)
