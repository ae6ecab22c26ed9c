"""Which language is spoken: windows vote, a list of candidates may be given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

SURE = 0.7
"""Probability from which another language in the middle of a recording is believed."""


def vote(windows: Sequence[tuple[Mapping[str, float], float]], allowed: Collection[str] = ()) -> tuple[str, float]:
    """The language with the highest mean probability over windows, and that probability.

    Args:
        windows: probability of each language, and the weight of the window, such as its seconds of speech.
        allowed: codes to choose from; none: all.

    Returns:
        ``("", 0.0)`` if nothing is known.
    """
    total: dict[str, float] = {}
    for probabilities, weight in windows:
        known = {code: p for code, p in probabilities.items() if not allowed or code in allowed}
        norm = sum(known.values())
        for code, probability in known.items():
            if norm > 0:
                total[code] = total.get(code, 0.0) + weight * probability / norm
    mass = sum(total.values())
    if not mass > 0:
        return "", 0.0
    code = max(sorted(total), key=lambda one: total[one])
    return code, total[code] / mass


def follow(probabilities: Mapping[str, float], current: str, allowed: Collection[str] = ()) -> str:
    """The language of one window in a recording that has ``current``: another only where that is likely."""
    code, probability = vote([(probabilities, 1.0)], allowed)
    return code if code and probability >= SURE else current
