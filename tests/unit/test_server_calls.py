"""The board of calls: what is told at the end of a call is told before the server's own end."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("starlette", reason="the server extra is not installed")

from rechka.server.settings import Settings
from rechka.server.telephony import calls as board
from rechka.server.telephony import report
from rechka.server.telephony.calls import Calls
from rechka.server.telephony.report import Reporter
from rechka.testing.waiting import PATIENCE_S


def test_the_end_waits_for_the_report_of_a_call_whose_dialogue_is_being_made(monkeypatch):
    """It is made in a thread; until then there is no report to wait for."""
    making, let_go, posted = threading.Event(), threading.Event(), []

    def slowly(transcript):
        making.set()
        assert let_go.wait(PATIENCE_S)
        return transcript

    async def post(body, delivery):
        posted.append(body)
        return 200

    async def main():
        calls = Calls(Settings(call_webhook="http://127.0.0.1:9/"))
        calls._reporter._post = post
        call, tracks = calls.join("one", "freeswitch", "", ["caller", "callee"])
        call.begin("toy", "ru")
        leaving = asyncio.create_task(calls.leave(call, tracks, 1.0, "hangup"))
        await asyncio.to_thread(making.wait, PATIENCE_S)
        settling = asyncio.create_task(calls.settle(PATIENCE_S))
        await asyncio.wait({settling}, timeout=0.1)
        let_go.set()
        await settling
        told = len(posted)
        await leaving
        await calls.close()
        return told

    monkeypatch.setattr(board, "dialogue", slowly)
    assert asyncio.run(main()) == 1


@pytest.mark.parametrize("turns", range(6))
def test_reports_end_with_the_server_whenever_an_answer_comes(turns, monkeypatch):
    """One that asks to try again, just when nobody will."""
    monkeypatch.setattr(report, "BACKOFF_S", (10 * PATIENCE_S,))

    async def main():
        reporter = Reporter(Settings(call_webhook="http://127.0.0.1:9/"))
        answer, asked, posted = asyncio.get_running_loop().create_future(), asyncio.Event(), []

        async def post(body, delivery):
            posted.append(delivery)
            asked.set()
            return await answer

        reporter._post = post
        reporter.report("one", {})
        await asked.wait()
        (task,) = reporter._tasks
        answer.set_result(503)
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(reporter.close(), PATIENCE_S)
        return len(posted), task.cancelled()

    assert asyncio.run(main()) == (1, True)
