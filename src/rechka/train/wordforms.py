"""Inflected forms that no text holds but whose relatives it does: from a Hunspell dictionary (``.dic`` and ``.aff``).

A small text of a language with many endings never shows all forms of its words. A dictionary knows them; which are
worth a place in a vocabulary is guessed from how often the word's other forms, and this ending of others, occur.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from rechka.errors import DataError, DataNotFound
from rechka.text.normalize import scoring
from rechka.train.text import ALPHABET, profane

Form = tuple[str, str]
"""A word and the name of the ending that made it."""

_LETTERS = frozenset(ALPHABET)
_RULE = re.compile(r"SFX\s+(\S)\s+(\S+)\s+(\S+)\s+(\S+)")


def read_suffixes(path: str | Path) -> dict[str, list[tuple[str, str, re.Pattern[str]]]]:
    """Per flag the (letters to cut, letters to add, condition) of an affix file; only suffixes are read.

    Raises:
        DataError: the file cannot be read, or holds no suffix.
    """
    rules: dict[str, list[tuple[str, str, re.Pattern[str]]]] = defaultdict(list)
    for line in _lines(path):
        if found := _RULE.match(line):
            flag, cut, add, condition = found.groups()
            rules[flag].append(("" if cut == "0" else cut, "" if add == "0" else add, re.compile(condition + r"\Z")))
    if not rules:
        raise DataError(f"a Hunspell affix file with suffixes (SFX) is needed, got {path}")
    return dict(rules)


def families(dictionary: str | Path, affixes: str | Path) -> Iterator[list[Form]]:
    """The forms of each entry of a dictionary, in scoring form, the entry itself first.

    Raises:
        DataError: a file cannot be read.
    """
    rules = read_suffixes(affixes)
    for line in _lines(dictionary):
        stem, _, flags = line.partition("/")
        forms = [(stem, "")]
        for flag in flags:
            for cut, add, condition in rules.get(flag, ()):
                if stem.endswith(cut) and condition.search(stem):
                    forms.append((stem[: len(stem) - len(cut)] + add, f"{flag} {cut} {add}"))
        folded = [(scoring(word), ending) for word, ending in forms]
        yield [(word, ending) for word, ending in folded if word and _LETTERS.issuperset(word)]


def likely_forms(counts: Mapping[str, int], all_families: list[list[Form]], most: int) -> list[str]:
    """The ``most`` unseen forms that are likeliest to be met, best first.

    A form's rank is how often its family occurs, times the share of its ending among the occurrences of all families
    that can have it.
    """
    owners = Counter(word for family in all_families for word in {word for word, _ in family} if word in counts)
    # A form that several families have counts for each of them in part.
    share = {word: counts[word] / count for word, count in owners.items()}
    used: defaultdict[str, float] = defaultdict(float)
    possible: defaultdict[str, float] = defaultdict(float)
    weights = []
    for family in all_families:
        weight = sum(share.get(word, 0.0) for word in {word for word, _ in family})
        weights.append(weight)
        for word, ending in family:
            used[ending] += share.get(word, 0.0)
            possible[ending] += weight
    best: dict[str, float] = {}
    for family, weight in zip(all_families, weights, strict=True):
        if not weight:
            continue
        for word, ending in family:
            if word not in counts:
                rank = weight * (used[ending] + 0.5) / (possible[ending] + 1.0)
                best[word] = max(rank, best.get(word, 0.0))
    ranked = sorted((word for word in best if not profane(word)), key=lambda word: (-best[word], word))
    return ranked[:most]


def _lines(path: str | Path) -> Iterator[str]:
    try:
        yield from Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataNotFound.or_unreadable(
            error,
            f"a readable UTF-8 file is needed, got {path}: {error}",
            remedy="give the .dic and .aff of one dictionary",
        ) from error
