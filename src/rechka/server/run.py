"""From settings to a running server: models, sockets, signals, the end."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from types import FrameType

import uvicorn

from rechka.errors import OutputError, UsageError
from rechka.recognizers import Asr
from rechka.server.app import build_app
from rechka.server.auth import Auth
from rechka.server.fetch import Fetcher, Guard
from rechka.server.jobs import open_jobs
from rechka.server.patience import http_protocol, websocket_protocol
from rechka.server.service import Service
from rechka.server.settings import Settings

log = logging.getLogger("rechka.server")

PING_S = 20.0
PONG_S = 60.0
"""Pongs wait behind audio while a full inbox stops reading, so this is longer than an inbox takes."""
BACKLOG = 512
HEADER_BYTES = 32 << 10
SWITCH_S = 0.001
"""How long a computing thread keeps the interpreter from the event loop, which asks for it after every wait for sockets
and every send. Python's own 5 ms add up. With 1 ms the loop's lag was nearly halved (p99 50 to 27 ms and 58 to 45 ms,
16 streams at full speed on two busy cores); the audio recognised per second of processor time was the same."""


def load_models(settings: Settings, *, load: Callable[..., Asr] | None = None) -> dict[str, Asr]:
    """The models of the settings by name; the first is the default."""
    import rechka

    load = load or rechka.load
    # On a CPU the workers share the cores; threads within a step would only wait for one another.
    threads = 1 if settings.device == "cpu" else None
    found: dict[str, Asr] = {}
    for i, name in enumerate(settings.model or (None,)):
        refine = settings.refine if i == 0 and settings.refine else None
        asr = load(name, refine=refine, device=settings.device, threads=threads)
        if asr.note:
            log.warning("%s", asr.note)
        found[asr.name] = asr
    return found


class Server(uvicorn.Server):
    """A server that ends gently: after the first signal streams end by themselves, after a second one at once.

    Args:
        service: to serve.
        ready: called once, when all ports are open.
    """

    def __init__(self, service: Service, *, ready: Callable[[], None] | None = None) -> None:
        self.service = service
        self._ready = ready
        s = service.settings
        config = uvicorn.Config(
            build_app(service),
            http=http_protocol(s.header_s, s.send_s),
            ws=websocket_protocol(s.send_s),
            ws_max_size=s.max_message_kb << 10,
            ws_ping_interval=PING_S,
            ws_ping_timeout=PONG_S,
            ws_per_message_deflate=False,  # audio does not shrink, and small messages can be made huge with it
            h11_max_incomplete_event_size=HEADER_BYTES,
            proxy_headers=bool(s.trusted_proxies),
            forwarded_allow_ips=list(s.trusted_proxies),
            server_header=False,
            access_log=False,
            log_config=None,
            lifespan="on",
            backlog=BACKLOG,
            timeout_graceful_shutdown=5,
            ssl_certfile=s.tls_cert,
            ssl_keyfile=s.tls_key,
        )
        super().__init__(config)
        self.listening = False
        """All ports are open."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None
        self._others: list[asyncio.Server] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open for clients once the models are warm."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.service.settings.wyoming_port:
            from rechka.server import wyoming

            self._others.append(await wyoming.start(self.service))
        if self.service.settings.audiosocket_port:
            from rechka.server.telephony import audiosocket

            self._others.append(await audiosocket.start(self.service))
        self.listening = True
        if self._ready is not None:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The end, after the drain."""
        for other in self._others:
            other.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT."""
        if self._loop is not None and self.started and not self.service.draining:
            log.info("%s: no new streams; open ones have %g s", signal.Signals(sig).name, self.service.settings.grace_s)
            self._loop.call_soon_threadsafe(self.end_gently)
        else:
            self.should_exit = self.force_exit = True

    def end_gently(self) -> None:
        """Drain, then exit. Call it in the server's loop."""

        async def end() -> None:
            await self.service.drain()
            await asyncio.sleep(0.2)  # adapters say goodbye
            self.should_exit = True

        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(end())


def bind(settings: Settings) -> list[socket.socket]:
    """Listening sockets of all HTTP ports.

    Raises:
        OutputError: a port is taken, or the address is not this machine's.
    """
    found: list[socket.socket] = []
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    for port in (settings.port, *settings.more_ports):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
        except OSError as error:
            listener.close()
            for other in found:
                other.close()
            raise OutputError(
                f"cannot listen on {settings.host} port {port}: {error.strerror or error}", remedy="choose another port"
            ) from None
        listener.set_inheritable(True)
        found.append(listener)
    return found


def make_service(settings: Settings, models: Mapping[str, Asr]) -> Service:
    """The service of some settings.

    Raises:
        UsageError: an alias for a model that is not among ``models``, however they were loaded; keys that are wrong.
    """
    for alias, name in settings.aliases.items():
        if name not in models:
            raise UsageError(f"alias {alias} means {name}, which is not served", remedy=f"served: {', '.join(models)}")
    auth = Auth(settings.keys_file, secret=settings.token_secret, requests_per_minute=settings.requests_per_minute)
    service = Service(settings, models, auth)
    service.jobs = open_jobs(service)
    if settings.fetch:
        guard = Guard(settings.fetch_hosts, settings.private_networks)
        service.fetcher = Fetcher(guard, max_bytes=settings.max_upload_mb << 20, seconds=settings.fetch_s)
    return service


def serve(settings: Settings, models: Mapping[str, Asr], *, started: Callable[[int], None] | None = None) -> None:
    """Serve until a signal comes.

    Args:
        settings: checked.
        models: by name, the first is the default.
        started: told the first port when clients can connect.
    """
    sys.setswitchinterval(SWITCH_S)
    listeners = bind(settings)
    port = listeners[0].getsockname()[1]

    async def main() -> None:
        server = Server(make_service(settings, models), ready=(lambda: started(port)) if started else None)
        await server.serve(listeners)

    try:
        asyncio.run(main())
    finally:
        for listener in listeners:
            listener.close()
