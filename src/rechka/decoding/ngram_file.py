"""The project's compact n-gram file, ``.rlm``: a trie of sorted word ids, memory-mapped, eight bits a probability.

Layout, little-endian, every section padded with zeros to a multiple of eight bytes::

    magic     8 bytes  b"RECHKALM"
    version   uint32   1
    order     uint32   N, 1 to 6
    counts    uint64   x N, n-grams of each order; the first is the size of the vocabulary
    bytes     uint64   length of the vocabulary section before padding
    vocabulary         words in UTF-8, ascending by code point, each followed by a newline
    order 1            log-prob float32 x count, back-off float32 x count (absent if N is 1)
    order n >= 2       first   uint32 x (count of order n-1, plus 1): where the children of each (n-1)-gram begin
                       low     uint16 x count, high uint8 x count: id of the last word = low + 65536 * high
                       book    float32 x 256, code uint8 x count: log-probs
                       book    float32 x 256, code uint8 x count: back-offs (absent in the highest order)

Probabilities are base-10 logarithms, as in ARPA files. The n-grams of an order are sorted by their ids, so the
children of one context lie together and are found by bisection. Nothing in the file is executed; lengths follow
from the counts alone and must add up to the file's size, and every index is checked when the file is opened.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadLanguageModel
from rechka.types import F32

MAGIC = b"RECHKALM"
VERSION = 1
MAX_ORDER = 6
MAX_WORDS = 1 << 24
_HEAD = struct.Struct("<8sII")
_DAMAGED = "fetch or build the language model again"

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Values as codes into a book of at most 256; ``book`` None means that ``codes`` are the values themselves."""

    codes: NDArray[Any]
    book: F32 | None = None

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> float:
        value = self.codes[index]
        return float(value if self.book is None else self.book[value])

    def values(self) -> F32:
        """All values, float32."""
        return np.asarray(self.codes if self.book is None else self.book[self.codes], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The n-grams of one order >= 2, sorted; see the file's layout.

    Attributes:
        first: (count of the order below + 1,) begin of each context's children.
        low, high: (count,) the last word's id in two parts.
        logp: (count,) base-10 log-probabilities.
        backoff: (count,) base-10, or None in the highest order.
    """

    first: NDArray[np.uint32]
    low: NDArray[np.uint16]
    high: NDArray[np.uint8]
    logp: Quantized
    backoff: Quantized | None

    def __len__(self) -> int:
        return len(self.low)

    def find(self, context: int, word: int) -> int:
        """Index of the n-gram that continues ``context`` (an index one order below) with ``word``, or -1."""
        begin, end = int(self.first[context]), int(self.first[context + 1])
        if begin == end:
            return -1
        ids = self.high[begin:end].astype(np.uint32) << np.uint32(16)
        ids |= self.low[begin:end]
        at = int(ids.searchsorted(np.uint32(word)))
        return begin + at if at < end - begin and int(ids[at]) == word else -1


@dataclass(frozen=True, slots=True, eq=False)
class Ngrams:
    """An n-gram model as arrays.

    Attributes:
        words: the vocabulary, ascending; a word's id is its index. ``<s>``, ``</s>`` and ``<unk>`` are in it.
        logp: (len(words),) base-10 log-probabilities of single words.
        backoff: (len(words),) base-10.
        levels: orders 2, 3, ...
    """

    words: list[str]
    logp: F32
    backoff: F32
    levels: tuple[Level, ...]

    @property
    def order(self) -> int:
        """Words in the longest n-gram."""
        return 1 + len(self.levels)


def write_ngrams(
    path: str | os.PathLike[str],
    vocabulary: Sequence[str],
    ngrams: Sequence[Ids],
    logprobs: Sequence[F32],
    backoffs: Sequence[F32],
) -> None:
    """Write an ``.rlm`` file, whole or not at all. See ``pack_ngrams`` for arguments and errors."""
    save_ngrams(path, pack_ngrams(vocabulary, ngrams, logprobs, backoffs))


def pack_ngrams(
    vocabulary: Sequence[str], ngrams: Sequence[Ids], logprobs: Sequence[F32], backoffs: Sequence[F32]
) -> Ngrams:
    """Sort plain arrays of n-grams into a trie, at full precision.

    Args:
        vocabulary: distinct words, in any order, with ``<s>`` and ``</s>``; ``<unk>`` is added at -100 if absent,
            as KenLM does.
        ngrams: for order n an int32 array (count, n) of indexes into ``vocabulary``, rows distinct, in any order.
            Order 1 lists every word. The first n-1 words of each row must be a row of the order below.
        logprobs: per order (count,) base-10 logarithms.
        backoffs: per order (count,) base-10, for all orders but the highest (which may be given and is ignored).
    Raises:
        BadLanguageModel: the arrays do not fit together.
    """
    words = list(vocabulary)
    order = len(ngrams)
    if not 1 <= order <= MAX_ORDER:
        raise BadLanguageModel(f"expected n-grams of 1 to {MAX_ORDER} orders, got {order}")
    if len(logprobs) < order or len(backoffs) < order - 1:
        raise BadLanguageModel(
            f"expected log-probs and back-offs for {order} orders, got {len(logprobs)}, {len(backoffs)}"
        )
    rows = [np.asarray(block, np.int64).reshape(-1, n) for n, block in enumerate(ngrams, 1)]
    probs = [np.asarray(block, np.float32) for block in logprobs[:order]]
    backs = [np.asarray(block, np.float32) for block in backoffs[: order - 1]]
    if "<unk>" not in words:
        rows[0] = np.append(rows[0], [[len(words)]], axis=0)
        probs[0] = np.append(probs[0], np.float32(-100.0))
        if order > 1:
            backs[0] = np.append(backs[0], np.float32(0.0))
        words.append("<unk>")
    _check_input(words, rows, probs, backs)

    by_word = sorted(range(len(words)), key=words.__getitem__)
    rank = np.empty(len(words), np.int64)
    rank[by_word] = np.arange(len(words))
    slot = rank[rows[0][:, 0]]
    logp = np.empty(len(words), np.float32)
    logp[slot] = probs[0]
    backoff = np.zeros(len(words), np.float32)
    if order > 1:
        backoff[slot] = backs[0]
    levels = []
    keys: list[NDArray[np.int64]] = []  # of each order so far: (index of the context) * V + last word, ascending
    for n in range(2, order + 1):
        ids = rank[rows[n - 1]]
        key = _context(ids, keys, len(words)) * len(words) + ids[:, -1]
        sort = np.argsort(key, kind="stable")
        key = key[sort]
        if (key[1:] == key[:-1]).any():
            raise BadLanguageModel(f"an n-gram of order {n} comes twice")
        below = len(words) if n == 2 else len(keys[-1])
        last = (key % len(words)).astype(np.uint32)
        levels.append(
            Level(
                first=np.searchsorted(key, np.arange(below + 1) * len(words)).astype(np.uint32),
                low=(last & np.uint32(0xFFFF)).astype(np.uint16),
                high=(last >> np.uint32(16)).astype(np.uint8),
                logp=Quantized(probs[n - 1][sort]),
                backoff=Quantized(backs[n - 1][sort]) if n < order else None,
            )
        )
        keys.append(key)
    return Ngrams([words[i] for i in by_word], logp, backoff, tuple(levels))


def read_ngrams(path: str | os.PathLike[str]) -> Ngrams:
    """Open an ``.rlm`` file: the vocabulary is read, the rest is memory-mapped.

    Raises:
        BadLanguageModel: not such a file, cut short, or with an index out of range.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise BadLanguageModel(f"cannot open language model {path}: {error}", remedy=_DAMAGED) from error

    def bad(what: str) -> BadLanguageModel:
        return BadLanguageModel(f"language model {path}: {what}", remedy=_DAMAGED)

    if len(data) < _HEAD.size or bytes(data[:8]) != MAGIC:
        raise bad("the first bytes are not those of an .rlm file")
    _, version, order = _HEAD.unpack_from(data.data)
    if version != VERSION:
        raise bad(f"expected version {VERSION}, got {version}")
    head = _HEAD.size + 8 * (order + 1)
    if not 1 <= order <= MAX_ORDER or len(data) < head:
        raise bad(f"expected an order of 1 to {MAX_ORDER} and a whole header, got order {order}, {len(data)} bytes")
    *counts, text_bytes = struct.unpack_from(f"<{order + 1}Q", data.data, _HEAD.size)
    if not 3 <= counts[0] <= MAX_WORDS or max(counts) >= 1 << 32:
        raise bad(f"n-gram counts out of range: {counts}")
    sizes = [(np.dtype(kind), int(size)) for kind, size in _sections(counts, text_bytes)]
    expected = head + sum(_padded(kind.itemsize * size) for kind, size in sizes)
    if expected != len(data):
        raise bad(f"its header asks for {expected} bytes, the file has {len(data)}")
    views = []
    at = head
    for kind, size in sizes:
        views.append(np.frombuffer(data, kind, size, at) if size else np.empty(0, kind))
        at += _padded(kind.itemsize * size)
    return _assemble(views, counts, bad)


def save_ngrams(path: str | os.PathLike[str], ngrams: Ngrams) -> None:
    """Write a model that is already packed (from an ARPA file, say) as ``.rlm``, whole or not at all."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            _dump(file, _quantize(ngrams))
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _check_input(words: list[str], rows: list[NDArray[np.int64]], probs: list[F32], backs: list[F32]) -> None:
    if len(words) > MAX_WORDS:
        raise BadLanguageModel(f"expected at most {MAX_WORDS} words, got {len(words)}")
    if len(set(words)) != len(words):
        raise BadLanguageModel("a word of the vocabulary comes twice")
    for word in ("<s>", "</s>"):
        if word not in words:
            raise BadLanguageModel(f"the vocabulary lacks {word}")
    if any(not word or "\n" in word for word in words):
        raise BadLanguageModel("a word of the vocabulary is empty or has a line break")
    if len(rows[0]) != len(words) or len(np.unique(rows[0])) != len(words):
        raise BadLanguageModel(f"order 1 must list each of the {len(words)} words once, got {len(rows[0])} rows")
    for n, block in enumerate(rows, 1):
        if len(block) and (block.min() < 0 or block.max() >= len(words)):
            raise BadLanguageModel(f"order {n} has a word id outside the vocabulary of {len(words)}")
        for values in (probs[n - 1], *backs[n - 1 : n]):
            if values.shape != (len(block),) or not np.isfinite(values).all():
                raise BadLanguageModel(f"order {n} needs {len(block)} finite values, got {values.shape}")


def _context(ids: NDArray[np.int64], keys: list[NDArray[np.int64]], num_words: int) -> NDArray[np.int64]:
    """Index, one order below, of all words but the last of each row."""
    index = ids[:, 0]
    for column, key in enumerate(keys, 1):
        wanted = index * num_words + ids[:, column]
        index = np.searchsorted(key, wanted)
        found = index < len(key)
        found[found] = key[index[found]] == wanted[found]
        if not found.all():
            missing = int(np.flatnonzero(~found)[0])
            raise BadLanguageModel(
                f"row {missing} of order {ids.shape[1]}: its first {column + 1} words are no n-gram of their own",
                remedy="build the model so that every context is itself listed, as lmplz and SRILM do",
            )
    return index


def _quantize(ngrams: Ngrams) -> Ngrams:
    levels = tuple(
        Level(
            level.first,
            level.low,
            level.high,
            _codes(level.logp.values()),
            None if level.backoff is None else _codes(level.backoff.values()),
        )
        for level in ngrams.levels
    )
    return Ngrams(ngrams.words, ngrams.logp, ngrams.backoff, levels)


def _codes(values: F32) -> Quantized:
    """Up to 256 distinct values exactly; else 0.0 exactly, and 255 bins of equal population, each by its mean."""
    distinct, inverse = np.unique(values, return_inverse=True)
    book = np.zeros(256, np.float32)
    if len(distinct) <= 256:
        book[: len(distinct)] = distinct
        return Quantized(inverse.astype(np.uint8), book)
    order = np.argsort(values, kind="stable")
    order = order[values[order] != 0.0]
    codes = np.zeros(len(values), np.uint8)
    for code, members in enumerate(np.array_split(order, 255), 1):
        if len(members):
            book[code] = values[members].mean(dtype=np.float64)
            codes[members] = code
    return Quantized(codes, book)


def _padded(size: int) -> int:
    return (size + 7) // 8 * 8


def _sections(counts: Sequence[int], text_bytes: int) -> Iterator[tuple[str, int]]:
    """Element type and number of every section after the header, in order."""
    order = len(counts)
    yield "u1", text_bytes
    yield "<f4", counts[0]
    if order > 1:
        yield "<f4", counts[0]
    for n in range(2, order + 1):
        count = counts[n - 1]
        yield "<u4", counts[n - 2] + 1
        yield "<u2", count
        yield "u1", count
        for _ in range(2 if n < order else 1):
            yield "<f4", 256
            yield "u1", count


def _dump(file: BinaryIO, ngrams: Ngrams) -> None:
    text = "".join(word + "\n" for word in ngrams.words).encode()
    arrays: list[NDArray[Any]] = [np.frombuffer(text, np.uint8), ngrams.logp]
    if ngrams.levels:
        arrays.append(ngrams.backoff)
    for level in ngrams.levels:
        arrays += [level.first, level.low, level.high]
        for values in (level.logp, level.backoff):
            if values is not None and values.book is not None:
                arrays += [values.book, values.codes]
    counts = [len(ngrams.words), *(len(level) for level in ngrams.levels)]
    file.write(_HEAD.pack(MAGIC, VERSION, len(counts)))
    file.write(struct.pack(f"<{len(counts) + 1}Q", *counts, len(text)))
    for array, (kind, size) in zip(arrays, _sections(counts, len(text)), strict=True):
        if len(array) != size:
            raise AssertionError(f"section of {len(array)}, expected {size}")
        blob = np.ascontiguousarray(array, kind).tobytes()
        file.write(blob + bytes(_padded(len(blob)) - len(blob)))


def _assemble(views: list[NDArray[Any]], counts: list[int], bad: Callable[[str], BadLanguageModel]) -> Ngrams:
    """Views of the sections as a model, every index checked."""
    rest = iter(views)
    try:
        words = next(rest).tobytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise bad(f"the vocabulary is not UTF-8: {error}") from error
    if words.pop() != "" or len(words) != counts[0] or any(a >= b for a, b in pairwise(words)):
        raise bad(f"the vocabulary is not {counts[0]} ascending words")
    for word in ("<s>", "</s>", "<unk>"):
        if word not in words[:64] and word not in words:
            raise bad(f"the vocabulary lacks {word}")
    logp = next(rest)
    backoff = next(rest) if len(counts) > 1 else np.zeros(counts[0], np.float32)
    if not (np.isfinite(logp).all() and np.isfinite(backoff).all()):
        raise bad("a probability of order 1 is not a number")
    levels = []
    for n in range(2, len(counts) + 1):
        first, low, high = next(rest), next(rest), next(rest)
        if first[0] != 0 or first[-1] != counts[n - 1] or (first[1:] < first[:-1]).any():
            raise bad(f"the index of order {n} is damaged")
        top, edge = divmod(counts[0] - 1, 1 << 16)
        if len(high) and (int(high.max()) > top or bool((low[high == top] > edge).any())):
            raise bad(f"a word id of order {n} is outside the vocabulary")
        packed = []
        for _ in range(2 if n < len(counts) else 1):
            book, codes = next(rest), next(rest)
            if not np.isfinite(book).all():
                raise bad(f"a probability of order {n} is not a number")
            packed.append(Quantized(codes, book))
        levels.append(Level(first, low, high, packed[0], packed[1] if len(packed) > 1 else None))
    return Ngrams(words, logp, backoff, tuple(levels))
