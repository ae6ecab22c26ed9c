"""JSON schemas that both documents use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

SECONDS: Schema = {"type": "number", "minimum": 0, "description": "seconds, three decimals"}
CHANNEL: Schema = {"type": "integer", "minimum": 0}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}


def record(fields: Mapping[str, Schema], *, optional: tuple[str, ...] = (), about: str = "") -> Schema:
    """An object with these fields, all of them there but the optional ones."""
    found: Schema = {"type": "object", "properties": dict(fields)}
    if needed := [name for name in fields if name not in optional]:
        found["required"] = needed
    if about:
        found["description"] = about
    return found


def listed(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def ref(name: str) -> Schema:
    """A schema of the document by name."""
    return {"$ref": f"#/components/schemas/{name}"}


ERROR = record({"code": TEXT, "message": TEXT, "remedy": TEXT}, about="codes are listed in docs/errors.md")
WORD = record({"word": TEXT, "start": SECONDS, "end": SECONDS, "confidence": nullable(SHARE)})
SEGMENT = record(
    {
        "start": SECONDS, "end": SECONDS, "text": TEXT, "channel": CHANNEL, "speaker": nullable(TEXT),
        "words": listed(ref("Word")), "labels": {"type": "object"},
    }
)  # fmt: skip
TRANSCRIPT = record(
    {"model": TEXT, "language": TEXT, "duration": SECONDS, "text": TEXT, "segments": listed(ref("Segment"))},
    about="docs/formats.md",
)
COMMON: dict[str, Schema] = {"Error": ERROR, "Word": WORD, "Segment": SEGMENT, "Transcript": TRANSCRIPT}
