"""Words and their times from tokens and their places."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rechka.decoding.whisper.kernel import Alignment, Codec
from rechka.types import Word

POSITION_S = 0.02
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km", "yue"})
"""Languages without spaces between words: every character is a word there."""
SENTENCE_END = ".。!！?？…"
OPENING = "\"'“¿([{«„-"
TYPICAL_MAX_S = 0.7
"""The median length of words is taken to be no more than this; a longer one comes from pauses."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of a word."""

    text: str
    first: int
    last: int


def split(codec: Codec, tokens: Sequence[int], language: str) -> list[Piece]:
    """Tokens as words: a word begins with a space; punctuation without letters joins the word beside it.

    Characters whose bytes are spread over tokens are kept together. The texts joined by spaces are the text, except in
    languages without spaces.
    """
    units = _characters(codec, tokens)
    spaced = language not in UNSPACED
    found: list[Piece] = []
    for unit in units:
        glued = found and spaced and not unit.text[:1].isspace()
        if glued:
            found[-1] = Piece(found[-1].text + unit.text, found[-1].first, unit.last)
        else:
            found.append(unit)
    return _punctuated([replace(piece, text=piece.text.strip()) for piece in found], spaced=spaced)


def _characters(codec: Codec, tokens: Sequence[int]) -> list[Piece]:
    """The shortest runs of tokens that are whole characters."""
    whole = codec.decode(tokens)
    found: list[Piece] = []
    first = position = 0
    for i in range(len(tokens)):
        text = codec.decode(tokens[first : i + 1])
        # U+FFFD may be what the model wrote: it then stands in the whole text too.
        if "\ufffd" in text and i + 1 < len(tokens) and whole[position : position + len(text)] != text:
            continue
        found.append(Piece(text, first, i + 1))
        position += len(text)
        first = i + 1
    return found


def _punctuated(pieces: Sequence[Piece], *, spaced: bool) -> list[Piece]:
    """Pieces without letters or digits joined to others: opening marks to the next, the rest to the one before."""
    between = " " if spaced else ""
    found: list[Piece] = []
    opening: Piece | None = None
    for piece in pieces:
        if opening is not None:
            piece = Piece((opening.text + between + piece.text).strip(), opening.first, piece.last)
            opening = None
        if any(char.isalnum() for char in piece.text):
            found.append(piece)
        elif not found or (piece.text and all(char in OPENING for char in piece.text) and piece.text != "-"):
            opening = piece
        else:
            found[-1] = Piece((found[-1].text + between + piece.text).strip(), found[-1].first, piece.last)
    if opening is not None:
        if found:
            found[-1] = Piece((found[-1].text + between + opening.text).strip(), found[-1].first, opening.last)
        elif opening.text:
            found.append(opening)
    return found


def timed(pieces: Sequence[Piece], alignment: Alignment, *, end: float) -> list[Word]:
    """Words with their times, in order, none beyond ``end`` seconds, none ending before it starts.

    Words much longer than usual beside the end of a sentence hold a pause; they are shortened to twice the median.
    """
    times = [min(max(frame, 0) * POSITION_S, end) for frame in alignment.frames]
    times = [max(times[: i + 1]) for i in range(len(times))] if times else [0.0]
    words = []
    for piece in pieces:
        first, last = min(piece.first, len(times) - 1), min(piece.last, len(times) - 1)
        words.append(Word(piece.text, times[first], times[last], confidence(alignment.probs[piece.first : piece.last])))
    return shortened(words)


def confidence(probs: Sequence[float]) -> float:
    """The geometric mean of token probabilities, 0 where there are none or one is no number."""
    if not probs or not all(prob > 0.0 for prob in probs):
        return 0.0
    return min(1.0, math.exp(sum(math.log(prob) for prob in probs) / len(probs)))


def shortened(words: Sequence[Word]) -> list[Word]:
    """Words at the ends of sentences cut to twice the median length where a pause made them longer.

    The path through the attention begins at the first token, so the first word takes the silence before it.
    """
    lengths = [word.end - word.start for word in words if word.end > word.start]
    limit = 2.0 * min(statistics.median(lengths), TYPICAL_MAX_S) if lengths else 0.0
    found = list(words)
    for i, word in enumerate(words):
        if word.end - word.start <= limit or not limit:
            continue
        if i > 0 and (word.text[-1:] in SENTENCE_END or i + 1 == len(words)):
            found[i] = replace(word, end=word.start + limit)
        elif i == 0 or words[i - 1].text[-1:] in SENTENCE_END:
            found[i] = replace(word, start=word.end - limit)
    return found


def spread(text: str, start: float, end: float) -> list[Word]:
    """Words of a text without known places: times in proportion to their lengths, no confidence."""
    texts = text.split()
    total = sum(len(one) + 1 for one in texts)
    words, done = [], 0
    for one in texts:
        after = done + len(one) + 1
        words.append(Word(one, start + (end - start) * done / total, start + (end - start) * after / total))
        done = after
    return words
