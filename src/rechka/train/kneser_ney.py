"""Interpolated modified Kneser-Ney n-gram estimation and entropy pruning, on arrays.

Sources: Chen and Goodman 1998 (the smoothing and its three discounts), Heafield et al. 2013 (adjusted counts, the
sentence start, interpolation of unigrams with the uniform distribution), Stolcke 1998 (pruning by relative entropy).

A token stream is an int64 array of word ids in which a negative number is a wall: no n-gram crosses it. Walls stand
between sentences and in the place of words outside the vocabulary, so that a cut vocabulary does not turn ``<unk>``
into the best-known word of the language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
"""For counts one, two, and three or more, when a text is too small to estimate them (lmplz --discount_fallback)."""


@dataclass(frozen=True, slots=True, eq=False)
class Grams:
    """The n-grams of one order, sorted by (context, word). For order 1 row i is word i.

    Attributes:
        context: (count,) index, one order below, of all words but the last; zeros for order 1.
        word: (count,) id of the last word.
        suffix: (count,) index, one order below, of all words but the first; zeros for order 1, -1 if it was pruned.
        number: (count,) occurrences in the text.
        starts: (count,) whether the first word is the sentence start.
    """

    context: Ints
    word: Ints
    suffix: Ints
    number: Ints
    starts: Mask

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A back-off model: p(w|h) is ``prob`` of the longest listed n-gram times ``backoff`` of each longer context.

    Attributes:
        grams: per order.
        prob: per order (count,) probability of the last word given the others; zero for ``<s>``.
        backoff: per order but the highest (count,).
        discounts: per order, for adjusted counts of one, two, and three or more.
    """

    grams: tuple[Grams, ...]
    prob: tuple[Floats, ...]
    backoff: tuple[Floats, ...]
    discounts: tuple[tuple[float, float, float], ...]

    @property
    def order(self) -> int:
        """Words in the longest n-gram."""
        return len(self.grams)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of n-grams of each order."""
        return tuple(len(grams) for grams in self.grams)


def count(tokens: Ints, num_words: int, start: int, order: int) -> tuple[Grams, ...]:
    """All n-grams up to ``order`` of a token stream (see the module) over a vocabulary of ``num_words``."""
    ids = np.arange(num_words)
    nothing = np.zeros(num_words, np.int64)
    levels = [Grams(nothing, ids, nothing, np.bincount(tokens[tokens >= 0], minlength=num_words), ids == start)]
    index = tokens.copy()  # per position the index of the n-gram that begins there, or negative
    for n in range(2, order + 1):
        inside = (index[:-1] >= 0) & (index[1:] >= 0)
        if n > len(tokens) or not inside.any():
            empty = np.zeros(0, np.int64)
            levels.append(Grams(empty, empty, empty, empty, np.zeros(0, np.bool_)))
            index = np.full(max(len(index) - 1, 1), -1)
            continue
        at = np.flatnonzero(inside)
        key, inverse, number = np.unique(
            index[at] * num_words + tokens[at + n - 1], return_inverse=True, return_counts=True
        )
        suffix = np.empty(len(key), np.int64)
        suffix[inverse] = index[at + 1]
        context = key // num_words
        levels.append(Grams(context, key % num_words, suffix, number, levels[-1].starts[context]))
        index = np.full(len(index) - 1, -1)
        index[at] = inverse
    return tuple(levels)


def adjusted(levels: Sequence[Grams]) -> list[Ints]:
    """Adjusted counts per order: occurrences in the highest order and after ``<s>``, else distinct left neighbours.

    Whatever occurs at all counts at least once: its only neighbour may be a word outside the vocabulary.
    """
    result = []
    for grams, above in zip(levels, [*levels[1:], None], strict=True):
        if above is None:
            result.append(grams.number)
            continue
        types = np.bincount(above.suffix, minlength=len(grams))
        result.append(np.where(grams.starts, grams.number, np.maximum(types, np.minimum(grams.number, 1))))
    return result


def discounts(counts: Ints) -> tuple[float, float, float]:
    """Chen and Goodman's three discounts from the counts of counts, or the fallback where they cannot be had."""
    t1, t2, t3, t4 = (float(np.count_nonzero(counts == k)) for k in (1, 2, 3, 4))
    if not t1 or not t2 or not t3:
        return FALLBACK_DISCOUNTS
    y = t1 / (t1 + 2 * t2)
    values = (1 - 2 * y * t2 / t1, 2 - 3 * y * t3 / t2, 3 - 4 * y * t4 / t3)
    if any(not 0 <= value <= k for k, value in enumerate(values, 1)):
        return FALLBACK_DISCOUNTS
    return values


def estimate(levels: Sequence[Grams]) -> Model:
    """Interpolated modified Kneser-Ney probabilities and back-off weights of counted n-grams."""
    probs: list[Floats] = []
    backoffs: list[Floats] = []
    chosen = []
    for n, (grams, counts) in enumerate(zip(levels, adjusted(levels), strict=True), 1):
        if n == 1:
            counts = np.where(grams.starts, 0, counts)  # <s> is never predicted
        d = discounts(counts)
        chosen.append(d)
        taken = np.array((0.0, *d))[np.minimum(counts, 3)]
        contexts = len(levels[n - 2]) if n > 1 else 1
        total = np.bincount(grams.context, weights=counts, minlength=contexts)
        left = np.bincount(grams.context, weights=taken, minlength=contexts)
        weight = np.divide(left, total, out=np.ones(contexts), where=total > 0)
        share = np.divide(counts - taken, total[grams.context], out=np.zeros(len(grams)), where=counts > 0)
        if n == 1:
            prob = share + weight[0] / (len(grams) - 1)
            prob[grams.starts] = 0.0
        else:
            prob = share + weight[grams.context] * probs[-1][grams.suffix]
            backoffs.append(weight)
        probs.append(prob)
    return Model(tuple(levels), tuple(probs), tuple(backoffs), tuple(chosen))


def importance(model: Model) -> list[Floats]:
    """For each n-gram of orders 2, 3, ... by how much relative entropy (nats) grows if it alone is left out."""
    total = float(model.grams[0].number.sum())
    result = []
    for n in range(2, model.order + 1):
        grams, prob = model.grams[n - 1], model.prob[n - 1]
        lower = model.prob[n - 2][grams.suffix]
        contexts = len(model.grams[n - 2])
        rest = np.maximum(1 - np.bincount(grams.context, weights=prob, minlength=contexts), 1e-12)
        below = np.maximum(1 - np.bincount(grams.context, weights=lower, minlength=contexts), 1e-12)
        rest_h, below_h = rest[grams.context], below[grams.context]
        old = np.log(rest_h / below_h)
        new = np.log((rest_h + prob) / (below_h + lower))
        seen = model.grams[n - 2].number[grams.context] / total
        result.append(-seen * (prob * (np.log(lower) + new - np.log(prob)) + (new - old) * rest_h))
    return result


def keep_above(model: Model, threshold: float, scores: Sequence[Floats], least: Sequence[int] = ()) -> list[Mask]:
    """Which n-grams of orders 2, 3, ... stay: those important and not rarer than ``least``, and their contexts.

    Args:
        model: the model.
        threshold: least importance.
        scores: what :func:`importance` gave.
        least: least occurrences for orders 2, 3, ...; missing orders have one.
    """
    masks = []
    for n, score in enumerate(scores, 2):
        floor = least[n - 2] if n - 2 < len(least) else 1
        masks.append((score > threshold) & (model.grams[n - 1].number >= floor))
    for n in range(model.order, 2, -1):
        masks[n - 3][model.grams[n - 1].context[masks[n - 2]]] = True
    return masks


def prune(model: Model, keep: Sequence[Mask]) -> Model:
    """The model without the n-grams of orders 2, 3, ... whose mask is false; back-offs make up for the missing mass.

    A kept n-gram's context must be kept (:func:`keep_above` sees to that).
    """
    grams, probs, backoffs = [model.grams[0]], [model.prob[0]], []
    lower = model.prob[0]  # of every n-gram one order below, listed or not, under the pruned model
    position = np.arange(len(lower))
    stays_below = np.ones(len(lower), np.bool_)
    for n, mask in enumerate(keep, 2):
        full, prob = model.grams[n - 1], model.prob[n - 1]
        contexts = len(model.grams[n - 2])
        mine = np.bincount(full.context[mask], weights=prob[mask], minlength=contexts)
        theirs = np.bincount(full.context[mask], weights=lower[full.suffix[mask]], minlength=contexts)
        weight = np.maximum(1 - mine, 1e-10) / np.maximum(1 - theirs, 1e-10)
        weight[np.bincount(full.context[mask], minlength=contexts) == 0] = 1.0
        backoffs.append(weight[stays_below])
        lower = np.where(mask, prob, weight[full.context] * lower[full.suffix])
        kept = Grams(
            position[full.context[mask]],
            full.word[mask],
            position[full.suffix[mask]],
            full.number[mask],
            full.starts[mask],
        )
        grams.append(kept)
        probs.append(prob[mask])
        position = np.where(mask, np.cumsum(mask) - 1, -1)
        stays_below = mask
    return replace(model, grams=tuple(grams), prob=tuple(probs), backoff=tuple(backoffs))


def rows(model: Model, order: int) -> NDArray[np.int32]:
    """The n-grams of one order as word ids, (count, order)."""
    columns: list[Ints] = []
    index = np.arange(len(model.grams[order - 1]))
    for n in range(order, 0, -1):
        columns.append(model.grams[n - 1].word[index])
        index = model.grams[n - 1].context[index]
    return np.stack(columns[::-1], axis=1).astype(np.int32)


def log10_probabilities(model: Model, tokens: Ints) -> Floats:
    """Base-10 log-probability of each token given what precedes it back to the nearest wall.

    NaN at walls; minus infinity at ``<s>``, which is never predicted.
    """
    num_words = len(model.grams[0])
    # found[n - 1][i]: index of the n-gram that begins at i, or -1
    found = [np.where(tokens >= 0, tokens, -1)]
    for n in range(2, model.order + 1):
        grams = model.grams[n - 1]
        index = np.full(len(tokens), -1)
        before = found[-1][: len(tokens) - n + 1]
        last = tokens[n - 1 :]
        at = np.flatnonzero((before >= 0) & (last >= 0))
        if len(grams) and len(at):
            keys = grams.context * num_words + grams.word
            wanted = before[at] * num_words + last[at]
            slot = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            index[at] = np.where(keys[slot] == wanted, slot, -1)
        found.append(index)
    with np.errstate(divide="ignore"):
        logs = [np.log10(prob) for prob in model.prob]
        backs = [np.log10(backoff) for backoff in model.backoff]
    result = np.where(tokens >= 0, 0.0, np.nan)
    open_ = tokens >= 0
    for n in range(model.order, 0, -1):
        begin = np.arange(len(tokens)) - n + 1
        inside = begin >= 0
        gram = np.where(inside, found[n - 1][np.maximum(begin, 0)], -1)
        hit = open_ & (gram >= 0)
        result[hit] += logs[n - 1][gram[hit]]
        open_ &= ~hit
        if n > 1:
            context = np.where(inside, found[n - 2][np.maximum(begin, 0)], -1)
            miss = open_ & (context >= 0)
            result[miss] += backs[n - 2][context[miss]]
    return result
