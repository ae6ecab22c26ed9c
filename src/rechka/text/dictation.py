"""Digits that were said in groups: how a telephone number is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """Tokens ``start`` to ``end`` (exclusive) became ``text``, which holds no spaces."""

    start: int
    end: int
    text: str


def phone(groups: Sequence[Span], *, plus: bool) -> list[Span] | None:
    """``8 912 345-67-89`` for eleven digits that begin with 7 or 8, ``912 345-67-89`` for ten that begin with 9 or were
    said in groups of 3, 3, 2 and 2.

    In one piece with hyphens where it was said in groups that do not keep these borders.
    """
    digits = "".join(group.text for group in groups)
    headed = len(digits) == 11 and digits[0] in "78"
    shaped = [len(group.text) for group in groups] == [3, 3, 2, 2]
    bare = len(digits) == 10 and (digits[0] == "9" or shaped) and not plus
    if not bare and (not headed or (plus and digits[0] != "7")):
        return None
    head, rest = (digits[0], digits[1:]) if headed else ("", digits)
    head = "+7" if head == "7" else head
    parts = [head] * bool(head) + [rest[:3], f"{rest[3:6]}-{rest[6:8]}-{rest[8:]}"]
    ends, length = {}, 0
    for place, group in enumerate(groups):
        length += len(group.text)
        ends[length] = place
    borders = [1, 4] if headed else [3]
    if not all(border in ends for border in borders):
        return [Span(groups[0].start, groups[-1].end, "-".join(parts))]
    cuts = [0, *(ends[border] + 1 for border in borders), len(groups)]
    return [
        Span(groups[first].start, groups[last - 1].end, part)
        for first, last, part in zip(cuts, cuts[1:], parts, strict=False)
    ]
