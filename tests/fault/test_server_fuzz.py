"""Every message parser against arbitrary input: an answer or an error of ours, and nothing left open."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.engine import EngineOptions, SessionOptions
from rechka.errors import RechkaError
from rechka.testing import say

pytest.importorskip("starlette", reason="the server extra is not installed")
from starlette.datastructures import QueryParams

from rechka.server.app import build_app
from rechka.server.auth import Auth
from rechka.server.routes import deepgram, native, realtime
from rechka.server.service import Service
from rechka.server.settings import Settings
from rechka.server.wire import flag, hotwords, integer, loads, number
from rechka.testing.servers import websocket_scope
from rechka.testing.toy import toy_asr

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
VALUES = JSON | st.sampled_from(["8000", "-1", "1e999", "nan", "pcm16", "true", 10**400, 8000.5, "0x10", "٣"])


def ours(function, *arguments):
    """The result, or None where it is an error on purpose."""
    try:
        return function(*arguments)
    except RechkaError:
        return None


@given(VALUES)
def test_small_parsers(value):
    for read in (number, integer, flag):
        ours(read, value, "x")
    found = ours(hotwords, value)
    assert found is None or all(isinstance(k, str) and isinstance(v, float) for k, v in found.items())


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_texts(text):
    found = ours(loads, text)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize("boost", [10**400, -(10**400), 1e400, float("nan")], ids=["huge", "low", "inf", "nan"])
def test_a_boost_that_is_no_number_of_ours_is_refused(boost):
    with pytest.raises(RechkaError, match="boost"):
        hotwords({"слово": boost})


@pytest.mark.parametrize(
    "text",
    [
        b'{"x": "\xed\xa0\x80"}',  # half a letter, as it may not be written
        '{"x": "\ud800"}'.encode("utf-16-le", "surrogatepass"),
        b'{"x": "\\ud800"}',
        b'{"x": 1e999}',
        '{"x": -1e999}',
        b'{"x": NaN}',
    ],
)
def test_what_cannot_be_sent_back_is_not_taken_either(text):
    with pytest.raises(RechkaError):
        loads(text)


@given(st.dictionaries(st.sampled_from(sorted(native.FIELDS)), VALUES, max_size=4))
def test_native_options(fields):
    found = ours(native.parse, fields)
    assert found is None or isinstance(found, SessionOptions)


@given(
    st.dictionaries(
        st.sampled_from(["encoding", "sample_rate", "channels", "multichannel", "endpointing", "keyterm", "model"]),
        st.text(max_size=20) | st.sampled_from(["linear16", "8000", "2", "true", "nan", "inf"]),
        max_size=5,
    )
)
def test_deepgram_queries(query):
    ask = ours(deepgram._Ask, QueryParams(query))
    assert ask is None or ours(ask.options) is None or isinstance(ask.options(), SessionOptions)


@given(VALUES, VALUES, VALUES)
def test_realtime_updates(form, transcription, turns):
    client = realtime._Client(None, None, None, None)
    heard = {"format": form, "transcription": transcription, "turn_detection": turns}
    for session in (heard, {"audio": heard}, {"audio": {"input": heard}}):
        ours(lambda s=session: client._update(s, old=False))
        ours(lambda s=session: client._update(s, old=True))
    assert isinstance(client.setup.options(0.0), SessionOptions)


AUDIO = (say("да", before_s=0.2, after_s=0.8) * 32767).astype("<i2").tobytes()
KINDS = [
    "start", "flush", "finish", "keepalive", "KeepAlive", "Finalize", "CloseStream", "Configure",
    "session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear",
]  # fmt: skip
MORE = st.dictionaries(st.text(max_size=8), JSON, max_size=2)
CONFIG = st.dictionaries(st.sampled_from(["sample_rate", "words", "max_alternatives"]), JSON)
OBJECTS = st.one_of(
    st.builds(lambda kind, more: {**more, "type": kind}, st.sampled_from(KINDS), MORE),
    st.sampled_from([{"config": {"sample_rate": 8000}}, {"eof": 1}, {"reset": 1}, {"config": 5}]),
    st.just({"type": "input_audio_buffer.append", "audio": "AAAA"}),
    CONFIG.map(lambda config: {"config": config}),
)
MESSAGES = st.lists(
    st.one_of(
        st.binary(max_size=50).map(lambda data: {"bytes": data}),
        st.just({"bytes": AUDIO}),
        OBJECTS.map(lambda value: {"text": json.dumps(value)}),
        st.text(max_size=20).map(lambda text: {"text": text}),
    ),
    max_size=6,
)


class Client:
    """Sends some messages by ASGI, then leaves."""

    def __init__(self, path, query, messages):
        self.messages = [{"type": "websocket.connect"}]
        self.messages += [{"type": "websocket.receive", **message} for message in messages]
        self.scope = websocket_scope(path, query)
        self.codes = []

    async def receive(self):
        await asyncio.sleep(0)
        return self.messages.pop(0) if self.messages else {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message):
        if message["type"] == "websocket.close":
            self.codes.append(message["code"])


@pytest.mark.parametrize("path", ["/v1/stream", "/vosk", "/ws", "/api/ws", "/v1/listen", "/v1/realtime"])
@settings(max_examples=15)
@given(messages=MESSAGES, query=st.sampled_from([b"", b"sample_rate=8000", b"encoding=linear16&sample_rate=8000"]))
def test_conversations(path, messages, query):
    async def main():
        service = Service(Settings(workers=1, requests_per_minute=0), {"toy": toy_asr()}, Auth())
        app = build_app(service, protocols=("native", "vosk", "original", "tone", "deepgram", "realtime"))
        for engine in service.engines.values():
            assert isinstance(engine.options, EngineOptions)
            engine._warm_up = lambda: None
        await service.start()
        try:
            client = Client(path, query, messages)
            await asyncio.wait_for(app(client.scope, client.receive, client.send), 120)
            assert 1011 not in client.codes, "a fault inside"
            assert all(engine.active == 0 for engine in service.engines.values())
            assert service.connections == 0
        finally:
            await service.close()

    asyncio.run(main())
