"""WebVTT subtitles."""

from __future__ import annotations

from html import escape

from rechka.formats.cues import cues
from rechka.formats.times import clock
from rechka.types import Transcript


def write(transcript: Transcript, recording: str) -> str:
    """A header and cues of up to two lines; with one speaker per channel a voice tag names the speaker."""
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript):
        voice = "" if cue.speaker is None else f"<v {escape(cue.speaker, quote=False)}>"
        text = escape("\n".join(cue.lines), quote=False)
        blocks.append(f"{clock(cue.start)} --> {clock(cue.end)}\n{voice}{text}\n")
    return "\n".join(blocks)
