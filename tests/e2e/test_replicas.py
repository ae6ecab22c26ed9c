"""Two servers behind haproxy with the configuration we give; one is killed, and nobody loses a word."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from rechka.server.client import stream
from rechka.testing.toy import say, toy_asr
from rechka.testing.waiting import PATIENCE_S, wait_until

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
CONFIG = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
RATE = 8000
PACKET = RATE // 10
WORDS = ("река течет", "вода зовет", "лес стоит", "ночь идет")

if shutil.which("haproxy") is None:
    pytest.skip("haproxy is not installed", allow_module_level=True)


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def process(*arguments: object, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        child = subprocess.Popen([str(a) for a in arguments], stdout=file, stderr=file, env={**os.environ})
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def wait_until_ready(port: int, log: Path) -> None:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as answer:
                return answer.status == 200
        except OSError:  # it is not up yet
            return False

    try:
        wait_until(ready)
    except AssertionError:
        pytest.fail(f"no answer on port {port}: {log.read_text('utf-8', 'replace')}")


def streams_on(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(int(float(n)) for n in re.findall(r"^rechka_streams\{[^}]*\} (\S+)", text, re.M))


def test_one_of_two_servers_is_killed(tmp_path: Path) -> None:
    front, one, two = free_ports(3)
    text = CONFIG.read_text("utf-8")
    for old, new in {"127.0.0.1:8080": front, "127.0.0.1:8081": one, "127.0.0.1:8082": two}.items():
        assert old in text
        text = text.replace(old, f"127.0.0.1:{new}")
    (tmp_path / "haproxy.cfg").write_text(text, encoding="utf-8")
    serve = (sys.executable, "-m", "rechka", "serve", "--model", "toy", "--trusted-proxies", "127.0.0.1", "--port")
    clips = [np.concatenate([say(w, before_s=0.5, after_s=1.0) for w in WORDS[i:] + WORDS[:i]]) for i in range(4)]
    expected = [toy_asr().transcribe((clip, RATE)).text for clip in clips]
    assert all(len(text.split()) == 8 for text in expected)

    with ExitStack() as stack:
        servers = {
            port: stack.enter_context(process(*serve, port, log=tmp_path / f"{port}.log")) for port in (one, two)
        }
        for port in servers:
            wait_until_ready(port, tmp_path / f"{port}.log")
        stack.enter_context(process("haproxy", "-f", tmp_path / "haproxy.cfg", log=tmp_path / "haproxy.log"))
        wait_until_ready(front, tmp_path / "haproxy.log")

        killed = threading.Event()
        half = threading.Barrier(len(clips) + 1)
        heard: list[list[str]] = [[] for _ in clips]
        retries: list[str] = []

        def packets(clip: np.ndarray) -> Iterator[bytes]:
            data = (clip * 32767).astype("<i2").tobytes()
            for i, begin in enumerate(range(0, len(data), 2 * PACKET)):
                if begin >= len(data) // 2 > begin - 2 * PACKET:
                    half.wait(PATIENCE_S)
                    killed.wait(PATIENCE_S)
                if i % 10 == 9:
                    time.sleep(0.02)  # the servers keep up
                yield data[begin : begin + 2 * PACKET]

        def client(i: int) -> None:
            url = f"http://127.0.0.1:{front}"
            for message in stream(
                url, packets(clips[i]), sample_rate=RATE, on_retry=lambda why, wait_s: retries.append(why)
            ):
                if message["type"] == "final":
                    heard[i].append(message["text"])

        threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(len(clips))]
        for thread in threads:
            thread.start()
        half.wait(PATIENCE_S)
        wait_until(lambda: sum(map(streams_on, servers)) >= len(clips))
        assert {port: streams_on(port) for port in servers} == {one: 2, two: 2}, "shared fairly"
        servers[one].send_signal(signal.SIGKILL)
        killed.set()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    assert [" ".join(texts) for texts in heard] == expected
    assert len(retries) >= 2, json.dumps(retries)  # those of the dead server came again
