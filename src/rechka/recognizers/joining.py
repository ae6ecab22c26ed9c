"""Where a phrase without pauses is cut, and how the two parts, which overlap in audio, are joined without loss.

The first part is decoded to the end of what was heard, the second from some seconds before the cut. Tokens near a
cut edge are doubtful, tokens in the middle of the overlap were heard by both with context on either side. So the first
part keeps its tokens up to a word that begins in the middle of the overlap (``split``), and the second part begins with
the token that corresponds to it, found by aligning both token sequences in time (``continuation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rechka.types import Hypothesis, Tokens


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a phrase that was cut while speech went on.

    Attributes:
        tokens: that it heard in the overlap.
        frames: of the tokens, absolute.
        kept: so many of the tokens belong to the phrase; the next one begins with the others.
        border: frame between the two.
    """

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    kept: int
    border: float


def sliced(hypothesis: Hypothesis, first: int, last: int | None = None) -> Hypothesis:
    """Tokens from ``first`` up to, not including, ``last``; the score stays that of the whole."""
    part = slice(first, last)
    return Hypothesis(
        hypothesis.tokens[part],
        hypothesis.frames[part],
        hypothesis.logprobs[part],
        hypothesis.score,
        hypothesis.posteriors[part],
    )


def begins_word(ids: Sequence[int], index: int, tokens: Tokens) -> bool:
    """True if the token at ``index`` is the first of a word, in a vocabulary of characters or of pieces."""
    if tokens.pieces or tokens.opens(ids[index]):
        return tokens.pieces and tokens.opens(ids[index])
    return index == 0 or tokens.opens(ids[index - 1])


def split(
    hypothesis: Hypothesis, tokens: Tokens, *, cut: float, zone: tuple[float, float], least: float, edge: float
) -> tuple[int, Tail]:
    """How many tokens of a phrase without a pause stay in it, and what the next phrase must know.

    Args:
        hypothesis: of the phrase, decoded to the end of what was heard.
        tokens: the vocabulary.
        cut: frame where it should end.
        zone: first and last frame of the audio that both phrases hear.
        least: tokens before this frame stay in any case.
        edge: frames at the beginning of the zone in which the next phrase cannot be trusted.
    """
    frames = hypothesis.frames
    edge = min(edge, (zone[1] - zone[0]) / 4)
    low, high = max(zone[0] + edge, least), max(zone[1] - edge / 4, least)
    inside = [i for i, frame in enumerate(frames) if low <= frame <= high]
    words = [i for i in inside if begins_word(hypothesis.tokens, i, tokens)]
    if inside:
        # Without a word that begins here, a long word is divided: half of it in each phrase, no letter lost.
        index = min(words or inside, key=lambda i: abs(frames[i] - cut))
        border = float(frames[index]) if index == 0 else (frames[index - 1] + frames[index]) / 2
    else:
        border = min(max(cut, low), high)
        index = sum(frame < border for frame in frames)
    first = min(index, sum(frame < zone[0] for frame in frames))
    return index, Tail(hypothesis.tokens[first:], frames[first:], index - first, border)


def continuation(tail: Tail, hypothesis: Hypothesis, *, tolerance: float) -> int:
    """Index of the first token of ``hypothesis`` that the phrase before did not keep.

    Args:
        tail: of the phrase before.
        hypothesis: of the phrase that goes on, decoded from before the cut.
        tolerance: frames by which the same token may differ in time.
    """
    horizon = tail.frames[-1] + tolerance if tail.frames else tail.border
    size = sum(frame <= horizon for frame in hypothesis.frames)
    pairs = _aligned(tail, hypothesis, size, tolerance)
    before = max((pair for pair in pairs if pair[0] < tail.kept), default=(-1, -1))
    after = min((pair for pair in pairs if pair[0] >= tail.kept), default=(len(tail.tokens), size))
    if pairs and after[0] == tail.kept and after[1] < size:
        return after[1]
    if pairs and before[0] == tail.kept - 1 and before[0] >= 0:
        return before[1] + 1
    # Neither neighbour of the border was heard by both: what lies between the nearest common tokens goes by time.
    index = before[1] + 1
    while index < after[1] and hypothesis.frames[index] < tail.border:
        index += 1
    return index


def _aligned(tail: Tail, hypothesis: Hypothesis, size: int, tolerance: float) -> list[tuple[int, int]]:
    """Pairs of equal tokens at about the same time, in order: as many and as close as possible.

    A pair counts the less the farther it is apart, or repeated letters would be paired with their neighbours.
    """
    rows, columns = len(tail.tokens), size
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]  # over tokens from i and j on
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            found = max(best[i + 1][j], best[i][j + 1])
            distance = abs(tail.frames[i] - hypothesis.frames[j])
            if tail.tokens[i] == hypothesis.tokens[j] and distance <= tolerance:
                found = max(found, best[i + 1][j + 1] + 1.0 - distance / (tolerance + 1.0))
            best[i][j] = found
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < rows and j < columns:
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs
