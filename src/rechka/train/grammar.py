"""Call-centre Russian without end: a seeded generator of numbers, money, dates, addresses, names, requests, prompts.

Phrases are written for a synthesiser: commas, ё, capital names, never a digit. :func:`rechka.train.text.training` makes
the target of them. The same seed gives the same phrases.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from rechka.text.normalize import scoring
from rechka.train import phrases
from rechka.train.slots import FILLERS
from rechka.train.text import held_out, read_texts

Topic = Literal["numbers", "commands"]
Random = random.Random
Node = tuple[str, object]

_SO = re.compile(r"\bс (?=с[бвгклмнпт]|Св|Ст)")  # «со службой», but «с Сергеем»


# --- templates ---


@cache
def parse(template: str) -> tuple[Node, ...]:
    """A template as a sequence of nodes: ``("text", str)``, ``("slot", (name, argument))``, ``("choice", branches)``.

    Raises:
        ValueError: a bracket or brace that is not closed.
    """
    return _sequence(template, 0, nested=False)[0]


def _sequence(template: str, at: int, *, nested: bool) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    while at < len(template):
        char = template[at]
        if char == "(":
            branches: list[tuple[Node, ...]] = []
            while template[at : at + 1] in ("(", "|"):
                branch, at = _sequence(template, at + 1, nested=True)
                branches.append(branch)
            if template[at : at + 1] != ")":
                raise ValueError(f"'(' without ')' in template {template!r}")
            nodes.append(("choice", tuple(branches)))
            at += 1
        elif char == "{":
            end = template.find("}", at)
            if end < 0:
                raise ValueError(f"'{{' without '}}' in template {template!r}")
            name, _, argument = template[at + 1 : end].partition(":")
            nodes.append(("slot", (name, argument)))
            at = end + 1
        elif char in "|)":
            if not nested:
                raise ValueError(f"{char!r} outside of brackets at {at} in template {template!r}")
            break
        else:
            end = min((i for i in (template.find(c, at + 1) for c in "({|)") if i > 0), default=len(template))
            nodes.append(("text", template[at:end]))
            at = end
    return tuple(nodes), at


def expand(template: str, rng: Random) -> str:
    """One random phrase of a template, spaces and commas tidied."""
    text = _fill(parse(template), rng)
    text = " ".join(text.split()).replace(" ,", ",").replace(" :", ":").replace(" -", "")
    text = _SO.sub("со ", text)
    while ",," in text:
        text = text.replace(",,", ",")
    return text.strip(" ,:")


def _fill(nodes: tuple[Node, ...], rng: Random) -> str:
    parts: list[str] = []
    for kind, value in nodes:
        if kind == "text":
            parts.append(str(value))
        elif kind == "choice":
            assert isinstance(value, tuple)
            parts.append(_fill(value[int(rng.random() * len(value))], rng))
        else:
            assert isinstance(value, tuple)
            name, argument = value
            if name in phrases.SLOTS:
                parts.append(_fill(parse(phrases.SLOTS[name]), rng))
            else:
                parts.append(FILLERS[name](rng, argument))
    return "".join(parts)


# --- phrases ---


def phrase(rng: Random, topic: Topic | None = None) -> str:
    """One phrase, of one topic or of either (numbers 55 %, commands 45 %), sometimes with an opener or a closer."""
    if topic is None:
        topic = "numbers" if rng.random() < 0.55 else "commands"
    text = expand(rng.choice(phrases.NUMBERS if topic == "numbers" else phrases.COMMANDS), rng)
    how = rng.random()
    if how < 0.12:
        text = rng.choice(phrases.OPENERS) + text
    elif how < 0.2:
        text = text.rstrip("?") + rng.choice(phrases.CLOSERS)
    return text


def generate(
    seed: int,
    *,
    topic: Topic | None = None,
    test: bool = False,
    exclude: Collection[str] = (),
    max_words: int = 20,
) -> Iterator[str]:
    """Different phrases without end, all on one side of the held-out wall.

    Args:
        seed: the same seed gives the same phrases.
        topic: numbers or commands only.
        test: only phrases that are held out; otherwise only those that are not.
        exclude: texts in scoring form that must not be said, such as the prompts of a test set.
        max_words: longer phrases are dropped.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        text = phrase(rng, topic)
        folded = scoring(text)
        if folded in seen or folded in exclude or folded.count(" ") >= max_words or held_out(folded) is not test:
            continue
        seen.add(folded)
        yield text


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m rechka.train.grammar``: write phrases, one a line."""
    parser = argparse.ArgumentParser(prog="python -m rechka.train.grammar", description="Write call-centre phrases.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--test", action="store_true", help="held-out phrases only, for a test set")
    parser.add_argument("--exclude", nargs="*", type=Path, default=[], help="texts or manifests not to repeat")
    options = parser.parse_args(arguments)
    known = {scoring(text) for path in options.exclude for text in read_texts(path)}
    exclude = {text for text in known if " " in text}  # single words are nobody's property
    lines = itertools.islice(generate(options.seed, test=options.test, exclude=exclude), options.count)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
