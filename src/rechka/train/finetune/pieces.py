"""SentencePiece models: texts to pieces, without the library (Kudo & Richardson 2018; unigram and BPE).

Read are pieces, their scores and kinds, and which of the two algorithms made them (sentencepiece_model.proto). The text
is normalised as their usual rule does: NFKC, runs of white space to one space, none at the ends, U+2581 for spaces and
one before the first word.
"""

from __future__ import annotations

import io
import struct
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from rechka.backends.protobuf import FieldReader
from rechka.errors import BadModelFile

WORD_START = "\u2581"
NORMAL, UNKNOWN, DEFINED = 1, 2, 4
UNIGRAM, BPE = 1, 2
_MAX_BYTES = 1 << 22
_MAX_PIECE = 64


class PieceEncoder:
    """Texts to ids.

    Args:
        scores: normal pieces with their scores.
        ids: pieces to ids.
        kind: ``UNIGRAM`` or ``BPE``.
    """

    def __init__(self, scores: Mapping[str, float], ids: Mapping[str, int], kind: int) -> None:
        self._scores, self._ids, self._kind = scores, ids, kind
        self.symbols = tuple(piece.replace(WORD_START, " ") for piece in ids)
        """Text of each id, a word's start as a space."""
        self._longest = max(map(len, scores))
        self._penalty = min(scores.values()) - 10.0
        """Of a letter that no piece has, as the library has it: the last resort of the search."""

    @classmethod
    def read(cls, path: Path) -> PieceEncoder:
        """The encoder of a ``.model`` file.

        Raises:
            BadModelFile: no such file, or an algorithm other than unigram and BPE.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
            pieces, kind = _parse(data)
        except (OSError, ValueError, struct.error) as error:
            raise BadModelFile(f"{path} is no SentencePiece model: {error}") from None
        normal = {text: score for text, score, type_ in pieces if type_ in (NORMAL, DEFINED)}
        if kind not in (UNIGRAM, BPE) or not normal:
            raise BadModelFile(f"{path} cuts words by algorithm {kind}; only unigram (1) and BPE (2) are known")
        ids = {text: index for index, (text, _, _) in enumerate(pieces)}
        if len(ids) != len(pieces):
            raise BadModelFile(f"{path} has a piece twice")
        return cls(normal, ids, kind)

    def encode(self, text: str) -> list[int | None]:
        """Ids of the pieces; None for a letter that no piece has."""
        joined = WORD_START.join(("", *unicodedata.normalize("NFKC", text).split()))
        pieces = self._best(joined) if self._kind == UNIGRAM else self._merged(joined)
        return [self._ids[piece] if piece in self._scores else None for piece in pieces]

    def _best(self, text: str) -> list[str]:
        """The cut of the greatest sum of scores (Viterbi)."""
        best = [0.0] + [float("-inf")] * len(text)
        back = [0] * (len(text) + 1)
        for end in range(1, len(text) + 1):
            for start in range(max(0, end - self._longest), end):
                score = self._scores.get(text[start:end])
                if score is None:
                    if end - start > 1:
                        continue
                    score = self._penalty
                if best[start] + score > best[end]:
                    best[end], back[end] = best[start] + score, start
        cuts = [len(text)]
        while cuts[-1]:
            cuts.append(back[cuts[-1]])
        return [text[start:end] for end, start in pairwise(cuts)][::-1]

    def _merged(self, text: str) -> list[str]:
        """Letters, of which the neighbours of the greatest score are joined again and again."""
        parts = list(text)
        while True:
            pairs = [(self._scores.get(a + b), -i) for i, (a, b) in enumerate(pairwise(parts))]
            known = [(score, place) for score, place in pairs if score is not None]
            if not known:
                return parts
            place = -max(known)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]


def _parse(data: bytes) -> tuple[list[tuple[str, float, int]], int]:
    """Text, score and kind of every piece, and the algorithm."""
    file = io.BytesIO(data)
    reader = FieldReader(file)
    pieces, algorithm = [], UNIGRAM
    for number, wire, size in reader.fields(len(data)):
        end = file.tell() + size
        if wire == 2 and number == 1:
            text, score, kind = "", 0.0, NORMAL
            for inner, inner_wire, value in reader.fields(end):
                if inner == 1 and inner_wire == 2:
                    text = reader.text(value)
                elif inner == 2 and inner_wire == 5:
                    (score,) = struct.unpack("<f", file.read(4))
                elif inner == 3 and inner_wire == 0:
                    kind = value
            if len(text) > _MAX_PIECE:
                raise ValueError(f"a piece has {len(text)} letters")
            pieces.append((text, score, kind))
        elif wire == 2 and number == 2:
            for inner, inner_wire, value in reader.fields(end):
                if inner == 3 and inner_wire == 0:
                    algorithm = value
    if not pieces:
        raise ValueError("it holds no pieces")
    return pieces, algorithm
