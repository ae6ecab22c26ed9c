"""The load generator's arithmetic: plans, latencies from the plan, percentiles, the search, metrics."""

import asyncio
import itertools
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("websockets", reason="the server extra is not installed")
pytest.importorskip("starlette", reason="the server extra is not installed")
from websockets.asyncio.server import serve

from rechka.engine.metrics import Registry
from rechka.server.load import call as call_module
from rechka.server.load import find_most, make_plan, make_scripts
from rechka.server.load.call import Heard, Manner, make_call
from rechka.server.load.latency import Latencies, summary, text_of
from rechka.server.load.level import count_differing
from rechka.server.load.plan import Call
from rechka.server.load.speech import Script
from rechka.server.load.watch import http_address, parse, quantile, slope

RATE = 8000
CLIP = np.full(RATE, 1000, np.int16)


def heard(*messages, start=10.0, script=None, outcome="done"):
    call = Call(script or Script(0, b"\0\0" * RATE * 5, RATE), start, 0)
    return Heard(call, 1000.0 + start, list(messages), outcome)


def final(text, *words):
    return {
        "type": "final", "text": text, "start": words[0][1], "end": words[-1][2],
        "words": [{"word": w, "start": a, "end": b} for w, a, b in words],
    }  # fmt: skip


def partial(stable, unstable=""):
    return {"type": "partial", "stable": stable, "unstable": unstable}


def test_latencies_are_counted_from_the_plan():
    call = heard(
        (1011.5, partial("", "при")),
        (1011.8, partial("привет", " мор")),
        (1012.1, partial("привет", " мир")),
        (1012.9, final("привет мир", ("привет", 1.0, 1.6), ("мир", 1.7, 2.0))),
        (1014.0, final("да", ("да", 3.0, 3.2))),
    )
    found = Latencies()
    found.add(call, 0.0, 1e9)
    assert found.first_partial == pytest.approx([0.5, 1.0])  # a phrase without partials is first read in its final
    assert found.word == pytest.approx([0.2, 0.1, 0.8])
    assert found.final == pytest.approx([0.9, 0.8])
    assert text_of(call) == "привет мир\nда"


def test_only_what_was_spoken_in_the_part_that_counts():
    call = heard((1012.9, final("а б", ("а", 1.0, 1.6), ("б", 1.7, 2.0))), (1014.0, final("в", ("в", 3.0, 3.2))))
    found = Latencies()
    found.add(call, 1011.8, 1013.1)  # a late answer counts all the same
    assert (len(found.first_partial), len(found.word), len(found.final)) == (1, 1, 1)


def test_a_word_that_was_taken_back_counts_from_its_return():
    call = heard((1011.0, partial("", "а")), (1011.1, partial("", "о")), (1011.2, partial("", "а")),
                 (1012.0, final("а", ("а", 0.5, 0.9))))  # fmt: skip
    found = Latencies()
    found.add(call, 0.0, 1e9)
    assert found.word == pytest.approx([0.3])


def test_percentiles_never_flatter():
    values = [0.1] * 94 + [5.0] * 6
    assert summary(values) == {"count": 100, "p50": 0.1, "p95": 5.0, "p99": 5.0, "max": 5.0}
    assert summary([])["p95"] is None


def test_calls_of_one_script_must_have_one_text():
    one, other = (Script(i, b"\0\0", RATE) for i in (0, 1))
    say = [(1.0, final(text, (text, 0.0, 1.0))) for text in ("да", "нет")]
    calls = [heard(say[0], script=one) for _ in range(3)]
    assert count_differing(calls) == 0
    assert count_differing([*calls, heard(say[1], script=other)]) == 0
    assert count_differing([*calls, heard(say[1], script=one)]) == 1
    assert count_differing([*calls, heard(say[1], script=one, outcome="lost")]) == 0  # told as lost


@given(st.integers(1, 12), st.floats(1, 30), st.integers(0, 5))
def test_plans_have_as_many_streams_as_they_say(streams, seconds, seed):
    scripts = make_scripts([CLIP], RATE, count=3, seconds=4.0, seed=seed)
    plan = make_plan(scripts, streams, seconds, seed=seed)
    assert plan == make_plan(scripts, streams, seconds, seed=seed)
    for at in np.linspace(plan.begin_s, plan.end_s - 1e-3, 7):
        assert sum(call.start_s <= at < call.end_s for call in plan.calls) == streams


@given(st.floats(0.01, 0.5), st.floats(0, 0.3), st.integers(0, 99))
def test_packets_are_due_when_they_were_spoken_and_in_order(packet_s, jitter_s, seed):
    script = make_scripts([CLIP], RATE, count=1, seconds=2.0, seed=seed)[0]
    packets = list(Call(script, 0.0, seed).packets(packet_s, jitter_s))
    assert b"".join(data for _, data in packets) == script.data
    spoken = 0.0
    for (due, data), (later, _) in itertools.zip_longest(packets, packets[1:], fillvalue=(math.inf, b"")):
        spoken += len(data) / 2 / RATE
        assert spoken <= due + 1e-9 <= later + 1e-9
        assert due <= spoken + jitter_s + 1e-9


@given(st.integers(0, 300), st.integers(1, 16), st.integers(1, 200))
def test_the_search_finds_the_most(truth, start, limit):
    most, tried = find_most(lambda n: n, lambda n: n <= truth, start=start, limit=limit)
    truth = min(truth, limit)
    assert most <= truth <= most + max(1, round(0.04 * most)) - (most == truth)
    assert most in tried or most == 0
    assert len(tried) < 25


def test_quantiles_of_what_came_between_two_readings():
    registry = Registry()
    lag = registry.histogram("lag_seconds", "", (0.01, 0.1, 1.0))
    for _ in range(100):
        lag.observe(5.0)
    before = parse(registry.render())
    for value in [0.005] * 98 + [0.5] * 2:
        lag.observe(value)
    after = parse(registry.render())
    assert quantile(before, after, "lag_seconds", 0.5) < 0.01
    assert 0.1 < quantile(before, after, "lag_seconds", 0.99) <= 1.0
    assert quantile(after, after, "lag_seconds", 0.5) is None
    assert quantile({}, {}, "other", 0.5) is None


def test_series_are_added_up_and_junk_is_passed_over():
    text = '# HELP a b\nrechka_streams{model="a"} 2\nrechka_streams{model="b"} 3\nx_bucket{le="+Inf"} 4\n?? \nb one\n'
    assert parse(text) == {"rechka_streams": 5.0, "x_bucket:+Inf": 4.0}


def test_slopes():
    assert slope([0, 1, 2, 3, 4], [5, 7, 9, 11, 13]) == pytest.approx(2)
    assert slope([0, 1], [0, 1]) is None
    assert slope([1] * 9, list(range(9))) is None


def test_addresses():
    for url in ("http://h:1", "h:1", "ws://h:1/v1/stream", "http://h:1/"):
        assert http_address(url) == "http://h:1"
    assert http_address("wss://h/v1/stream") == "https://h"


def test_scripts_are_the_same_for_the_same_seed():
    one, two = (make_scripts([CLIP], RATE, count=4, seconds=6.0, seed=3) for _ in range(2))
    assert one == two
    assert len({script.data for script in one}) == 4
    assert all(script.seconds >= 6.0 for script in one)
    assert json.dumps([script.number for script in one]) == "[0, 1, 2, 3]"


def test_a_call_to_a_server_that_stopped_reading_is_lost_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(call_module, "PATIENCE_S", 0.2)

    async def stopped(socket):
        await socket.wait_closed()  # and reads nothing

    async def main():
        async with serve(stopped, "127.0.0.1", 0, max_size=None, max_queue=1, close_timeout=0.1) as server:
            address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            script = Script(0, bytes(64 << 20), 64 << 20)  # more than sockets hold, in half a second
            manner = Manner(address, None, {}, packet_s=0.05, jitter_s=0.0)
            return await make_call(Call(script, 0.0, 0), manner, time.monotonic())

    heard = asyncio.run(main())
    assert (heard.outcome, heard.why) == ("lost", "the server takes nothing for 0.2 s")
