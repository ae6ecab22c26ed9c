"""The map of known models: one line per card, in the order in which one looks for a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rechka.hub.registry import Entry

FAMILY_ORDER = ("conformer", "tone", "gigaam", "zipformer", "whisper", "toy")
TESTS = ("Russian LibriSpeech", "Common Voice 19", "OpenSTT phone calls")
"""Tests on which figures of several families were published: read speech, read speech of many voices, telephone."""


@dataclass(frozen=True, slots=True)
class Line:
    """What the map says of a model.

    Attributes:
        name, family, language, license, title: of the card.
        size: bytes on disk, else as the card has it, optional files left out; None if it is not known.
        wer: the first figure of the card for the test, per cent, or None.
        state: ``"ready"``; ``"pull"`` (its files can be pulled); ``"convert"`` (its checkpoint can).
    """

    name: str
    family: str
    language: str
    license: str
    title: str
    size: int | None
    wer: float | None
    state: str

    @property
    def ready(self) -> bool:
        """True if it can be loaded now."""
        return self.state == "ready"

    @classmethod
    def of(cls, entry: Entry, test: str) -> Line:
        """The line of a model, with the figure for ``test``."""
        card = entry.card
        rates = [result.value for result in card.results if result.test == test and result.metric.startswith("WER")]
        state = "ready" if entry.ready else "pull" if card.repo or not card.originals else "convert"
        title, rate = card.title.get("en", ""), rates[0] if rates else None
        return cls(card.name, card.family, card.language, card.license, title, size_of(entry), rate, state)


def size_of(entry: Entry) -> int | None:
    """Bytes of the files that are there, and of those that ``pull`` would bring; None if one is not known."""
    on_disk = entry.on_disk()
    sizes = [
        on_disk[role].stat().st_size if role in on_disk else file.size or file.approx_size
        for role, file in entry.card.files.items()
        if role in on_disk or not file.optional
    ]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def ordered(lines: Iterable[Line], first: str = "") -> list[Line]:
    """By family, within it the lowest error rate first; ``first`` before all."""

    def key(line: Line) -> tuple[bool, int, float, str]:
        family = FAMILY_ORDER.index(line.family) if line.family in FAMILY_ORDER else len(FAMILY_ORDER)
        return (line.name != first, family, float("inf") if line.wer is None else line.wer, line.name)

    return sorted(lines, key=key)
