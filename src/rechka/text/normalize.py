"""Text as it is compared: the one normaliser behind WER, held-out hashing and de-duplication."""

from __future__ import annotations

import re
import unicodedata


class _Fold(dict[int, "str | None"]):
    """A table for ``str.translate`` that works out each new character once."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        if char == "ё":
            folded: str | None = "е"
        elif char.isalnum():
            folded = char
        else:
            folded = None if unicodedata.category(char) in ("Mn", "Me", "Cf") else " "
        self[code] = folded
        return folded


_FOLD = _Fold()
_FOLDED = re.compile(r"[а-яa-z0-9]+(?: [а-яa-z0-9]+)*")  # plain words are their own scoring form


def scoring(text: str) -> str:
    """The text as it is scored: lower case, ё folded to е, words of letters (and digits) joined by single spaces.

    Punctuation, hyphens and symbols become spaces; stress marks, soft hyphens and zero-width characters vanish without
    splitting their word. Digits are kept, because a hypothesis that writes ``5`` where ``пять`` was said must count as
    an error and not disappear. Idempotent.
    """
    if _FOLDED.fullmatch(text):
        return text
    lowered = unicodedata.normalize("NFKC", text).lower()
    return " ".join(unicodedata.normalize("NFC", lowered).translate(_FOLD).split())
