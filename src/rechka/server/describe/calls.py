"""Calls and WebRTC in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from rechka.server.describe.openapi import ALWAYS, answers, body, operation, query
from rechka.server.describe.schemas import COUNT, FLAG, SECONDS, TEXT, Schema, listed, nullable, record, ref

NAME: Schema = {"type": "string", "pattern": r"^[\w.@:+-]{1,80}$"}
HOTWORDS: Schema = {"oneOf": [listed(TEXT), {"type": "object", "additionalProperties": {"type": "number"}}]}
CALL = record(
    {
        "call": TEXT, "protocol": {"type": "string", "enum": ["audiosocket", "chan_websocket", "freeswitch", "twilio"]},
        "state": {"type": "string", "enum": ["expected", "open", "ended"]}, "tracks": listed(TEXT),
        "legs": {"type": "object", "additionalProperties": TEXT, "description": "UUID of each track"},
        "started": SECONDS, "parameters": {"type": "object", "additionalProperties": TEXT},
        "transcript": {"anyOf": [ref("Transcript"), {"type": "null"}]},
    },
    optional=("legs",),
    about="docs/telephony.md",
)  # fmt: skip
OFFER = record(
    {"sdp": TEXT, "type": {"const": "offer"}, "hotwords": HOTWORDS, "model": TEXT, "partials": FLAG, "pause": SECONDS},
    optional=("hotwords", "model", "partials", "pause"),
)
ANSWER = record({"sdp": TEXT, "type": {"const": "answer"}, "session": TEXT, "model": TEXT, "sample_rate": COUNT})


def paths() -> dict[str, Any]:
    """``/v1/calls`` and ``/v1/webrtc``."""
    place = {"name": "id", "in": "path", "required": True, "schema": TEXT}
    unknown = (*ALWAYS, 404)
    wish = record(
        {"tracks": listed(NAME), "hotwords": HOTWORDS, "model": nullable(TEXT), "partials": FLAG},
        optional=("tracks", "hotwords", "model", "partials"),
    )
    announced = answers({"application/json": CALL}, statuses=unknown)
    announced["201"] = announced.pop("200")
    after = query("after", {"type": "integer", "minimum": 0}, "number of the last event that was seen")
    events = record({"data": TEXT}, about="data is JSON: call_start, partial, final, ..., call_end")
    return {
        "/v1/calls": {
            "get": operation("Calls", answers({"application/json": record({"data": listed(CALL)})})),
            "post": operation("Announce a call over AudioSocket", announced, requestBody=body(wish, needed=False)),
        },
        "/v1/calls/{id}": {
            "get": operation("A call", answers({"application/json": CALL}, statuses=unknown), parameters=[place])
        },
        "/v1/calls/{id}/events": {
            "get": operation(
                "What is said in a call, as it is said",
                answers({"text/event-stream": events}, statuses=unknown),
                parameters=[place, after],
            )
        },
        "/v1/webrtc": {
            "post": operation(
                "A WebRTC offer; events come on its data channel",
                answers({"application/json": ANSWER}, statuses=unknown),
                requestBody=body(OFFER),
            )
        },
    }
