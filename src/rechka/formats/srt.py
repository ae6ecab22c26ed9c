"""SubRip subtitles."""

from __future__ import annotations

from rechka.formats.cues import cues
from rechka.formats.times import clock
from rechka.types import Transcript


def write(transcript: Transcript, recording: str) -> str:
    """Numbered cues of up to two lines; with one speaker per channel the speaker starts the first line."""
    blocks = []
    for number, cue in enumerate(cues(transcript), 1):
        speaker = "" if cue.speaker is None else f"{cue.speaker}: "
        start, end = (clock(seconds, point=",") for seconds in (cue.start, cue.end))
        blocks.append(f"{number}\n{start} --> {end}\n{speaker}" + "\n".join(cue.lines) + "\n")
    return "\n".join(blocks)
