"""CTM, one word a line: recording, channel, start, duration, word, confidence. Read by sclite and Kaldi.

Source: NIST's "ctm" format as described with SCTK; channels are counted from one.
"""

from __future__ import annotations

from rechka.types import Transcript


def write(transcript: Transcript, recording: str) -> str:
    """Words sorted by channel and start; white space inside a field becomes an underscore, confidence NA if unknown."""
    name = "_".join(recording.split()) or "audio"
    words = [(segment.channel + 1, word) for segment in transcript.segments for word in segment.words]
    lines = []
    for channel, word in sorted(words, key=lambda item: (item[0], item[1].start)):
        confidence = "NA" if word.confidence is None else f"{word.confidence:.3f}"
        # start and end are rounded first, so that start + duration is the rounded end
        duration = max(0.0, round(word.end, 3) - round(word.start, 3))
        lines.append(f"{name} {channel} {word.start:.3f} {duration:.3f} {'_'.join(word.text.split())} {confidence}\n")
    return "".join(lines)
