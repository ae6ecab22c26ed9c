"""The manifest of a run: one JSON object a line, readable while it is still growing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rechka.errors import DataError


@dataclass(frozen=True, slots=True)
class Record:
    """One finished utterance.

    Attributes:
        id: the utterance's in the plan, such as ``2-000017``.
        audio_filepath: relative to the manifest's folder.
        duration: seconds, silence included.
        text: lower case, ё as spelled, letters and single spaces.
        speaker: voice and pseudo-speaker, such as ``anna-07``.
        tempo, pitch, factor: as planned; see :class:`rechka.train.synth.plan.Utterance`.
        source: name of the text file.
    """

    id: str
    audio_filepath: str
    duration: float
    text: str
    speaker: str
    voice: str
    licence: str
    tempo: float
    pitch: float
    factor: float
    source: str


def append_json(file: Any, value: object) -> None:
    """Write one line and hand it to the operating system, so that a kill of this process loses nothing."""
    file.write(json.dumps(value if isinstance(value, dict) else asdict(value), ensure_ascii=False) + "\n")  # type: ignore[call-overload]
    file.flush()


def drop_half_line(path: Path) -> None:
    """Cut a last line that has no line feed: a write that was interrupted."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, without a last line that is only half there; nothing if there is no file.

    Raises:
        DataError: a line in the middle that is no JSON object.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(value, dict):
                raise DataError(f"{path}, line {number}: expected an object, got {type(value).__name__}")
            yield value


def read_manifest(folder: str | Path) -> list[Record]:
    """The finished utterances of a run's folder, also while the run goes on.

    Raises:
        DataError: a broken line, or one that lacks a field.
    """
    path = Path(folder) / "manifest.jsonl"
    try:
        return [Record(**entry) for entry in read_json_lines(path)]
    except TypeError as error:
        raise DataError(f"{path} is not a manifest of rechka synth: {error}") from error
