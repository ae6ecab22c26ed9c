"""The WebSocket of T-one's demonstration server, ``/api/ws``: 8000 Hz, 16 bits, ``ready`` before every message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from rechka.engine import SessionEvent, SessionOptions
from rechka.errors import RechkaError
from rechka.server.live import GOING_AWAY, Socket, guarded
from rechka.server.service import Service
from rechka.types import Final

RATE = 8000


def routes(service: Service) -> list[BaseRoute]:
    """``/api/ws``."""

    async def listen(websocket: WebSocket) -> None:
        socket = Socket(websocket, service)

        async def show(error: RechkaError) -> None:
            await socket.send({"event": "error", "message": error.message, "code": error.code})

        async def tell(events: Sequence[SessionEvent]) -> None:
            for event in events:
                if isinstance(event, Final):
                    s = event.segment
                    phrase: dict[str, Any] = {"text": s.text, "start_time": s.start, "end_time": s.end}
                    await socket.send({"event": "transcript", "phrase": phrase})

        async with guarded(socket, show):
            await socket.accept()
            principal = service.identify(websocket, "stream")
            async with await service.open(principal, SessionOptions(sample_rate=RATE, partials=False)) as session:
                while True:
                    await socket.send({"event": "ready"})
                    message = await socket.receive()
                    if not message or session.drained:  # an empty message is the end
                        break
                    if isinstance(message, bytes):
                        await session.feed(message)
                        await session.settle()
                        await tell(session.take())
                session.finish()
                async for events in session.batches():
                    await tell(events)
                await socket.close(GOING_AWAY if session.drained else 1000)

    return [WebSocketRoute("/api/ws", listen)]
