"""Many sessions, one model: worker threads step whoever is ready; the event loop never computes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rechka.engine.batcher import Batcher
from rechka.engine.cores import cores
from rechka.engine.intake import Intake, Report
from rechka.engine.metrics import SIZES, Registry
from rechka.engine.options import EngineOptions, SessionOptions
from rechka.engine.session import Meter, Session
from rechka.errors import Draining, Overloaded, RechkaError, StreamFailed
from rechka.recognizers import Asr, Stream

log = logging.getLogger(__name__)

WARM_S = 3.0
"""Noise that the model hears before the first client."""
JOIN_S = 5.0
"""How long ``close`` waits for a worker in the middle of a step."""


class Engine:
    """Sessions over one model.

    ``start``, ``open``, ``drain`` and ``close`` belong to one event loop; sessions do too.

    Args:
        asr: the model. On a CPU load it with ``threads=1``: workers share the cores, and a step of one thread wastes
            none of them.
        options: limits and sizes.
        metrics: where to count; several engines may share one registry.
        cpu: False if the model runs on a GPU; then one worker is the default.
    """

    def __init__(
        self,
        asr: Asr,
        options: EngineOptions | None = None,
        *,
        metrics: Registry | None = None,
        cpu: bool = True,
    ) -> None:
        self.asr = asr
        self.options = options or EngineOptions()
        self.metrics = metrics or Registry()
        self.workers = self.options.workers or (cores() if cpu else 1)
        self.draining = False
        self.ready = False
        """Warm, and not draining."""
        self.batcher: Batcher[Session] = Batcher(
            max_batch=self.options.max_batch,
            max_wait_s=self.options.max_wait_ms / 1000,
            workers=self.workers,
            observe=lambda age: self._wait_s.observe(age),
        )
        self._sessions: set[Session] = set()
        self._opening = 0
        self._threads: list[threading.Thread] = []
        self._telling = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._emptied = asyncio.Event()
        # Opening a session may build a decoder for its hotwords; reading files blocks. Neither may wait for a step.
        self.pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="rechka-aux")
        m = self.metrics
        self._audio = m.counter("rechka_audio_seconds_total", "Seconds of audio accepted.")
        self._opened = m.counter("rechka_streams_total", "Sessions by how they ended.", ("end",))
        self._refused = m.counter("rechka_streams_refused_total", "Sessions that were not opened.", ("reason",))
        self._events = m.counter("rechka_events_total", "Events given to sessions.", ("kind",))
        self._failures = m.counter("rechka_step_failures_total", "Steps that raised.")
        self._step_s = m.histogram("rechka_step_seconds", "Time of one step of one batch.")
        self._batch = m.histogram("rechka_batch_streams", "Sessions of one step.", SIZES)
        self._wait_s = m.histogram("rechka_queue_seconds", "Longest wait of a live session before a step.")

    @property
    def active(self) -> int:
        """Open sessions."""
        return len(self._sessions) + self._opening

    @property
    def sessions(self) -> frozenset[Session]:
        """The open sessions."""
        return frozenset(self._sessions)

    async def start(self) -> None:
        """Warm up and start the workers.

        Raises:
            RechkaError: the model cannot be run.
        """
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(self.pool, self._warm_up)
        for i in range(self.workers):
            thread = threading.Thread(target=self._work, name=f"rechka-step-{i}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self.ready = True

    async def check(self, options: SessionOptions) -> None:
        """Whether a session could have these options.

        Raises:
            UsageError, IncompatibleParts: options that the model does not take.
        """
        assert self._loop is not None, "start() comes before check()"
        await self._loop.run_in_executor(self.pool, Intake, self.asr.recognizer, options)

    async def open(self, options: SessionOptions | None = None, *, meter: Meter | None = None) -> Session:
        """A new session.

        Args:
            options: what the client said.
            meter: told of every second of audio and of the end.

        Raises:
            Draining: the server is about to stop.
            Overloaded: too many sessions, or those that are open already wait too long.
            UsageError, IncompatibleParts: options that the model does not take.
        """
        self._admit()
        options = options or SessionOptions()
        assert self._loop is not None, "start() comes before open()"
        self._opening += 1  # it takes its place now, so that a crowd cannot slip in together
        try:
            intake = await self._loop.run_in_executor(self.pool, Intake, self.asr.recognizer, options)
        finally:
            self._opening -= 1
        if self.draining:  # since it was admitted
            raise self._draining()
        session = Session(self, options, intake, meter)
        self._sessions.add(session)
        return session

    def pressure(self) -> float:
        """Seconds that ready live sessions had to wait lately, at worst."""
        return self.batcher.pressure()

    async def drain(self, grace_s: float = 30.0) -> None:
        """Take no new sessions; let the open ones end by themselves, and after ``grace_s`` finish them."""
        self.draining, self.ready = True, False
        await self._until_empty(grace_s)
        for session in list(self._sessions):
            session.drained = True
            session.finish()
        await self._until_empty(min(5.0, grace_s))
        for session in list(self._sessions):
            session.cancel()

    async def close(self) -> None:
        """Stop the workers; sessions that are open are cancelled."""
        self.draining, self.ready = True, False
        for session in list(self._sessions):
            session.cancel()
        self.batcher.close()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, JOIN_S)
        self.pool.shutdown(wait=False, cancel_futures=True)

    # For sessions

    def offer(self, session: Session) -> None:
        """Queue a session if a step would bring it forward."""
        if session._intake.worth:
            session._unsettled = True
            self.batcher.offer(session, bulk=session.options.bulk)

    def forget(self, session: Session, end: str) -> None:
        """A session is over; its state is freed now, or when the worker that holds it comes back."""
        if session in self._sessions:
            self._sessions.discard(session)
            self._opened.add(1, end)
            self.batcher.discard(session)
            session._end()
            if not self.batcher.busy(session):
                session._intake.clear()
            if not self._sessions:
                self._emptied.set()

    def count_audio(self, seconds: float) -> None:
        """Audio was accepted."""
        self._audio.add(seconds)

    # In the workers

    def _work(self) -> None:
        while self._round():
            pass  # a call for each batch, so that a waiting worker keeps no session alive

    def _round(self) -> bool:
        """Wait for a batch and step it; False at the end."""
        batch = self.batcher.take()
        if batch is None:
            return False
        began = time.monotonic()
        reports = self._step(batch)
        self._step_s.observe(time.monotonic() - began)
        self._batch.observe(len(batch))
        for report in reports.values():
            for event in report.events:
                self._events.add(1, type(event).__name__)
        # Once released, a session may be stepped by another worker, whose report must come after this one; and the loop
        # asks on a report whether the session is busy, so it may not be told before the release.
        with self._telling:
            for session, report in reports.items():
                session._under_way += 1
                more = report.error is None and not session._over and session._intake.worth
                self.batcher.release(session, again=more)
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop was closed while the last step ran
                self._loop.call_soon_threadsafe(self._deliver, reports)
        return True

    def _step(self, batch: Sequence[Session]) -> dict[Session, Report]:
        """One step of some sessions; whoever raises fails alone."""
        failed: dict[Session, Report] = {}
        ready: dict[Session, list[Stream]] = {}
        for session in batch:
            if not session._over:
                self._ingest(session, ready, failed)
        self._run(ready, failed)
        return {session: failed.get(session) or self._collect(session) for session in batch}

    def _ingest(self, session: Session, ready: dict[Session, list[Stream]], failed: dict[Session, Report]) -> None:
        try:
            ready[session] = session._intake.ingest()
        except Exception as error:  # noqa: BLE001 - whatever one client's audio does must not reach the others
            failed[session] = self._failure(session, error)

    def _collect(self, session: Session) -> Report:
        try:
            return Report() if session._over else session._intake.collect()
        except Exception as error:  # noqa: BLE001 - as above
            return self._failure(session, error)

    def _run(self, ready: dict[Session, list[Stream]], failed: dict[Session, Report]) -> None:
        streams = [stream for part in ready.values() for stream in part]
        if not streams:
            return
        try:
            self.asr.recognizer.step(streams)
        except Exception as error:  # noqa: BLE001 - told to the session that it belongs to
            if len(ready) == 1:
                session = next(iter(ready))
                failed[session] = self._failure(session, error)
                return
            log.warning("a step of %d sessions failed (%s); retrying one by one", len(ready), type(error).__name__)
            for session, part in ready.items():
                self._run({session: part}, failed)

    def _failure(self, session: Session, error: Exception) -> Report:
        self._failures.add()
        if isinstance(error, RechkaError):
            return Report(error=error)
        log.error("session %s failed", session.id, exc_info=error)
        remedy = "open a new one; if it happens again, report it with the server's log"
        return Report(error=StreamFailed(f"a fault ended session {session.id}", remedy=remedy))

    # In the loop

    def _deliver(self, reports: dict[Session, Report]) -> None:
        for session, report in reports.items():
            busy = self.batcher.busy(session)
            if session._over:
                if not busy:
                    session._intake.clear()
                continue
            with self._telling:  # asked after busy: a worker counts its report before it lets go of the session
                session._under_way -= 1
                session._unsettled = busy or session._under_way > 0
            session._deliver(report)

    def _admit(self) -> None:
        if self.draining or not self.ready:
            raise self._draining()
        if self.active >= self.options.max_streams:
            self._refused.add(1, "streams")
            raise Overloaded(
                f"all {self.options.max_streams} streams are in use", remedy="try again soon", retry_after_s=5.0
            )
        age = self.pressure()
        if age > self.options.max_queue_age_s:
            self._refused.add(1, "queue")
            raise Overloaded(
                f"streams wait {age:.1f} s for a step, the limit is {self.options.max_queue_age_s:g} s",
                remedy="try again soon",
                retry_after_s=5.0,
            )

    def _draining(self) -> Draining:
        self._refused.add(1, "draining")
        return Draining("the server is not taking new sessions", remedy="try another server", retry_after_s=5.0)

    async def _until_empty(self, seconds: float) -> None:
        self._emptied.clear()
        if self._sessions:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), seconds)

    def _warm_up(self) -> None:
        recognizer = self.asr.recognizer
        noise = np.random.default_rng(0).standard_normal(round(WARM_S * recognizer.spec.sample_rate)) * 0.01
        for size in sorted({1, min(4, self.options.max_batch)}):
            streams = [recognizer.open(limit_s=None) for _ in range(size)]
            for stream in streams:
                stream.feed(noise.astype(np.float32))
                stream.finish()
            recognizer.run(streams)
        # What has to be compiled for every shape of its inputs would keep the first callers waiting for seconds.
        live = getattr(recognizer, "first", recognizer)  # of two passes
        prepare = getattr(getattr(live, "model", None), "prepare", None)
        if prepare is not None:
            prepare(self.options.max_batch)
