"""Asterisk's chan_websocket replayed, in both forms of its control messages, and what it never sends."""

import asyncio
import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.testing import say, toy_asr

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("websockets", reason="the server extra is not installed")
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from rechka.audio import open_source
from rechka.errors import BadRequest
from rechka.server.keys import new_key
from rechka.server.telephony.chan_websocket import Control, parse_control
from rechka.testing.servers import serving
from rechka.testing.telephony import CODECS, chan_websocket, encoded, told
from rechka.testing.waiting import PATIENCE_S, wait_until

START = {"event": "MEDIA_START", "connection_id": "c", "channel": "WebSocket/c/0x1", "channel_id": "1761245643.1",
         "format": "ulaw", "optimal_frame_size": 160, "ptime": 20}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with serving(max_message_kb=64) as running:
        yield running


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


def texts(events):
    return [event["text"] for event in events if event["type"] == "final"]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("codec", ["ulaw", "alaw", "slin", "slin16"])
def test_every_codec_in_both_forms(server, codec, plain):
    audio = say("как дела", before_s=0.5, after_s=1.5, sample_rate=CODECS[codec][1])

    async def main():
        call = await chan_websocket(server.ws, encoded(audio, codec), codec=codec, plain=plain, digits="*")
        return await told(server.ws, call)

    events = run(main())
    assert texts(events) == ["как дела"]
    assert [event["digit"] for event in events if event["type"] == "dtmf"] == ["*"]
    assert events[0]["parameters"].get("LANG") == (None if plain else "ru")
    assert "token" not in events[0]["parameters"]


def test_the_same_as_the_recording(server):
    audio = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])
    data = encoded(audio, "alaw")
    wanted = toy_asr().transcribe(open_source(data, encoding="alaw")).text

    async def main():
        return await told(server.ws, await chan_websocket(server.ws, data, codec="alaw"))

    assert run(main())[-1]["transcript"]["text"] == wanted != ""


def test_two_channels_with_one_name_are_a_dialogue(server):
    async def main():
        first = encoded(say("как дела", before_s=0.3, after_s=2.5), "ulaw")
        second = encoded(say("хорошо", before_s=2.0, after_s=1.0), "ulaw")
        await asyncio.gather(
            chan_websocket(server.ws, first, call="room-1", track="client", speed=4),
            chan_websocket(server.ws, second, call="room-1", track="agent", speed=4),
        )
        return await told(server.ws, "room-1")

    segments = run(main())[-1]["transcript"]["segments"]
    assert [(one["speaker"], one["text"]) for one in segments] == [("client", "как дела"), ("agent", "хорошо")]


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([b"\0" * 160], 1007),
        (["STATUS channel_id:1"], 1007),
        (["{"], 1007),
        ([""], 1007),
        (["<xml>"], 1007),
        ([json.dumps({**START, "format": "opus"})], 1007),
        ([json.dumps({**START, "format": ["ulaw"]})], 1007),
        ([json.dumps(START), json.dumps(START)], 1007),
        ([json.dumps(START), b"\0" * 100_000], 1009),
        ([json.dumps({**START, "channel_id": "a b"})], 1007),
    ],
)
def test_what_cannot_be_closes(server, messages, code):
    assert code_of(server, messages) == code


@pytest.mark.parametrize("messages", [[json.dumps(START), b"\xff" * 333], []])
def test_half_open(messages):
    with serving(idle_s=0.3) as server:
        assert code_of(server, messages) == 1008


def code_of(server, messages):
    """With which the server closes after these messages."""
    with connect(f"{server.ws}/v1/asterisk", subprotocols=["media"], compression=None) as socket:
        assert socket.subprotocol == "media"
        for message in messages:
            socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=PATIENCE_S)
    return closed.value.rcvd.code


def test_a_track_cannot_be_taken_twice(server):
    address = f"{server.ws}/v1/asterisk?call=room-2"
    with connect(address) as first, connect(address) as second:
        first.send(json.dumps(START))
        first.send(b"\xff" * 160)
        wait_until(lambda: server.service.calls.active)
        second.send(json.dumps(START))
        with pytest.raises(ConnectionClosed) as closed:
            second.recv(timeout=PATIENCE_S)
    assert closed.value.rcvd.code == 1008


def test_keys_as_the_password_of_basic_authentication(tmp_path):
    keys = tmp_path / "keys.toml"
    mine = new_key("pbx", keys)
    audio = encoded(say("привет", before_s=0.5, after_s=1), "ulaw")
    with serving(keys_file=keys) as server:

        async def main(secret):
            basic = base64.b64encode(f"asterisk:{secret}".encode()).decode()
            call = await chan_websocket(server.ws, audio, headers={"Authorization": f"Basic {basic}"})
            return texts(await told(server.ws, call, headers={"X-API-Key": mine}))

        assert run(main(mine)) == ["привет"]
        with pytest.raises(ConnectionClosed):
            run(main("wrong"))


def test_a_call_of_another_key_is_neither_joined_nor_replaced(tmp_path):
    keys = tmp_path / "keys.toml"
    mine, others = new_key("mine", keys), new_key("others", keys)
    audio = encoded(say("привет", before_s=0.5, after_s=1), "ulaw")
    with serving(keys_file=keys) as server:
        run(chan_websocket(server.ws, audio, call="mine", headers={"X-API-Key": mine}))
        with contextlib.suppress(ConnectionClosed):
            run(chan_websocket(server.ws, audio, call="mine", headers={"X-API-Key": others}))
        assert texts(run(told(server.ws, "mine", headers={"X-API-Key": mine}))) == ["привет"]


def test_sigterm_closes_with_going_away():
    with serving(grace_s=0.2) as server, connect(f"{server.ws}/v1/asterisk?call=last") as socket:
        socket.send(json.dumps(START))
        socket.send(encoded(say("привет", before_s=0.5), "ulaw"))
        with connect(f"{server.ws}/v1/calls/last/events") as listener:
            while json.loads(listener.recv(timeout=PATIENCE_S))["type"] != "partial":
                pass
            server.end_gently()
            said = [json.loads(text) for text in listener]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=PATIENCE_S)
    assert closed.value.rcvd.code == 1001
    assert said[-1]["transcript"]["text"] == "привет"


@settings(max_examples=50)
@given(st.text(max_size=300) | st.builds(json.dumps, st.dictionaries(st.text(max_size=9), st.text(max_size=9))))
def test_control_messages(text):
    try:
        control = parse_control(text)
    except BadRequest:
        return
    for fields in (control.fields, control.variables):
        assert all(isinstance(part, str) for pair in fields.items() for part in pair)


@settings(max_examples=50)
@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.from_regex(r"[\w./:-]{1,20}", fullmatch=True))
)
def test_both_forms_say_the_same(fields):
    fields = {name: value for name, value in fields.items() if name not in ("event", "channel_variables")}
    plain = " ".join(["MEDIA_START", *(f"{name}:{value}" for name, value in fields.items())])
    assert parse_control(plain) == parse_control(json.dumps({"event": "MEDIA_START", **fields}))
    assert parse_control(plain) == Control("MEDIA_START", fields)
