"""The native protocol: WebSocket ``/v1/stream``. docs/server.md describes every message.

    client                                  server
    (start {...})  options, or in the query
                                            ready {session, model, sample_rate, ...}
    audio, audio, ...                       speech_start, partial, ..., final, speech_end, cursor
    flush, keepalive                        flushed
    finish                                  ..., done                              close 1000
                                            error {code, message, remedy}          close 1007 ... 1013
                                            going_away {resume}                    close 1001

After a lost connection a client opens a new one with ``start`` set to the last cursor's ``keep`` and sends its audio
again from there: every server can go on, since nothing of the old connection is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from rechka.engine import Session, SessionEvent, SessionOptions
from rechka.errors import BadRequest, RechkaError, UsageError
from rechka.recognizers.finish import live_punctuator
from rechka.server.live import GOING_AWAY, Gone, Socket, guarded, talk
from rechka.server.service import Service
from rechka.server.wire import event_dict, flag, hotwords, integer, loads, number
from rechka.text.punctuation import LivePunctuator
from rechka.types import Final, Refined, SpeechEnd, SpeechStart

CURSOR_S = 1.0
"""A cursor comes after so much audio, and after every final."""
SILENCE_KEPT_S = 2.0
"""Audio before the present that a client keeps in silence: the beginning of a phrase is found a little late."""
SECRETS = frozenset(("token", "api_key", "access_token"))
FIELDS = SECRETS | frozenset(
    (
        *("model", "sample_rate", "encoding", "channels", "mix", "interleaved", "hotwords", "partials", "pause"),
        *("start", "punctuate"),
    )
)


def routes(service: Service) -> list[BaseRoute]:
    """``/v1/stream``."""

    async def stream(websocket: WebSocket) -> None:
        socket = Socket(websocket, service)

        async def show(error: RechkaError) -> None:
            retry = getattr(error, "retry_after_s", None)
            more = {} if retry is None else {"retry_after": retry}
            await socket.send({"type": "error", "fatal": True, **error.to_dict(), **more})

        async with guarded(socket, show):
            await socket.accept()  # browsers cannot see why a handshake failed, so errors come afterwards
            principal = service.identify(websocket, "stream")
            fields: dict[str, Any] = dict(websocket.query_params)
            if words := websocket.query_params.getlist("hotwords"):
                fields["hotwords"] = words
            first = await socket.receive()
            if isinstance(first, str):
                message = loads(first)
                if message.pop("type", None) != "start":
                    raise BadRequest('the first message is audio or {"type": "start", ...}')
                fields.update(message)
            options = parse(fields)
            punctuated = flag(fields.get("punctuate", False), "punctuate")
            punctuator = await asyncio.to_thread(live_punctuator) if punctuated else None
            model = fields.get("model")
            if not isinstance(model, (str, type(None))):
                raise BadRequest("model must be a text")
            session = await service.open(principal, options, model=model)
            async with session:
                await _Conversation(socket, session, service.engine(model).asr.name, service, punctuator).run(first)

    return [WebSocketRoute("/v1/stream", stream)]


def parse(fields: Mapping[str, Any]) -> SessionOptions:
    """Options from a query or a ``start`` message.

    Raises:
        BadRequest, UsageError: an unknown field, or a value that cannot be.
    """
    if unknown := set(fields) - FIELDS:
        raise BadRequest(f"unknown field {sorted(unknown)[0][:40]!r}", remedy=f"known: {', '.join(sorted(FIELDS))}")
    given: dict[str, Any] = {}
    for name, read in (("sample_rate", integer), ("channels", integer)):
        if name in fields:
            given[name] = read(fields[name], name)
    for name in ("mix", "interleaved", "partials"):
        if name in fields:
            given[name] = flag(fields[name], name)
    if "encoding" in fields:
        given["encoding"] = str(fields["encoding"])
    if "hotwords" in fields:
        given["hotwords"] = hotwords(fields["hotwords"])
    if fields.get("pause") is not None:
        given["min_silence_s"] = number(fields["pause"], "pause")
    if "start" in fields:
        given["start_s"] = number(fields["start"], "start")
    return SessionOptions(**given)


class _Conversation:
    """One client after its session is open."""

    def __init__(
        self, socket: Socket, session: Session, model: str, service: Service, punctuator: LivePunctuator | None
    ) -> None:
        self._punctuator = punctuator
        self.socket, self.session, self.model, self.service = socket, session, model, service
        channels = 1 if session.options.mix else session.options.channels
        self.keep = Keep(session.options.start_s, channels)
        self._cursor_s = session.options.start_s

    async def run(self, first: str | bytes) -> None:
        options = self.session.options
        await self.socket.send(
            {
                "type": "ready",
                "protocol": 1,
                "session": self.session.id,
                "model": self.model,
                "sample_rate": self.session.rate,
                "encoding": options.encoding,
                "channels": options.channels,
                "start": round(options.start_s, 3),
            }
        )
        if isinstance(first, bytes):
            await self.hear(first)
        await talk(self.socket, self.session, hear=self.hear, tell=self.tell)

    async def hear(self, message: str | bytes) -> bool:
        if isinstance(message, bytes):
            await self._audio(message)
            return True
        kind = (fields := loads(message)).get("type")
        if kind == "flush":
            self.session.flush()
        elif kind == "finish":
            self.session.finish()
            return False
        elif kind != "keepalive":
            error = BadRequest(
                f"unknown message {str(fields.get('type'))[:40]!r}" if kind != "start" else "start came after audio",
                remedy="known: flush, finish, keepalive; start comes first",
            )
            await self.socket.send({"type": "error", "fatal": False, **error.to_dict()})
        return True

    async def _audio(self, data: bytes) -> None:
        if self.session.options.interleaved:
            await self.session.feed(data)
        elif data:
            await self.session.feed(data[1:], channel=data[0])

    async def tell(self) -> None:
        try:
            async for events in self.session.batches():
                for event in events:
                    if self._punctuator is not None and isinstance(event, (Final, Refined)):
                        event = await asyncio.to_thread(self._punctuator, event)
                    self.keep.see(event)
                    message = event_dict(event)
                    if isinstance(event, Final):  # in one message, so that no loss of the next can make it told twice
                        message["keep"] = self._where()["keep"]
                    await self.socket.send(message)
                await self._cursor(any(isinstance(event, Final) for event in events))
                if self.service.draining and self.keep.quiet and not self.session.finished:
                    await self._leave()  # between two phrases nothing is cut
        except UsageError as error:
            raise BadRequest(error.message, remedy=error.remedy) from None
        if self.session.drained:
            await self._leave()
        await self.socket.send({"type": "done", "duration": round(self.session.fed_s, 3)})
        await self.socket.close()

    async def _leave(self) -> None:
        await self.socket.send({"type": "going_away", **self._where()})
        await self.socket.close(GOING_AWAY, "the server stops; go on with another")
        raise Gone

    async def _cursor(self, now: bool) -> None:
        if now or self.session.done_s - self._cursor_s >= CURSOR_S:
            self._cursor_s = self.session.done_s
            await self.socket.send({"type": "cursor", **self._where()})

    def _where(self) -> dict[str, float]:
        return {
            "received": round(self.session.fed_s, 3),
            "done": round(self.session.done_s, 3),
            "keep": round(self.keep.at(self.session.done_s), 3),
        }


class Keep:
    """From where on a client must keep its audio so that a new connection can go on.

    Args:
        start: seconds at which the session began.
        channels: that send events.
    """

    def __init__(self, start: float, channels: int) -> None:
        self._ends = [start] * channels
        self._open: list[float | None] = [None] * channels

    def see(self, event: SessionEvent) -> None:
        """An event was sent."""
        if isinstance(event, SpeechStart):
            self._open[event.channel] = event.time
        elif isinstance(event, SpeechEnd):
            self._open[event.channel] = None
        elif isinstance(event, Final):
            channel = event.segment.channel
            self._ends[channel] = max(self._ends[channel], event.segment.end)
            if self._open[channel] is not None:
                self._open[channel] = event.segment.end

    @property
    def quiet(self) -> bool:
        """No phrase is open."""
        return all(begin is None for begin in self._open)

    def at(self, done: float) -> float:
        """The place, given how far the session is recognised."""
        return min(
            max(end, done - SILENCE_KEPT_S) if begin is None else max(end, begin - SILENCE_KEPT_S)
            for end, begin in zip(self._ends, self._open, strict=True)
        )
