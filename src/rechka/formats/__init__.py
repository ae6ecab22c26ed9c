"""Transcripts as text: txt, json, srt, vtt, tsv, ctm. One writer each; files appear whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from rechka.errors import UsageError
from rechka.formats import ctm, json, srt, tsv, txt, vtt
from rechka.formats.file import write_text
from rechka.types import Transcript

Writer: TypeAlias = Callable[[Transcript, str], str]
"""(transcript, name of the recording) to the whole file, ending with a newline. Only ctm uses the name."""

FORMATS: dict[str, Writer] = {
    "txt": txt.write,
    "json": json.write,
    "srt": srt.write,
    "vtt": vtt.write,
    "tsv": tsv.write,
    "ctm": ctm.write,
}
"""The writers by format name, which is also the file suffix."""

__all__ = ["FORMATS", "Writer", "render", "save"]


def render(transcript: Transcript, format: str = "txt", *, recording: str = "audio") -> str:
    """A transcript in one of the formats.

    Args:
        transcript: what was recognised.
        format: a key of ``FORMATS``.
        recording: name of the recording, for formats whose lines carry it (ctm).

    Raises:
        UsageError: an unknown format.
    """
    writer = FORMATS.get(format)
    if writer is None:
        raise UsageError(f"unknown format {format!r}", remedy=f"use one of {', '.join(FORMATS)}")
    return writer(transcript, recording)


def save(transcript: Transcript, path: str | Path) -> Path:
    """Write to ``path`` in the format that its suffix names; the file appears whole or not at all.

    Raises:
        UsageError: a suffix that names no format.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix[1:].lower()
    if suffix not in FORMATS:
        raise UsageError(
            f"cannot tell the format from {path.name!r}",
            remedy=f"end the name with one of {', '.join('.' + name for name in FORMATS)}",
        )
    return write_text(path, render(transcript, suffix, recording=path.stem))
