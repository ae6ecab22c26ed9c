"""Texts as a model writes them: normalised to its vocabulary, as ids, or refused with the letter that does not fit."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

from rechka.errors import DataError
from rechka.train.finetune.pieces import PieceEncoder
from rechka.types import Tokens

_STRESS = ("\u0301", "\u0300")
_STRESSED = str.maketrans("ѐѝ", "еи")
"""The letters that composing joins with their stress mark."""
_SPACES = re.compile(r"\s+")


class Targets:
    """The vocabulary of a model and how texts become its ids.

    Args:
        symbols: text of each id without the blank, a word's start as a space.
        blank: id of the blank.
        encoder: of SentencePiece models; None for characters.
    """

    def __init__(self, symbols: Sequence[str], blank: int, encoder: PieceEncoder | None = None) -> None:
        self.blank = blank
        self.tokens = Tokens((*symbols, ""), blank, encoder is not None)
        """As decoders take them."""
        self._encoder = encoder
        self._ids = {symbol: index for index, symbol in enumerate(symbols)}

    def normalise(self, text: str) -> str:
        """The text as the model would write it.

        For characters: composed, in lower case, without stress marks, ё as е where the vocabulary has no ё, punctuation
        and hyphens as spaces, single spaces. Digits and foreign letters stay, for ``encode`` to refuse. For pieces only
        white space changes: such models write case and punctuation.
        """
        if self._encoder is not None:
            return " ".join(text.split())
        text = unicodedata.normalize("NFC", text).lower().translate(_STRESSED)
        text = unicodedata.normalize("NFC", "".join(mark for mark in text if mark not in _STRESS))
        if "ё" not in self._ids:
            text = text.replace("ё", "е")
        return _SPACES.sub(" ", "".join(map(self._letter, text))).strip()

    def _letter(self, letter: str) -> str:
        if letter in self._ids or letter.isalnum():
            return letter
        return "" if unicodedata.category(letter) in ("Mn", "Me", "Cf") else " "

    def encode(self, text: str) -> list[int]:
        """Ids of a text.

        Raises:
            DataError: a letter or digit that the model does not write.
        """
        text = self.normalise(text)
        if self._encoder is not None:
            pieces = self._encoder.encode(text)
            if None in pieces:
                raise DataError(f"the vocabulary has no pieces for all of {text!r:.80}")
            return [piece for piece in pieces if piece is not None]
        for letter in text:
            if letter not in self._ids:
                kind = "digit" if letter.isdigit() else "letter"
                raise DataError(
                    f"the model does not write the {kind} {letter!r}, which is in {text!r:.80}",
                    remedy="write numbers and foreign words as they are said, in the model's letters",
                )
        return [self._ids[letter] for letter in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids."""
        return self.tokens.text(ids).strip()


def repeats(ids: Sequence[int]) -> int:
    """Neighbours that are equal: CTC needs a blank between them."""
    return sum(a == b for a, b in pairwise(ids))
