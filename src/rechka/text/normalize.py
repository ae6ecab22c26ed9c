"""Text as it is compared: the one normaliser behind WER, held-out hashing and de-duplication."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_YO_AND_STRESSED = {"ё": "е", "ѐ": "е", "ѝ": "и"}
"""Unicode has letters for е and и with a grave accent, the mark of a secondary stress; the others keep it apart."""


class _Fold(dict[int, "str | None"]):
    """A table for ``str.translate`` that works out each new character once."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        if char in _YO_AND_STRESSED:
            folded: str | None = _YO_AND_STRESSED[char]
        elif char.isalnum():
            folded = char
        else:
            folded = None if unicodedata.category(char) in ("Mn", "Me", "Cf") else " "
        self[code] = folded
        return folded


_FOLD = _Fold()
_FOLDED = re.compile(r"[а-яa-z0-9]+(?: [а-яa-z0-9]+)*")  # plain words are their own scoring form


def scoring(text: str, *, numbers: bool = False, lookalikes: bool = False) -> str:
    """The text as it is scored: lower case, ё folded to е, words of letters (and digits) joined by single spaces.

    Punctuation, hyphens and symbols become spaces; stress marks, soft hyphens and zero-width characters vanish without
    splitting their word. Digits are kept, because a hypothesis that writes ``5`` where ``пять`` was said must count as
    an error and not disappear. Idempotent.

    Args:
        text: as written.
        numbers: number words and digits count as the same: all become digits, without regard to case, gender, ordinal
            endings, grouping (``8 912 345-67-89``) and scale words (``5 тысяч``). For references that write digits.
        lookalikes: a word with letters of both alphabets gets those of one, where they look alike: ``c`` in ``cтол``.
    """
    if lookalikes:
        text = _WORD.sub(lambda found: _one_script(found[0]), text)
    if not numbers:
        return _folded(text)
    before = ""
    while text != before:  # once is enough for speech; "пять тысяч тысяч" takes two
        before, text = text, _joined(_folded(_digits(text)))
    return text


def _folded(text: str) -> str:
    if _FOLDED.fullmatch(text):
        return text
    lowered = unicodedata.normalize("NFKC", text).lower()
    return " ".join(unicodedata.normalize("NFC", lowered).translate(_FOLD).split())


_WORD = re.compile(r"[^\W\d_]+")
_LOOK_ALIKE = str.maketrans("ABCEHKMOPTXYaceopxy", "АВСЕНКМОРТХУасеорху")
_LOOK_BACK = {cyrillic: latin for latin, cyrillic in _LOOK_ALIKE.items()}


def _one_script(word: str) -> str:
    """The word in one alphabet, if the letters of the other one all look like some of it; Cyrillic wins."""
    latin = {ord(char) for char in word if "a" <= char.lower() <= "z"}
    cyrillic = {ord(char) for char in word if "\u0400" <= char <= "\u04ff"}
    if not latin or not cyrillic:
        return word
    if latin <= _LOOK_ALIKE.keys():
        return word.translate(_LOOK_ALIKE)
    return word.translate(_LOOK_BACK) if cyrillic <= _LOOK_BACK.keys() else word


_POWERS = {"миллиа": 9, "милли": 6, "млрд": 9, "млн": 6, "тр": 12, "т": 3}
"""Beginnings of scale words, the longer ones first."""
_SCALED = re.compile(
    r"(?<![0-9.,:])([0-9]{1,15})(?:[.,]([0-9]{1,3}))? "
    r"(тыс(?:яч[а-я]{0,2}\b|\b\.?)|(?:милли(?:он|ард)|триллион)[а-я]{0,3}\b|(?:млн|млрд|трлн)\b\.?)"
)


def _digits(text: str) -> str:
    """Lower-case text with number words, and written numbers, in one form of digits."""
    from rechka.text.itn import digits_for_scoring

    text = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).lower())
    text = " ".join(text.replace("ё", "е").split())
    text = _SCALED.sub(_scaled, text)
    text = _SCALED.sub(_scaled, digits_for_scoring(text))
    text = re.sub(r"(?<=[0-9])-(?:[а-я]{1,3})\b", "", text)  # 25-го
    text = re.sub(r"(?<![0-9.,])([0-9]+)[.,]([0-9]+)(?![0-9.,]*[0-9])", r"\1 целых \2", text)
    return re.sub(r"\bпроцент(?:а|у|ом|е|ы|ов|ам|ами|ах)\b", "процент", text.replace("%", " процент "))


def _scaled(found: re.Match[str]) -> str:
    """``2,5 тысячи`` in digits."""
    power = next(power for beginning, power in _POWERS.items() if found[3].startswith(beginning))
    value = Decimal(f"{found[1]}.{found[2] or 0}").scaleb(power)
    return str(int(value)) if value == int(value) else found[0]


def _joined(text: str) -> str:
    """Numbers that stand side by side become one: spaces among digits are a matter of spelling."""
    result: list[str] = []
    for word in text.split():
        before = result[-1] if result else ""
        if word.isascii() and word.isdigit() and before.isascii() and before.isdigit():
            round_ = (
                3 < len(before) <= 15 and before.endswith("0" * max(3, len(word))) and len(word) <= 3 and word[0] != "0"
            )
            result[-1] = str(int(before) + int(word)) if round_ else before + word
        else:
            result.append(word)
    return " ".join(result)
