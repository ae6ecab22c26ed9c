"""What all protocols share: models, keys, limits, sessions, recordings, the end of the server.

An adapter gets one ``Service`` and uses ``identify``, ``open`` and ``transcribe``; every refusal is a ``RechkaError``
that it shows in its protocol's own shape.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from rechka.engine import Engine, EngineOptions, Registry, Session, SessionOptions, transcribe
from rechka.engine.cores import cores
from rechka.errors import Forbidden, NoSuchThing, Overloaded, Unauthorized
from rechka.recognizers import Asr
from rechka.server.auth import Auth, Meter, Principal, owner_of, require
from rechka.server.history import Recorder
from rechka.server.lag import LagWatch, count_process
from rechka.server.settings import Settings
from rechka.server.telephony.calls import Calls
from rechka.types import Event, Transcript

if TYPE_CHECKING:
    from rechka.server.fetch import Fetcher
    from rechka.server.jobs import Jobs

log = logging.getLogger("rechka.server")

REPORTS_S = 5.0
"""How long the end waits for calls to be reported."""
FOREIGN_MODELS = (
    "whisper-",
    "gpt-",
    "nova",
    "base",
    "enhanced",
    "tiny",
    "small",
    "medium",
    "large",
    "general",
    "phone",
)
"""Beginnings of model names that clients of other services send without being asked; they mean the default model."""


@dataclass
class Service:
    """One server.

    Args:
        settings: checked.
        models: by name; the first is the default.
        auth: keys and rates.
        metrics: where everything is counted.
        fetcher: gets a recording from an address, guarded against addresses that are none of the client's business.
        jobs: recordings for later, and the history, if something may be kept.
    """

    settings: Settings
    models: Mapping[str, Asr]
    auth: Auth
    metrics: Registry = field(default_factory=Registry)
    fetcher: Fetcher | None = None
    jobs: Jobs | None = None

    def __post_init__(self) -> None:
        s = self.settings
        options = EngineOptions(
            workers=s.workers or (cores() if s.device == "cpu" else 1),
            max_batch=s.max_batch,
            max_wait_ms=s.max_wait_ms,
            max_streams=s.max_streams,
            max_queue_age_s=s.max_queue_age_s,
            inbox_s=s.inbox_s,
            max_session_s=s.max_session_s,
        )
        self.engines = {
            name: Engine(asr, options, metrics=self.metrics, cpu=s.device == "cpu") for name, asr in self.models.items()
        }
        self.default = next(iter(self.engines))
        self.started = int(time.time())
        self.draining = False
        self.connections = 0
        self.calls = Calls(s)
        self._files = asyncio.Semaphore(s.max_files)
        self._waiting = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        m = self.metrics
        self.requests = m.counter("rechka_requests_total", "Requests by path and outcome.", ("path", "status"))
        self._lag = LagWatch(m)
        count_process(m)
        m.gauge("rechka_workers", "Threads that step models.", lambda: sum(e.workers for e in self.engines.values()))
        m.gauge(
            "rechka_streams", "Open sessions.", lambda: {(n,): e.active for n, e in self.engines.items()}, ("model",)
        )
        m.gauge("rechka_connections", "Open connections.", lambda: self.connections)
        m.gauge("rechka_calls", "Calls whose audio comes now.", lambda: self.calls.active)
        m.gauge("rechka_ready", "1 if new streams are taken.", lambda: int(self.ready))
        m.gauge(
            "rechka_queue_age_seconds",
            "Longest recent wait of a live session for a step.",
            lambda: {(n,): e.pressure() for n, e in self.engines.items()},
            ("model",),
        )

    @property
    def ready(self) -> bool:
        """Whether new streams are taken: models are warm, the server does not stop, and nobody waits too long."""
        limit = self.settings.max_queue_age_s
        return not self.draining and all(e.ready and e.pressure() <= limit for e in self.engines.values())

    async def start(self) -> None:
        """Warm the models up and start their workers."""
        for name, engine in self.engines.items():
            began = time.monotonic()
            await engine.start()
            log.info("model %s is ready after %.1f s, %d workers", name, time.monotonic() - began, engine.workers)
        if self.jobs is not None:
            await self.jobs.start()
        self.keep(self._lag.run())

    async def drain(self) -> None:
        """Take nothing new; let open streams end, and finish them after the grace time."""
        self.draining = True
        grace = self.settings.grace_s
        jobs = [self.jobs.drain(grace)] if self.jobs is not None else []
        await asyncio.gather(*jobs, *(engine.drain(grace) for engine in self.engines.values()))
        await self.calls.settle(REPORTS_S)

    async def close(self) -> None:
        """Stop everything."""
        self.draining = True
        if self.jobs is not None:
            await self.jobs.stop()
        await self.calls.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for engine in self.engines.values():
            await engine.close()
        if self.jobs is not None:
            await self.jobs.close()

    def keep(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run something beside the requests until it ends or the server closes."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Who and what

    def identify(self, connection: HTTPConnection, scope: str, *, secret: str | None = None) -> Principal:
        """Whoever sends a request, counted against its rate.

        Args:
            connection: request or WebSocket.
            scope: that is needed.
            secret: key or token that the protocol carries elsewhere; None to look in the usual places.

        Raises:
            Unauthorized, Forbidden, QuotaExceeded.
        """
        address = connection.client.host if connection.client else "local"
        query = False
        if secret is None:
            secret, query = credentials(connection)
        try:
            principal = self.auth.principal(secret, address=address, query=query)
        except Unauthorized:
            self.auth.count(f"stranger:{address}", 60)  # guessing is slow
            raise
        self.auth.admit(principal)
        require(principal, scope)
        connection.scope.setdefault("state", {})["principal"] = principal.name
        return principal

    def engine(self, name: str | None = None) -> Engine:
        """The engine of a model, an alias, or of the default.

        Raises:
            NoSuchThing: a name that is none of them.
        """
        if not name:
            return self.engines[self.default]
        name = self.settings.aliases.get(name, name)
        if name in self.engines:
            return self.engines[name]
        if name.lower().startswith(FOREIGN_MODELS):
            return self.engines[self.default]
        known = ", ".join([*self.engines, *self.settings.aliases])
        raise NoSuchThing(f"no model is called {name[:80]!r}", remedy=f"known: {known}")

    # Work

    async def open(self, principal: Principal, options: SessionOptions, *, model: str | None = None) -> Session:
        """A live session, counted for its principal.

        Raises:
            Overloaded, Draining, QuotaExceeded, NoSuchThing, UsageError.
        """
        engine = self.engine(model)
        counted = self.auth.meter(principal)
        meter: Meter | Recorder = counted
        if self.jobs is not None and self.settings.history_live and self.settings.history != "off":
            meter = Recorder(self.jobs, owner_of(principal), counted, (engine.asr.name, engine.asr.language))
        try:
            session = await engine.open(options, meter=meter)
        except BaseException:
            meter.end()
            raise
        if isinstance(meter, Recorder):
            meter.session, session.watcher = session, meter.watch
        log.info("session %s: %s opened a stream of %s", session.id, principal.name, engine.asr.name)
        return session

    async def transcribe(
        self,
        principal: Principal,
        source: Any,
        *,
        model: str | None = None,
        options: SessionOptions | None = None,
        split: bool = False,
        on_event: Callable[[Event], None] | None = None,
        on_progress: Callable[[float, float | None], None] | None = None,
    ) -> Transcript:
        """The text of a recording, when its turn comes.

        Raises:
            AudioError: no recording.
            Overloaded, Draining, QuotaExceeded, NoSuchThing.
        """
        engine = self.engine(model)
        async with self._turn():
            meter = self.auth.meter(principal)
            try:
                return await transcribe(
                    engine,
                    source,
                    options=options,
                    split=split,
                    max_seconds=self.settings.max_file_s,
                    meter=meter,
                    on_event=on_event,
                    on_progress=on_progress,
                )
            finally:
                meter.end()

    @contextlib.asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[Any]:
        """A recording from elsewhere as a file object; whoever may fetch sets ``fetcher``.

        Raises:
            Forbidden: fetching is switched off, which it is by default.
        """
        if self.fetcher is None:
            raise Forbidden("this server fetches no addresses", remedy="upload the recording instead")
        async with self.fetcher(url) as file:
            yield file

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        limit = self.settings.max_files
        if self._waiting >= 4 * limit:
            raise Overloaded("too many recordings wait", remedy="try again soon", retry_after_s=10.0)
        self._waiting += 1
        try:
            await asyncio.wait_for(self._files.acquire(), self.settings.file_wait_s)
        except asyncio.TimeoutError:
            raise Overloaded(
                f"{limit} recordings are being recognised", remedy="try again soon", retry_after_s=10.0
            ) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._files.release()


def credentials(connection: HTTPConnection) -> tuple[str | None, bool]:
    """Key or token of a request, and whether it stood in the address.

    The four places where clients put it: ``Authorization`` (Bearer, Token, Api-Key), ``X-API-Key``, a WebSocket's
    subprotocol (browsers can set no headers; OpenAI's and Deepgram's way), the query (tokens only).
    """
    kind, _, secret = connection.headers.get("authorization", "").partition(" ")
    if secret and kind.lower() in ("bearer", "token", "api-key"):
        return secret.strip(), False
    for header in ("x-api-key", "api-key"):
        if secret := connection.headers.get(header, ""):
            return secret.strip(), False
    offered = [part.strip() for part in connection.headers.get("sec-websocket-protocol", "").split(",")]
    for i, protocol in enumerate(offered):
        if protocol.startswith("openai-insecure-api-key."):
            return protocol.partition(".")[2], False
        if protocol.lower() in ("token", "bearer") and i + 1 < len(offered):
            return offered[i + 1], False
    for name in ("token", "api_key", "access_token"):
        if secret := connection.query_params.get(name, ""):
            return secret, True
    return None, False


def accepted_protocol(connection: HTTPConnection) -> str | None:
    """The subprotocol to answer with: never one that carries a secret."""
    offered = [part.strip() for part in connection.headers.get("sec-websocket-protocol", "").split(",")]
    known = ("realtime", "token", "bearer", "rechka.v1", "media", "audiostream.drachtio.org")
    return next((protocol for protocol in offered if protocol.lower() in known), None)
