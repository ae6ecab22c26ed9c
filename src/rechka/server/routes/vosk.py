"""vosk-server's WebSocket, at ``/`` and ``/vosk``: one reply to each message, 8000 Hz unless told, no config needed.

Its clients are many and simple: most send and wait in lock step, so a message without a reply would hang them; some
(Asterisk's res_speech_vosk) never wait, and some never read. So replies go through a queue from which old partials
are dropped when nobody takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from rechka.engine import Flushed, Session, SessionOptions
from rechka.errors import RechkaError
from rechka.server.auth import Principal
from rechka.server.live import GOING_AWAY, Gone, Socket, guarded
from rechka.server.service import Service
from rechka.server.wire import dumps, flag, hotwords, integer, loads
from rechka.types import Final, Partial, Segment

DEFAULT_RATE = 8000
MAX_REPLIES = 64
"""Replies that wait for a client that does not read; beyond, partials are dropped."""
MAX_FINALS = 5000
"""Finals that wait; a client that takes none of so many is not there."""


def routes(service: Service) -> list[BaseRoute]:
    """``/`` and ``/vosk``."""

    async def vosk(websocket: WebSocket) -> None:
        socket = Socket(websocket, service)

        async def show(error: RechkaError) -> None:
            await socket.send({"error": error.message, "code": error.code})

        async with guarded(socket, show):
            await socket.accept()
            principal = service.identify(websocket, "stream")
            client = _Client(service, socket, principal)
            try:
                await client.run()
            finally:
                client.leave()

    return [WebSocketRoute("/", vosk), WebSocketRoute("/vosk", vosk)]


class _Client:
    def __init__(self, service: Service, socket: Socket, principal: Principal) -> None:
        self.service, self.socket, self.principal = service, socket, principal
        self.session: Session | None = None
        self.replies = _Replies(socket)
        self.rate, self.words, self.alternatives = DEFAULT_RATE, True, 0
        self.phrases: dict[str, float] = {}
        self.finals: deque[Segment] = deque()
        self.partial: dict[str, str] = {"partial": ""}

    async def run(self) -> None:
        while True:
            message = await self.socket.receive()
            if isinstance(message, bytes):
                session = await self._open()
                await session.feed(message)
                await session.settle()
                self._take(session)
            else:
                fields = loads(message)
                if isinstance(fields.get("config"), dict):
                    self._configure(fields["config"])
                    continue  # the only message without a reply
                if "eof" in fields:
                    await self._end()
                    return
                if "reset" in fields and self.session is not None:
                    await self._flush(self.session)
            if self.session is not None and self.session.drained:
                await self._end()
                return
            self.replies.put(self._reply())

    def leave(self) -> None:
        self.replies.stop()
        if self.session is not None:
            self.session.cancel()

    def _configure(self, config: dict[str, Any]) -> None:
        """Rate and phrases count until the first audio, as there; ``model`` is not a path that a client may load."""
        if "sample_rate" in config:
            self.rate = integer(config["sample_rate"], "sample_rate")
        if "words" in config:
            self.words = flag(config["words"], "words")
        if "max_alternatives" in config:
            self.alternatives = integer(config["max_alternatives"], "max_alternatives")
        if isinstance(config.get("phrase_list"), list):
            self.phrases = hotwords([phrase for phrase in config["phrase_list"] if phrase != "[unk]"])

    async def _open(self) -> Session:
        if self.session is None:
            options = SessionOptions(sample_rate=self.rate, hotwords=self.phrases)
            self.session = await self.service.open(self.principal, options)
        return self.session

    async def _flush(self, session: Session) -> None:
        """``reset``: what was said until now becomes final."""
        session.flush()
        async for events in session.batches():
            self._see(events)
            if any(isinstance(event, Flushed) for event in events):
                return

    async def _end(self) -> None:
        if self.session is not None:
            self.session.finish()
            async for events in self.session.batches():
                self._see(events)
        self.replies.put(self._result(list(self.finals)), final=True)
        await self.replies.finish(self.service.settings.send_s)
        drained = self.session is not None and self.session.drained
        await self.socket.close(GOING_AWAY if drained else 1000)

    def _take(self, session: Session) -> None:
        self._see(session.take())

    def _see(self, events: Sequence[Any]) -> None:
        for event in events:
            if isinstance(event, Final):
                self.finals.append(event.segment)
                self.partial = {"partial": ""}
            elif isinstance(event, Partial):
                self.partial = {"partial": event.text}

    def _reply(self) -> tuple[dict[str, Any], bool]:
        """One final if any waits, else the partial; and whether it may be dropped."""
        if self.finals:
            return self._result([self.finals.popleft()])[0], False
        return self.partial, True

    def _result(self, segments: Sequence[Segment]) -> tuple[dict[str, Any], bool]:
        words: list[dict[str, Any]] = [
            {
                "conf": round(1.0 if word.confidence is None else word.confidence, 6),
                "end": round(word.end, 6),
                "start": round(word.start, 6),
                "word": word.text,
            }
            for segment in segments
            for word in segment.words
        ]
        text = " ".join(segment.text for segment in segments if segment.text)
        result: dict[str, Any] = {"result": words} if words and (self.words or self.alternatives) else {}
        if self.alternatives > 0:
            sure = sum(word["conf"] for word in words) / len(words) if words else 0.0
            return {"alternatives": [{"confidence": round(sure, 6), **result, "text": text}]}, False
        return {**result, "text": text}, False


class _Replies:
    """Replies on their way to a client that may read them late or never."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._queue: deque[tuple[str, bool]] = deque()
        self._filled = asyncio.Event()
        self._ending = False
        self._task = asyncio.create_task(self._run())

    def put(self, reply: tuple[dict[str, Any], bool], *, final: bool = False) -> None:
        """Queue a reply.

        Raises:
            Gone: the client is not there, or takes nothing.
        """
        if self._task.done() or len(self._queue) > MAX_FINALS:
            raise Gone
        if len(self._queue) >= MAX_REPLIES:
            for i, (_, droppable) in enumerate(self._queue):
                if droppable:
                    del self._queue[i]
                    break
        self._queue.append((dumps(reply[0]), reply[1]))
        self._ending = final
        self._filled.set()

    async def finish(self, seconds: float) -> None:
        """Wait until all are sent, but not for ever."""
        with contextlib.suppress(asyncio.TimeoutError, Gone):
            await asyncio.wait_for(asyncio.shield(self._task), seconds)

    def stop(self) -> None:
        """Forget the rest."""
        self._task.cancel()

    async def _run(self) -> None:
        try:
            while True:
                while self._queue:
                    await self._socket.send(self._queue.popleft()[0], patient=True)
                if self._ending:
                    return
                self._filled.clear()
                await self._filled.wait()
        except Gone:
            return
