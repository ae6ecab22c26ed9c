"""The server that many Russian installations run today (Sanich137/ASR_FastAPI_WS_RU): its four addresses.

``WS /ws``, ``POST /post_file``, ``POST /post_one_step_req``, ``GET /is_alive``; replies have its shape, and failures of
the POST routes have status 200 with ``success: false``, as its clients expect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from rechka.audio import open_source
from rechka.engine import Session, SessionEvent, SessionOptions
from rechka.engine.files import Reader
from rechka.errors import BadRequest, RechkaError
from rechka.server.auth import Principal
from rechka.server.live import GOING_AWAY, Socket, guarded
from rechka.server.service import Service
from rechka.server.uploads import form_of, json_of
from rechka.server.wire import flag, integer, loads
from rechka.types import Final, Segment

DEFAULT_RATE = 8000
SILENCE_S = 15.0
"""Audio without a word after which a client that waits for empty answers gets one; that server's old buffer length."""


def routes(service: Service) -> list[BaseRoute]:
    """The four addresses."""

    async def live(websocket: WebSocket) -> None:
        socket = Socket(websocket, service)

        async def show(error: RechkaError) -> None:
            await socket.send(_message(None, error=str(error), last=True))

        async with guarded(socket, show):
            await socket.accept()
            await _Live(service, socket, service.identify(websocket, "stream")).run()

    @_shown
    async def explain(_: Request) -> Response:
        raise BadRequest("this is a WebSocket", remedy="connect with ws:// and send config, audio, eof")

    @_shown
    async def post_file(request: Request) -> Response:
        principal = service.identify(request, "files")
        async with form_of(request) as form:
            if form.file is None:
                raise BadRequest("the form has no file", remedy="send the recording in the field `file`")
            return await _answer(service, principal, form.file, form.fields)

    @_shown
    async def post_url(request: Request) -> Response:
        principal = service.identify(request, "files")
        fields = await json_of(request)
        url = fields.get("AudioFileUrl")
        if not isinstance(url, str):
            raise BadRequest("AudioFileUrl must be the address of a recording")
        async with service.fetched(url) as file:
            return await _answer(service, principal, file, fields)

    async def is_alive(_: Request) -> Response:
        busy = sum(engine.active for engine in service.engines.values())
        return JSONResponse(
            {
                "error": not service.ready,
                "error_description": None if service.ready else "busy or about to stop",
                "data": "is running",
                "state": "in_work" if busy else "idle",
                "tasks_in_work": busy,
                "free_memory_mb": None,
                "gpu_load_percent": None,
                "temperature_celsius": None,
            }
        )

    return [
        WebSocketRoute("/ws", live),
        Route("/ws", explain, methods=["POST"]),
        Route("/post_file", post_file, methods=["POST"]),
        Route("/post_one_step_req", post_url, methods=["POST"]),
        Route("/is_alive", is_alive),
    ]


def _shown(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    @wraps(endpoint)
    async def wrapped(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RechkaError as error:
            body = {"success": False, "error_description": str(error), "raw_data": {}, "sentenced_data": {}, "data": {}}
            return JSONResponse(body)

    return wrapped


async def _answer(service: Service, principal: Principal, source: Any, fields: Any) -> Response:
    """A recording, its channels apart unless ``make_mono``."""
    mono = flag(fields.get("make_mono", False), "make_mono")
    dialogue = flag(fields.get("do_dialogue", False), "do_dialogue")
    keep = flag(fields.get("keep_raw", True), "keep_raw")
    transcript = await service.transcribe(principal, source, split=not mono)
    raw = {
        f"channel_{channel + 1}": [{"data": _data(segment)} for segment in segments]
        for channel, segments in _channels(transcript.segments).items()
    }
    body = {
        "success": True,
        "error_description": None,
        "raw_data": raw if keep else {},
        "data": raw if keep else {},  # the name that its first version used
        "sentenced_data": _sentences(transcript.segments) if dialogue else {},
    }
    return JSONResponse(body)


def _channels(segments: Sequence[Segment]) -> dict[int, list[Segment]]:
    found: dict[int, list[Segment]] = {0: []}
    for segment in segments:
        found.setdefault(segment.channel, []).append(segment)
    return dict(sorted(found.items()))


def _sentences(segments: Sequence[Segment]) -> dict[str, Any]:
    """All channels as one dialogue, in order of time."""
    ordered = sorted(segments, key=lambda segment: (segment.start, segment.channel))
    entries = [
        {
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "text": segment.text,
            "speaker": f"channel_{segment.channel + 1}",
        }
        for segment in ordered
    ]
    return {
        "raw_text_sentenced_recognition": "\n".join(f"{entry['speaker']}: {entry['text']}" for entry in entries),
        "list_of_sentenced_recognitions": entries,
        "full_text_only": [" ".join(s.text for s in part) for part in _channels(segments).values()],
        "err_state": None,
    }


def _data(segment: Segment) -> dict[str, Any]:
    words = [
        {
            "conf": 1.0 if word.confidence is None else round(word.confidence, 3),
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "word": word.text,
        }
        for word in segment.words
    ]
    return {"result": words, "text": segment.text}


def _message(
    segment: Segment | None, *, error: str | None = None, last: bool = False, sentences: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "channel_name": None if segment is None else f"channel_{segment.channel + 1}",
        "silence": segment is None,
        "data": "" if segment is None else _data(segment),
        "error": error,
        "last_message": last,
        "sentenced_data": sentences or {},
    }


class _Live:
    """One WebSocket. A phrase is sent as soon as it is over; there are no partials in this protocol."""

    def __init__(self, service: Service, socket: Socket, principal: Principal) -> None:
        self.service, self.socket, self.principal = service, socket, principal
        self.rate, self.empty, self.dialogue, self.containers = DEFAULT_RATE, True, False, False
        self.told: list[Segment] = []
        self.silent_since = 0.0

    async def run(self) -> None:
        session: Session | None = None
        try:
            while True:
                message = await self.socket.receive()
                if isinstance(message, str):
                    fields = loads(message)
                    if "eof" in fields:
                        break
                    config = fields.get("config")
                    if isinstance(config, dict) and session is None:
                        self._configure(config)
                    continue
                if session is None:
                    options = SessionOptions(sample_rate=None if self.containers else self.rate, partials=False)
                    session = await self.service.open(self.principal, options)
                if session.drained:
                    break
                await (self._container(session, message) if self.containers else session.feed(message))
                await session.settle()
                await self._tell(session.take(), session)
            await self._finish(session)
        finally:
            if session is not None:
                session.cancel()

    def _configure(self, config: dict[str, Any]) -> None:
        if "sample_rate" in config:
            self.rate = integer(config["sample_rate"], "sample_rate")
        self.empty = flag(config.get("wait_null_answers", True), "wait_null_answers")
        self.dialogue = flag(config.get("do_dialogue", False), "do_dialogue")
        self.containers = config.get("audio_format", "pcm16") != "pcm16"

    async def _finish(self, session: Session | None) -> None:
        if session is not None:
            session.finish()
            async for events in session.batches():
                await self._tell(events, None)
        sentences = _sentences(self.told) if self.dialogue else None
        await self.socket.send(_message(None, last=True, sentences=sentences))
        await self.socket.close(GOING_AWAY if session is not None and session.drained else 1000)

    async def _tell(self, events: Sequence[SessionEvent], session: Session | None) -> None:
        for event in events:
            if isinstance(event, Final):
                self.told.append(event.segment)
                self.silent_since = event.segment.end
                await self.socket.send(_message(event.segment))
        if self.empty and session is not None and session.done_s - self.silent_since >= SILENCE_S:
            self.silent_since = session.done_s
            await self.socket.send(_message(None))

    async def _container(self, session: Session, data: bytes) -> None:
        """A message that is a whole recording."""
        longest = self.service.settings.max_file_s
        source = await asyncio.to_thread(
            lambda: open_source(data, sample_rate=session.rate, channels="mix", max_seconds=longest)
        )
        reader = Reader(source)
        try:
            while (chunk := await asyncio.to_thread(reader.next)) is not None:
                await session.feed(chunk[0].samples)
        finally:
            await asyncio.shield(asyncio.to_thread(reader.close))
