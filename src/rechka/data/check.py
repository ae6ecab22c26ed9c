"""What is wrong with recordings and their texts, found before a model learns it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

from rechka.data.listen import Sound, ahead, listen
from rechka.data.shards import Row, Shard, find_shards
from rechka.errors import MissingExtra, RechkaError
from rechka.text.normalize import scoring

KINDS: dict[str, tuple[str, str]] = {
    "row": ("error", "a record without a text or a recording"),
    "unreadable": ("error", "audio that is missing, damaged, broken off or empty"),
    "silent": ("error", "a text, but nothing is heard"),
    "letters": ("error", "letters or digits that the model does not write"),
    "impossible": ("error", "more letters than frames: CTC cannot align them"),
    "leak-audio": ("error", "a recording of the training data is in the test data"),
    "leak-text": ("error", "the same speaker says the same text in training and test data"),
    "leak-speaker": ("warning", "a speaker of the training data is in the test data"),
    "duplicate": ("warning", "the same recording twice"),
    "clipped": ("warning", "the recording is clipped"),
    "rate": ("warning", "fewer or more letters a second than people speak"),
    "length": ("warning", "shorter or longer than training takes"),
    "empty": ("warning", "no text: used as silence, or left out"),
}
"""What may be found: how bad it is, and what it means."""

SILENT_PEAK = 0.002
"""-54 dB below full scale: the quietest telephone line that still carries speech is louder."""
CLIPPED_SHARE = 0.001
RATE = (3.0, 30.0)
"""Letters a second. Russian is spoken at 10 to 18; what lies outside these bounds mostly has another one's text."""
LENGTH_S = (0.2, 30.0)
ALPHABET = frozenset("абвгдежзийклмнопрстуфхцчшщъыьэюя ")
"""What a text may hold in scoring form unless a model says otherwise."""
FRAME_S = 0.04
"""Of the models that are fine-tuned the one with the longest frames has these."""
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Target:
    """What a model can learn.

    Attributes:
        letters: that it writes, or None if anything goes.
        frame_s: seconds of one output frame; 0 if a label may be several letters, so that nothing can be said.
        fold: brings a text to the model's form.
    """

    letters: frozenset[str] | None = ALPHABET
    frame_s: float = FRAME_S
    fold: Callable[[str], str] = scoring


@dataclass
class Report:
    """What was found.

    Attributes:
        rows, seconds: how much was looked at, by ``train`` and ``test``.
        counts: findings of each kind.
        examples: of each kind the first few: name of the record, and what is wrong.
    """

    rows: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def num_errors(self) -> int:
        """Findings that must be dealt with."""
        return sum(count for kind, count in self.counts.items() if KINDS[kind][0] == "error")

    def add(self, kind: str, name: str, detail: str) -> None:
        """A finding."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append((name, detail))

    def to_dict(self) -> dict[str, object]:
        """For programs."""
        found = [
            {"kind": kind, "severity": KINDS[kind][0], "count": self.counts[kind],
             "examples": [{"record": name, "detail": detail} for name, detail in self.examples[kind]]}
            for kind in KINDS if self.counts[kind]
        ]  # fmt: skip
        return {
            "rows": dict(self.rows), "seconds": {side: round(s, 3) for side, s in self.seconds.items()},
            "errors": self.num_errors, "warnings": sum(self.counts.values()) - self.num_errors, "found": found,
        }  # fmt: skip


def check(
    train: Sequence[str],
    test: Sequence[str] = (),
    *,
    target: Target | None = None,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Look at every record; memory grows by a few dozen bytes a record and not with the audio.

    Args:
        train, test: sources as ``find_shards`` takes them. Leaks are what is in both; within each only duplicates are
            looked for.
        target: what the texts are for.
        threads: that decode.
        progress: called with the number of records done.

    Raises:
        DataError: a source that cannot be read at all.
        MissingExtra: its format or place needs a package.
    """
    report, known = Report(), _Known()
    wanted = target or Target()
    sides = (("train", find_shards(train)), ("test", find_shards(test) if test else []))
    rows = chain.from_iterable(_rows(side, shards) for side, shards in sides)
    for number, ((side, place, row), sound) in enumerate(ahead(rows, _heard, threads=threads), 1):
        report.rows[side] += 1
        if row is None:
            report.add("row", place, "no text, or no recording")
        elif isinstance(sound, MissingExtra):
            raise sound
        elif isinstance(sound, RechkaError):
            report.add("unreadable", row.name, sound.message)
        elif sound is not None:
            report.seconds[side] += sound.seconds
            _judge(report, row, sound, wanted)
            known.compare(report, side, row, sound, wanted)
        if progress is not None:
            progress(number)
    return report


_Place = tuple[str, str, "Row | None"]


def _rows(side: str, shards: Iterable[Shard]) -> Iterator[_Place]:
    for shard in shards:
        for number, row in enumerate(shard.rows(), 1):
            yield side, f"{shard.place}:{number}", row


def _heard(item: _Place) -> Sound | None:
    return None if item[2] is None else listen(item[2])


def _judge(report: Report, row: Row, sound: Sound, target: Target) -> None:
    """What one record tells by itself."""
    text = target.fold(row.text)
    shortest, longest = LENGTH_S
    if not shortest <= sound.seconds <= longest:
        report.add("length", row.name, f"{sound.seconds:.2f} s")
    if sound.clipped > CLIPPED_SHARE:
        report.add("clipped", row.name, f"{100 * sound.clipped:.1f} % of the samples")
    if not text:
        report.add("empty", row.name, f"{sound.seconds:.2f} s of audio")
        return
    if sound.peak < SILENT_PEAK:
        report.add("silent", row.name, f"peak {sound.peak:.4f} of full scale")
    strange = sorted(set(text) - target.letters) if target.letters is not None else []
    if strange:
        report.add("letters", row.name, f"{''.join(strange)!r:.40} in {text[:60]!r}")
    rate = len(text) / max(sound.seconds, 1e-3)
    if not RATE[0] <= rate <= RATE[1]:
        report.add("rate", row.name, f"{rate:.1f} letters a second: {text[:60]!r} in {sound.seconds:.2f} s")
    if not target.frame_s:
        return
    frames = math.ceil(sound.seconds / target.frame_s)
    needed = len(text) + sum(a == b for a, b in pairwise(text))
    if needed > frames:
        report.add("impossible", row.name, f"{needed} labels in {frames} frames of {1000 * target.frame_s:.0f} ms")


class _Known:
    """What was seen before, to find what comes again."""

    def __init__(self) -> None:
        self._audio: dict[str, dict[bytes, str]] = {"train": {}, "test": {}}
        self._said: set[int] = set()
        self._speakers: set[str] = set()
        self._told: set[str] = set()

    def compare(self, report: Report, side: str, row: Row, sound: Sound, target: Target) -> None:
        """The training data come first."""
        own, text = self._audio[side], target.fold(row.text)
        if sound.digest in own and sound.peak >= SILENT_PEAK:
            report.add("duplicate", row.name, f"the same as {own[sound.digest]}")
        own.setdefault(sound.digest, row.name)
        said = hash((row.speaker, text)) if row.speaker and text else None
        if side == "train":
            self._speakers.add(row.speaker)
            if said is not None:
                self._said.add(said)
            return
        learnt = self._audio["train"].get(sound.digest)
        if learnt is not None and sound.peak >= SILENT_PEAK:
            report.add("leak-audio", row.name, f"the same as {learnt}")
        elif said in self._said:
            report.add("leak-text", row.name, f"{row.speaker} says {text[:60]!r} in both")
        if row.speaker and row.speaker in self._speakers and row.speaker not in self._told:
            self._told.add(row.speaker)
            report.add("leak-speaker", row.name, f"speaker {row.speaker}")
