"""Words as the search sees them: Russian stems, ё as е; the same on every database, so that both find the same.

The stemmer follows the published algorithm (Snowball, "Russian stemming algorithm"); the tables are its suffixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rechka.server.store.records import Term

WORD = re.compile(r"[^\W_]+")
VOWELS = "аеиоуыэюя"
MAX_WORD = 60
"""Longer words are cut: nobody searches for them."""
MAX_TERMS = 20
MAX_STEMS = 40_000
"""Of one entry, of which PostgreSQL can index a megabyte; a day of speech has fewer different ones."""
SNIPPET = 160
"""Letters of a snippet, about."""


def _longest(suffixes: str) -> tuple[str, ...]:
    return tuple(sorted(suffixes.split(), key=len, reverse=True))


def _set(suffixes: str) -> frozenset[str]:
    return frozenset(suffixes.split())


GERUND_A = _set("в вши вшись")
GERUND = _longest("в вши вшись ив ивши ившись ыв ывши ывшись")
ADJECTIVE = _longest("ее ие ые ое ими ыми ей ий ый ой ем им ым ом его ого ему ому их ых ую юю ая яя ою ею")
PARTICIPLE_A = _set("ем нн вш ющ щ")
PARTICIPLE = _longest("ем нн вш ющ щ ивш ывш ующ")
REFLEXIVE = _longest("ся сь")
VERB_A = _set("ла на ете йте ли й л ем н ло но ет ют ны ть ешь нно")
VERB = _longest(
    "ла на ете йте ли й л ем н ло но ет ют ны ть ешь нно ила ыла ена ейте уйте ите или ыли ей уй ил ыл им ым ен ило "
    "ыло ено ят ует уют ит ыт ены ить ыть ишь ую ю"
)
NOUN = _longest(
    "а ев ов ие ье е иями ями ами еи ии и ией ей ой ий й иям ям ием ем ам ом о у ах иях ях ы ь ию ью ю ия ья я"
)
SUPERLATIVE = _longest("ейш ейше")
DERIVATIONAL = _longest("ост ость")


def fold(word: str) -> str:
    """Small letters, ё as е."""
    return word.lower().replace("ё", "е")


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a folded word; words without Russian letters stay as they are."""
    first = next((i for i, letter in enumerate(word) if letter in VOWELS), None)
    if first is None:
        return word
    head, rest = word[: first + 1], word[first + 1 :]
    inner = _region(word, _region(word, 0)) - len(head)  # R2, counted from the beginning of RV
    rest = _ending(rest)
    rest = rest.removesuffix("и")
    found = _suffix(rest, DERIVATIONAL)
    if found and len(rest) - len(found) >= inner:
        rest = rest[: -len(found)]
    if rest.endswith("нн"):
        rest = rest[:-1]
    elif found := _suffix(rest, SUPERLATIVE):
        rest = rest[: -len(found)]
        if rest.endswith("нн"):
            rest = rest[:-1]
    else:
        rest = rest.removesuffix("ь")
    return head + rest


def _ending(rest: str) -> str:
    """Without the ending of a gerund, or of an adjective, verb or noun, perhaps reflexive."""
    if (cut := _cut(rest, GERUND, GERUND_A)) is not None:
        return cut
    if found := _suffix(rest, REFLEXIVE):
        rest = rest[: -len(found)]
    if found := _suffix(rest, ADJECTIVE):
        rest = rest[: -len(found)]
        cut = _cut(rest, PARTICIPLE, PARTICIPLE_A)
        return rest if cut is None else cut
    if (cut := _cut(rest, VERB, VERB_A)) is not None:
        return cut
    found = _suffix(rest, NOUN)
    return rest[: -len(found)] if found else rest


def _region(word: str, start: int) -> int:
    """Where the region after the first non-vowel that follows a vowel begins."""
    for i in range(start + 1, len(word)):
        if word[i] not in VOWELS and word[i - 1] in VOWELS:
            return i + 1
    return len(word)


def _suffix(text: str, suffixes: Sequence[str]) -> str:
    return next((suffix for suffix in suffixes if text.endswith(suffix)), "")


def _cut(text: str, suffixes: Sequence[str], after_a: Iterable[str]) -> str | None:
    """Without its longest suffix, some of which count only after а or я; None if there is none that counts."""
    found = _suffix(text, suffixes)
    if not found:
        return None
    left = text[: -len(found)]
    return None if found in after_a and not left.endswith(("а", "я")) else left


def stems(text: str) -> list[str]:
    """The stems of a text in order, those beyond ``MAX_STEMS`` different ones left out."""
    found: list[str] = []
    seen: set[str] = set()
    for match in WORD.finditer(text):
        word = stem(fold(match[0])[:MAX_WORD])
        if word in seen or len(seen) < MAX_STEMS:
            seen.add(word)
            found.append(word)
    return found


def parse(query: str) -> list[Term]:
    """A query as people type it: words in any form, ``"several in a row"``, ``beginn*``; all must occur."""
    terms: list[Term] = []
    for quoted, plain in re.findall(r'"([^"]*)"?|([^"\s]+)', query):
        words = stems(quoted or plain)
        if not words:
            continue
        terms.append(Term(tuple(words), prefix=plain.endswith("*")))
    return terms[:MAX_TERMS]


class Marker:
    """Finds the words of a query again, to show them.

    Args:
        terms: of the query.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self._words = {word for term in terms for word in (term.stems[:-1] if term.prefix else term.stems)}
        self._beginnings = tuple(term.stems[-1] for term in terms if term.prefix)

    def hits(self, text: str) -> list[tuple[int, int]]:
        """Where words of the query stand in a text."""
        if not self._words and not self._beginnings:
            return []
        return [match.span() for match in WORD.finditer(text) if self._hit(match[0])]

    def _hit(self, word: str) -> bool:
        word = fold(word)[:MAX_WORD]
        found = stem(word)
        return found in self._words or (bool(self._beginnings) and found.startswith(self._beginnings))

    def snippet(self, text: str) -> list[dict[str, Any]]:
        """A piece of the text around the first hit, in parts, each marked as hit or not."""
        hits = self.hits(text)
        begin = max(0, (hits[0][0] if hits else 0) - SNIPPET // 3)
        if begin:
            begin = text.find(" ", begin, begin + MAX_WORD) + 1 or begin
        end = min(len(text), begin + SNIPPET)
        if end < len(text):
            end = max(text.rfind(" ", begin, end), (hits[0][1] if hits else begin + 1))
        parts: list[tuple[str, bool]] = [("… ", False)] if begin else []
        at = begin
        for first, last in hits:
            if begin <= first and last <= end:
                parts += [(text[at:first], False), (text[first:last], True)]
                at = last
        parts += [(text[at:end], False), (" …" if end < len(text) else "", False)]
        return [{"text": part, "hit": hit} for part, hit in _joined(parts)]

    def place(self, result: Mapping[str, Any]) -> tuple[float | None, str]:
        """Second and text of the first segment with a hit; None and the whole text if the hits are spread."""
        for segment in result.get("segments", ()):
            if self.hits(segment["text"]):
                return float(segment["start"]), str(segment["text"])
        return None, str(result.get("text", ""))


def _joined(parts: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    for text, hit in parts:
        if text and found and not hit and not found[-1][1]:
            found[-1] = (found[-1][0] + text, False)
        elif text:
            found.append((text, hit))
    return found
