"""uvicorn's protocols with an end to their patience: they wait for ever for headers and for those who do not read."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_S = 10.0
"""How long a closed WebSocket's last bytes may take: a peer that does not read would keep the socket for ever."""
MAX_UNREAD = 1 << 20
"""Bytes of pongs that may wait for a client. Pings do not stop reading, so the answers to a flood of them pile up."""
MAX_FRAGMENTS = 10_000
"""Of one message: empty ones do not count towards its size."""


def http_protocol(header_s: float, send_s: float) -> type[H11Protocol]:
    """HTTP with limits: for headers that never end (slow loris), and for answers that are not read.

    Args:
        header_s: time for the headers of a request.
        send_s: time without a byte taken after which a client with a full buffer is left.
    """

    class Impatient(H11Protocol):
        _unread: asyncio.TimerHandle | None = None
        _headers_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._headers_due = self.loop.call_later(header_s, self._check_headers)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)  # it forgets its own limit for a connection that is kept, at the first byte
            if self.conn.their_state is not h11.IDLE:
                _cancel(self._headers_due)
                self._headers_due = None
            elif self._headers_due is None:
                self._headers_due = self.loop.call_later(header_s, self._check_headers)

        def _check_headers(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

        def handle_websocket_upgrade(self, event: Any) -> None:
            _cancel(self._headers_due)  # the WebSocket protocol takes over; a timer would keep this one in memory
            super().handle_websocket_upgrade(event)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(send_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._unread)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            _cancel(self._unread)
            _cancel(self._headers_due)

    return Impatient


def websocket_protocol(send_s: float) -> type[WebSocketsSansIOProtocol]:
    """WebSockets with limits for clients that do not read.

    Args:
        send_s: as for HTTP.
    """

    class Impatient(WebSocketsSansIOProtocol):
        _unread: asyncio.TimerHandle | None = None
        _linger: asyncio.TimerHandle | None = None
        _lost = False

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(send_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._unread)

        def handle_ping(self) -> None:
            super().handle_ping()
            if self.transport.get_write_buffer_size() > MAX_UNREAD:
                self.transport.abort()

        def handle_cont(self, event: Any) -> None:
            super().handle_cont(event)
            if len(self.frames) > MAX_FRAGMENTS:
                self.frames = []
                self.transport.abort()

        def on_task_complete(self, task: asyncio.Task[None]) -> None:
            super().on_task_complete(task)
            if not self._lost:
                self._linger = self.loop.call_later(LINGER_S, self.transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._lost = True
            _cancel(self._unread)
            _cancel(self._linger)

    return Impatient


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
