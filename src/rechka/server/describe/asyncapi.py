"""The AsyncAPI document of the sockets: the native protocol in full, the others with where their authors tell them."""

from __future__ import annotations

from typing import Any

from rechka import __version__
from rechka.engine.options import MAX_CHANNELS, RATES, WIDTHS
from rechka.server.describe.schemas import CHANNEL, COMMON, COUNT, FLAG, SECONDS, TEXT, Schema, listed, record, ref

OTHERS = {
    "/": ("vosk-server", "https://alphacephei.com/vosk/server"),
    "/vosk": ("vosk-server", "https://alphacephei.com/vosk/server"),
    "/v1/listen": ("Deepgram, live", "https://developers.deepgram.com/reference/speech-to-text/listen-streaming"),
    "/v1/realtime": ("OpenAI Realtime, transcription", "https://platform.openai.com/docs/guides/realtime"),
    "/api/ws": ("T-one's demonstration", "https://github.com/voicekit-team/T-one"),
    "/v1/asterisk": ("Asterisk, chan_websocket", "https://docs.asterisk.org/Configuration/Channel-Drivers/WebSocket/"),
    "/v1/freeswitch": ("FreeSWITCH, mod_audio_stream and _fork", "https://github.com/amigniter/mod_audio_stream"),
    "/v1/twilio": ("Twilio Media Streams", "https://www.twilio.com/docs/voice/media-streams/websocket-messages"),
    "/v1/calls/{id}/events": (
        "What is said in a call; docs/telephony.md",
        "https://html.spec.whatwg.org/#server-sent-events",
    ),
    "/ws": ("ASR_FastAPI_WS_RU", "https://github.com/gubernskyav/ASR_FastAPI_WS_RU"),
}
"""Sockets whose messages others define: path -> name and where."""


def kind(name: str) -> Schema:
    """The field that tells messages apart."""
    return {"const": name}


_WHERE: dict[str, Schema] = {"received": SECONDS, "done": SECONDS, "keep": SECONDS}
_SEGMENT: dict[str, Schema] = {
    "start": SECONDS, "end": SECONDS, "text": TEXT, "channel": CHANNEL, "speaker": {"type": ["string", "null"]},
    "words": listed(ref("Word")), "labels": {"type": "object"},
}  # fmt: skip
_START: dict[str, Schema] = {
    "sample_rate": {"type": "integer", "minimum": RATES[0], "maximum": RATES[1]},
    "encoding": {"type": "string", "enum": list(WIDTHS)},
    "channels": {"type": "integer", "minimum": 1, "maximum": MAX_CHANNELS},
    "mix": FLAG,
    "interleaved": FLAG,
    "partials": FLAG,
    "punctuate": FLAG,
    "pause": SECONDS,
    "start": SECONDS,
    "model": TEXT,
    "hotwords": {"oneOf": [listed(TEXT), {"type": "object", "additionalProperties": {"type": "number"}}]},
}

CLIENT: dict[str, Schema] = {
    "start": record({"type": kind("start"), **_START}, optional=tuple(_START), about="first, or not at all"),
    "flush": record({"type": kind("flush")}, about="end the open phrase now"),
    "keepalive": record({"type": kind("keepalive")}),
    "finish": record({"type": kind("finish")}, about="no more audio"),
}
SERVER: dict[str, Schema] = {
    "ready": record(
        {
            "type": kind("ready"), "protocol": {"const": 1}, "session": TEXT, "model": TEXT, "sample_rate": COUNT,
            "encoding": TEXT, "channels": COUNT, "start": SECONDS,
        }
    ),
    "speech_start": record({"type": kind("speech_start"), "time": SECONDS, "channel": CHANNEL}),
    "speech_end": record({"type": kind("speech_end"), "time": SECONDS, "channel": CHANNEL}),
    "partial": record(
        {"type": kind("partial"), "stable": TEXT, "unstable": TEXT, "start": SECONDS, "channel": CHANNEL},
        about="`stable` will not change",
    ),
    "final": record({"type": kind("final"), **_SEGMENT, "keep": SECONDS}),
    "refined": record({"type": kind("refined"), **_SEGMENT}, about="a better text for the final of the same start"),
    "flushed": record({"type": kind("flushed"), "time": SECONDS}),
    "cursor": record({"type": kind("cursor"), **_WHERE}, about="audio before `keep` is never needed again"),
    "done": record({"type": kind("done"), "duration": SECONDS}, about="the last one"),
    "going_away": record({"type": kind("going_away"), **_WHERE}, about="go on with another server from `keep`"),
    "error": record(
        {
            "type": kind("error"), "code": TEXT, "message": TEXT, "remedy": TEXT, "fatal": FLAG,
            "retry_after": SECONDS,
        },
        optional=("retry_after",),
    ),
}  # fmt: skip
"""Messages of the native protocol."""


def asyncapi() -> dict[str, Any]:
    """The document, version 3."""
    named = {**{f"client_{name}": one for name, one in CLIENT.items()}, **SERVER}
    messages: dict[str, Any] = {name: {"name": name, "payload": schema} for name, schema in named.items()}
    messages["audio"] = {"name": "audio", "contentType": "application/octet-stream", "payload": {"type": "string"}}
    channels: dict[str, Any] = {
        "native": {
            "address": "/v1/stream",
            "title": "rechka",
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        }
    }
    operations: dict[str, Any] = {
        "send": _operation("send", "native", ["audio", *(f"client_{name}" for name in CLIENT)]),
        "receive": _operation("receive", "native", list(SERVER)),
    }
    for path, (title, where) in OTHERS.items():
        name = path.strip("/").replace("/", "_") or "root"
        channels[name] = {"address": path, "title": title, "externalDocs": {"url": where}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "rechka", "version": __version__, "description": "Live speech to text; docs/server.md"},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": {"Word": COMMON["Word"]}},
    }


def _operation(action: str, channel: str, messages: list[str]) -> dict[str, Any]:
    """Seen from the client, whom the document is for."""
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }
