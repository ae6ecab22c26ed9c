"""FreeSWITCH's mod_audio_stream and mod_audio_fork replayed: raw samples, metadata, events back on the same socket."""

import asyncio
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.testing import say

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("websockets", reason="the server extra is not installed")
from starlette.datastructures import QueryParams
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from rechka.errors import BadRequest
from rechka.server.telephony.freeswitch import parse_query
from rechka.testing.servers import serving
from rechka.testing.telephony import encoded, packets, told
from rechka.testing.waiting import PATIENCE_S, wait_until

SPEECH = say("как дела", before_s=0.5, after_s=1.5)


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def events_of(server, call):
    return asyncio.run(asyncio.wait_for(told(server.ws, call), PATIENCE_S))


def test_mono_with_metadata_and_a_hangup_without_a_word(server):
    """The socket closes right after the last sample; the last phrase is in the events of the call."""
    address = f"{server.ws}/v1/freeswitch?call=fs-1"
    with connect(address, subprotocols=["audiostream.drachtio.org"], compression=None) as socket:
        assert socket.subprotocol == "audiostream.drachtio.org"
        socket.send('{"to": "6173333456", "from": "2061236666"}')
        for packet in packets(encoded(say("как дела", before_s=0.5), "slin"), 320):
            socket.send(packet)
    events = events_of(server, "fs-1")
    assert events[-1]["transcript"]["text"] == "как дела"
    assert events[-1]["reason"] == "hangup"


def test_stereo_is_a_dialogue_and_events_come_back(server):
    other = say("хорошо", before_s=2.0, after_s=1.0)
    both = np.zeros((max(len(SPEECH), len(other)), 2), np.float32)
    both[: len(SPEECH), 0], both[: len(other), 1] = SPEECH, other
    with connect(f"{server.ws}/v1/freeswitch?call=fs-2&channels=2", compression=None) as socket:
        socket.send("not JSON, and kept")
        for packet in packets(encoded(both.reshape(-1), "slin"), 640):
            socket.send(packet)
        socket.send('{"type": "finish"}')
        messages = [json.loads(text) for text in socket]
    assert [one["type"] for one in (messages[0], messages[-1])] == ["call_start", "call_end"]
    segments = messages[-1]["transcript"]["segments"]
    assert [(one["speaker"], one["text"]) for one in segments] == [("caller", "как дела"), ("callee", "хорошо")]


def test_nothing_comes_back_if_it_is_not_wanted(server):
    with connect(f"{server.ws}/v1/freeswitch?events=false&tracks=a&call=fs-3", compression=None) as socket:
        socket.send(encoded(SPEECH, "slin"))
        socket.send('{"type": "finish"}')
        assert list(socket) == []
    assert events_of(server, "fs-3")[-1]["transcript"]["segments"][0]["speaker"] == "a"


@pytest.mark.parametrize(
    ("query", "sent", "code"),
    [
        ("channels=3", [], 1007),
        ("channels=0", [], 1007),
        ("sample_rate=x", [], 1007),
        ("sample_rate=5", [], 1007),
        ("tracks=a,a", [], 1007),
        ("tracks=a,b&channels=1", [], 1007),
        ("call=a%20b", [], 1007),
        ("events=x", [], 1007),
        ("", ["x" * 70_000], 1007),
    ],
)
def test_what_cannot_be_closes(server, query, sent, code):
    assert code_of(server, query, sent) == code
    wait_until(lambda: server.service.engine().active == 0)


def test_who_says_nothing_more_is_left():
    with serving(idle_s=0.3) as server:
        assert code_of(server, "", [b"\0"]) == 1008
        wait_until(lambda: server.service.engine().active == 0)


def code_of(server, query, sent):
    """With which the server closes after these messages."""
    with connect(f"{server.ws}/v1/freeswitch?{query}", compression=None) as socket:
        for message in sent:
            socket.send(message)
        with contextlib.suppress(ConnectionClosed):
            while True:
                socket.recv(timeout=PATIENCE_S)
    return socket.protocol.close_rcvd.code


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["call", "tracks", "channels", "sample_rate"]), st.text("a1,2 .-", max_size=9)))
def test_queries(query):
    try:
        _, tracks, rate = parse_query(QueryParams(query))
    except BadRequest:
        return
    assert 1 <= len(tracks) <= 2
    assert isinstance(rate, int)
