"""Arbitrary bytes to parsers that test_server_fuzz.py does not reach: TCP protocols, the telephone, offers, files.

Whole conversations, so that what comes after a message that is fine is reached too: an answer or an error of ours,
never a fault inside, and nothing left open.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rechka.testing import say

pytest.importorskip("starlette", reason="the server extra is not installed")
from rechka.errors import RechkaError, UsageError
from rechka.server.app import build_app
from rechka.server.auth import Auth
from rechka.server.keys import SCOPES, new_key, read_keys
from rechka.server.load.watch import parse as parse_metrics
from rechka.server.routes.webrtc import codec_of
from rechka.server.service import Service
from rechka.server.settings import FIELDS, Settings, resolve
from rechka.server.telephony import audiosocket
from rechka.server.wyoming import _Client as WyomingClient
from rechka.testing.servers import websocket_scope
from rechka.testing.toy import toy_asr

AUDIO = (say("да", before_s=0.2, after_s=0.8) * 32767).astype("<i2").tobytes()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
VALUES = JSON | st.sampled_from(["8000", "-1", "1e999", "nan", 10**400, 8000, 16000, 1, 2, True])


class Sink:
    """A writer whose client is there and reads."""

    def __init__(self):
        self.said = b""

    def get_extra_info(self, _):
        return ("127.0.0.1", 1)

    def write(self, data):
        self.said += data

    async def drain(self):
        pass


@dataclass
class Left:
    """How a conversation ended.

    Attributes:
        active: streams that stayed open.
        connections: sockets that the service still counts.
        error: of ours, with which the server ended it, or None.
        said: of the talk.
    """

    active: int
    connections: int
    error: RechkaError | None
    said: Any


def converse(talk):
    """What a conversation leaves of a service whose models are not warm: it is quick. Other errors are faults."""

    async def main():
        service = Service(Settings(workers=1, requests_per_minute=0, idle_s=60), {"toy": toy_asr()}, Auth())
        for engine in service.engines.values():
            engine._warm_up = lambda: None
        await service.start()
        error, said = None, None
        try:
            said = await asyncio.wait_for(talk(service), 120)
        except RechkaError as found:
            error = found
        try:
            await service.calls.close()
            return Left(sum(engine.active for engine in service.engines.values()), service.connections, error, said)
        finally:
            await service.close()

    return asyncio.run(main())


def reader_of(data):
    reader = asyncio.StreamReader(limit=64 << 10)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


WYOMING_KINDS = ["describe", "ping", "transcribe", "audio-start", "audio-chunk", "audio-stop", "other"]


def wyoming_message(kind, data, more, payload, lengths):
    head = {"type": kind, **more, "data": data}
    if payload is not None:
        head["payload_length"] = len(payload) if lengths is None else lengths
    return json.dumps(head).encode() + b"\n" + (payload or b"")


WYOMING = st.lists(
    st.builds(
        wyoming_message,
        st.sampled_from(WYOMING_KINDS) | JSON,
        st.dictionaries(st.sampled_from(["rate", "width", "channels", "text", "transcript_names"]), VALUES, max_size=3)
        | st.just({"rate": 8000, "width": 2, "channels": 1})
        | JSON,
        st.dictionaries(st.sampled_from(["data_length", "version"]), VALUES, max_size=1),
        st.none() | st.binary(max_size=20) | st.just(AUDIO),
        st.none() | st.none() | VALUES,
    )
    | st.binary(max_size=30),
    max_size=6,
).map(b"".join)


WYOMING_ANSWERS = {"info", "pong", "transcript-start", "transcript-chunk", "transcript-stop", "transcript"}


def kinds_of(said):
    """Kinds of the messages that a server wrote, each whole."""
    while said:
        line, _, said = said.partition(b"\n")
        head = json.loads(line)
        size = head.get("data_length", 0)
        assert isinstance(json.loads(said[:size] or b"{}"), dict)
        said = said[size:]
        yield head["type"]


@settings(max_examples=40)
@given(WYOMING)
@example(b'{"type": "ping", "data": [1]}\n')
@example(b'{"type": "audio-start", "data": 1, "data_length": 2}\n{}')
def test_wyoming(data):
    sink = Sink()

    async def talk(service):
        with contextlib.suppress(asyncio.IncompleteReadError):  # the client left within a message
            await WyomingClient(service, reader_of(data), sink).run()

    left = converse(talk)
    assert left.active == 0
    assert left.error is None or left.error.status < 500
    assert set(kinds_of(sink.said)) <= WYOMING_ANSWERS


ID = b"\x01\x00\x10" + bytes(range(16))
FRAMES = st.lists(
    st.builds(
        lambda kind, payload: audiosocket.frame(kind, payload),
        st.sampled_from([0, 1, 2, 3, 16, 16, 16, 18, 255]) | st.integers(0, 255),
        st.sampled_from([b"", b"5", AUDIO[:320], AUDIO, b"\0" * 16]) | st.binary(max_size=20),
    )
    | st.binary(max_size=8),
    max_size=6,
).map(b"".join)


@settings(max_examples=40)
@given(st.sampled_from([ID, ID, ID + audiosocket.frame(16, AUDIO), b""]), FRAMES)
def test_audiosocket(first, data):
    async def talk(service):
        with contextlib.suppress(audiosocket.Gone):
            await audiosocket._Leg(service, reader_of(first + data), "127.0.0.1", trusted=True).run()

    left = converse(talk)
    assert left.active == 0
    assert left.error is None or left.error.status < 500


START = {"event": "start", "start": {"streamSid": "s", "callSid": "c", "tracks": ["inbound", "outbound"]}}
PACKET = {"event": "media", "media": {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "/////w=="}}
TEXTS = st.one_of(
    st.sampled_from([START, PACKET, {"event": "connected"}, {"event": "stop"}, {"type": "finish"}]).map(json.dumps),
    st.sampled_from(["MEDIA_START connection_id:1 channel_id:1 format:ulaw", "DTMF_END digit:5", "MEDIA_XOFF", "QUIT"]),
    st.builds(
        lambda event, part: json.dumps({"event": event, event: part}),
        st.sampled_from(["start", "media", "dtmf", "mark", "stop"]),
        st.dictionaries(
            st.sampled_from(
                ["track", "chunk", "timestamp", "payload", "digit", "tracks", "mediaFormat", "customParameters"]
            ),
            VALUES,
            max_size=4,
        ),
    ),
    st.text(max_size=30),
    JSON.map(json.dumps),
)
MESSAGES = st.lists(
    TEXTS.map(lambda text: {"text": text}) | st.sampled_from([b"", b"\1", AUDIO]).map(lambda data: {"bytes": data}),
    max_size=6,
)
OPENINGS = {
    "/v1/twilio": json.dumps(START),
    "/v1/asterisk": "MEDIA_START channel_id:1 format:slin",
    "/v1/freeswitch": "{}",
}


@pytest.mark.parametrize("path", sorted(OPENINGS))
@settings(max_examples=25)
@given(opened=st.booleans(), messages=MESSAGES)
def test_telephone_conversations(path, opened, messages):
    async def talk(service):
        app = build_app(service, protocols=("telephony",))
        received = [{"type": "websocket.connect"}]
        received += [{"type": "websocket.receive", "text": OPENINGS[path]}] if opened else []
        received += [{"type": "websocket.receive", **message} for message in messages]
        codes = []

        async def receive():
            await asyncio.sleep(0)
            return received.pop(0) if received else {"type": "websocket.disconnect", "code": 1006}

        async def send(message):
            if message["type"] == "websocket.close":
                codes.append(message["code"])

        await app(websocket_scope(path), receive, send)
        return codes

    left = converse(talk)
    assert 1011 not in left.said, "a fault inside"
    assert (left.active, left.connections, left.error) == (0, 0, None)


LINES = st.sampled_from(
    ["v=0", "m=audio 9 UDP/TLS/RTP/SAVPF 111 0", "m=video 9 X 96", "a=rtpmap:111 opus/48000/2", "a=rtpmap:0 PCMU/8000",
     "a=candidate:1 1 UDP 1 10.0.0.1 1 typ host", "a=rtpmap:", "m=audio "]
) | st.text(max_size=30)  # fmt: skip


@given(st.lists(LINES, max_size=30).map("\r\n".join) | JSON)
def test_offers(sdp):
    with contextlib.suppress(RechkaError):
        assert isinstance(codec_of(sdp), str)


@given(st.text(max_size=200) | st.binary(max_size=100) | st.dictionaries(st.text(max_size=8), JSON).map(json.dumps))
def test_files_of_keys(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    file.write_bytes(content if isinstance(content, bytes) else b"[[key]]\n" + content.encode("utf-8", "replace"))
    try:
        keys = read_keys(file)
    except UsageError as error:
        keys, told = [], str(error)
    else:
        told = str(file)
    assert str(file) in told
    assert all(key.name and len(key.sha256) == 64 and set(key.scopes) <= set(SCOPES) for key in keys)


def test_a_key_file_of_the_right_form_is_read(tmp_path):
    """So that the test above refuses for what is wrong."""
    file = tmp_path / "keys.toml"
    new_key("tester", file)
    assert [key.name for key in read_keys(file)] == ["tester"]


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(max_size=12), max_size=4))
def test_settings_as_text(flags):
    with contextlib.suppress(RechkaError):
        assert isinstance(resolve(flags, environ={}).settings, Settings)


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["a 1", 'b{le="0.1"} 2', "# x", "c NaN", "d +Inf", "e 1e999"])).map("\n".join)
)
def test_metrics_of_whatever_server(text):
    assert all(isinstance(value, float) for value in parse_metrics(text).values())
