"""``/openapi.json`` and ``/asyncapi.json``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rechka.server.describe import asyncapi, openapi
from rechka.server.service import Service


def routes(service: Service) -> list[BaseRoute]:
    """Both documents; they tell nothing about the server's data, so everybody may read them."""
    documents = {"/openapi.json": openapi(keys=not service.auth.open), "/asyncapi.json": asyncapi()}

    def route(path: str) -> Route:
        async def show(_: Request) -> Response:
            return JSONResponse(documents[path])

        return Route(path, show)

    return [route(path) for path in documents]
