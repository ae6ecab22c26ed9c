"""Jobs at bad moments: cancelled between two steps, overtaken by another request, stopped while nothing can be kept."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("starlette", reason="the server extra is not installed")

from rechka.errors import StorageBusy
from rechka.server.auth import Auth, Principal
from rechka.server.jobs import desk, manager, open_jobs, runner, spool
from rechka.server.jobs.spool import Spool
from rechka.server.service import Service
from rechka.server.settings import Settings
from rechka.server.store import Entry, Job
from rechka.testing import say, toy_asr
from rechka.testing.audio import wav_bytes
from rechka.testing.waiting import PATIENCE_S

WHO = Principal("anybody", ("admin",))
SPEECH = wav_bytes(say("привет мир", before_s=0.5, after_s=1.5), 8000)
DRAFT = Job(
    id="", owner="", state="queued", created=0.0, ready=0.0, model="toy",
    options={"channels": "mix", "hotwords": {}, "pause": None}, name="", url="",
)  # fmt: skip


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


async def pieces():
    yield SPEECH


@asynccontextmanager
async def jobs_of(folder, **settings):
    """The jobs of a server that does not listen anywhere; nobody works on them unless somebody starts them."""
    chosen = Settings(data_dir=folder, workers=1, **settings)
    service = Service(chosen, {"toy": toy_asr()}, Auth())
    service.jobs = open_jobs(service)
    await service.engines["toy"].start()
    try:
        yield service.jobs
    finally:
        await service.engines["toy"].close()
        await service.jobs.close()


async def until(true):
    while not true():
        await asyncio.sleep(0.01)


class Held:
    """A call of the store that begins, and ends when it is let go."""

    def __init__(self, call):
        self.call, self.begun, self.let_go = call, threading.Event(), threading.Event()

    def __call__(self, *args):
        self.begun.set()
        assert self.let_go.wait(PATIENCE_S)
        return self.call(*args)


@pytest.mark.parametrize("turns", range(6))
def test_the_end_comes_to_those_who_wait_for_callbacks_whenever_the_last_one_is_due(tmp_path, turns):
    """A job that ends while the server drains has something to tell just before everybody is stopped."""

    async def main():
        async with jobs_of(tmp_path, webhooks=True, webhook_secret="x" * 32) as jobs:
            await jobs.start()
            idle = jobs.mail.wait
            waiting = []

            def counted():
                waiting.append(True)
                return idle()

            jobs.mail.wait = counted
            await until(lambda: len(waiting) >= manager.SENDERS)
            tasks = [*jobs._workers, *jobs._others]
            jobs.mail.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            await jobs.stop()
            return len(tasks), sum(task.done() for task in tasks)

    begun, ended = run(main())
    assert ended == begun > manager.SENDERS


def test_the_end_does_not_wait_for_a_database_that_never_comes_back(tmp_path, monkeypatch, caplog):
    """Lines of the history are lost then, and the log says so."""
    monkeypatch.setattr(manager, "LAST_S", 0.05)
    monkeypatch.setattr(desk, "PATIENCE_S", 0.01)
    tried = threading.Event()

    def locked(_):
        tried.set()
        raise StorageBusy("the database is locked")

    async def main():
        async with jobs_of(tmp_path, history="on") as jobs:
            jobs.store.remember = locked
            jobs.remember(lambda: Entry("live_1", "", "live", 0.0, 1.0, "toy"))
            await asyncio.to_thread(tried.wait, PATIENCE_S)

    run(main())
    assert "1 lines of the history are lost" in caplog.text


def test_a_job_that_is_queued_again_just_before_it_is_forgotten_is_cancelled(tmp_path):
    """Two requests at once: one deletes a failed job, the other tries it again."""

    async def main():
        async with jobs_of(tmp_path) as jobs:
            job, _ = await jobs.submit(WHO, DRAFT, pieces())
            await jobs.cancel(WHO, job.id)
            jobs.spool.path(job.id).write_bytes(SPEECH)  # as that of a job that failed
            get = jobs.get

            async def overtaken(principal, id):
                found = await get(principal, id)
                jobs.get = get
                await jobs.retry(principal, id)
                return found

            jobs.get = overtaken
            left = await jobs.cancel(WHO, job.id)
            return left, await get(WHO, job.id), jobs.spool.path(job.id).exists()

    left, job, kept = run(main())
    assert left is not None
    assert left.state == job.state == "cancelled"
    assert not kept


def test_a_job_that_is_taken_in_has_its_audio_though_nobody_waits_for_the_answer(tmp_path):
    async def main():
        async with jobs_of(tmp_path) as jobs:
            adding = jobs.store.add = Held(jobs.store.add)
            asked = asyncio.create_task(jobs.submit(WHO, DRAFT, pieces()))
            await asyncio.to_thread(adding.begun.wait, PATIENCE_S)
            asked.cancel()
            await asyncio.sleep(0)
            adding.let_go.set()
            await asyncio.wait({asked})
            assert asked.cancelled()
            found = await jobs.list(WHO, state=None, after=None, limit=9)
            return [jobs.spool.path(job.id).exists() for job in found]

    assert run(main()) == [True]


@pytest.mark.skipif(spool.fcntl is None, reason="without such locks nobody is taken for dead")
def test_a_server_that_starts_is_not_taken_for_dead(tmp_path, monkeypatch):
    """Another one of the folder looks for the dead just before the new one locks its mark."""
    other, found = Spool(tmp_path, 1 << 20), []
    lock = spool.fcntl.flock

    def late(file, how):
        monkeypatch.setattr(spool.fcntl, "flock", lock)
        found.extend(other.dead())
        lock(file, how)

    monkeypatch.setattr(spool.fcntl, "flock", late)
    new = Spool(tmp_path, 1 << 20)
    found += other.dead()
    assert found == []
    new.close()
    other.close()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [".lock", "spool-id"]


def test_used_quota_is_written_once_though_the_end_comes_while_it_is_written(tmp_path):
    """The store goes on with what it was told, and the end writes what is left: nothing."""

    async def main():
        async with jobs_of(tmp_path) as jobs:
            writing = jobs.store.use = Held(jobs.store.use)
            jobs.service.auth.recall("crm", 60.0)
            tending = asyncio.create_task(jobs.ledger.sync())
            await asyncio.to_thread(writing.begun.wait, PATIENCE_S)
            tending.cancel()
            await asyncio.wait({tending})
            writing.let_go.set()
            await jobs.ledger.sync()
            used = await jobs.call(writing.call, jobs.service.auth.today().isoformat(), {})
            return tending.cancelled(), used, jobs.service.auth.usages()["crm"].audio_s

    assert run(main()) == (True, {"crm": 60.0}, 60.0)


def test_no_job_waits_while_a_worker_is_idle(tmp_path, monkeypatch):
    """Two jobs come when one worker has just found nothing, and another one, which takes the first, hears of both."""
    monkeypatch.setattr(runner, "POLL_S", PATIENCE_S)

    async def main():
        async with jobs_of(tmp_path) as jobs:
            workers, begun = jobs._runner, []
            found_none, let_go = asyncio.Event(), asyncio.Event()
            claimed = workers._claimed

            async def slowly(lease_s):
                workers._claimed = claimed
                found = await claimed(lease_s)
                found_none.set()
                await let_go.wait()
                return found

            async def begin(job):
                begun.append(job.id)
                await asyncio.Event().wait()

            workers._claimed, workers._run = slowly, begin
            tasks = [asyncio.create_task(workers.work())]
            await found_none.wait()
            wanted = [(await jobs.submit(WHO, DRAFT, pieces()))[0].id for _ in range(2)]
            tasks.append(asyncio.create_task(workers.work()))
            await until(lambda: begun)
            let_go.set()
            await until(lambda: len(begun) == 2)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return wanted, begun

    wanted, begun = run(main())
    assert sorted(begun) == sorted(wanted)
