"""Tab-separated values for spreadsheets: start, end (seconds), speaker, text; one phrase a row, a header first."""

from __future__ import annotations

from rechka.types import Transcript


def write(transcript: Transcript, recording: str) -> str:
    """The header and one row per phrase; tabs and newlines inside a text become spaces."""
    rows = ["start\tend\tspeaker\ttext"]
    rows += [
        "\t".join((f"{s.start:.3f}", f"{s.end:.3f}", " ".join((s.speaker or "").split()), " ".join(s.text.split())))
        for s in transcript.segments
    ]
    return "\n".join(rows) + "\n"
