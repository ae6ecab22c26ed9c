"""JSON, the whole transcript with its words; the keys are a contract (docs/formats.md)."""

from __future__ import annotations

import json

from rechka.types import Transcript


def write(transcript: Transcript, recording: str) -> str:
    """One indented object; letters as they are, not escaped."""
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
