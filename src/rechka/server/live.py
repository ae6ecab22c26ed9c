"""What every WebSocket adapter does alike: receive with an idle limit, send with a limit, end with the right code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from rechka.engine import Session
from rechka.errors import IdleTimeout, RechkaError, StreamFailed
from rechka.server.service import Service, accepted_protocol
from rechka.server.wire import close_code_of, dumps

log = logging.getLogger("rechka.server")

GOING_AWAY = 1001
Hear: TypeAlias = Callable[["str | bytes"], Awaitable[bool]]
"""Takes one message of the client; False if it was the last one that matters."""


class Gone(Exception):
    """The client is not there any more."""


class Socket:
    """A WebSocket with limits.

    Args:
        websocket: not yet accepted.
        service: has the settings.
        idle_s: silence of the client that ends it; None for the setting.
    """

    def __init__(self, websocket: WebSocket, service: Service, *, idle_s: float | None = None) -> None:
        self.websocket = websocket
        self._idle_s = service.settings.idle_s if idle_s is None else idle_s
        self._send_s = service.settings.send_s

    async def accept(self) -> None:
        """Shake hands.

        Raises:
            Gone: the client left meanwhile.
        """
        try:
            await self.websocket.accept(subprotocol=accepted_protocol(self.websocket))
        except (WebSocketDisconnect, RuntimeError, OSError):
            raise Gone from None

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            Gone: the client left.
            IdleTimeout: nothing came for too long.
        """
        try:
            with anyio.fail_after(self._idle_s):  # many times cheaper than a task for each message, as wait_for has it
                message = await self.websocket.receive()
        except TimeoutError:
            raise IdleTimeout(f"nothing came for {self._idle_s:g} s", remedy="send audio, silence too") from None
        except RuntimeError:
            raise Gone from None
        if message["type"] == "websocket.disconnect":
            raise Gone
        text: str | None = message.get("text")
        data: bytes = message.get("bytes") or b""
        return data if text is None else text

    async def send(self, message: Any, *, patient: bool = False) -> None:
        """An object as JSON, or text as it is.

        Args:
            message: to send.
            patient: wait for as long as the client takes, for tasks that nobody waits for.

        Raises:
            Gone: the client left, or takes nothing for too long.
        """
        text = message if isinstance(message, str) else dumps(message)
        try:
            with anyio.fail_after(None if patient else self._send_s):
                await self.websocket.send_text(text)
        except (TimeoutError, WebSocketDisconnect, RuntimeError, OSError):
            raise Gone from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye; nothing happens if the client was faster."""
        if self.websocket.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect, OSError), anyio.move_on_after(self._send_s):
                await self.websocket.close(code, _fits(reason))

    async def deny(self, status: int, body: Any, headers: dict[str, str]) -> None:
        """Refuse the handshake with an HTTP answer."""
        from starlette.responses import JSONResponse

        await self.websocket.send_denial_response(JSONResponse(body, status_code=status, headers=headers))


@contextlib.asynccontextmanager
async def guarded(socket: Socket, show: Callable[[RechkaError], Awaitable[None]]) -> AsyncIterator[None]:
    """Around a conversation: whatever goes wrong is shown in the protocol's shape, and the socket is closed.

    Args:
        socket: of the client.
        show: sends an error as the protocol has it, before the close.
    """
    error: RechkaError | None = None
    try:
        yield
    except Gone:
        return
    except RechkaError as found:
        error = found
    except Exception as found:
        log.error("a connection failed", exc_info=found)
        error = StreamFailed("a fault ended the connection", remedy="report it with the server's log")
    if error is not None:
        with contextlib.suppress(Gone):
            await show(error)
        await socket.close(close_code_of(error), error.message)


async def talk(socket: Socket, session: Session, *, hear: Hear, tell: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Both directions side by side until ``tell`` is through.

    Args:
        socket: of the client.
        session: of the client; the caller cancels it when this returns or raises.
        hear: gets every message. After it said False, messages are thrown away and only the client's leaving matters.
        tell: sends events until the session is over.

    Raises:
        Gone: the client left first.
        RechkaError: from either side.
    """

    async def listen() -> None:
        wanted = True
        while True:
            try:
                message = await socket.receive()
            except IdleTimeout:
                if wanted:
                    raise
                continue
            if wanted:
                wanted = not session.finished and await hear(message)

    hearing, telling = asyncio.create_task(listen()), asyncio.create_task(tell())
    try:
        done, _ = await asyncio.wait({hearing, telling}, return_when=asyncio.FIRST_COMPLETED)
        for task in (telling, hearing):
            if task in done:
                task.result()
    finally:
        for task in (hearing, telling):
            task.cancel()
        await asyncio.gather(hearing, telling, return_exceptions=True)


def _fits(reason: str) -> str:
    """At most 123 bytes, as RFC 6455 has it."""
    return reason.encode()[:123].decode(errors="ignore")
