"""The board of calls: what is told at the end of a call is told before the server's own end."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("starlette", reason="the server extra is not installed")

from rechka.server.settings import Settings
from rechka.server.telephony import calls as board
from rechka.server.telephony.calls import Calls
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
