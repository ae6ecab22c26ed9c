"""Word language models from sentences: vocabulary, counts, smoothing, pruning to a size, ARPA and ``.rlm`` files."""

from __future__ import annotations

import gzip
import itertools
import logging
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from rechka.decoding.ngram_file import write_ngrams
from rechka.errors import DataError, OutputError, UsageError
from rechka.train import kneser_ney as kn
from rechka.train.text import held_out, training

log = logging.getLogger(__name__)

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPECIAL = (UNKNOWN, START, END)
MAX_ORDER = 4

# Bytes of an .rlm file (see rechka.decoding.ngram_file): a word's two float32, a context's uint32, and for an n-gram
# three bytes of last word and one of probability; the back-off's byte is added where there is one.
_WORD_BYTES, _CONTEXT_BYTES, _GRAM_BYTES = 8, 4, 4


@dataclass(frozen=True, slots=True, eq=False)
class LanguageModel:
    """An estimated model and its words; ``words[i]`` is the word of id i, the first three being ``SPECIAL``."""

    words: list[str]
    model: kn.Model


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well a model predicts sentences.

    Attributes:
        perplexity: per predicted token, sentence ends counted, unknown words not.
        unknown: number of words outside the vocabulary.
        words: number of words.
        sentences: number of sentences.
    """

    perplexity: float
    unknown: int
    words: int
    sentences: int

    @property
    def unknown_rate(self) -> float:
        """Share of words outside the vocabulary."""
        return self.unknown / self.words

    def __str__(self) -> str:
        return (
            f"perplexity {self.perplexity:.1f}, unknown {100 * self.unknown_rate:.2f} % "
            f"of {self.words} words in {self.sentences} sentences"
        )


def targets(sentences: Iterable[str]) -> Iterator[str]:
    """Training texts of sentences, those held out left out. The only door into a language model.

    Raises:
        DataError: a sentence with digits or foreign letters.
    """
    for sentence in sentences:
        if not held_out(sentence) and (text := training(sentence)):
            yield text


def word_counts(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs in normalised texts."""
    return Counter(itertools.chain.from_iterable(text.split() for text in texts))


def vocabulary(counts: Counter[str], size: int) -> list[str]:
    """The ``size`` words most worth knowing: by frequency, and among the rare ones those of a well-known family.

    Words that occur once or twice are mostly inflected forms. One whose beginning (all but the last three letters, four
    at least) is shared with many occurrences is more likely to be met again than a name or a misspelling seen once.
    """
    family: Counter[str] = Counter()
    for word, number in counts.items():
        family[_stem(word)] += number

    def rank(word: str) -> tuple[int, int, str]:
        number = counts[word]
        return -number, 0 if number > 2 else -family[_stem(word)], word

    return sorted(counts, key=rank)[:size]


def _stem(word: str) -> str:
    return word[: max(4, len(word) - 3)]


def build(texts: Iterable[str], words: Sequence[str], *, order: int = 3) -> LanguageModel:
    """Count and smooth: interpolated modified Kneser-Ney over a fixed vocabulary.

    Args:
        texts: normalised sentences (see :func:`targets`), words separated by spaces; read once.
        words: the vocabulary, without the special words; words that never occur get the probability of an unknown one.
        order: 1 to 4.
    Raises:
        UsageError: an order out of range, or words that repeat or are special.
        DataError: no word of the vocabulary in the texts.
    """
    if not 1 <= order <= MAX_ORDER:
        raise UsageError(f"order must be 1 to {MAX_ORDER}, got {order}")
    known = [*SPECIAL, *words]
    ids = {word: i for i, word in enumerate(known)}
    if len(ids) != len(known):
        raise UsageError(f"vocabulary words must differ from one another and from {', '.join(SPECIAL)}")
    tokens = _tokens(texts, ids)
    if not (tokens >= len(SPECIAL)).any():
        raise DataError("a text with at least one word of the vocabulary is needed, got none")
    grams = kn.count(tokens, len(known), ids[START], order)
    log.info("%d tokens, n-grams %s", len(tokens), [len(level) for level in grams])
    return LanguageModel(known, kn.estimate(grams))


def _tokens(texts: Iterable[str], ids: dict[str, int]) -> kn.Ints:
    """The token stream: sentences in ``<s>`` and ``</s>``, a wall after each and in place of each unknown word."""
    stream = array("i")
    for text in texts:
        stream.append(ids[START])
        stream.extend(ids.get(word, -1) for word in text.split())
        stream.append(ids[END])
        stream.append(-1)
    return np.frombuffer(stream, dtype=np.int32).astype(np.int64) if stream else np.zeros(0, np.int64)


def prune(
    language_model: LanguageModel, *, max_bytes: int | None = None, threshold: float = 0.0, least: Sequence[int] = ()
) -> LanguageModel:
    """Leave out the n-grams that matter least, by relative entropy.

    Args:
        language_model: an unpruned model.
        max_bytes: the ``.rlm`` file shall not be larger; the threshold is found by bisection.
        threshold: least growth of relative entropy (nats) for which an n-gram stays; a floor if ``max_bytes`` is given.
        least: least occurrences for orders 2, 3, ...
    Raises:
        UsageError: the vocabulary alone is larger than ``max_bytes``.
    """
    model = language_model.model
    scores = kn.importance(model)

    def at(value: float) -> list[kn.Mask]:
        return kn.keep_above(model, value, scores, least)

    def size(masks: list[kn.Mask]) -> int:
        return file_bytes(language_model.words, [int(mask.sum()) for mask in masks])

    keep = at(threshold)
    if max_bytes is not None and size(keep) > max_bytes:
        if file_bytes(language_model.words, [0] * len(scores)) > max_bytes:
            raise UsageError(f"{max_bytes} bytes cannot hold {len(language_model.words)} words; use fewer words")
        low, high = math.log(max(threshold, 1e-18)), 0.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if size(at(math.exp(middle))) > max_bytes else (low, middle)
        keep = at(math.exp(high))
    return LanguageModel(language_model.words, kn.prune(model, keep))


def file_bytes(words: Sequence[str], grams: Sequence[int]) -> int:
    """Size of the ``.rlm`` file of a vocabulary and so many n-grams of orders 2, 3, ..., headers neglected."""
    size = sum(len(word.encode()) + 1 + _WORD_BYTES for word in words)
    below = len(words)
    for n, number in enumerate(grams, 2):
        size += below * _CONTEXT_BYTES + number * (_GRAM_BYTES + (n < len(grams) + 1))
        below = number
    return size


def perplexity(language_model: LanguageModel, texts: Iterable[str]) -> Perplexity:
    """Perplexity of normalised sentences; unknown words are left out of it and counted apart.

    Raises:
        DataError: no sentences.
    """
    ids = {word: i for i, word in enumerate(language_model.words)}
    tokens = _tokens(texts, ids)
    sentences = int((tokens == ids[END]).sum())
    if not sentences:
        raise DataError("at least one sentence is needed, got none")
    logs = kn.log10_probabilities(language_model.model, tokens)
    predicted = (tokens >= 0) & (tokens != ids[START])
    unknown = int((tokens < 0).sum()) - sentences
    words = len(tokens) - 3 * sentences
    return Perplexity(float(10 ** -logs[predicted].mean()), unknown, words, sentences)


def write_arpa(language_model: LanguageModel, path: str | Path) -> Path:
    """Write an ARPA file (``.gz`` packs it), base-10 logarithms with six decimals.

    Raises:
        OutputError: the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.part")
    try:
        with (
            gzip.open(partial, "wt", encoding="utf-8")
            if target.suffix == ".gz"
            else partial.open("w", encoding="utf-8") as f
        ):
            _arpa(language_model, f)
        partial.replace(target)
    except OSError as error:
        raise OutputError(f"a language model must be written to a writable folder, got {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _arpa(language_model: LanguageModel, file: TextIO) -> None:
    model, words = language_model.model, language_model.words
    file.write("\\data\\\n")
    for n, number in enumerate(model.sizes, 1):
        file.write(f"ngram {n}={number}\n")
    for n in range(1, model.order + 1):
        file.write(f"\n\\{n}-grams:\n")
        logs = _logs(model.prob[n - 1])
        backs = _logs(model.backoff[n - 1]) if n < model.order else None
        for i, row in enumerate(kn.rows(model, n).tolist()):
            text = " ".join([words[word] for word in row])
            file.write(f"{logs[i]:.6f}\t{text}\n" if backs is None else f"{logs[i]:.6f}\t{text}\t{backs[i]:.6f}\n")
    file.write("\n\\end\\\n")


def _logs(values: kn.Floats) -> kn.Floats:
    """Base-10 logarithms; minus 99 for zero, as ARPA files have it."""
    return np.log10(values, out=np.full(len(values), -99.0), where=values > 0)


def write_rlm(language_model: LanguageModel, path: str | Path) -> Path:
    """Write the project's compact binary file.

    Raises:
        BadLanguageModel: the model does not fit the format.
        OutputError: the file cannot be written.
    """
    model = language_model.model
    orders = range(1, model.order + 1)
    try:
        write_ngrams(
            path,
            language_model.words,
            [kn.rows(model, n) for n in orders],
            [_logs(prob).astype(np.float32) for prob in model.prob],
            [_logs(backoff).astype(np.float32) for backoff in model.backoff],
        )
    except OSError as error:
        raise OutputError(f"a language model must be written to a writable folder, got {path}: {error}") from error
    return Path(path)
