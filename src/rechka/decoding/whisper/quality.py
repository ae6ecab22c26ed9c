"""How good a text looks without knowing what was said: does it repeat itself, and how sure was the model.

Whisper's code measures repetition as the zlib ratio of the UTF-8 bytes, with a limit of 2.4. Cyrillic takes two bytes a
letter, one of which hardly changes, so ordinary Russian comes near that limit and a full window often passes it, while
the same text in a code of one byte a letter has 1.5 to 1.9, as English has. Here every distinct character is one byte,
so the limit means the same for any alphabet. Short loops change a ratio little; a rule about repeated n-grams finds
them whatever the length.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""Letters of scripts without spaces between words: kana, Han, Thai, Lao, Burmese, Khmer."""

MAX_NGRAM = 6
LIMITS = {1: 4, 2: 4, 3: 3, 4: 3, 5: 3, 6: 3}
"""Times in a row at which an n-gram is a loop. To be wrong costs another decode, not the text."""
MIN_DISTINCT = 0.5
"""Share of distinct trigrams below which a text of ``DISTINCT_WORDS`` or more goes in circles."""
DISTINCT_WORDS = 24


def compression(text: str) -> float:
    """Length over zlib length, each distinct character counted as one byte; 0 for an empty text.

    A text has rarely more than 256 distinct characters; those beyond share bytes with others, in another order.
    """
    if not text:
        return 0.0
    codes: dict[str, int] = {}
    numbers = [codes.setdefault(char, len(codes)) for char in text]
    data = bytes((number ^ (number >> 8) * 0x5B) & 0xFF for number in numbers)
    return len(data) / len(zlib.compress(data))


def words(text: str) -> list[str]:
    """The words as they are compared: lower case, ё as е; characters where a script has no spaces."""
    lower = text.lower().replace("ё", "е")
    if len(_UNSPACED.findall(lower)) * 2 > len(lower):
        return [char for char in lower if char.isalnum()]
    return _WORD.findall(lower)


def longest_run(items: Sequence[str]) -> tuple[int, int]:
    """The n-gram of up to ``MAX_NGRAM`` items that is repeated most over its limit: its length and its repetitions.

    (0, 0) where there is nothing; repetitions are at least 1 otherwise. Of equal ones the shortest counts.
    """
    best, excess = (0, 0), -1.0
    for size in range(1, MAX_NGRAM + 1):
        run = longest = 0  # items that equal the one ``size`` before, in a row
        for i in range(size, len(items)):
            run = run + 1 if items[i] == items[i - size] else 0
            longest = max(longest, run)
        times = longest // size + 1
        if len(items) >= size and times / LIMITS[size] > excess:
            best, excess = (size, times), times / LIMITS[size]
    return best


def loops(text: str) -> bool:
    """True if a phrase is repeated in a row more often than people do, or the text goes in circles."""
    items = words(text)
    size, times = longest_run(items)
    if size and times >= LIMITS[size]:
        return True
    return len(items) >= DISTINCT_WORDS and distinct(items) < MIN_DISTINCT


def distinct(items: Sequence[str], size: int = 3) -> float:
    """Share of distinct n-grams among all; 1 for a text without any."""
    grams = [tuple(items[i : i + size]) for i in range(len(items) - size + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


CYRILLIC = frozenset({"ru", "uk", "be", "bg", "mk", "sr", "kk", "ky", "tt", "ba", "tg", "mn"})
"""Languages of Whisper that are written in Cyrillic letters, Serbian and Mongolian mostly so."""


def foreign(text: str, language: str) -> bool:
    """True if a text in a language of Cyrillic letters has hardly any: the model slipped into another language."""
    letters = [char for char in text.lower() if char.isalpha()]
    cyrillic = sum("\u0400" <= char <= "\u052f" for char in letters)
    return language in CYRILLIC and len(letters) >= 12 and cyrillic < 0.3 * len(letters)


def echoes(text: str, prompt: str) -> bool:
    """True if a text of three words or more says nothing but what stands in the prompt, or begins with all of it."""
    said, given = words(text), words(prompt)
    if len(said) < 3 or len(given) < 3:
        return False
    if said[: len(given)] == given:
        return True
    return any(given[i : i + len(said)] == said for i in range(len(given) - len(said) + 1))
