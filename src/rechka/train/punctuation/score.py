"""How good a punctuator is: precision, recall and F1 by mark, beside what pauses or the end of a text alone can tell.

    python -m rechka.train.punctuation.score MODEL.onnx --texts test.npz [--heard heard.jsonl]

``test.npz`` is what training kept in its folder; ``heard.jsonl`` is written by ``recipes/punctuation/heard.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rechka.text.punctuation import ENDS, MARKS, PausePunctuator, Punctuator
from rechka.train.punctuation.batches import simulated_pauses
from rechka.train.punctuation.sentences import I64, Texts
from rechka.types import Word

WORD_S = 0.3
KINDS = (*MARKS[1:], "sentence end", "capital within")
"""What is counted. A sentence end is any of ``. ? ! …``; a capital within is one that does not open a sentence."""


@dataclass(frozen=True)
class Item:
    """A text: words as they are offered, and the right mark and case of each (-1: not judged)."""

    words: tuple[Word, ...]
    marks: tuple[int, ...]
    cases: tuple[int, ...]


@dataclass
class Counts:
    """Of each kind how often it was right, told, and there."""

    right: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    told: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    there: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def add(self, item: Item, shown: Sequence[Word]) -> None:
        """One text and what was made of it."""
        begins_there = begins_shown = True
        for word, mark, case in zip(shown, item.marks, item.cases, strict=True):
            found = next((i for i, text in enumerate(MARKS) if i and word.text.endswith(text)), 0)
            if mark >= 0:
                for number, kind in enumerate(KINDS[: len(MARKS) - 1], 1):
                    self._count(kind, found == number, mark == number)
                self._count("sentence end", found > 1, mark > 1)
                if case >= 0 and not begins_there and not begins_shown:
                    self._count("capital within", word.text[:1].isupper(), case > 0)
            begins_there, begins_shown = mark < 0 or MARKS[mark] in ENDS, word.text.endswith(ENDS)

    def _count(self, kind: str, told: bool, there: bool) -> None:
        self.right[kind] += told and there
        self.told[kind] += told
        self.there[kind] += there

    def row(self, kind: str) -> tuple[float, float, float]:
        """Precision, recall and F1 in per cent; nan where there is nothing to divide by."""
        right, told, there = self.right[kind], self.told[kind], self.there[kind]
        parts = ((right, told), (right, there), (2 * right, told + there))
        precision, recall, f1 = (100 * a / b if b else float("nan") for a, b in parts)
        return precision, recall, f1


class EndPunctuator:
    """A full stop at the end of the text, and nothing else: what is left of the pauses where there are none."""

    def __call__(self, words: Sequence[Word], /, *, final: bool = True) -> tuple[Word, ...]:
        """See ``Punctuator``."""
        return PausePunctuator(float("inf"))(words, final=final)


def rows(texts: Texts, *, sentences: int, limit: int, seed: int, pauses: bool = False) -> Iterator[Item]:
    """Random sentences in rows of ``sentences``, ``limit`` sentences in all.

    Args:
        pauses: simulated pauses between words; else words have no times.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(texts))[:limit].tolist()
    for first in range(0, len(order), sentences):
        parts = [slice(texts.starts[s], texts.starts[s + 1]) for s in order[first : first + sentences]]
        numbers, marks, cases = (
            np.concatenate([values[part] for part in parts]) for values in (texts.words, texts.marks, texts.cases)
        )
        words = _timed([texts.vocabulary[i] for i in numbers], marks.astype(np.int64), rng if pauses else None)
        yield Item(words, tuple(marks.tolist()), tuple(cases.tolist()))


def _timed(words: Sequence[str], marks: I64, rng: np.random.Generator | None) -> tuple[Word, ...]:
    if rng is None:
        return tuple(Word(word, 0.0, 0.0) for word in words)
    gaps = simulated_pauses(marks[None], rng)[0]
    starts = np.concatenate([[0.0], np.cumsum(gaps + WORD_S)])[:-1]
    return tuple(Word(word, float(at), float(at) + WORD_S) for word, at in zip(words, starts, strict=True))


def heard(path: Path) -> Iterator[Item]:
    """Recognised words with their times, and marks of the reference; -1 where the words could not be paired."""
    for line in path.read_text("utf-8").splitlines():
        fields = json.loads(line)
        words = tuple(Word(text, start, end) for text, start, end in fields["words"])
        yield Item(words, tuple(fields["marks"]), tuple(fields["cases"]))


def count(items: Iterable[Item], punctuator: Punctuator) -> Counts:
    """A punctuator on texts."""
    counts = Counts()
    for item in items:
        counts.add(item, punctuator(item.words))
    return counts


def table(title: str, found: dict[str, Counts]) -> str:
    """A Markdown table: a line a kind, three columns a punctuator."""
    head = "| mark | there | " + " | ".join(f"{name}: P | R | F1" for name in found) + " |"
    lines = [f"**{title}**", "", head, "|---" * (2 + 3 * len(found)) + "|"]
    for kind in KINDS:
        there = next(iter(found.values())).there[kind]
        cells = [f"{value:.1f}" if value == value else "-" for counts in found.values() for value in counts.row(kind)]
        lines.append(f"| {kind if kind not in MARKS else f'`{kind}`'} | {there} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(model: Punctuator, texts: Texts, *, limit: int, seed: int, recorded: Path | None) -> str:
    """All tables."""
    alone: tuple[str, Punctuator] = ("full stop at the end", EndPunctuator())
    paused: tuple[str, Punctuator] = ("pauses alone", PausePunctuator())

    def made(sentences: int, pauses: bool) -> Iterable[Item]:
        return rows(texts, sentences=sentences, limit=limit, seed=seed, pauses=pauses)

    plans: list[tuple[str, Callable[[], Iterable[Item]], tuple[str, Punctuator]]] = [
        ("Single sentences, no pauses known", lambda: made(1, False), alone),
        ("Four sentences in a row, no pauses known", lambda: made(4, False), alone),
        ("Four sentences in a row, simulated pauses", lambda: made(4, True), paused),
    ]
    if recorded is not None:
        plans.append(("Recordings as recognised", lambda: heard(recorded), paused))
    parts = [
        table(title, {"model": count(items(), model), name: count(items(), other)})
        for title, items, (name, other) in plans
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Read the arguments and print the tables."""
    from rechka.models.punctuator import WordPunctuator

    parser = argparse.ArgumentParser(prog="python -m rechka.train.punctuation.score")
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("--texts", type=Path, required=True, help="test.npz of the training folder")
    parser.add_argument("--heard", type=Path, help="recognised recordings with the marks of their references")
    parser.add_argument("--sentences", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    texts = Texts.load(given.texts)
    model = WordPunctuator.load(given.model)
    print(report(model, texts, limit=given.sentences, seed=given.seed, recorded=given.heard))


if __name__ == "__main__":
    main()
