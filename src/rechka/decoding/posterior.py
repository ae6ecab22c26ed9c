"""How sure a search is of each word of its best hypothesis: what rivals with other words were worth.

A rival shares a beginning with the best hypothesis, has other tokens in the middle, and either is still alive or was
dropped where its future became the best one's own. It speaks against the words it would replace, with its odds against
the best hypothesis; a word's posterior is one over one plus the odds against it (the lattice posterior of Wessel et al.
2001, where every detour is taken by itself).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

_SLACK = 2
"""Frames by which the times of the same word in two alignments may be apart."""


class Detour(NamedTuple):
    """Tokens that a rival has in the place of ``chain[begin:end]``, and its log-odds against the best hypothesis."""

    begin: int
    end: int
    tokens: list[tuple[int, int]]
    log_odds: float


def token_posteriors(chain: Sequence[tuple[int, int]], detours: Sequence[Detour], space: int) -> tuple[float, ...]:
    """For each token of the best hypothesis the posterior of its word; 1 for spaces.

    Args:
        chain: tokens and frames of the best hypothesis.
        detours: the rivals.
        space: the token between words, or a number that is no token.
    """
    words = _words(chain, space)
    starts = [start for start, _ in words]
    against = [0.0] * len(words)
    for begin, end, tokens, log_odds in detours:
        at = bisect_left(starts, begin)
        if at and words[at - 1][1] >= begin:
            at -= 1  # the rival parts within this word or right after it
        first = min(begin, words[at][0]) if at < len(words) else begin
        other = [*chain[first:begin], *tokens]
        theirs = {
            tuple(token for token, _ in other[a:b]): (other[a][1], other[b - 1][1]) for a, b in _words(other, space)
        }
        joined = 0 < end < len(chain) and chain[end - 1][0] != space  # they met within a word, so it is the same
        while at < len(words) and words[at][0] < max(end, begin + 1):
            start, stop = words[at]
            mine = chain[start:stop]
            times = theirs.get(tuple(token for token, _ in mine))
            same = times is not None and times[0] <= mine[-1][1] + _SLACK and mine[0][1] <= times[1] + _SLACK
            if not same and not (joined and start < end <= stop):
                against[at] += math.exp(min(log_odds, 0.0))
            at += 1
    posteriors = [1.0] * len(chain)
    for (start, stop), odds in zip(words, against, strict=True):
        posteriors[start:stop] = [1.0 / (1.0 + odds)] * (stop - start)
    return tuple(posteriors)


def _words(chain: Sequence[tuple[int, int]], space: int) -> list[tuple[int, int]]:
    """Begin and end of each word."""
    found = []
    start = 0
    for index in range(len(chain) + 1):
        if index == len(chain) or chain[index][0] == space:
            if index > start:
                found.append((start, index))
            start = index + 1
    return found
