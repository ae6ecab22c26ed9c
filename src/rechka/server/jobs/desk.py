"""What the parts of the job system share: the store in its thread, the spool, signals between the parts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rechka.errors import StorageBusy, StorageFull
from rechka.server.jobs.quota import Ledger
from rechka.server.jobs.shape import job_dict
from rechka.server.jobs.spool import Spool
from rechka.server.store import Delivery, Job, Store
from rechka.server.wire import dumps

if TYPE_CHECKING:
    from rechka.server.service import Service

log = logging.getLogger("rechka.server")

T = TypeVar("T")
PATIENCE_S = 1.0
"""Between tries of what must be written, while the database is locked or full."""


class Desk:
    """Store, spool and quota of one server.

    Args:
        service: has engines, settings and keys.
        store: opened; used in a thread of its own from now on.
        spool: for the audio.
    """

    def __init__(self, service: Service, store: Store, spool: Spool) -> None:
        self.service, self.store, self.spool = service, store, spool
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="rechka-store")
        self.stopping = False
        self.wake, self.mail = asyncio.Event(), asyncio.Event()
        """There may be a job to run; something to tell."""
        self.ledger = Ledger(service.auth, lambda day, used: self.call(store.use, day, used))
        self.ended = service.metrics.counter("rechka_jobs_ended_total", "Jobs by how they ended.", ("state",))

    async def call(self, function: Callable[..., T], *args: Any, **named: Any) -> T:
        """A method of the store in its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, partial(function, *args, **named))

    async def until_written(self, write: Callable[[], T]) -> T:
        """What must be written, however long the database is locked or full."""
        while True:
            try:
                return await self.call(write)
            except (StorageBusy, StorageFull) as error:  # noqa: PERF203
                log.warning("what must be written waits: %s", error.message)
                await asyncio.sleep(PATIENCE_S)

    @contextlib.asynccontextmanager
    async def lasting(self, what: str) -> AsyncIterator[None]:
        """One round of a loop that must never end: a storage that is busy is no news, a fault of ours is."""
        try:
            yield
        except (StorageBusy, StorageFull) as error:
            log.info("%s: %s", what, error.message)
            await asyncio.sleep(PATIENCE_S)
        except Exception as error:
            log.error("%s: a round failed", what, exc_info=error)
            await asyncio.sleep(PATIENCE_S)

    def remove_audio(self, job: Job) -> None:
        """The audio of a job is not needed any more."""
        if job.spool == self.spool.id:
            self.spool.remove(job.id)

    def news(self, job: Job) -> Delivery | None:
        """What its ``callback_url`` is told about a job that ended."""
        if not job.callback:
            return None
        id = f"news_{secrets.token_hex(16)}"
        body = dumps({"type": f"job.{job.state}", "id": id, "job": job_dict(job)})
        return Delivery(id, job.id, job.callback, body)
