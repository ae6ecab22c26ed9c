"""Time stamps in a text: the rules, what breaks them, and how a window is read even where they are broken.

The kernel forbids what the rules forbid; models with odd weights, other kernels and damaged files do not care, so
reading repairs: every piece gets times in order and inside the window, and a window always makes progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rechka.decoding.whisper.kernel import Special

MAX_FIRST = 50
"""The first stamp is not later than 1.0 s."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment of a window: positions of 20 ms, and its text tokens."""

    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A window, read.

    Attributes:
        pieces: in order, times within the window.
        advance: positions by which to go on; at least 1.
        complete: a pair of stamps says where to go on; else the whole window is done.
    """

    pieces: tuple[Piece, ...]
    advance: int
    complete: bool


def violations(tokens: Sequence[int], special: Special) -> list[str]:
    """The rules that a text with stamps breaks, in words; none for a text that the kernel may write.

    Rules of the paper's code: no "no time stamps" token; the first token is a stamp of at most 1.0 s; stamps come in
    pairs, except before the end; they do not decrease, and the second of a pair with text in between is later.
    """
    broken = []
    if special.no_stamps in tokens:
        broken.append("the no-timestamps token among stamps")
    if tokens and not special.is_stamp(tokens[0]):
        broken.append("no stamp at the beginning")
    elif tokens and special.position(tokens[0]) > MAX_FIRST:
        broken.append("first stamp later than 1.0 s")
    last = -1
    for i, token in enumerate(tokens):
        if not special.is_stamp(token):
            continue
        before = i > 0 and special.is_stamp(tokens[i - 1])
        if before and i > 1 and special.is_stamp(tokens[i - 2]):
            broken.append(f"three stamps in a row at {i}")
        # A stamp after text closes and stands alone only at the end; text must not follow it at once.
        if i > 1 and not before and i + 1 < len(tokens) and special.is_text(tokens[i + 1]):
            broken.append(f"single stamp at {i}")
        if token < last or (token == last and not before):
            broken.append(f"stamp at {i} is not later than the one before")
        last = max(last, token)
    return broken


def read(
    tokens: Sequence[int], special: Special, *, size: int, final: bool = False, truncated: bool = False
) -> Reading:
    """The pieces of a window and where to go on.

    A window is cut between two stamps that follow one another; text after the last such pair is left for the next
    window, which begins there. A single stamp at the end means that nothing is said after it: the window is done.

    Args:
        tokens: as generated, stamps included.
        special: ids.
        size: positions of the window that hold audio, at least 1.
        final: nothing follows that could read the rest again: all text is kept. Audio behind a last pair without text
            after it remains to be read all the same.
        truncated: the limit of tokens ended the text, so a single stamp at its end does not mean that nothing follows.
    """
    known = [token for token in tokens if special.is_text(token) or special.is_stamp(token)]
    stamp = [special.is_stamp(token) for token in known]
    cuts = [i for i in range(1, len(known)) if stamp[i - 1] and stamp[i] and any(not one for one in stamp[:i])]
    single = len(known) > 1 and stamp[-1] and not stamp[-2]
    if not cuts:
        return Reading(tuple(_pieces([known], special, size, closed=single or None)), size, False)
    rest = known[cuts[-1] :]
    slices = [known[first:last] for first, last in zip([0, *cuts[:-1]], cuts, strict=True)]
    over = single and not truncated
    if over or (final and any(special.is_text(token) for token in rest)):
        pieces = _pieces([*slices, rest], special, size, closed=single)
        return Reading(tuple(pieces), size, over)
    pieces = _pieces(slices, special, size, closed=True)
    reached = special.position(known[cuts[-1] - 1])
    # A stamp of 0.00 would mean to decode the same again for ever; one beyond the audio means its end.
    advance = min(reached, size) if reached > 0 else size
    return Reading(tuple(pieces), advance, reached > 0)


def _pieces(slices: Sequence[Sequence[int]], special: Special, size: int, *, closed: bool | None) -> list[Piece]:
    """Slices with times that do not decrease; the last one ends with the window unless it is ``closed``.

    ``closed`` None: there is one slice, which may hold a stamp anywhere.
    """
    pieces: list[Piece] = []
    clock = 0
    for number, tokens in enumerate(slices):
        text = tuple(token for token in tokens if special.is_text(token))
        marks = [special.position(token) for token in tokens if special.is_stamp(token)]
        opening = special.is_stamp(tokens[0]) if tokens else False
        start = marks[0] if opening else clock
        ends_here = number < len(slices) - 1 or closed or (closed is None and len(marks) > opening)
        end = marks[-1] if ends_here and len(marks) > opening else size
        start = min(max(start, clock), size)
        end = min(max(end, start), size)
        if text:
            pieces.append(Piece(start, end, text))
            clock = end
    return pieces
