"""The history: ``/v1/history``. docs/jobs.md describes every answer."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rechka.errors import BadRequest, Conflict, NoSuchThing
from rechka.server.auth import Principal
from rechka.server.jobs import Jobs
from rechka.server.jobs.manager import scope_of
from rechka.server.jobs.shape import entry_dict
from rechka.server.routes.jobs import name_path, page_of, rendered
from rechka.server.service import Service
from rechka.server.store.records import Entry
from rechka.server.store.words import Marker, parse

MAX_QUERY = 1000
KINDS = ("job", "live")


def routes(service: Service) -> list[BaseRoute]:
    """``/v1/history``, ``/v1/history/{id}`` and its ``/result``."""

    async def several(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        query = request.query_params
        text, kind = query.get("q", ""), query.get("kind")
        if len(text) > MAX_QUERY:
            raise BadRequest(f"q has at most {MAX_QUERY} letters, got {len(text)}")
        if kind is not None and kind not in KINDS:
            raise BadRequest(f"kind must be one of {', '.join(KINDS)}, got {kind[:40]!r}")
        terms, limit = parse(text), page_of(query)
        if text.strip() and not terms:
            raise BadRequest("q has no word to look for")
        found = await jobs.call(
            jobs.store.entries, scope_of(principal), terms=terms, kind=kind, after=query.get("after"), limit=limit
        )
        marker, data = Marker(terms), []
        for line in found:  # one transcript at a time: they may be long
            entry = await jobs.call(jobs.store.entry, line.id, scope_of(principal)) if line.has_text else line
            if entry is not None:  # it was forgotten just now
                data.append(await asyncio.to_thread(_line, entry, marker, owner=principal.may("admin")))
        return JSONResponse({"data": data, "next": found[-1].id if len(found) == limit else None})

    async def one(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        entry = await _entry(jobs, principal, request)
        shown = {**entry_dict(entry, owner=principal.may("admin")), "result": entry.result}
        return await asyncio.to_thread(JSONResponse, shown)

    async def result(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        entry = await _entry(jobs, principal, request)
        if entry.result is None:
            raise Conflict("the history has no text of it", remedy="texts are kept with history = on")
        form = request.query_params.get("format", "json")
        return await asyncio.to_thread(rendered, entry.result, form, entry.id)

    async def remove(request: Request) -> Response:
        principal, jobs = _enter(service, request)
        id = request.path_params["id"]
        if not await jobs.call(jobs.store.delete, id, scope_of(principal)):
            raise _unknown(id)
        jobs.spool.remove(id)
        return Response(status_code=204)

    return [
        Route("/v1/history", several, methods=["GET"]),
        Route("/v1/history/{id}", one, methods=["GET"]),
        Route("/v1/history/{id}", remove, methods=["DELETE"]),
        Route("/v1/history/{id}/result", result, methods=["GET"]),
    ]


def _enter(service: Service, request: Request) -> tuple[Principal, Jobs]:
    name_path(request)
    principal = service.identify(request, "history")
    if service.jobs is None or service.settings.history == "off":
        raise NoSuchThing("this server keeps no history", remedy="set data_dir and history")
    return principal, service.jobs


async def _entry(jobs: Jobs, principal: Principal, request: Request) -> Entry:
    id = request.path_params["id"]
    entry = await jobs.call(jobs.store.entry, id, scope_of(principal))
    if entry is None:
        raise _unknown(id)
    return entry


def _line(entry: Entry, marker: Marker, *, owner: bool) -> dict[str, Any]:
    """A line of a list: with its beginning, or with what was searched for and where."""
    shown = entry_dict(entry, owner=owner)
    if entry.result is None:
        return {**shown, "at": None, "snippet": []}
    at, text = marker.place(entry.result)
    return {**shown, "at": at, "snippet": marker.snippet(text)}


def _unknown(id: str) -> NoSuchThing:
    return NoSuchThing(f"the history has no {id[:80]!r}", remedy="it may be too old, or another key's")
