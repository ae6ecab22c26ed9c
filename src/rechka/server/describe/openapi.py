"""The OpenAPI document of the HTTP addresses; names and limits come from the code that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rechka import __version__
from rechka.engine.options import MAX_CHANNELS, RATES
from rechka.server.describe.schemas import (
    CHANNEL,
    COMMON,
    COUNT,
    FLAG,
    SECONDS,
    SHARE,
    TEXT,
    Schema,
    listed,
    nullable,
    record,
    ref,
)
from rechka.server.keys import SCOPES
from rechka.server.routes.deepgram import ENCODINGS
from rechka.server.routes.openai_rest import FORMATS

NUMBER_TEXT: Schema = {"type": "number"}
FILE: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
STATUSES = {
    400: "a parameter or the audio cannot be used", 401: "no key, or a wrong one", 403: "not allowed",
    404: "no such thing", 408: "nothing came for too long", 409: "not in this state",
    413: "too large", 429: "beyond the quota or the rate",
    500: "a fault inside", 503: "no room now, or about to stop", 507: "no room on the disk",
}  # fmt: skip
ALWAYS = (400, 401, 403, 408, 413, 429, 500, 503, 507)


def openapi(*, keys: bool) -> dict[str, Any]:
    """The document.

    Args:
        keys: whether requests need a key here.
    """
    from rechka.server.describe import calls, jobs  # they build on this module

    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "rechka", "version": __version__,
            "description": "Russian speech recognition. Sockets are described in /asyncapi.json.",
        },
        "paths": {**_health(), **_openai(), **_deepgram(), **_original(), **jobs.paths(), **calls.paths(), **_page()},
        "components": {
            "schemas": {**COMMON, **_SCHEMAS, **jobs.SCHEMAS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }  # fmt: skip
    if keys:
        document["security"] = [{"bearer": []}, {"key": []}]
    return document


def answers(
    good: Mapping[str, Schema], *, error: Schema | None = None, statuses: Sequence[int] = ALWAYS, about: str = "done"
) -> dict[str, Any]:
    """Responses of an operation: one good one by media type, and errors in one shape."""
    found: dict[str, Any] = {
        "200": {"description": about, "content": {kind: {"schema": schema} for kind, schema in good.items()}}
    }
    shape = error or record({"error": ref("Error")})
    for status in statuses:
        content = {"application/json": {"schema": shape}}
        found[str(status)] = {"description": STATUSES[status], "content": content}
    return found


def operation(summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An operation."""
    return {"summary": summary, "responses": responses, **more}


def query(name: str, schema: Schema, about: str = "") -> dict[str, Any]:
    """A parameter of the query."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": about}


def form(fields: Mapping[str, Schema], needed: Sequence[str] = ("file",)) -> dict[str, Any]:
    """A multipart body with a recording."""
    schema = {**record({"file": FILE, **fields}), "required": list(needed)}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def body(schema: Schema, *, needed: bool = True) -> dict[str, Any]:
    """A JSON body."""
    return {"required": needed, "content": {"application/json": {"schema": schema}}}


PUBLIC: dict[str, Any] = {"security": []}


def _health() -> dict[str, Any]:
    status = {"status": TEXT, "version": TEXT, "models": listed(TEXT)}
    state = record(status, optional=("version", "models"))
    ready = answers({"application/json": state}, statuses=())
    ready["503"] = {"description": "not now", "content": {"application/json": {"schema": state}}}
    token = record(
        {"scopes": listed({"type": "string", "enum": list(SCOPES)}), "seconds": {"type": "integer", "minimum": 1}},
        optional=("scopes", "seconds"),
    )
    given = record({"token": TEXT, "expires_at": {"type": "integer"}, "scopes": listed(TEXT)})
    documents = answers({"application/json": {"type": "object"}}, statuses=())
    return {
        "/livez": {"get": operation("The process lives", answers({"application/json": state}, statuses=()), **PUBLIC)},
        "/readyz": {"get": operation("New streams are taken", ready, **PUBLIC)},
        "/metrics": {"get": operation("Numbers for Prometheus", answers({"text/plain": TEXT}))},
        "/v1/token": {
            "post": operation(
                "A short-lived token, for a page or a phone",
                answers({"application/json": given}),
                requestBody=body(token, needed=False),
            )
        },
        "/openapi.json": {"get": operation("This document", documents, **PUBLIC)},
        "/asyncapi.json": {"get": operation("The same for sockets", documents, **PUBLIC)},
    }


def _openai() -> dict[str, Any]:
    problem = record({"error": record({"message": TEXT, "type": TEXT, "code": TEXT, "param": nullable(TEXT)})})
    fields = {
        "model": TEXT,
        "response_format": {"type": "string", "enum": list(FORMATS), "default": "json"},
        "stream": {**FLAG, "default": False},
        "timestamp_granularities[]": listed({"type": "string", "enum": ["word", "segment"]}),
        "keywords[]": listed({"type": "string", "description": "hotwords, WORD or WORD:BOOST"}),
        "language": TEXT,
        "prompt": TEXT,
        "temperature": NUMBER_TEXT,
    }
    good = {
        "application/json": ref("OpenAiTranscription"),
        "text/plain": TEXT,
        "application/x-subrip": TEXT,
        "text/vtt": TEXT,
        "text/event-stream": record({"data": TEXT}, about="data is JSON, and [DONE] at the end"),
    }
    models = record({"object": TEXT, "data": listed(ref("OpenAiModel"))})
    name = {"name": "name", "in": "path", "required": True, "schema": TEXT}
    either = {"anyOf": [problem, record({"error": ref("Error")})]}  # odd names match no route at all
    one = answers({"application/json": ref("OpenAiModel")}, error=either, statuses=(*ALWAYS, 404))
    return {
        "/v1/audio/transcriptions": {
            "post": operation(
                "A recording to text (OpenAI)",
                answers(good, error=problem, statuses=(*ALWAYS, 404)),
                requestBody=form(fields),
            )
        },
        "/v1/models": {"get": operation("The models (OpenAI)", answers({"application/json": models}, error=problem))},
        "/v1/models/{name}": {"get": operation("A model (OpenAI)", one, parameters=[name])},
        "/v1/realtime/client_secrets": {
            "post": operation(
                "A secret for a browser's Realtime session (OpenAI)",
                answers({"application/json": {"type": "object"}}, error=problem, statuses=(*ALWAYS, 404)),
                requestBody=body({"type": "object"}, needed=False),
            )
        },
    }


def _deepgram() -> dict[str, Any]:
    problem = record({"err_code": TEXT, "err_msg": TEXT, "request_id": TEXT})
    parameters = [
        query("model", TEXT),
        query("encoding", {"type": "string", "enum": list(ENCODINGS)}, "of raw samples; left out for files"),
        query("sample_rate", {"type": "integer", "minimum": RATES[0], "maximum": RATES[1]}),
        query("channels", {"type": "integer", "minimum": 1, "maximum": MAX_CHANNELS}),
        query("multichannel", FLAG),
        query("utterances", FLAG),
        query("keyterm", listed(TEXT), "hotwords, WORD or WORD:BOOST"),
        query("endpointing", TEXT, "milliseconds of pause that end a phrase, true or false"),
    ]
    content = {
        "application/octet-stream": {"schema": FILE},
        "application/json": {"schema": record({"url": TEXT})},
    }
    return {
        "/v1/listen": {
            "post": operation(
                "A recording to text (Deepgram)",
                answers({"application/json": ref("DeepgramAnswer")}, error=problem, statuses=(*ALWAYS, 404)),
                parameters=parameters,
                requestBody={"required": True, "content": content},
            )
        }
    }


def _original() -> dict[str, Any]:
    """Failures of that server come with status 200."""
    options = {"keep_raw": FLAG, "do_dialogue": FLAG, "make_mono": FLAG}
    good = {"application/json": ref("OriginalAnswer")}
    url = record({"AudioFileUrl": TEXT, **options}, optional=tuple(options))
    return {
        "/post_file": {
            "post": operation("A recording to text (ASR_FastAPI_WS_RU)", answers(good), requestBody=form(options))
        },
        "/post_one_step_req": {"post": operation("The same by its address", answers(good), requestBody=body(url))},
        "/is_alive": {
            "get": operation(
                "Whether it is busy", answers({"application/json": {"type": "object"}}, statuses=()), **PUBLIC
            )
        },
        "/ws": {
            "post": operation("How to use the socket", answers({"application/json": {"type": "object"}}), **PUBLIC)
        },
    }


def _page() -> dict[str, Any]:
    return {"/": {"get": operation("The web page", answers({"text/html": TEXT}, statuses=()), **PUBLIC)}}


_DEEPGRAM_WORD = record({"word": TEXT, "start": SECONDS, "end": SECONDS, "confidence": SHARE, "punctuated_word": TEXT})
_ALTERNATIVE = record({"transcript": TEXT, "confidence": SHARE, "words": listed(ref("DeepgramWord"))})
_UTTERANCE = record(
    {
        "start": SECONDS, "end": SECONDS, "confidence": SHARE, "channel": CHANNEL, "transcript": TEXT,
        "words": listed(ref("DeepgramWord")), "id": TEXT,
    }
)  # fmt: skip
_SCHEMAS: dict[str, Schema] = {
    "OpenAiModel": record({"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT}),
    "OpenAiTranscription": record(
        {
            "text": TEXT, "task": TEXT, "language": TEXT, "duration": SECONDS,
            "usage": record({"type": TEXT, "seconds": COUNT}),
            "segments": listed({"type": "object"}), "words": listed(ref("Word")),
        },
        optional=("task", "language", "duration", "segments", "words"),
        about="the longer forms have more fields",
    ),
    "DeepgramWord": _DEEPGRAM_WORD,
    "DeepgramAnswer": record(
        {
            "metadata": record(
                {"request_id": TEXT, "created": TEXT, "duration": SECONDS, "channels": COUNT, "models": listed(TEXT)}
            ),
            "results": record(
                {
                    "channels": listed(record({"alternatives": listed(_ALTERNATIVE)})),
                    "utterances": listed(_UTTERANCE),
                },
                optional=("utterances",),
            ),
        }
    ),
    "OriginalAnswer": record(
        {
            "success": FLAG, "error_description": nullable(TEXT), "raw_data": {"type": "object"},
            "data": {"type": "object"}, "sentenced_data": {"type": "object"},
        }
    ),
}  # fmt: skip
