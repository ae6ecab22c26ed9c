"""Plain text, one phrase a line; with one speaker per channel the speaker comes first."""

from __future__ import annotations

from rechka.formats.times import clock
from rechka.types import Segment, Transcript


def write(transcript: Transcript, recording: str) -> str:
    """``text`` or ``speaker: text`` per phrase."""
    return "".join(line(segment) + "\n" for segment in transcript.segments if segment.text)


def line(segment: Segment) -> str:
    """A phrase on one line, with its speaker if it has one."""
    text = " ".join(segment.text.split())
    return text if segment.speaker is None else f"{segment.speaker}: {text}"


def timed_line(segment: Segment) -> str:
    """``[MM:SS.mmm -> MM:SS.mmm] text``: a phrase for a person to read; not a file format. Without text, the labels."""
    start, end = (clock(seconds, hours=False) for seconds in (segment.start, segment.end))
    return f"[{start} -> {end}] {line(segment)}{_labels(segment)}"


def _labels(segment: Segment) -> str:
    """What a model without text found: ``emotion: positive 0.71, sad 0.20``, the likeliest first."""
    if segment.text:
        return ""
    found = []
    for name, value in segment.labels.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {p:.2f}" for key, p in sorted(value.items(), key=lambda item: -item[1]))
        found.append(f"{name}: {value}")
    return "; ".join(found)
