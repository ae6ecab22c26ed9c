"""Jobs and the history in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from rechka.formats import FORMATS
from rechka.server.describe.openapi import ALWAYS, FILE, answers, body, form, operation, query
from rechka.server.describe.schemas import COUNT, FLAG, SECONDS, SHARE, TEXT, Schema, listed, nullable, record, ref
from rechka.server.routes.history import KINDS, MAX_QUERY
from rechka.server.routes.jobs import MAX_NAME, MAX_PAGE, MEDIA, PAGE
from rechka.server.store.records import STATES

TIME: Schema = {"type": "string", "format": "date-time"}
STATE: Schema = {"type": "string", "enum": list(STATES)}
CHANNELS: Schema = {"type": "string", "enum": ["mix", "split"]}
RESULT: Schema = {"oneOf": [ref("JobTranscript"), {"type": "null"}]}
_JOB: dict[str, Schema] = {
    "id": TEXT, "status": STATE, "progress": SHARE, "created": TIME, "started": nullable(TIME),
    "finished": nullable(TIME), "model": TEXT, "name": TEXT, "source": {"type": "string", "enum": ["upload", "url"]},
    "url": nullable(TEXT), "size": COUNT, "duration": nullable(SECONDS), "attempts": COUNT, "channels": CHANNELS,
    "hotwords": {"type": "object"}, "pause": nullable(SECONDS), "punctuate": FLAG, "callback_url": nullable(TEXT),
    "error": {"oneOf": [ref("Error"), {"type": "null"}]}, "owner": TEXT, "result": ref("JobTranscript"),
}  # fmt: skip
_LINE: dict[str, Schema] = {
    "id": TEXT, "kind": {"type": "string", "enum": list(KINDS)}, "created": TIME, "duration": SECONDS, "model": TEXT,
    "name": TEXT, "has_text": FLAG, "owner": TEXT,
}  # fmt: skip
_PART = record({"text": TEXT, "hit": FLAG})
SCHEMAS: dict[str, Schema] = {
    "Job": record(_JOB, optional=("owner", "result"), about="owner is for those who see everybody's; docs/jobs.md"),
    "JobTranscript": record(
        {
            "model": TEXT, "language": TEXT, "duration": SECONDS, "text": TEXT, "segments": listed(ref("Segment")),
            "truncated": FLAG,
        },
        about="docs/formats.md; truncated: the recording broke off",
    ),
    "HistoryLine": record(
        {**_LINE, "at": nullable(SECONDS), "snippet": listed(_PART)},
        optional=("owner",),
        about="at and the parts with hit: where the words of the query are",
    ),
    "HistoryEntry": record({**_LINE, "result": RESULT}, optional=("owner",)),
}  # fmt: skip


def paths() -> dict[str, Any]:
    """The addresses."""
    return {**_jobs(), **_history()}


def _listing(item: str) -> Schema:
    return record(
        {"data": listed(ref(item)), "next": nullable(TEXT)}, about="next: for the query's after; null: the end"
    )


def _answers(good: dict[str, Schema], *more: int, status: str = "200") -> dict[str, Any]:
    found = answers(good, statuses=(*ALWAYS, *more))
    found[status] = found.pop("200")
    return found


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[a-z]+_[0-9a-f]+$"}}
_LIMIT = query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE})
_AFTER = query("after", TEXT, "next of the page before")
_FORMAT = query("format", {"type": "string", "enum": list(FORMATS), "default": "json"})
_RENDERED: dict[str, Schema] = {**dict.fromkeys(MEDIA.values(), TEXT), "application/json": ref("JobTranscript")}


def _jobs() -> dict[str, Any]:
    job: dict[str, Schema] = {"application/json": ref("Job")}
    fields: dict[str, Schema] = {
        "model": TEXT, "channels": {**CHANNELS, "default": "mix"}, "hotwords": listed(TEXT),
        "pause": {"type": "number", "exclusiveMinimum": 0}, "punctuate": {**FLAG, "default": False},
        "name": {"type": "string", "maxLength": MAX_NAME}, "callback_url": TEXT,
    }  # fmt: skip
    url = record({"url": TEXT, **fields}, optional=tuple(fields))
    content = {
        **form(fields)["content"],
        **body(url)["content"],
        "application/octet-stream": {"schema": FILE},
    }
    key = {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255}}
    created = _answers(job, 404, 409, status="202")
    created["200"] = {**created["202"], "description": "the same Idempotency-Key came before: the job it made"}
    gone = _answers(job, 404, status="202")
    gone["204"] = {"description": "it had ended, and is forgotten"}
    one = "/v1/jobs/{id}"
    return {
        "/v1/jobs": {
            "post": operation(
                "A recording for later; options of a raw body stand in the query",
                created,
                parameters=[key],
                requestBody={"required": True, "content": content},
            ),
            "get": operation(
                "The jobs, the newest first",
                _answers({"application/json": _listing("Job")}, 404),
                parameters=[query("status", STATE), _LIMIT, _AFTER],
            ),
        },
        one: {
            "get": operation("A job, with its result once it is done", _answers(job, 404), parameters=[_ID]),
            "delete": operation("Cancel a job that waits or runs, forget one that ended", gone, parameters=[_ID]),
        },
        f"{one}/result": {
            "get": operation("Its result in a format", _answers(_RENDERED, 404, 409), parameters=[_ID, _FORMAT])
        },
        f"{one}/retry": {
            "post": operation("Try again what failed", _answers(job, 404, 409, status="202"), parameters=[_ID])
        },
    }


def _history() -> dict[str, Any]:
    one = "/v1/history/{id}"
    gone = _answers({"application/json": TEXT}, 404, status="204")
    gone["204"] = {"description": "forgotten, here and as a job"}
    search = query("q", {"type": "string", "maxLength": MAX_QUERY}, 'words in any form, "in a row", beginn*')
    kind = query("kind", {"type": "string", "enum": list(KINDS)})
    return {
        "/v1/history": {
            "get": operation(
                "What was recognised, the newest first",
                _answers({"application/json": _listing("HistoryLine")}, 404),
                parameters=[search, kind, _LIMIT, _AFTER],
            )
        },
        one: {
            "get": operation("One of them", _answers({"application/json": ref("HistoryEntry")}, 404), parameters=[_ID]),
            "delete": operation("Forget it", gone, parameters=[_ID]),
        },
        f"{one}/result": {
            "get": operation("Its text in a format", _answers(_RENDERED, 404, 409), parameters=[_ID, _FORMAT])
        },
    }
