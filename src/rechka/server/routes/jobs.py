"""Jobs: ``/v1/jobs``. docs/jobs.md describes every answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any

from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rechka.engine import SessionOptions
from rechka.errors import BadRequest, Conflict, Forbidden, NoSuchThing
from rechka.formats import FORMATS, render
from rechka.server.auth import Principal
from rechka.server.history import transcript_of
from rechka.server.jobs import Jobs
from rechka.server.jobs.manager import key_of
from rechka.server.jobs.shape import job_dict
from rechka.server.service import Service
from rechka.server.store.records import STATES, Job
from rechka.server.uploads import form_of, json_of
from rechka.server.wire import flag, hotwords, integer, loads, number

FIELDS = ("model", "channels", "hotwords", "pause", "punctuate", "name", "callback_url")
MAX_NAME = 200
MAX_PAGE = 100
PAGE = 20
PIECE = 1 << 20
MEDIA = {
    "txt": "text/plain",
    "json": "application/json",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "tsv": "text/tab-separated-values",
    "ctm": "text/plain",
}


def routes(service: Service) -> list[BaseRoute]:
    """``/v1/jobs``, ``/v1/jobs/{id}``, its ``/result`` and ``/retry``."""

    async def create(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        key = key_of(request.headers.get("idempotency-key"))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        async with contextlib.AsyncExitStack() as stack:
            if kind == "multipart/form-data":
                form = await stack.enter_async_context(form_of(request))
                fields = _of_form(form.fields)
                if form.file is None:
                    raise BadRequest("the form has no file", remedy="send the recording in the field `file`")
                audio: AsyncIterator[bytes] | None = _pieces(form.file)
                upload = form.fields.get("file")
                fields.setdefault("name", (upload.filename or "") if isinstance(upload, UploadFile) else "")
                url = ""
            elif kind == "application/json":
                fields, audio = await json_of(request), None
                url = _url(service, fields.pop("url", None))
            else:
                fields, audio, url = _of_query(request.query_params), request.stream(), ""
            draft, callback = _draft(service, fields, url=url, key=key)
            job, new = await jobs.submit(principal, draft, audio, callback=callback)
        headers = {"Location": f"/v1/jobs/{job.id}"} | ({} if new else {"Idempotent-Replayed": "true"})
        return JSONResponse(job_dict(jobs.current(job)), 202 if new else 200, headers)

    async def several(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        query = request.query_params
        state = query.get("status")
        if state is not None and state not in STATES:
            raise BadRequest(f"status must be one of {', '.join(STATES)}, got {state[:40]!r}")
        limit, admin = page_of(query), principal.may("admin")
        found = await jobs.list(principal, state=state, after=query.get("after"), limit=limit)
        data = [job_dict(job, owner=admin) for job in found]
        return JSONResponse({"data": data, "next": found[-1].id if len(found) == limit else None})

    async def one(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        job = await jobs.get(principal, request.path_params["id"])
        result = await jobs.call(jobs.store.result, job.id) if job.state == "done" else None
        shown = job_dict(job, result, owner=principal.may("admin"))
        return await asyncio.to_thread(JSONResponse, shown)  # hours of words take a while

    async def remove(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        job = await jobs.cancel(principal, request.path_params["id"])
        return Response(status_code=204) if job is None else JSONResponse(job_dict(jobs.current(job)), 202)

    async def result(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        job = await jobs.get(principal, request.path_params["id"])
        found = await jobs.call(jobs.store.result, job.id) if job.state == "done" else None
        if found is None:
            raise Conflict(f"the job is {job.state}, there is no result", remedy="wait until its status is done")
        return await asyncio.to_thread(rendered, found, request.query_params.get("format", "json"), job.id)

    async def retry(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        return JSONResponse(job_dict(await jobs.retry(principal, request.path_params["id"])), 202)

    return [
        Route("/v1/jobs", create, methods=["POST"]),
        Route("/v1/jobs", several, methods=["GET"]),
        Route("/v1/jobs/{id}", one, methods=["GET"]),
        Route("/v1/jobs/{id}", remove, methods=["DELETE"]),
        Route("/v1/jobs/{id}/result", result, methods=["GET"]),
        Route("/v1/jobs/{id}/retry", retry, methods=["POST"]),
    ]


def _enter(service: Service, request: Request) -> tuple[Principal, Jobs]:
    name_path(request)
    principal = service.identify(request, "jobs")
    if service.jobs is None:
        raise NoSuchThing("this server keeps no jobs", remedy="set data_dir, or send recordings to be answered at once")
    return principal, service.jobs


def name_path(request: Request) -> None:
    """Count and log the request under its pattern: names of jobs would make a metric each."""
    parts = request.scope["path"].split("/")  # "", "v1", "jobs", the name, what of it
    parts[3:4] = ["{id}"] if "id" in request.path_params else []
    request.scope["route_path"] = "/".join(parts)


def page_of(query: QueryParams) -> int:
    """How many things a list shall have.

    Raises:
        BadRequest: no number from 1 to ``MAX_PAGE``.
    """
    limit = integer(query.get("limit", PAGE), "limit")
    if not 1 <= limit <= MAX_PAGE:
        raise BadRequest(f"limit must be from 1 to {MAX_PAGE}, got {limit}")
    return limit


def rendered(result: Mapping[str, Any], form: str, name: str) -> Response:
    """A transcript in one of the formats.

    Raises:
        BadRequest: an unknown format.
    """
    if form not in FORMATS:
        raise BadRequest(f"format must be one of {', '.join(FORMATS)}, got {form[:40]!r}")
    if form == "json":
        return JSONResponse(dict(result))
    text = render(transcript_of(result), form, recording=name)
    return Response(text, media_type=f"{MEDIA[form]}; charset=utf-8")


def _of_form(form: FormData) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name == "file":
            continue
        if not isinstance(value, str):
            raise BadRequest(f"the field {name[:40]!r} is no text")
        _put(fields, name, value)
    return fields


def _of_query(query: QueryParams) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in query.multi_items():
        if name not in ("token", "api_key", "access_token"):
            _put(fields, name, value)
    return fields


def _put(fields: dict[str, Any], name: str, value: str) -> None:
    """Hotwords may come again and again, or as one JSON object; of all else the last one counts."""
    name = name.removesuffix("[]")
    if name == "hotwords" and value.lstrip().startswith("{"):
        fields[name] = loads(value)
    elif name == "hotwords":
        before = fields.get(name, [])
        fields[name] = [*(before if isinstance(before, list) else []), value]
    else:
        fields[name] = value


def _draft(service: Service, fields: Mapping[str, Any], *, url: str, key: str | None) -> tuple[Job, str]:
    """What was asked for, and its callback.

    Raises:
        BadRequest, UsageError, NoSuchThing: an unknown field, or a value that cannot be.
    """
    if unknown := set(fields) - set(FIELDS):
        raise BadRequest(f"unknown field {sorted(unknown)[0][:40]!r}", remedy=f"known: {', '.join(('url', *FIELDS))}")
    texts = {name: fields.get(name) or "" for name in ("model", "channels", "name", "callback_url")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BadRequest(f"{name} must be a text")
    channels = texts["channels"] or "mix"
    if channels not in ("mix", "split"):
        raise BadRequest(f"channels must be mix or split, got {channels[:40]!r}")
    pause = None if fields.get("pause") in (None, "") else number(fields["pause"], "pause")
    words = hotwords(fields.get("hotwords") or [])
    SessionOptions(hotwords=words, min_silence_s=pause)  # says what cannot be
    marks = flag(fields.get("punctuate") or False, "punctuate")
    options = {"channels": channels, "hotwords": words, "pause": pause, "punctuate": marks}
    engine = service.engine(texts["model"])
    name = next(known for known, found in service.engines.items() if found is engine)
    draft = Job(
        id="", owner="", state="queued", created=0.0, ready=0.0, model=name, options=options,
        name=_label(texts["name"]), url=url, key=key,
    )  # fmt: skip
    return draft, texts["callback_url"]


def _label(name: str) -> str:
    """A name for showing: no folders, nothing that does not print."""
    bare = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in bare if letter.isprintable())[:MAX_NAME].strip()


def _url(service: Service, url: Any) -> str:
    if not isinstance(url, str) or not url:
        raise BadRequest("the JSON has no url", remedy="name the recording's address, or send the recording itself")
    if service.fetcher is None:
        raise Forbidden("this server fetches no addresses", remedy="upload the recording instead")
    service.fetcher.guard.examine(url)
    return url


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """A file, read beside the loop."""
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece
