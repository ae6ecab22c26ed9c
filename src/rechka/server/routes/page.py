"""The web page at ``/``: plain files of this package, nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from rechka.server.service import Service

TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
SAFETY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src blob:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-cache",
}
"""Nothing but the page's own files may run in it, whatever a transcript says."""


def routes(service: Service) -> list[BaseRoute]:
    """``/`` and the files it names; read once, at the start."""
    folder = files("rechka.server") / "page"
    found = {item.name: item.read_bytes() for item in folder.iterdir() if _kind(item.name)}
    told = f'data-server="{" ".join(features(service))}"'
    found["index.html"] = found["index.html"].replace(b'data-server=""', told.encode())
    return [_route("/", found["index.html"], "text/html"), *(_route(f"/{n}", body) for n, body in found.items())]


def features(service: Service) -> list[str]:
    """What the page has to know before it asks for anything, so that it asks for nothing that is not there.

    ``keys``: a key is needed; ``jobs``, ``history``: the server keeps them; ``texts``: the history has them, and of
    ``live`` sessions too.
    """
    settings = service.settings
    has = {
        "keys": not service.auth.open,
        "jobs": service.jobs is not None,
        "history": service.jobs is not None and settings.history != "off",
        "texts": service.jobs is not None and settings.history == "on",
        "live": service.jobs is not None and settings.history == "on" and settings.history_live,
    }
    return [name for name, there in has.items() if there]


def _kind(name: str) -> str | None:
    return TYPES.get(name.rpartition(".")[2])


def _route(path: str, content: bytes, kind: str | None = None) -> Route:
    async def page(_: Request) -> Response:
        return Response(content, media_type=kind or _kind(path), headers=SAFETY)

    return Route(path, page, methods=["GET"])
