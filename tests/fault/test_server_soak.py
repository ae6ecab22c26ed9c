"""Memory of a server whose clients come and break off, thousands of times.

By default a few hundred of each kind; ``RECHKA_SOAK=10000`` makes so many.
"""

import itertools
import os
import socket
import statistics
import struct
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

from rechka.testing import say

pytest.importorskip("starlette", reason="the server extra is not installed")
from rechka.server.load.watch import parse
from rechka.testing.waiting import wait_until

COUNT = int(os.environ.get("RECHKA_SOAK", "600"))
ALLOWED = 400
"""Bytes of growth for each connection: a session weighs some ten thousand, a forgotten socket some thousand."""
SLACK = 2 << 20
"""Bytes that the allocator may still take in a run, divided by its connections: it is saturated after some thousand."""
PCM = (np.clip(say("привет мир", before_s=0.2, after_s=0.3), -1, 1) * 32767).astype("<i2").tobytes()
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system tells no process's memory")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server():
    """A server in a process of its own, so that its memory is its own: ports of HTTP, Wyoming and AudioSocket."""
    ports = [free_port() for _ in range(3)]
    command = [sys.executable, "-m", "rechka", "serve", "--model", "toy", "--port", str(ports[0]), "--workers", "1"]
    command += ["--wyoming-port", str(ports[1]), "--audiosocket-port", str(ports[2]), "--requests-per-minute", "0"]
    command += ["--log-level", "error", "--max-queue-age-s", "60", "--max-calls", "100", "--call-keep-s", "0.5"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: reading(ports[0]))
            yield ports
            assert process.poll() is None, "it ended by itself"
        finally:
            process.kill()


def reading(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
            return parse(reply.read().decode())
    except OSError:
        return None


def at_rest(port):
    """The reading when nobody is served but who asks: what a slow machine has still to work off is no leak."""

    def settled():
        found = reading(port)
        return found if found and found["rechka_streams"] + found["rechka_connections"] <= 1 else None

    return wait_until(settled)


def steady(at, sizes):
    """Bytes a connection, the median of five stretches: a leak is in all of them, a step of the allocator in one."""
    edges = np.linspace(0, len(at) - 1, 6).astype(int)
    return statistics.median((sizes[b] - sizes[a]) / (at[b] - at[a]) for a, b in itertools.pairwise(edges))


def test_a_leak_is_steady_and_a_step_is_not():
    at = list(range(0, 200, 10))
    assert steady(at, [5000 * i for i in at]) == 5000
    assert steady(at, [0 if i < 100 else 1 << 20 for i in at]) == 0


def abort(client):
    """A reset, as of a phone that lost its network."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def web_socket(ports, i):
    """Breaks off before, in and after the handshake, in a frame's header, in a frame, in speech; politely or not."""
    path = (b"/v1/stream?sample_rate=8000", b"/vosk", b"/v1/listen?encoding=linear16&sample_rate=8000")[i % 3]
    with socket.create_connection(("127.0.0.1", ports[0])) as client:
        cut = i // 3 % 6
        client.sendall((UPGRADE % path)[: 40 if cut == 1 else None])
        if cut > 1:
            assert b"101" in client.recv(2000)
            frame = b"\x82" + struct.pack(">BH", 0x80 | 126, 6400) + b"\0\0\0\0" + PCM[:6400]
            client.sendall((b"", b"\x82\xfe", frame[:100], frame + frame)[cut - 2])
        if i % 2:
            abort(client)


def http(ports, i):
    """Breaks off in the header, in the body, or before the answer."""
    body = b"POST /v1/listen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000\r\n\r\n" + PCM[:20000]
    with socket.create_connection(("127.0.0.1", ports[0])) as client:
        client.sendall(
            (body[:30], body, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02")[i % 4]
        )
        if i % 3:
            abort(client)


def wyoming(ports, i):
    """Breaks off in a line, in data, in audio."""
    start = b'{"type":"audio-start","data":{"rate":8000,"width":2,"channels":1}}\n'
    chunk = b'{"type":"audio-chunk","payload_length":3200}\n' + PCM[:3200]
    with socket.create_connection(("127.0.0.1", ports[1])) as client:
        client.sendall((b"", start[:20], start + chunk[:500], start + 3 * chunk, b"junk\n")[i % 5])
        if i % 2:
            abort(client)


def audiosocket(ports, i):
    """Breaks off in the UUID, in a head, in audio."""
    id_ = b"\x01\x00\x10" + struct.pack(">QQ", 7, i)
    audio = b"\x10" + struct.pack(">H", 320) + PCM[:320]
    with socket.create_connection(("127.0.0.1", ports[2])) as client:
        client.sendall((b"", id_[:9], id_ + audio[:2], id_ + 9 * audio, b"\x77\x00\x00")[i % 5])
        if i % 2:
            abort(client)


@pytest.mark.parametrize("client", [web_socket, http, wyoming, audiosocket])
def test_memory_is_flat(server, client):
    sizes, at = [], []
    for i in range(COUNT):
        client(server, i)
        if i >= 2 * COUNT // 3 and i % max(1, COUNT // 60) == 0:
            sizes.append(int(at_rest(server[0])["process_resident_memory_bytes"]))
            at.append(i)
    grown = steady(at, sizes)
    print(f"{client.__name__}: {COUNT} times, {sizes[0] >> 10:.0f} to {sizes[-1] >> 10:.0f} KB, {grown:.0f} bytes each")
    assert grown < ALLOWED + SLACK / COUNT
