"""Two texts of overlapping audio joined: neither loses a word at the border, neither says one twice.

The words of the overlap that both heard, at about the same time, are found as the longest common run; the border goes
through that of its words which lies nearest to the middle of the overlap, since both hear the middle with context on
either side. Without common words the border is the middle itself. Times decide what may match: a phrase said twice
in ten seconds is two phrases.
"""

from __future__ import annotations

from collections.abc import Sequence

from rechka.decoding.whisper.quality import words as compared
from rechka.types import Word

TOLERANCE_S = 1.0
"""Word times from attention are 0.1 to 0.3 s off, more beside a cut."""


def border(first: Sequence[Word], second: Sequence[Word], overlap: tuple[float, float]) -> tuple[int, int]:
    """How many words of ``first`` stay, and how many leading ones of ``second`` go.

    Args:
        first: words of the earlier audio.
        second: words of the later audio, on the same clock.
        overlap: seconds that both heard.
    """
    begin, end = overlap
    middle = (begin + end) / 2
    early = [i for i, word in enumerate(first) if word.end > begin]
    late = [j for j, word in enumerate(second) if word.start < end]
    run = _common([first[i] for i in early], [second[j] for j in late])
    if run is not None:
        at, to, size = run
        pair = min(range(size), key=lambda k: abs(_centre(first[early[at + k]]) - middle))
        return early[at + pair] + 1, late[to + pair] + 1
    if not early or not late:
        return len(first), 0  # one of them heard nothing there; what the other heard is all there is
    kept = sum(_centre(word) < middle for word in first)
    gone = sum(_centre(word) < middle for word in second)
    return kept, gone


def _centre(word: Word) -> float:
    return (word.start + word.end) / 2


def _common(first: Sequence[Word], second: Sequence[Word]) -> tuple[int, int, int] | None:
    """The longest run of equal words at about the same times: begin in either, length; of equal ones the closest."""
    left, right = [_key(word.text) for word in first], [_key(word.text) for word in second]
    sizes = [0] * (len(right) + 1)
    best: tuple[int, float, int, int] | None = None
    for i, word in enumerate(left):
        row = [0] * (len(right) + 1)
        for j, other in enumerate(right):
            distance = abs(_centre(first[i]) - _centre(second[j]))
            if word and word == other and distance <= TOLERANCE_S:
                row[j + 1] = sizes[j] + 1
                found = (row[j + 1], -distance, i, j)
                best = found if best is None else max(best, found)
        sizes = row
    if best is None:
        return None
    size, _, i, j = best
    return i - size + 1, j - size + 1, size


def _key(text: str) -> str:
    return "".join(compared(text))
