"""What telephone systems and their callers say, from template files: text for a language model, not for a synthesiser.

A file holds one template of :mod:`rechka.train.grammar` a line; ``#`` begins a comment, ``@name = template`` names a
part that later lines of the file use as ``{name}``. Unlike the grammar's endless phrases, which made training and test
sets of sound and stay as they are, every template gives a bounded number of phrases, so that rare ones are heard too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rechka.errors import DataError
from rechka.text.normalize import scoring
from rechka.train.grammar import Node, expand, parse
from rechka.train.phrases import SLOTS
from rechka.train.slots import FILLERS
from rechka.train.text import read_sentences, usable

MAX_WORDS = 60
_NAME = re.compile(r"\{([a-z_0-9]+)(?::[^}]*)?\}")
_PART = re.compile(r"@([a-z_0-9]+) = (.+)")
_PAUSES = re.compile(r"[,.:;?!]+")
_TRIES = 4
_SLOT_PHRASES = 30  # a filler's numbers and names have no end; so many tell what stands around them


def read_templates(path: str | Path) -> list[str]:
    """The templates of a file, named parts put in, each checked.

    Raises:
        DataError: the file cannot be read, or a line is no template; names the line.
    """
    parts: dict[str, str] = {}
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(read_sentences(path), start=1):
        if found := _PART.match(line):
            parts[found[1]] = f"({found[2]})"
        elif not line.startswith("#"):
            lines.append((number, line))
    templates = []
    for number, line in lines:
        try:
            template = _filled(line, parts)
            parse(template)
        except ValueError as error:
            raise DataError(
                f"{path}, line of text {number}: a template was expected: {error}",
                remedy="see rechka.train.grammar for the form",
            ) from error
        templates.append(template)
    return templates


def _filled(template: str, parts: dict[str, str], depth: int = 0) -> str:
    """The template with named parts put in their places."""
    if depth > 8:
        raise ValueError("named parts nest more than eight deep")

    def part(match: re.Match[str]) -> str:
        if match[1] in parts:
            return _filled(parts[match[1]], parts, depth + 1)
        if match[1] not in SLOTS and match[1] not in FILLERS:
            raise ValueError(f"unknown slot {match[0]}")
        return match[0]

    return _NAME.sub(part, template)


def variants(nodes: tuple[Node, ...]) -> int:
    """How many phrases a parsed template can give, a slot without end counted as thirty."""
    number = 1
    for kind, value in nodes:
        if kind == "choice":
            assert isinstance(value, tuple)
            number *= sum(variants(branch) for branch in value)
        elif kind == "slot":
            assert isinstance(value, tuple)
            name = value[0]
            number *= variants(parse(SLOTS[name])) if name in SLOTS else _SLOT_PHRASES
    return number


def sentences(templates: Iterable[str], *, seed: int = 1, each: int = 200) -> Iterator[str]:
    """Up to ``each`` phrases of every template, and the parts between pauses as phrases of their own.

    Recorded prompts are played in pieces, so a clause is as good a phrase as the whole. In scoring form, one to sixty
    words, whole phrases before their pieces, no phrase twice within a template. The same seed gives the same phrases.
    """
    rng = random.Random(seed)
    for template in templates:
        wanted = min(each, variants(parse(template)))
        whole: dict[str, None] = {}
        pieces: dict[str, None] = {}
        for _ in range(_TRIES * wanted):
            text = expand(template, rng)
            whole.setdefault(scoring(text))
            for piece in _PAUSES.split(text):
                pieces.setdefault(scoring(piece))
            if len(whole) >= wanted:
                break
        yield from (text for text in {**whole, **pieces} if usable(text, min_words=1, max_words=MAX_WORDS))
