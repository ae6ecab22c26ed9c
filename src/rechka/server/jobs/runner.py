"""The workers: a job is taken, recognised beside the live streams, and ended once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import IO

from rechka.engine import SessionOptions, transcribe
from rechka.errors import (
    Draining,
    FetchFailed,
    Overloaded,
    RechkaError,
    ServiceError,
    StorageBusy,
    StorageFull,
    StreamFailed,
)
from rechka.recognizers.finish import marked
from rechka.server.history import entry_of
from rechka.server.jobs.desk import PATIENCE_S, Desk
from rechka.server.jobs.quota import JobMeter
from rechka.server.store import Job, Outcome
from rechka.types import Transcript

log = logging.getLogger("rechka.server")

POLL_S = 2.0
"""How often a worker looks for jobs that other servers took in."""
BEAT_S = 2.0
"""How often progress is written; the lease is renewed at least three times before it ends."""
FETCH_RETRY_S = 30.0


@dataclass
class Run:
    """A job that runs here."""

    job: Job
    work: asyncio.Task[Transcript]
    meter: JobMeter
    progress: float = 0.0
    verdict: str = "run"


class Runner:
    """The workers of one server.

    Args:
        desk: shared with the rest.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.service, self.store, self.spool = desk.service, desk.store, desk.spool
        self.call = desk.call
        self.runs: dict[str, Run] = {}
        """What runs now, by job."""

    async def work(self) -> None:
        """One worker, until the server stops."""
        settings = self.service.settings
        while not self._desk.stopping:
            self._desk.wake.clear()
            job: Job | None = None
            async with self._desk.lasting("a worker of jobs"):
                job = await self._claimed(settings.job_lease_s)
                if job is not None:
                    self._desk.wake.set()  # for others: there may be more of what was cleared above
                    await self._run(job)
            if job is None and not self._desk.stopping:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._desk.wake.wait(), POLL_S)

    async def _claimed(self, lease_s: float) -> Job | None:
        names = list(self.service.engines)
        claiming = asyncio.ensure_future(
            self.call(self.store.claim, self.spool.worker, models=names, spool=self.spool.id, lease_s=lease_s)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:  # a job that nobody runs would wait for its lease to end
            with contextlib.suppress(StorageBusy, StorageFull):
                if (job := await claiming) is not None:
                    await self.call(self.store.release, job, delay_s=0.0, counted=False)
            raise

    async def _run(self, job: Job) -> None:
        auth = self.service.auth
        auth.recall(job.owner, 0.0)
        meter = JobMeter(auth.key(job.owner), auth.usages()[job.owner])
        run = Run(job, asyncio.create_task(self._recognise(job, meter)), meter)
        self.runs[job.id] = run
        beating = asyncio.create_task(self._beat(run))
        try:
            await asyncio.wait({run.work})
            await self._end(run)
        except asyncio.CancelledError:
            run.work.cancel()
            await asyncio.gather(run.work, return_exceptions=True)
            with contextlib.suppress(StorageBusy, StorageFull):
                await self.call(self.store.release, job, delay_s=0.0, counted=False)
            raise
        finally:
            beating.cancel()
            del self.runs[job.id]

    async def _recognise(self, job: Job, meter: JobMeter) -> Transcript:
        engine, options = self.service.engine(job.model), job.options

        def progress(done: float, total: float | None) -> None:
            if total and (run := self.runs.get(job.id)) is not None:
                run.progress = max(0.0, min(0.999, done / total))

        async with self._audio(job) as file:
            return await transcribe(
                engine,
                file,
                options=SessionOptions(
                    hotwords=options["hotwords"], min_silence_s=options["pause"], partials=False, bulk=True
                ),
                split=options["channels"] == "split",
                max_seconds=self.service.settings.max_file_s,
                meter=meter,
                on_progress=progress,
            )

    @contextlib.asynccontextmanager
    async def _audio(self, job: Job) -> AsyncIterator[IO[bytes]]:
        if job.url:
            async with self.service.fetched(job.url) as file:
                yield file
            return
        try:
            # By its number, so that no message about it names our folders.
            opened = os.fdopen(os.open(self.spool.path(job.id), os.O_RDONLY), "rb")
        except OSError as error:
            raise StreamFailed(
                f"the audio of the job cannot be read: {error.strerror}", remedy="send it again"
            ) from None
        with opened:
            yield opened

    async def _beat(self, run: Run) -> None:
        lease_s = self.service.settings.job_lease_s
        while True:
            await asyncio.sleep(min(BEAT_S, lease_s / 3))
            with contextlib.suppress(StorageBusy, StorageFull):
                verdict = await self.call(self.store.beat, run.job, progress=run.progress, lease_s=lease_s)
                if verdict != "run":
                    run.verdict = verdict
                    run.work.cancel()

    async def _end(self, run: Run) -> None:
        job = run.job
        if run.work.cancelled():
            if run.verdict == "stop":
                await self._finish(job, Outcome("cancelled"))
            elif run.verdict != "lost":  # the engine went away under it
                await self._desk.until_written(partial(self.store.release, job, delay_s=0.0, counted=False))
            return
        error = run.work.exception()
        if error is None:
            await self._finish(job, await asyncio.to_thread(self._done, run, run.work.result()))
        elif (delay := self._again(job, error)) is not None:
            counted = isinstance(error, FetchFailed)
            await self._desk.until_written(partial(self.store.release, job, delay_s=delay, counted=counted))
        else:
            if not isinstance(error, RechkaError):
                log.error("job %s failed", job.id, exc_info=error)
                error = StreamFailed("a fault ended the job", remedy="try again; if it fails again, report it")
            failure = error.to_dict()
            delivery = self._desk.news(replace(job, state="failed", error=failure, finished=self.store.now()))
            outcome = Outcome("failed", error=failure, delivery=delivery)
            await self._finish(job, outcome, keep_audio=isinstance(error, ServiceError))

    def _again(self, job: Job, error: BaseException) -> float | None:
        """Seconds after which the job is begun again by itself; None if it has failed."""
        if isinstance(error, (Overloaded, Draining)):
            return error.retry_after_s or PATIENCE_S
        if isinstance(error, FetchFailed) and error.retry_after_s and job.attempts < self.service.settings.job_attempts:
            return FETCH_RETRY_S * job.attempts
        return None

    def _done(self, run: Run, transcript: Transcript) -> Outcome:
        job = run.job
        if job.options.get("punctuate"):
            transcript = marked(transcript)
        result = {**transcript.to_dict(), "truncated": transcript.truncated}
        ended = replace(job, state="done", progress=1.0, duration=transcript.duration, finished=self.store.now())
        return Outcome(
            "done",
            result=result,
            duration=transcript.duration,
            used_s=run.meter.seconds,
            day=self.service.auth.today().isoformat(),
            entry=entry_of(self.service.settings.history, ended, result),
            delivery=self._desk.news(ended),
        )

    async def _finish(self, job: Job, outcome: Outcome, *, keep_audio: bool = False) -> None:
        written = await self._desk.until_written(partial(self.store.finish, job, outcome))
        if not written:
            log.warning("job %s belongs to another worker now; what was recognised here is thrown away", job.id)
            return
        if not keep_audio:
            self._desk.remove_audio(job)
        if outcome.delivery is not None:
            self._desk.mail.set()
        self._desk.ledger.note(job.owner, outcome.used_s)
        self._desk.ended.add(1, outcome.state)
        log.info("job %s of %s: %s", job.id, job.owner or "anybody", outcome.state)
