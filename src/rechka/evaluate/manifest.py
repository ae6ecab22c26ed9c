"""Manifests: one JSON object a line naming a recording, its text and its speaker (the format that NeMo uses)."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rechka.errors import DataError, DataNotFound, OutputError

_KNOWN = ("audio_filepath", "duration", "text", "speaker")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a manifest.

    Attributes:
        audio: the recording; absolute, or relative to the working directory.
        text: what is said, or None if nobody wrote it down; empty for silence.
        duration: seconds, or None.
        speaker: an identifier, or None.
        extra: all other fields, as they came.
    """

    audio: Path
    text: str | None = None
    duration: float | None = None
    speaker: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    source: Callable[[], Any] | None = field(default=None, compare=False, repr=False)
    """Gives the recording where ``audio`` is only its name: from an archive, a table, the network."""


def read(path: str | Path, *, require_text: bool = False) -> Iterator[Record]:
    """The records of a JSONL manifest, blank lines skipped; relative audio paths are taken from the manifest's folder.

    Args:
        path: the manifest, UTF-8.
        require_text: refuse records without a text.
    Raises:
        DataError: the file cannot be read, or a line is no usable record; names the line.
    """
    source = Path(path)
    try:
        with source.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _record(line, source, number, require_text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataNotFound.or_unreadable(
            error,
            f"a manifest must be a readable UTF-8 file, one JSON object a line, got {source}: {error}",
            remedy='write lines like {"audio_filepath": "a.wav", "text": "..."}',
        ) from error


def _record(line: str, source: Path, number: int, require_text: bool) -> Record:
    def bad(expected: str, came: object) -> DataError:
        return DataError(f"{source}, line {number}: {expected}, got {came!r:.80}", remedy="correct or remove the line")

    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise bad(f"expected one JSON object ({error.msg} at column {error.colno})", line.strip()) from error
    except (ValueError, RecursionError) as error:
        raise bad("expected one JSON object without thousands of digits or brackets in a row", line.strip()) from error
    if not isinstance(fields, dict):
        raise bad("expected one JSON object", fields)
    audio = fields.get("audio_filepath")
    if not isinstance(audio, str) or not audio:
        raise bad("expected audio_filepath to be a path", audio)
    text = fields.get("text")
    if not isinstance(text, str) and (text is not None or require_text):
        raise bad("expected text to be a string", text)
    duration = fields.get("duration")
    if duration is not None:
        number_like = isinstance(duration, (int, float)) and not isinstance(duration, bool)
        if not number_like or not 0 <= duration <= sys.float_info.max:
            raise bad("expected duration to be seconds, zero or more", duration)
        duration = float(duration)
    speaker = fields.get("speaker")
    if speaker is not None and not isinstance(speaker, (str, int)):
        raise bad("expected speaker to be a name or a number", speaker)
    return Record(
        audio=source.parent / audio,
        text=text,
        duration=duration,
        speaker=None if speaker is None else str(speaker),
        extra={name: value for name, value in fields.items() if name not in _KNOWN},
    )


def write(path: str | Path, records: Iterable[Record]) -> Path:
    """Write a manifest, whole or not at all; audio below the manifest's folder is named relative to it.

    Raises:
        OutputError: the file cannot be written.
        DataError: an extra field that JSON cannot hold.
    """
    target = Path(path)
    folder = target.parent
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{target.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as lines:
            for record in records:
                lines.write(_line(record, folder) + "\n")
        Path(temporary).replace(target)
        temporary = None
    except OSError as error:
        raise OutputError(f"a manifest must be written to a writable folder, got {target}: {error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return target


def _line(record: Record, folder: Path) -> str:
    audio = record.audio
    if audio.is_relative_to(folder):
        audio = audio.relative_to(folder)
    elif not audio.is_absolute():
        audio = audio.absolute()
    fields: dict[str, Any] = {"audio_filepath": audio.as_posix()}
    if record.duration is not None:
        fields["duration"] = round(record.duration, 3)
    if record.text is not None:
        fields["text"] = record.text
    if record.speaker is not None:
        fields["speaker"] = record.speaker
    try:
        return json.dumps(fields | record.extra, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"extra fields must be plain JSON values, got {record.extra!r:.80}: {error}") from error
