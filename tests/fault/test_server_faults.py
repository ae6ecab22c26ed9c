"""What clients do wrong, on purpose or not: nothing is lost, nothing stays behind, nobody else notices."""

import asyncio
import contextlib
import gc
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest

from rechka.engine.intake import Intake
from rechka.engine.session import Session
from rechka.errors import NoSuchThing
from rechka.server.keys import new_key
from rechka.testing import say, toy_asr
from rechka.testing.engines import running_engine
from rechka.testing.waiting import PATIENCE_S, wait_until

websockets = pytest.importorskip("websockets", reason="the server extra is not installed")
pytest.importorskip("websockets.exceptions")
pytest.importorskip("starlette", reason="the server extra is not installed")
from rechka.testing.servers import serving, websocket_scope  # noqa: E402

SPEECH = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


PCM = pcm(SPEECH)


def frame(data):
    """A masked binary frame."""
    return b"\x82" + struct.pack(">BH", 0x80 | 126, len(data)) + b"\0\0\0\0" + data


def abort(client):
    """Close with a reset, as a phone that lost its network."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextlib.contextmanager
def raw(server, path=b"/v1/stream?sample_rate=8000"):
    """A WebSocket by hand, after its handshake."""
    client = socket.create_connection(("127.0.0.1", server.port))
    try:
        client.sendall(UPGRADE % path)
        assert b"101" in client.recv(100)
        yield client
    finally:
        client.close()


def active(server):
    return sum(engine.active for engine in server.service.engines.values())


@pytest.fixture(scope="module")
def server():
    with serving(max_message_kb=64) as running:
        yield running


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


def left_behind():
    """Sessions and their audio that are still in memory."""
    gc.collect()
    return sum(isinstance(thing, (Session, Intake)) for thing in gc.get_objects())


@pytest.mark.parametrize("path", [b"/v1/stream?sample_rate=8000", b"/", b"/ws", b"/api/ws"])
def test_cut_in_the_middle_of_anything_frees_everything(server, path):
    for cut in (0, 3, 700, 5000, len(PCM) // 2):
        with raw(server, path) as client:
            data = b"".join(frame(PCM[i : i + 640]) for i in range(0, len(PCM), 640))[:cut]
            client.sendall(data)
            abort(client)
    wait_until(lambda: active(server) == 0 and left_behind() == 0)
    assert list(server_words(server)) == ["привет мир", "как дела"]


def test_hundreds_of_connects_and_aborts_leave_nothing(server):
    for i in range(200):
        with raw(server) as client:
            client.sendall(frame(PCM[: 640 * (i % 3)]))
            abort(client)
    wait_until(lambda: active(server) == 0 and server.service.connections == 0)
    wait_until(lambda: left_behind() == 0)
    said = list(server_words(server))
    assert said == ["привет мир", "как дела"]


LISTEN = "/v1/listen?encoding=linear16&sample_rate=8000"  # opens its session before it shakes hands


@pytest.mark.parametrize("path", ["/v1/stream", "/vosk", LISTEN, "/ws", "/api/ws", "/v1/asterisk", "/v1/twilio"])
def test_a_client_that_leaves_in_the_handshake_is_forgotten_and_is_no_fault(server, path, caplog):
    from uvicorn.protocols.http.h11_impl import H11Protocol

    def kept():
        gc.collect()
        return sum(isinstance(thing, H11Protocol) for thing in gc.get_objects())

    before = kept()
    shake = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    shake += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(shake.encode())
            abort(client)
    wait_until(lambda: active(server) == 0 and server.service.connections == 0)
    wait_until(lambda: kept() <= before)  # and not when the time for its headers is over, which is an hour
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def server_words(server):
    from rechka.server.client import stream

    packets = [PCM[i : i + 3200] for i in range(0, len(PCM), 3200)]
    for message in stream(server.http, packets, sample_rate=8000):
        if message["type"] == "final":
            yield message["text"]


def test_a_refusal_is_told_though_the_source_of_audio_gives_nothing(server):
    """The thread that reads the source cannot be stopped: it would be waited for until the next packet."""
    from rechka.server.client import stream

    let_go, waited = threading.Event(), []

    def audio():
        yield bytes(1600)
        waited.append(let_go.wait(PATIENCE_S))

    with pytest.raises(NoSuchThing):
        list(stream(server.http, audio(), sample_rate=8000, model="missing"))
    assert waited == []
    let_go.set()


def test_a_frame_of_a_hundred_megabytes_is_refused_by_its_header(server):
    with raw(server) as client:
        client.sendall(b"\x82" + struct.pack(">BQ", 0x80 | 127, 100 << 20) + b"\0\0\0\0")
        reply = b""
        client.settimeout(PATIENCE_S)
        while (part := client.recv(4096)) and b"\x88" not in reply:
            reply += part
        assert struct.pack(">H", 1009) in reply


def test_headers_that_never_end():
    with serving(header_s=0.3) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        client.settimeout(PATIENCE_S)
        assert client.recv(100) == b""


@pytest.mark.parametrize("later", [b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_headers_of_a_later_request_that_never_end(later):
    with serving(header_s=0.3) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(PATIENCE_S)
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reply = b""
        while b'"}' not in reply:
            reply += client.recv(1000)
        client.sendall(later)
        assert client.recv(100) == b""


def test_bodies_that_never_end_and_silent_clients():
    with serving(idle_s=0.3) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = "POST /v1/listen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc"
            client.sendall(head.encode())
            client.settimeout(PATIENCE_S)
            assert b" 408 " in client.recv(100)

        async def silent():
            async with websockets.connect(f"{server.ws}/v1/stream") as client:
                await client.send(b"\0\0")
                said = []
                with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                    while True:
                        said.append(json.loads(await client.recv()))
                return said[-1]["code"], client.close_code

        assert run(silent()) == ("service.idle", 1008)
        assert active(server) == 0


def test_connections_have_a_limit_but_probes_pass():
    with serving(max_connections=3) as server, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(raw(server))
        for path, status in ((b"/v1/models", b"503"), (b"/livez", b"200")):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path)
                assert status in client.recv(100)


class Deaf:
    """A client by ASGI that sends all its messages and then takes no more than ``takes`` of the answers."""

    def __init__(self, messages, takes, path="/v1/stream", query=b"sample_rate=8000"):
        self.messages = [{"type": "websocket.connect"}, *messages]
        self.takes = takes
        self.scope = websocket_scope(path, query)
        self.said = []

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        return await asyncio.sleep(3600)

    async def send(self, message):
        self.said.append(message)
        if len(self.said) > self.takes:
            await asyncio.sleep(3600)


@pytest.mark.parametrize("path", ["/v1/stream", "/api/ws", "/ws", "/v1/listen", "/vosk"])
def test_a_client_that_takes_nothing_is_left(path):
    with serving(send_s=0.2) as server:
        audio = [{"type": "websocket.receive", "bytes": PCM[i : i + 8000]} for i in range(0, len(PCM), 8000)]
        eof = {"/vosk": '{"eof" : 1}', "/ws": '{"eof": 1}', "/v1/listen": '{"type": "CloseStream"}'}
        end = [{"type": "websocket.receive", "text": eof[path]}] if path in eof else []
        query = b"encoding=linear16&sample_rate=8000" if path == "/v1/listen" else b""
        client = Deaf([*audio, *end], 2, path, query)
        server.call(server.server.config.loaded_app(client.scope, client.receive, client.send))
        assert active(server) == 0


def test_steps_never_run_in_the_event_loop():
    asr = toy_asr()
    inner, threads = asr.recognizer.step, set()

    def step(streams):
        threads.add(threading.current_thread().name)
        inner(streams)

    asr.recognizer.step = step
    with serving({"toy": asr}) as server:
        assert list(server_words(server)) == ["привет мир", "как дела"]
    assert any(name.startswith("rechka-step") for name in threads)
    assert not [name for name in threads if not name.startswith(("rechka-step", "rechka-aux"))]  # aux: the warm-up


def test_silence_for_ever_needs_no_more_memory():
    async def main():
        sizes = []
        async with running_engine() as engine, await engine.open() as session:
            for minute in range(30):
                await session.feed(np.zeros(60 * 8000, np.float32))
                await session.settle()
                if minute in (1, 29):
                    stream = session._intake.streams[0]
                    sizes.append((len(pickle.dumps(stream.progress)), len(stream.inbox), len(session._outbox)))
        return sizes

    early, late = run(main())
    assert late[0] < early[0] * 1.1
    assert late[1:] == early[1:]


def test_a_full_disk_is_told(server, monkeypatch):
    import tempfile
    import urllib.error
    import urllib.request

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", full)
    request = urllib.request.Request(f"{server.http}/v1/listen", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 507
    assert "No space left" in caught.value.read().decode()
    caught.value.close()


@pytest.fixture
def process(tmp_path):
    """``rechka serve`` as a process of its own, with a key, logging all that it may."""
    keys = tmp_path / "keys.toml"
    key = new_key("tester", keys)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from rechka.cli.main import run; run()", "serve", "--model", "toy"]
    command += ["--port", str(port), "--keys-file", str(keys), "--grace-s", "1", "--log-format", "json"]
    environ = {**os.environ, "RECHKA_LOG_LEVEL": "debug", "RECHKA_WORKERS": "1"}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running, port, key
        finally:
            running.kill()


def test_sigterm_in_a_stream_and_what_the_logs_say(process):
    running, port, key = process
    wait_until(lambda: _answers(port))

    async def main():
        url = f"ws://127.0.0.1:{port}/v1/stream?sample_rate=8000"
        async with websockets.connect(url, additional_headers={"X-API-Key": key}) as client:
            await client.send(pcm(say("тайное слово", before_s=0.5)))
            while json.loads(await client.recv())["type"] != "partial":
                pass
            running.send_signal(signal.SIGTERM)
            said = []
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                while True:
                    said.append(json.loads(await client.recv()))
            return said, client.close_code

    said, code = run(main())
    assert [m["text"] for m in said if m["type"] == "final"] == ["тайное слово"]
    assert code == 1001
    assert running.wait(PATIENCE_S) == 0
    log = running.stderr.read()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any("key:tester WS /v1/stream" in line["message"] for line in lines)
    assert "тайное" not in log
    assert key not in log


def _answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b" 200 " in client.recv(100)
    return False
