"""Words with times and confidence, from a decoded token sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rechka.text.confidence import calibrated
from rechka.timeline import Timeline
from rechka.types import Hypothesis, Tokens, Word

_TICK = 0.001
"""Shortest word in seconds; what the clipping at the ends of the audio leaves of a word is at least this long."""


def to_words(
    hypothesis: Hypothesis,
    tokens: Tokens,
    timeline: Timeline,
    *,
    end: float,
    calibration: tuple[float, float] | None = None,
) -> tuple[Word, ...]:
    """The words of a hypothesis.

    A word begins with the frame in which its first letter is loudest and ends one frame after that of its last letter.
    Words do not overlap, lie within [0, ``end``] and are never empty. In a vocabulary of characters without spaces all
    is one word; among SentencePiece pieces a word begins with a piece that begins with U+2581.

    Args:
        hypothesis: what was decoded; frames are absolute.
        tokens: the vocabulary.
        timeline: frames to seconds.
        end: where the audio ends, seconds.
        calibration: slope and offset from ``confidence.fit``, usually from the model's card; without them the
            confidence is the raw one, see ``word_confidence``.
    """
    groups = [group for group in word_groups(hypothesis.tokens, tokens) if tokens.text(_ids(hypothesis, group)).strip()]
    times = _apart(
        [
            (timeline.seconds(hypothesis.frames[group[0]]), timeline.seconds(hypothesis.frames[group[-1]] + 1))
            for group in groups
        ],
        end,
    )
    words = []
    for group, (start, stop) in zip(groups, times, strict=True):
        posterior = hypothesis.posteriors[group[0]] if hypothesis.posteriors else None
        raw = word_confidence([hypothesis.logprobs[index] for index in group], posterior)
        confidence = raw if calibration is None else calibrated(raw, calibration)
        words.append(Word(tokens.text(_ids(hypothesis, group)).strip(), start, stop, confidence))
    return tuple(words)


def word_groups(ids: Sequence[int], tokens: Tokens) -> list[list[int]]:
    """Places in ``ids`` word by word. A space between words is in none; a piece that is only U+2581 opens its word."""
    groups: list[list[int]] = [[]]
    for place, token in enumerate(ids):
        if tokens.opens(token):
            groups.append([])
        if tokens.pieces or not tokens.symbols[token].isspace():
            groups[-1].append(place)
    return [group for group in groups if group]


def word_frames(ids: Sequence[int], frames: Sequence[int], tokens: Tokens) -> list[tuple[str, int, int]]:
    """Each word as the symbols spell it, with its first frame and the one after its last, nothing moved apart.

    This is how GigaAM reports words: a piece like ``<unk>`` is there by its name, and words of one frame overlap.
    """
    found = []
    for group in word_groups(ids, tokens):
        text = "".join(tokens.symbols[ids[place]] for place in group).strip()
        if text:
            found.append((text, frames[group[0]], frames[group[-1]] + 1))
    return found


def _ids(hypothesis: Hypothesis, places: Sequence[int]) -> list[int]:
    return [hypothesis.tokens[place] for place in places]


def word_confidence(logprobs: Sequence[float], posterior: float | None = None) -> float:
    """Raw confidence of a word, in [0, 1].

    The geometric mean of its letters' probabilities; where the search has rivals to compare with, its posterior times
    the root of that mean, which told right words from wrong ones best among such products.

    Args:
        logprobs: natural-log probabilities of the letters.
        posterior: the search's posterior of the word, None if it has none.
    """
    if not logprobs:
        return 0.0
    mean = min(1.0, math.exp(math.fsum(logprobs) / len(logprobs)))
    return mean if posterior is None else posterior * math.sqrt(mean)


def _apart(times: list[tuple[float, float]], limit: float) -> list[tuple[float, float]]:
    """Times put in order, none empty, none overlapping, all within [0, limit]; untouched where they already are."""
    if not times:
        return []
    limit = max(limit, 0.0)
    tick = min(_TICK, limit / len(times))
    found = []
    before = 0.0
    for start, stop in times:
        start = max(start, before)
        stop = max(stop, start + tick)
        found.append((start, stop))
        before = stop
    after = limit
    for index in range(len(found) - 1, -1, -1):
        start, stop = found[index]
        if stop <= after:
            break
        start = max(0.0, min(start, after - tick))
        found[index] = (start, after)
        after = start
    return found
