"""The gate that every request passes: host and origin, connection count, body size, log line, number.

Plain ASGI, so that bodies and WebSockets stream through it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rechka.errors import Forbidden, IdleTimeout, Overloaded, RechkaError, TooLarge
from rechka.server.logs import REQUEST
from rechka.server.service import Service
from rechka.server.settings import LOOPBACK_NAMES
from rechka.server.wire import retry_headers, status_of

if TYPE_CHECKING:
    from rechka.server.tracing import Tracer

log = logging.getLogger("rechka.access")

PROBES = ("/livez", "/readyz")
"""Answered even when there is no room."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Gate:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        s = service.settings
        self._hosts = {host.lower() for host in s.allowed_hosts}
        if not self._hosts and s.loopback:
            # A page that makes its name point to 127.0.0.1 (DNS rebinding) still names itself here.
            self._hosts = {*LOOPBACK_NAMES, "127.0.0.1", "[::1]", s.host.lower()}
        self._origins = {origin.rstrip("/").lower() for origin in s.cors_origins}
        self._tracer: Tracer | None = None
        if s.otlp_endpoint:
            from rechka.server.tracing import Tracer

            self._tracer = Tracer(s.otlp_endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            try:
                await self.app(scope, receive, send)
            finally:
                if self._tracer is not None:
                    self._tracer.close()  # it may wait: the application's life has ended, nothing else runs
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        number = secrets.token_hex(6)
        REQUEST.set(number)
        self.service.connections += 1
        watch = _Watch(send, number)
        began = time.monotonic()
        try:
            self._check(scope, headers)
            body = _Body(receive, self.service) if scope["type"] == "http" else receive
            await self.app(scope, body, watch)
        except RechkaError as error:
            if watch.started:
                raise
            await self._refuse(scope, receive, watch, error)
        finally:
            self.service.connections -= 1
            self._log(scope, headers, watch, time.monotonic() - began)

    def _check(self, scope: Scope, headers: dict[bytes, str]) -> None:
        if scope["path"] in PROBES:
            return
        if self.service.connections > self.service.settings.max_connections:
            raise Overloaded("too many connections", remedy="try again soon", retry_after_s=5.0)
        host = headers.get(b"host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._hosts and name not in self._hosts:
            raise Forbidden(f"the host {name[:80]!r} is not served here", remedy="set allowed_hosts")
        origin = headers.get(b"origin", "").lower()
        if not origin or "*" in self._origins or origin in self._origins:
            return
        # Browsers let any page open a WebSocket or post a form anywhere; only its Origin tells.
        if (scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS) and origin.partition("://")[2] != host:
            raise Forbidden(f"pages of {origin[:80]!r} may not use this server", remedy="set cors_origins")

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: RechkaError) -> None:
        response = JSONResponse({"error": error.to_dict()}, status_of(error), retry_headers(error))
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        await response(scope, receive, send)

    def _log(self, scope: Scope, headers: dict[bytes, str], watch: _Watch, seconds: float) -> None:
        path = scope.get("route_path") or scope["path"]
        known = _pattern(path, scope) if scope.get("endpoint") else "unknown"  # no metric for every address tried
        self.service.requests.add(1, known, str(watch.status))
        level = logging.DEBUG if path in (*PROBES, "/metrics") else logging.INFO
        client = scope["client"][0] if scope.get("client") else "local"
        kind = "WS" if scope["type"] == "websocket" else scope["method"]
        who = scope.get("state", {}).get("principal", client)
        # Never the query: it may hold a token.
        log.log(level, "%s %s %s %d %.3f s", who, kind, path[:200], watch.status, seconds)
        if self._tracer is not None and path not in PROBES:
            attributes = {
                "http.request.method": "GET" if kind == "WS" else kind,
                "http.route": known,
                "http.response.status_code": watch.status,
                "enduser.id": who,
                "rechka.request": watch.number,
            }
            texts = {name.decode("latin-1"): value for name, value in headers.items()}
            fault = 500 <= watch.status < 600 or watch.status == 1011
            self._tracer.record(f"{kind} {known}", texts, seconds, attributes, failed=fault)


def _pattern(path: str, scope: Scope) -> str:
    """A path with the names in the place of what was asked for, which may be anything, and nobody else's business."""
    whole = f"{path}/"
    for name, value in scope.get("path_params", {}).items():
        before, found, after = whole.rpartition(f"/{value}/")
        whole = f"{before}/{{{name}}}/{after}" if found else whole
    return whole.rstrip("/") or "/"


class _Watch:
    """Sends on, sees the status, adds headers."""

    def __init__(self, send: Send, number: str) -> None:
        self._send, self.number = send, number
        self.started = False
        self.status = 0

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.started, self.status = True, message["status"]
            headers = list(message.get("headers", []))
            message = {**message, "headers": [*headers, *HEADERS, (b"x-request-id", self.number.encode())]}
        elif kind == "websocket.accept":
            self.started, self.status = True, 101
        elif kind == "websocket.close":
            self.status = message.get("code", 1000) if self.started else 403
            self.started = True
        await self._send(message)


class _Body:
    """Receives a request's body, no more than is allowed, and not too slowly."""

    def __init__(self, receive: Receive, service: Service) -> None:
        self._receive = receive
        self._left = service.settings.max_upload_mb << 20
        self._limit_mb = service.settings.max_upload_mb
        self._idle_s = service.settings.idle_s
        self._more = True

    async def __call__(self) -> Any:
        if not self._more:  # then it is the wait for the client's leaving, which may take long
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._idle_s)
        except asyncio.TimeoutError:
            raise IdleTimeout(f"no byte of the body came for {self._idle_s:g} s") from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._more = message.get("more_body", False)
            if self._left < 0:
                raise TooLarge(f"the body is larger than {self._limit_mb} MiB", remedy="cut the recording")
        return message
