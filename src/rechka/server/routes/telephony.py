"""Telephone: sockets of Asterisk, FreeSWITCH and Twilio; ``/v1/calls``, where calls are announced and heard."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from rechka.engine.options import SessionOptions
from rechka.errors import BadRequest, RechkaError
from rechka.server.live import Socket, guarded
from rechka.server.service import Service
from rechka.server.telephony import chan_websocket, freeswitch, twilio
from rechka.server.telephony.calls import Call, Wish
from rechka.server.uploads import json_of
from rechka.server.wire import dumps, flag, hotwords, integer

FIELDS = ("tracks", "hotwords", "model", "partials")
MAX_AFTER = 1_000_000_000


def routes(service: Service) -> list[BaseRoute]:
    """All of them."""

    async def announce(request: Request) -> Response:
        principal = service.identify(request, "stream")
        fields = await json_of(request)
        if unknown := set(fields) - set(FIELDS):
            raise BadRequest(f"unknown field {sorted(unknown)[0][:40]!r}", remedy=f"known: {', '.join(FIELDS)}")
        tracks, model = fields.get("tracks", ["caller"]), fields.get("model")
        if not isinstance(tracks, list) or not all(isinstance(track, str) for track in tracks):
            raise BadRequest("tracks must be a list of names")
        if not isinstance(model, (str, type(None))):
            raise BadRequest("model must be a text")
        words = hotwords(fields.get("hotwords") or {})
        await service.engine(model).check(SessionOptions(hotwords=words))  # told now, not when the telephone rings
        wish = Wish(principal, model, words, flag(fields.get("partials", True), "partials"))
        return JSONResponse(service.calls.announce(wish, tracks).to_dict(), 201)

    async def several(request: Request) -> Response:
        principal = service.identify(request, "stream")
        return JSONResponse(
            {"data": [{**call.to_dict(), "transcript": None} for call in service.calls.list(principal)]}
        )

    async def one(request: Request) -> Response:
        return JSONResponse(_call(request).to_dict())

    async def events(request: Request) -> Response:
        call, after = _call(request), _after(request)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_blocks(call, after), media_type="text/event-stream", headers=headers)

    async def listen(websocket: WebSocket) -> None:
        socket = Socket(websocket, service)

        async def show(error: RechkaError) -> None:
            await socket.send({"type": "error", "fatal": True, **error.to_dict()})

        async with guarded(socket, show):
            await socket.accept()
            call, after = _call(websocket), _after(websocket)
            async with contextlib.aclosing(call.listen(after)) as told:
                async for number, message in told:
                    await socket.send({"event": number, **(message or {"type": "waiting"})})
            await socket.close()

    def _call(connection: HTTPConnection) -> Call:
        return service.calls.get(connection.path_params["id"], service.identify(connection, "stream"))

    async def asterisk(websocket: WebSocket) -> None:
        await chan_websocket.serve(service, websocket)

    async def media_bug(websocket: WebSocket) -> None:
        await freeswitch.serve(service, websocket)

    async def media_streams(websocket: WebSocket) -> None:
        await twilio.serve(service, websocket)

    return [
        WebSocketRoute("/v1/asterisk", asterisk),
        WebSocketRoute("/v1/freeswitch", media_bug),
        WebSocketRoute("/v1/twilio", media_streams),
        Route("/v1/calls", announce, methods=["POST"]),
        Route("/v1/calls", several, methods=["GET"]),
        Route("/v1/calls/{id}", one, methods=["GET"]),
        Route("/v1/calls/{id}/events", events, methods=["GET"]),
        WebSocketRoute("/v1/calls/{id}/events", listen),
    ]


def _after(connection: HTTPConnection) -> int:
    """The number of the last event that was seen; browsers send it by themselves when they come back."""
    text: Any = connection.headers.get("last-event-id") or connection.query_params.get("after") or 0
    after = integer(text, "after")
    if not 0 <= after <= MAX_AFTER:
        raise BadRequest(f"after must be from 0 to {MAX_AFTER}, got {after}")
    return after


async def _blocks(call: Call, after: int) -> AsyncIterator[str]:
    """Server-sent events; a partial has no number, so that nobody comes back after one."""
    async with contextlib.aclosing(call.listen(after)) as told:
        async for number, message in told:
            if message is None:
                yield ": waiting\n\n"
            else:
                head = "" if message["type"] == "partial" else f"id: {number}\n"
                yield f"{head}data: {dumps(message)}\n\n"
