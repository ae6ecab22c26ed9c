"""The jobs of a server: taken in, recognised beside the live streams, ended once.

What must hold whatever happens is held by the store: a job is taken by compare-and-set, its worker renews a lease, and
its end (state, result, history, used quota, callback) is one transaction that only the worker that has it can write.
A server that dies leaves its jobs to the next one of its folder at once, to others when the lease ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from rechka.errors import (
    BadRequest,
    Conflict,
    Draining,
    Forbidden,
    NoSuchThing,
    RechkaError,
    StorageBusy,
    StorageFull,
    StreamFailed,
)
from rechka.server.auth import Principal, owner_of
from rechka.server.fetch import Guard
from rechka.server.jobs.desk import Desk
from rechka.server.jobs.quota import JobMeter
from rechka.server.jobs.runner import POLL_S, Runner
from rechka.server.jobs.spool import Spool
from rechka.server.store import Delivery, Entry, Job, Store, open_store
from rechka.server.store.records import Limits
from rechka.server.webhooks import BACKOFF_S, SEND_S, Webhooks
from rechka.server.wire import dumps

if TYPE_CHECKING:
    from rechka.server.service import Service

log = logging.getLogger("rechka.server")

TEND_S = 5.0
"""How often jobs of dead servers are looked for, and used quota is written."""
PURGE_S = 600.0
LAST_S = 10.0
"""How long the end waits until the history is written: a database that is lost may never come back."""
SENDERS = 4
"""Callbacks under way at the same time: one that is slow must not hold up the others."""
MAX_KEY = 255
AudioPieces: TypeAlias = AsyncIterator[bytes]


class Jobs(Desk):
    """All jobs that a server takes in and runs.

    Args:
        service: has engines, settings and keys.
        store: opened.
        spool: for the audio.

    Everything but the constructor belongs to the server's event loop; the store runs in a thread of its own.
    """

    def __init__(self, service: Service, store: Store, spool: Spool) -> None:
        super().__init__(service, store, spool)
        s = service.settings
        self._runner = Runner(self)
        self._limits = Limits(s.max_jobs, s.max_jobs_per_key)
        self._workers: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []
        self._pending: set[asyncio.Task[None]] = set()
        self._stopped = False
        self.callbacks = Guard(s.webhook_hosts, s.private_networks)
        self._webhooks = Webhooks(self.callbacks, s.webhook_secret)
        self._counts: dict[str, int] = {}
        service.metrics.gauge("rechka_jobs", "Jobs by state.", self._by_state, ("state",))

    def _by_state(self) -> dict[tuple[str, ...], float]:
        return {(state,): float(count) for state, count in self._counts.items()}

    # Life

    async def start(self) -> None:
        """Take up what a predecessor left, and begin."""
        await self.ledger.sync()
        await self._adopt()
        await self._sweep()
        settings = self.service.settings
        senders = [self._deliver() for _ in range(SENDERS)] if settings.webhooks else []
        self._others = [asyncio.create_task(loop) for loop in (self._tend(), *senders)]
        self._workers = [asyncio.create_task(self._runner.work()) for _ in range(settings.job_workers)]

    async def drain(self, grace_s: float) -> None:
        """Begin no more; jobs that are running may end within the grace time, then they go back into the queue."""
        self.stopping = True
        self.wake.set()
        if self._workers:
            await asyncio.wait(self._workers, timeout=max(0.0, grace_s - 1.0))
        await self.stop()

    async def stop(self) -> None:
        """Give running jobs back to the queue, now."""
        self.stopping = self._stopped = True
        tasks, self._workers, self._others = [*self._workers, *self._others], [], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """The end, after the engines are closed."""
        await self.stop()
        if self._pending:
            _, late = await asyncio.wait(self._pending, timeout=LAST_S)
            if late:
                log.error("%d lines of the history are lost: the database takes none", len(late))
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with contextlib.suppress(StorageBusy, StorageFull):
            await self.ledger.sync()
        await self.call(self.store.close)
        self.thread.shutdown(wait=False)
        self.spool.close()

    # For clients

    async def submit(
        self, principal: Principal, draft: Job, audio: AudioPieces | None, *, callback: str = ""
    ) -> tuple[Job, bool]:
        """Take a job in; it is safe on the disk when this returns.

        Args:
            principal: who sends it.
            draft: model, options, name, url and idempotency key; the rest is filled in.
            audio: of an upload.
            callback: where its end is told.

        Returns:
            The job, and whether it is new: the same idempotency key finds the job that it made before.

        Raises:
            Conflict: the idempotency key came with something else before.
            QuotaExceeded, Overloaded, Draining, Forbidden, BadRequest, StorageBusy, StorageFull.
        """
        if self.service.draining:
            raise Draining("the server is about to stop", remedy="try another server", retry_after_s=5.0)
        auth = self.service.auth
        JobMeter(principal.key, auth.usage(principal)).audio(0.0)  # refuses if the quota of the day is used up
        if callback:
            if not self.service.settings.webhooks:
                raise Forbidden("this server calls no addresses", remedy="leave callback_url out, and ask for the job")
            self.callbacks.examine(callback)
        now = self.store.now()
        owner = owner_of(principal)
        job = replace(draft, id=f"job_{secrets.token_hex(16)}", owner=owner, created=now, ready=now, callback=callback)
        if audio is None:
            job = replace(job, digest=_digest(job, ""))
            found = await self.call(self.store.add, job, self._limits)
        else:
            job, found = await self._spooled(job, audio)
        if found.digest != job.digest:
            raise Conflict("the idempotency key came with another request before", remedy="use a new key")
        self.wake.set()
        return found, found.id == job.id

    async def _spooled(self, job: Job, audio: AudioPieces) -> tuple[Job, Job]:
        """The job with its audio on the disk, and the one in the store: another if the request was repeated."""
        loop = asyncio.get_running_loop()
        writer = await loop.run_in_executor(None, self.spool.begin, job.id)
        found: Job | None = None
        try:
            sha = hashlib.sha256()
            async for piece in audio:
                sha.update(piece)
                await loop.run_in_executor(None, writer.write, piece)
            if not writer.size:
                raise BadRequest("the recording is empty", remedy="send it as the body, or in the field `file`")
            await loop.run_in_executor(None, writer.keep)
            job = replace(job, spool=self.spool.id, size=writer.size, digest=_digest(job, sha.hexdigest()))
            adding = asyncio.ensure_future(self.call(self.store.add, job, self._limits))
            try:
                found = await asyncio.shield(adding)
            except asyncio.CancelledError:  # the store goes on, and a job that it takes in needs its audio
                with contextlib.suppress(RechkaError):
                    found = await adding
                raise
            return job, found
        finally:
            if found is None or found.id != job.id:
                writer.drop()

    async def get(self, principal: Principal, id: str) -> Job:
        """A job as it is now.

        Raises:
            NoSuchThing: there is none of this principal.
        """
        job = await self.call(self.store.job, id, scope_of(principal))
        if job is None:
            raise _unknown(id)
        return self.current(job)

    def current(self, job: Job) -> Job:
        """With the progress of this moment, if it runs here."""
        run = self._runner.runs.get(job.id)
        return job if run is None or job.state != "running" else replace(job, progress=run.progress)

    async def list(self, principal: Principal, *, state: str | None, after: str | None, limit: int) -> Sequence[Job]:
        """The newest jobs first."""
        owner = scope_of(principal)
        found = await self.call(self.store.jobs, owner, state=state, after=after, limit=limit)
        return [self.current(job) for job in found]

    async def cancel(self, principal: Principal, id: str) -> Job | None:
        """Cancel a job that waits or runs, or forget one that ended; None if it is forgotten.

        Raises:
            NoSuchThing: there is none of this principal.
        """
        owner = scope_of(principal)
        before = await self.get(principal, id)
        # If it is not deleted it was queued again meanwhile, and needs its audio until it is cancelled.
        if before.state not in ("queued", "running") and await self.call(self.store.delete, id, owner):
            self.remove_audio(before)
            return None
        job = await self.call(self.store.cancel, id, owner)
        if job is None:
            raise _unknown(id)
        if (run := self._runner.runs.get(id)) is not None:
            run.verdict = "stop"
            run.work.cancel()
        elif job.state == "cancelled":
            self.remove_audio(job)
            self.ended.add(1, "cancelled")
        return job

    async def retry(self, principal: Principal, id: str) -> Job:
        """Queue a job again that failed or was cancelled.

        Raises:
            NoSuchThing: there is none of this principal.
            Conflict: it is in another state, or its audio is not kept any more.
        """
        job = await self.get(principal, id)
        if job.state not in ("failed", "cancelled"):
            raise Conflict(f"the job is {job.state}", remedy="only what failed or was cancelled can be tried again")
        if job.spool and (job.spool != self.spool.id or not self.spool.path(job.id).exists()):
            raise Conflict("the audio of the job is not kept any more", remedy="send it again")
        if not await self.call(self.store.retry, id, scope_of(principal), self._limits):
            raise Conflict("the job is not in this state any more", remedy="ask for it again")
        self.wake.set()
        return await self.get(principal, id)

    # Live sessions

    def remember(self, make: Callable[[], Entry]) -> None:
        """Add a line to the history, soon; it is made beside the loop."""

        async def write() -> None:
            entry = await asyncio.to_thread(make)
            await self.until_written(partial(self.store.remember, entry))

        task = asyncio.get_running_loop().create_task(write())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    # Upkeep

    async def _tend(self) -> None:
        elapsed = 0.0
        while True:
            await asyncio.sleep(TEND_S)
            elapsed += TEND_S
            async with self.lasting("upkeep of jobs"):
                await self._adopt()
                await self.ledger.sync()
                self._counts = await self.call(self.store.counts)
                if elapsed >= PURGE_S:
                    elapsed = 0.0
                    await self.purge()
                    await self._sweep()

    async def _adopt(self) -> None:
        for worker in await asyncio.to_thread(self.spool.dead):
            count = await self.call(self.store.abandon, worker)
            if count:
                log.warning("%d jobs of a server that died begin again", count)
            self.spool.bury(worker)
        attempts = self.service.settings.job_attempts
        error = StreamFailed(
            f"the server ended {attempts} times while it recognised this", remedy="see the server's log, then retry"
        )
        failure = error.to_dict()

        def news(job: Job) -> Delivery | None:
            return self.news(replace(job, error=failure))

        for job in await self.call(self.store.overdue, attempts, failure, news):
            self.ended.add(1, "failed")
            log.error("job %s failed: begun %d times", job.id, job.attempts)
            self.mail.set()
        self.wake.set()

    async def purge(self) -> None:
        """Forget what is older than the settings allow."""
        s, now = self.service.settings, self.store.now()
        purged = await self.call(
            self.store.purge, jobs_before=now - s.job_keep_h * 3600, entries_before=now - s.history_days * 86400
        )
        for id in purged.jobs:
            self.spool.remove(id)

    async def _sweep(self) -> None:
        """Remove audio that no job needs: its server died between two steps."""
        old = await asyncio.to_thread(self.spool.old)
        for i in range(0, len(old), 500):
            part = old[i : i + 500]
            for id in set(part) - await self.call(self.store.known, part):
                self.spool.remove(id)

    async def _deliver(self) -> None:
        # Up to Python 3.11 wait_for takes a cancellation that comes together with the mail for its own, and forgets it.
        while not self._stopped:
            self.mail.clear()
            delivery: Delivery | None = None
            async with self.lasting("callbacks"):
                delivery = await self.call(self.store.due, lease_s=2 * SEND_S, attempts=len(BACKOFF_S) + 1)
                if delivery is not None:
                    self.mail.set()  # for others: there may be more of what was cleared above
                    wait = await self._webhooks.send(delivery)
                    await self.call(self.store.told, delivery.id, retry_s=wait)
            if delivery is None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.mail.wait(), POLL_S)


def open_jobs(service: Service) -> Jobs | None:
    """The jobs of a service, if its settings say where to keep them.

    Raises:
        OutputError, StorageBusy, StorageFull, MissingExtra, UsageError: they cannot be kept there.
    """
    settings = service.settings
    if settings.data_dir is None:
        return None
    spool = Spool(settings.data_dir, settings.max_spool_mb << 20)
    try:
        return Jobs(service, open_store(settings.data_dir, settings.database), spool)
    except BaseException:
        spool.close()
        raise


def scope_of(principal: Principal) -> str | None:
    """Whose things a principal sees: None for everybody's."""
    return None if principal.may("admin") else owner_of(principal)


def key_of(header: str | None) -> str | None:
    """The idempotency key of a request.

    Raises:
        BadRequest: too long, or not printable.
    """
    if header is None:
        return None
    if not 0 < len(header) <= MAX_KEY or not header.isprintable() or not header.isascii():
        raise BadRequest(f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters")
    return header


def _digest(job: Job, audio: str) -> str:
    asked: Mapping[str, Any] = {"model": job.model, "options": job.options, "url": job.url, "callback": job.callback}
    return hashlib.sha256(f"{dumps(asked)}{audio}".encode()).hexdigest()


def _unknown(id: str) -> NoSuchThing:
    return NoSuchThing(f"no job is called {id[:80]!r}", remedy="it may be too old, or another key's")
