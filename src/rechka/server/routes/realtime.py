"""OpenAI's Realtime API for transcription: WebSocket ``/v1/realtime`` and ``POST /v1/realtime/client_secrets``.

Every ``delta`` is text to append: only what is stable is sent, so nothing has to be taken back before ``completed``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from rechka.engine import Flushed, Session, SessionEvent, SessionOptions
from rechka.errors import BadRequest, RechkaError
from rechka.server.auth import Principal
from rechka.server.live import GOING_AWAY, Gone, Socket, guarded
from rechka.server.routes.openai_rest import error_dict, shown
from rechka.server.service import Service
from rechka.server.uploads import json_of
from rechka.server.wire import hotwords, integer, loads, number, retry_headers, status_of
from rechka.types import Final, Partial, SpeechEnd, SpeechStart

RATE = 24000
SHORTEST_S = 0.1
"""A commit of less audio is refused, as OpenAI has it."""
FORMATS = {"audio/pcm": "s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
OLD_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
SECRET_S = 600


def routes(service: Service) -> list[BaseRoute]:
    """``/v1/realtime`` and ``/v1/realtime/client_secrets``."""

    async def realtime(websocket: WebSocket) -> None:
        socket = Socket(websocket, service)

        async def show(error: RechkaError) -> None:
            if websocket.application_state is WebSocketState.CONNECTING:
                await socket.deny(status_of(error), {"error": error_dict(error)}, retry_headers(error))
            else:
                await socket.send(_event("error", error=error_dict(error)))

        async with guarded(socket, show):
            principal = service.identify(websocket, "stream")
            client = _Client(service, socket, principal, websocket.query_params.get("model"))
            await socket.accept()
            try:
                await client.run()
            finally:
                await client.leave()

    @shown
    async def client_secrets(request: Request) -> Response:
        principal = service.identify(request, "stream")
        wanted = await json_of(request)
        after = wanted.get("expires_after")
        seconds = integer(after.get("seconds", SECRET_S), "seconds") if isinstance(after, dict) else SECRET_S
        token, ends = service.auth.token(principal, seconds, ("stream",))
        session = wanted.get("session") if isinstance(wanted.get("session"), dict) else {"type": "transcription"}
        return JSONResponse({"value": token, "expires_at": ends, "session": session})

    return [
        WebSocketRoute("/v1/realtime", realtime),
        Route("/v1/realtime/client_secrets", client_secrets, methods=["POST"]),
    ]


def _event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "event_id": f"event_{secrets.token_hex(10)}", **fields}


@dataclass
class _Item:
    """A piece of speech that becomes an item of the conversation."""

    start: float
    id: str = field(default_factory=lambda: f"item_{secrets.token_hex(10)}")
    said: str = ""
    told: str = ""
    added: bool = False


@dataclass
class _Setup:
    """What ``session.update`` set."""

    format: dict[str, Any] = field(default_factory=lambda: {"type": "audio/pcm", "rate": RATE})
    transcription: dict[str, Any] = field(default_factory=dict)
    turns: dict[str, Any] | None = field(default_factory=lambda: {"type": "server_vad", "silence_duration_ms": 500})

    def options(self, start_s: float) -> SessionOptions:
        kind = self.format.get("type")
        if not isinstance(kind, str) or kind not in FORMATS:
            raise BadRequest(f"the format must be one of {', '.join(FORMATS)}, got {str(kind)[:40]!r}")
        rate = integer(self.format.get("rate", RATE), "rate") if kind == "audio/pcm" else 8000
        words = self.transcription.get("keywords") or {}
        pause = None
        if self.turns is not None and self.turns.get("type") == "server_vad":
            pause = number(self.turns.get("silence_duration_ms", 500), "silence_duration_ms") / 1000
        return SessionOptions(
            sample_rate=rate, encoding=FORMATS[kind], hotwords=hotwords(words), min_silence_s=pause, start_s=start_s
        )

    def to_dict(self, number_: str) -> dict[str, Any]:
        heard = {"format": self.format, "transcription": self.transcription or None, "turn_detection": self.turns}
        return {
            "type": "transcription",
            "id": number_,
            "object": "realtime.transcription_session",
            "audio": {"input": {**heard, "noise_reduction": None}},
            "include": None,
        }


class _Client:
    """One connection. Its session of the engine is opened with the first audio, when the format is known."""

    def __init__(self, service: Service, socket: Socket, principal: Principal, model: str | None) -> None:
        self.service, self.socket, self.principal, self.model = service, socket, principal, model
        self.id = f"sess_{secrets.token_hex(10)}"
        self.setup = _Setup()
        self.session: Session | None = None
        self.telling: asyncio.Task[None] | None = None
        self.item: _Item | None = None
        self.previous: str | None = None
        self.fed_s = self.committed_s = 0.0
        self.closed = 0  # items since the last commit

    async def run(self) -> None:
        await self.socket.send(_event("session.created", session=self.setup.to_dict(self.id)))
        while True:
            message = await self._next()
            if isinstance(message, bytes):
                raise BadRequest("messages are JSON texts, audio is base64 in input_audio_buffer.append")
            fields = loads(message)
            try:
                await self._hear(fields)
            except BadRequest as error:
                told = {**error_dict(error), "event_id": fields.get("event_id")}
                await self.socket.send(_event("error", error=told))

    async def leave(self) -> None:
        if self.session is not None:
            self.session.cancel()
        if self.telling is not None:
            self.telling.cancel()
            await asyncio.gather(self.telling, return_exceptions=True)

    async def _next(self) -> str | bytes:
        """The client's next message, unless the other direction ends first."""
        receiving = asyncio.create_task(self.socket.receive())
        waiting: set[asyncio.Task[Any]] = {receiving, *([self.telling] if self.telling else [])}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self.telling is not None and self.telling in done:
                self.telling.result()  # raises what went wrong, or Gone
            return await receiving
        finally:
            if not receiving.done():
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)

    async def _hear(self, fields: Mapping[str, Any]) -> None:
        kind = fields.get("type")
        if kind in ("session.update", "transcription_session.update"):
            self._update(fields.get("session"), old=kind != "session.update")
            reply = "session.updated" if kind == "session.update" else "transcription_session.updated"
            await self.socket.send(_event(reply, session=self.setup.to_dict(self.id)))
        elif kind == "input_audio_buffer.append":
            await self._append(fields.get("audio"))
        elif kind == "input_audio_buffer.commit":
            if self.session is None or self.session.fed_s - self.committed_s < SHORTEST_S:
                raise BadRequest("the buffer holds less than 100 ms of audio", remedy="append before you commit")
            self.committed_s = self.session.fed_s
            self.session.flush()
        elif kind == "input_audio_buffer.clear":
            await self._clear()
        else:
            raise BadRequest(f"unknown event {str(kind)[:60]!r}", remedy="this server transcribes only")

    def _update(self, session: Any, *, old: bool) -> None:
        if not isinstance(session, dict):
            raise BadRequest("session must be an object")
        setup = _Setup(self.setup.format, self.setup.transcription, self.setup.turns)
        if old:
            wanted = {
                "format": {"type": OLD_FORMATS.get(str(session.get("input_audio_format")), "audio/pcm"), "rate": RATE},
                "transcription": session.get("input_audio_transcription"),
            }
            wanted.update({"turn_detection": session["turn_detection"]} if "turn_detection" in session else {})
        else:
            wanted = session.get("audio") or {}
            wanted = (wanted.get("input") if isinstance(wanted, dict) else None) or {}
        if not isinstance(wanted, dict):
            raise BadRequest("audio.input must be an object")
        for name in ("format", "transcription", "turn_detection"):
            if not isinstance(wanted.get(name), (dict, type(None))):
                raise BadRequest(f"{name} must be an object")
        if not isinstance((wanted.get("transcription") or {}).get("model"), (str, type(None))):
            raise BadRequest("model must be a text")
        setup.format = wanted.get("format") or setup.format
        setup.transcription = wanted.get("transcription") or setup.transcription
        if "turn_detection" in wanted:
            setup.turns = wanted["turn_detection"]
        options = setup.options(0.0)
        if self.session is not None and options != self.setup.options(0.0):
            raise BadRequest("format, keywords and turn_detection cannot change after audio has come",
                             remedy="open a new connection")  # fmt: skip
        self.setup = setup

    async def _append(self, audio: Any) -> None:
        try:
            data = base64.b64decode(audio, validate=True) if isinstance(audio, str) else None
        except (binascii.Error, ValueError):
            data = None
        if data is None:
            raise BadRequest("audio must be base64")
        session = await self._open()
        if not session.finished:
            await session.feed(data)

    async def _open(self) -> Session:
        if self.session is None:
            model = self.model or self.setup.transcription.get("model")
            options = self.setup.options(self.fed_s)
            self.session = await self.service.open(self.principal, options, model=model if model else None)
            self.telling = asyncio.create_task(self._tell(self.session))
        return self.session

    async def _clear(self) -> None:
        """What was not committed is forgotten; time goes on."""
        if self.session is not None:
            self.fed_s = self.committed_s = self.session.fed_s
            await self.leave()
            self.session, self.telling, self.item = None, None, None
        await self.socket.send(_event("input_audio_buffer.cleared"))

    # The other direction

    async def _tell(self, session: Session) -> None:
        async for events in session.batches():
            for event in events:
                await self._one(event)
        if session.drained:
            if self.item is not None:
                await self._close(self.item, session.fed_s)
            await self.socket.close(GOING_AWAY, "the server stops")
        raise Gone

    async def _one(self, event: SessionEvent) -> None:
        by_turns = self.setup.turns is not None
        if isinstance(event, SpeechStart):
            if by_turns:
                item = self._item(event.time)
                await self.socket.send(
                    _event("input_audio_buffer.speech_started", item_id=item.id, audio_start_ms=_ms(event.time))
                )
        elif isinstance(event, Partial):
            item = self._item(event.start)
            await self._delta(item, _joined(item.said, event.stable))
        elif isinstance(event, Final):
            item = self._item(event.segment.start)
            item.said = _joined(item.said, event.segment.text)
            await self._delta(item, item.said)
        elif isinstance(event, SpeechEnd):
            if by_turns and self.item is not None:
                await self.socket.send(
                    _event("input_audio_buffer.speech_stopped", item_id=self.item.id, audio_end_ms=_ms(event.time))
                )
                await self._close(self.item, event.time)
        elif isinstance(event, Flushed):
            if self.item is not None or not self.closed:
                await self._close(self._item(event.time), event.time)
            self.closed = 0

    def _item(self, start: float) -> _Item:
        if self.item is None:
            self.item = _Item(start)
        return self.item

    async def _delta(self, item: _Item, text: str) -> None:
        """The part of ``text`` that was not told yet, if what was told still stands."""
        if not text.startswith(item.told) or text == item.told:
            return
        await self._add(item)
        delta, item.told = text[len(item.told) :], text
        name = "conversation.item.input_audio_transcription.delta"
        await self.socket.send(_event(name, item_id=item.id, content_index=0, delta=delta))

    async def _add(self, item: _Item) -> None:
        if not item.added:
            item.added = True
            added = {"item": _content(item, "in_progress"), "previous_item_id": self.previous}
            await self.socket.send(_event("conversation.item.added", **added))

    async def _close(self, item: _Item, end: float) -> None:
        self.item = None
        self.closed += 1
        previous = {"previous_item_id": self.previous}
        await self.socket.send(_event("input_audio_buffer.committed", item_id=item.id, **previous))
        await self._add(item)
        await self.socket.send(_event("conversation.item.done", item=_content(item, "completed"), **previous))
        name = "conversation.item.input_audio_transcription.completed"
        usage = {"type": "duration", "seconds": round(max(0.0, end - item.start), 3)}
        told = {"item_id": item.id, "content_index": 0, "transcript": item.said, "usage": usage}
        await self.socket.send(_event(name, **told))
        self.previous = item.id


def _content(item: _Item, status: str) -> dict[str, Any]:
    heard = {"type": "input_audio", "transcript": None}
    kind = {"object": "realtime.item", "type": "message", "role": "user"}
    return {"id": item.id, **kind, "status": status, "content": [heard]}


def _joined(said: str, text: str) -> str:
    return f"{said} {text}" if said and text else said or text


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
