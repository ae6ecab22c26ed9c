"""The application: all protocols' routes behind the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from rechka.errors import RechkaError
from rechka.server.gate import Gate
from rechka.server.service import Service
from rechka.server.wire import retry_headers, status_of

PROTOCOLS = (
    "health",
    "documents",
    "native",
    "vosk",
    "openai_rest",
    "original",
    "tone",
    "deepgram",
    "realtime",
    "jobs",
    "history",
    "telephony",
    "webrtc",
    "page",
)
"""Modules of ``rechka.server.routes``; each has ``routes(service)``."""

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


def build_app(service: Service, *, protocols: Sequence[str] = PROTOCOLS, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The ASGI application; starting and stopping it starts and stops the service.

    Args:
        service: shared by all routes.
        protocols: which of ``PROTOCOLS`` to speak.
        more: further routes, before the others.
    """
    routes = list(more)
    for name in protocols:
        routes += import_module(f"rechka.server.routes.{name}").routes(service)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app: ASGIApp = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={RechkaError: _show_error, HTTPException: _show_http_error, OSError: _show_os_error},
    )
    if service.settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=[origin.rstrip("/").lower() for origin in service.settings.cors_origins],
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],  # clients of other services bring headers of their own, and nothing here obeys one
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    return Gate(app, service)


async def _show_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RechkaError)
    return JSONResponse({"error": error.to_dict()}, status_of(error), retry_headers(error))


async def _show_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "service.not_found", 405: "service.not_found"}.get(error.status_code, "service.bad_request")
    body = {"error": {"code": code, "message": str(error.detail), "remedy": "see docs/server.md"}}
    return JSONResponse(body, error.status_code, error.headers)


async def _show_os_error(_: Request, error: Exception) -> Response:
    """A full disk, above all: uploads are kept there while they are read."""
    assert isinstance(error, OSError)
    body = {"code": "service.failed", "message": f"the server's disk or memory: {error.strerror}", "remedy": ""}
    return JSONResponse({"error": body}, 507)
