"""For those who run the server: is it alive, does it take streams, what does it count; and short-lived tokens."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from rechka import __version__
from rechka.engine.metrics import CONTENT_TYPE
from rechka.errors import BadRequest
from rechka.server.keys import DEFAULT_SCOPES, SCOPES
from rechka.server.service import Service
from rechka.server.uploads import json_of
from rechka.server.wire import integer


def routes(service: Service) -> list[BaseRoute]:
    """``/livez``, ``/readyz``, ``/metrics``, ``/v1/token``."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "alive", "version": __version__})

    async def ready(_: Request) -> Response:
        if service.ready:
            return JSONResponse({"status": "ready", "models": list(service.engines)})
        why = "draining" if service.draining else "busy"
        return JSONResponse({"status": why}, 503, {"Retry-After": "5"})

    async def metrics(request: Request) -> Response:
        service.identify(request, "metrics")
        return PlainTextResponse(service.metrics.render(), media_type=CONTENT_TYPE)

    async def token(request: Request) -> Response:
        principal = service.identify(request, "stream")
        wanted = await json_of(request)
        scopes = wanted.get("scopes", [s for s in DEFAULT_SCOPES if principal.may(s)])
        if not isinstance(scopes, list) or not all(scope in SCOPES for scope in scopes):
            raise BadRequest(f"scopes must be a list of {', '.join(SCOPES)}")
        seconds = integer(wanted.get("seconds", 60), "seconds")
        text, ends = service.auth.token(principal, seconds, tuple(scopes))
        return JSONResponse({"token": text, "expires_at": ends, "scopes": scopes})

    return [
        Route("/livez", live),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        Route("/v1/token", token, methods=["POST"]),
    ]
