"""Clients that do not read, do not end, do not fit: over real sockets, in every protocol."""

import asyncio
import contextlib
import json
import select
import socket
import struct

import numpy as np
import pytest

from rechka.server.auth import Auth
from rechka.server.keys import new_key
from rechka.testing import say
from rechka.testing.waiting import PATIENCE_S, wait_until

websockets = pytest.importorskip("websockets", reason="the server extra is not installed")
pytest.importorskip("websockets.exceptions")
pytest.importorskip("starlette", reason="the server extra is not installed")
from rechka.server import patience, wyoming  # noqa: E402

serving = pytest.importorskip("rechka.testing.servers").serving

SPEECH = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])
PCM = (np.clip(SPEECH, -1, 1) * 32767).astype("<i2").tobytes()
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
BINARY, TEXT, PING, CONTINUED = 2, 1, 9, 0


def frame(data, opcode=BINARY, *, fin=True):
    """Masked, with a mask of zeros."""
    head = bytes([opcode | (0x80 if fin else 0)])
    size = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack(">BH", 0x80 | 126, len(data))
    return head + size + b"\0\0\0\0" + data


@contextlib.contextmanager
def raw(server, path=b"/v1/stream?sample_rate=8000"):
    client = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
    try:
        client.sendall(UPGRADE % path)
        assert b"101" in client.recv(12)
        yield client
    finally:
        client.close()


def read_to_the_end(client):
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            data += part
    return data


def nothing_is_left(server):
    sockets = server.server.server_state.connections
    wait_until(
        lambda: (
            not sockets
            and server.service.connections == 0
            and not any(engine.active for engine in server.service.engines.values())
        )
    )


def flood(client, data, times):
    """Send the same again and again; true if the server ended the connection, and did not just stop to listen."""
    try:
        for _ in range(times):
            client.sendall(data)
    except ConnectionError:
        return True
    return False


@pytest.fixture(scope="module")
def server():
    with serving(max_message_kb=64) as running:
        yield running


@pytest.fixture(scope="module")
def strict():
    """A server that waits a second for its clients: some of them never do what it waits for."""
    with serving(max_message_kb=64, idle_s=1.0, send_s=1.0) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "end"),
    [
        (b"/v1/stream?sample_rate=8000", b'{"type":"finish"}'),
        (b"/vosk", b'{"eof" : 1}'),
        (b"/v1/listen?encoding=linear16&sample_rate=8000", b'{"type":"CloseStream"}'),
        (b"/ws", b'{"eof":1}'),
    ],
)
def test_half_open_after_the_last_word(server, monkeypatch, path, end):
    """The client is gone without a word: it never answers the close, its socket stays."""
    monkeypatch.setattr(patience, "LINGER_S", 0.3)
    with raw(server, path) as client:
        client.sendall(b"".join(frame(PCM[i : i + 8000]) for i in range(0, len(PCM), 8000)) + frame(end, TEXT))
        assert "как дела" in read_to_the_end(client).decode("utf-8", "replace")
    nothing_is_left(server)


def test_a_frame_that_comes_byte_by_byte(strict):
    """Slow loris: every byte is in time, the message never."""
    with raw(strict) as client:
        client.sendall(frame(PCM[:6000])[:9])
        ended = False
        with contextlib.suppress(ConnectionError):
            for _ in range(5000):  # the frame has more bytes
                ended = bool(select.select([client], [], [], 0.05)[0]) and b"\x88" in client.recv(4096)
                if ended:
                    break
                client.sendall(b"\0")
            assert ended, "it took every byte"
    nothing_is_left(strict)


@pytest.mark.parametrize("size", [0, 60_000])
def test_a_message_of_fragments_that_never_ends(strict, size):
    data = frame(b"\0" * size, fin=False)
    piece = frame(b"\0" * size, CONTINUED, fin=False)
    piece *= max(1, 100_000 // len(piece))
    with raw(strict) as client:
        client.sendall(data)
        assert flood(client, piece, 1000), "it took a hundred megabytes"
    nothing_is_left(strict)


def test_pongs_that_nobody_reads(strict):
    """Answers to a flood of pings are not kept: far more than the kernel takes between the two."""
    with raw(strict) as client:
        assert flood(client, frame(b"\0" * 125, PING) * 1000, 1000), "it took a hundred megabytes of pings"
    nothing_is_left(strict)


def test_answers_that_nobody_reads(strict):
    """Every odd message is answered; a client that takes no answer is left, and is not waited for."""
    with raw(strict) as client:
        client.sendall(frame(PCM[:320]))
        odd = frame(b'{"type":"' + b"x" * 90 + b'"}', TEXT)
        assert flood(client, odd * 1000, 1000), "it took a hundred megabytes"
    nothing_is_left(strict)


def test_an_answer_over_http_that_nobody_reads(strict):
    """The same request again and again on one connection, and no answer taken."""
    with socket.create_connection(("127.0.0.1", strict.port), PATIENCE_S) as client:
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert flood(client, ask * 50, 2000), "it took everything"
    nothing_is_left(strict)


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x05hello",  # not masked
        b"\xf2\x80\0\0\0\0",  # reserved bits
        b"\x83\x80\0\0\0\0",  # an opcode that nobody knows
        frame(b"", CONTINUED),  # goes on with nothing
        frame(b"\0" * 10, fin=False) + frame(b"\0" * 10),  # a message within a message
        b"\x89\xfe\x00\x7e\0\0\0\0" + b"\0" * 126,  # a ping that is too long
        frame(b"\xff\xfe", TEXT),  # no UTF-8
        frame(b"\x00", 8),  # half a close code
    ],
)
def test_frames_that_cannot_be(server, data):
    with raw(server) as client:
        client.sendall(frame(PCM[:640]) + data)
        assert b"\x88" in read_to_the_end(client)
    nothing_is_left(server)


@pytest.mark.parametrize("sizes", [(1, 3), (1, 2, 4801)])
def test_odd_bytes_are_put_together(server, sizes):
    async def main():
        async with websockets.connect(f"{server.ws}/v1/stream?sample_rate=8000", compression=None) as client:
            at, i, part = 0, 0, PCM[:40_000]
            while at < len(part):
                await client.send(part[at : at + sizes[i % len(sizes)]])
                at += sizes[i % len(sizes)]
                i += 1
                if sizes[-1] < 100 and at > 1500:
                    await client.send(part[at:])
                    break
            await client.send('{"type":"finish"}')
            return [m["text"] for m in map(json.loads, [t async for t in client]) if m["type"] == "final"]

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE_S)) == ["привет мир"]


def test_a_wyoming_client_that_says_nothing(monkeypatch):
    monkeypatch.setattr(wyoming, "WAIT_S", 0.2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(idle_s=0.3, wyoming_port=port) as server:
        for said in (b"", b'{"type":"audio-sta', b'{"type":"audio-chunk","payload_length":3200}\nabc'):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.settimeout(PATIENCE_S)
                client.sendall(said)
                assert b"service.idle" in read_to_the_end(client)
        nothing_is_left(server)


PLACES = [
    "/v1/stream?sample_rate=8000", "/vosk", "/ws", "/api/ws", "/v1/listen?encoding=linear16&sample_rate=8000",
    "/v1/realtime?intent=transcription", "/v1/asterisk", "/v1/freeswitch",
]  # fmt: skip


@pytest.mark.parametrize("path", PLACES)
def test_keys_that_are_wrong_missing_expired_or_used_up(tmp_path, path):
    """No audio is heard: the handshake is refused, or the socket closed with 1008 before anything else."""
    file = tmp_path / "keys.toml"
    keys = {name: new_key(name, file) for name in ("expired", "narrow", "spent")}
    text = file.read_text("utf-8")
    for name, line in (
        ("expired", "expires = 2001-01-01"), ("narrow", 'scopes = ["files"]'), ("spent", "audio_s_per_day = 0.01"),
    ):  # fmt: skip
        head, middle, tail = text.partition(f'name = "{name}"\n')
        if name == "narrow":
            tail = tail.replace('scopes = ["stream", "files"]\n', "", 1)
        text = f"{head}{middle}{line}\n{tail}"
    file.write_text(text, "utf-8")
    assert len(Auth(file)._keys) == 3

    async def attempt(server, key):
        headers = {} if key is None else {"X-API-Key": key}
        try:
            async with websockets.connect(server.ws + path, additional_headers=headers, compression=None) as client:
                with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                    if path == "/v1/asterisk":
                        await client.send("MEDIA_START connection_id:1 channel:x channel_id:1 format:slin")
                    if "realtime" in path:
                        audio = {"type": "input_audio_buffer.append", "audio": "AAAA" * 8000}
                        await client.send(json.dumps(audio))
                    else:
                        await client.send(PCM[:16000])
                        await client.send(PCM[:16000])
                    async for _ in client:
                        pass
                return client.close_code
        except websockets.exceptions.InvalidStatus as error:
            return error.response.status_code

    with serving(keys_file=file, requests_per_minute=0) as server:
        for key, codes in (
            (None, (401, 1008)), ("rk_wrong", (401, 1008)), ("rt_e30.x", (401, 1008)), (keys["expired"], (401, 1008)),
            (keys["narrow"], (403, 1008)), (keys["spent"], (429, 1008)),
        ):  # fmt: skip
            assert asyncio.run(asyncio.wait_for(attempt(server, key), PATIENCE_S)) in codes, (key, path)
        nothing_is_left(server)
        heard = server.service.metrics.counter("rechka_audio_seconds_total", "").value()
    assert heard == 0
