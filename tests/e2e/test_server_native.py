"""The native protocol over real sockets: events, options, errors, resuming, draining; and ``rechka stream``."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

from rechka.cli.main import main as rechka
from rechka.errors import HubUnreachable, Unauthorized, UsageError
from rechka.server.keys import new_key
from rechka.testing import say, silence
from rechka.testing.audio import wav_bytes
from rechka.testing.waiting import PATIENCE_S

websockets = pytest.importorskip("websockets", reason="the server extra is not installed")
pytest.importorskip("websockets.exceptions")
pytest.importorskip("starlette", reason="the server extra is not installed")
serving = pytest.importorskip("rechka.testing.servers").serving
address, stream = (getattr(pytest.importorskip("rechka.server.client"), name) for name in ("address", "stream"))

SPEECH = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


PCM = pcm(SPEECH)


@pytest.fixture(scope="module")
def server():
    with serving(grace_s=1) as running:
        yield running


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


async def rest(client):
    """All that the server still says."""
    said = []
    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
        while True:
            said.append(json.loads(await client.recv()))
    return said


async def talk(url, messages, **options):
    """All that the server says to these messages, then the close code."""
    async with websockets.connect(url, **options) as client:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            for message in messages:
                await client.send(message if isinstance(message, bytes) else json.dumps(message))
        return await rest(client), client.close_code


def packets(data=PCM, size=1601):
    return [data[i : i + size] for i in range(0, len(data), size)]


def texts(said, channel=0):
    return [m["text"] for m in said if m["type"] == "final" and m["channel"] == channel]


FINISH = {"type": "finish"}


def test_audio_in_words_out(server):
    said, code = run(talk(f"{server.ws}/v1/stream?sample_rate=8000", [*packets(), FINISH]))
    assert code == 1000
    kinds = [m["type"] for m in said]
    assert kinds[0] == "ready"
    assert kinds[-1] == "done"
    assert texts(said) == ["привет мир", "как дела"]
    final = next(m for m in said if m["type"] == "final")
    assert [w["word"] for w in final["words"]] == ["привет", "мир"]
    assert all(0 <= w["confidence"] <= 1 and w["start"] < w["end"] for w in final["words"])
    partials = [m for m in said if m["type"] == "partial"]
    assert any(m["stable"] for m in partials) or all(m["unstable"] for m in partials)
    assert said[-1]["duration"] == pytest.approx(len(SPEECH) / 8000, abs=0.001)
    assert [m["type"] for m in said if m["type"].startswith("speech")] == ["speech_start", "speech_end"] * 2


def test_start_message_with_all_options(server):
    left, right = say("левый", before_s=0.5, after_s=2), say("правый", before_s=1, after_s=1.38)
    table = np.stack([left, right[: len(left)]], axis=1)
    start = {
        "type": "start", "sample_rate": 8000, "encoding": "f32le", "channels": 2, "partials": False, "pause": 0.5,
        "start": 10, "model": "toy",
    }  # fmt: skip
    said, code = run(talk(f"{server.ws}/v1/stream", [start, table.astype("<f4").tobytes(), FINISH]))
    assert code == 1000
    assert (texts(said, 0), texts(said, 1)) == (["левый"], ["правый"])
    assert min(m["start"] for m in said if m["type"] == "final") >= 10.4
    assert not [m for m in said if m["type"] == "partial"]


def test_finals_with_marks_and_capitals(server):
    audio = pcm(np.concatenate([say("как вас зовут", before_s=0.5, after_s=1.5), say("да", after_s=1.5)]))
    said, code = run(talk(f"{server.ws}/v1/stream?sample_rate=8000&punctuate=true", [*packets(audio), FINISH]))
    assert code == 1000
    assert texts(said)[0] == "Как вас зовут?"
    assert texts(said)[1].rstrip(".!?…") == "Да"
    final = next(m for m in said if m["type"] == "final")
    assert [word["word"] for word in final["words"]] == ["Как", "вас", "зовут?"]
    assert all(word["start"] < word["end"] for word in final["words"])
    assert not any("?" in m["stable"] + m["unstable"] for m in said if m["type"] == "partial")
    _, code = run(talk(f"{server.ws}/v1/stream?punctuate=perhaps", [b"", FINISH]))
    assert code == 1007


def test_channels_in_packets_of_their_own(server):
    audio = {0: pcm(say("раз", before_s=0.5, after_s=1)), 1: pcm(say("два", before_s=0.5, after_s=1))}
    mixed = [bytes([c]) + audio[c][i : i + 320] for i in range(0, len(audio[0]), 320) for c in (1, 0)]
    said, _ = run(talk(f"{server.ws}/v1/stream?sample_rate=8000&channels=2&interleaved=false", [*mixed, FINISH]))
    assert (texts(said, 0), texts(said, 1)) == (["раз"], ["два"])


def test_flush_and_keepalive(server):
    said, _ = run(
        talk(
            f"{server.ws}/v1/stream?sample_rate=8000",
            [pcm(say("раз", before_s=0.5)), {"type": "flush"}, {"type": "keepalive"}, pcm(say("два")), FINISH],
        )
    )
    kinds = [m["type"] for m in said]
    assert texts(said) == ["раз", "два"]
    assert kinds.index("final") < kinds.index("flushed")


@pytest.mark.parametrize(
    ("query", "first", "code", "close"),
    [
        ("?sample_rate=x", b"", "service.bad_request", 1007),
        ("?sample_rate=1", b"", "usage", 1007),
        ("?encoding=mp3", b"", "usage", 1007),
        ("?color=red", b"", "service.bad_request", 1007),
        ("?model=nobody", b"", "service.not_found", 1008),
        ("", {"type": "hello"}, "service.bad_request", 1007),
        ("", {"type": "start", "sample_rate": True}, "service.bad_request", 1007),
        ("", {"type": "start", "hotwords": 5}, "usage", 1007),
        ("", {"type": "start", "hotwords": {"а": 1e9}}, "usage", 1007),
        ("", {"type": "start", "pause": -1}, "usage", 1007),
        ("", {"type": "start", "channels": 1000}, "usage", 1007),
        ("", {"type": "start", "model": ["toy"]}, "service.bad_request", 1007),
        ("", [], "service.bad_request", 1007),
    ],
)
def test_what_cannot_be_is_told_and_closed(server, query, first, code, close):
    said, closed = run(talk(f"{server.ws}/v1/stream{query}", [first]))
    assert (said[-1]["type"], said[-1]["code"], closed) == ("error", code, close)
    assert said[-1]["message"]


@pytest.mark.parametrize("text", ["{", "null", '{"type": NaN}', "[" * 100_000, '"x"', "\x00"])
def test_broken_json_is_told(server, text):
    async def main():
        async with websockets.connect(f"{server.ws}/v1/stream?sample_rate=8000") as client:
            await client.send(b"\0\0")
            await client.send(text)
            return await rest(client), client.close_code

    said, code = run(main())
    assert said[-1]["code"] == "service.bad_request"
    assert code == 1007


def test_start_after_audio_is_an_error_that_ends_nothing(server):
    said, code = run(
        talk(f"{server.ws}/v1/stream?sample_rate=8000", [PCM, {"type": "start"}, {"type": "dance"}, FINISH])
    )
    errors = [m for m in said if m["type"] == "error"]
    assert [m["fatal"] for m in errors] == [False, False]
    assert texts(said) == ["привет мир", "как дела"]
    assert code == 1000


def test_pages_from_elsewhere_may_not_connect(server):
    for origin, good in (("http://evil.example", False), (server.http, True)):
        if good:
            assert run(talk(f"{server.ws}/v1/stream", [PCM, FINISH], origin=origin))[1] == 1000
        else:
            with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
                run(talk(f"{server.ws}/v1/stream", [], origin=origin))
            assert caught.value.response.status_code == 403


@pytest.mark.parametrize("origin", ["http://[", "http://[::1]x", "null", "http://", "://", "http://localhost.evil"])
def test_origins_that_are_none_are_refused(server, origin):
    request = urllib.request.Request(f"{server.http}/v1/calls", data=b"{}", headers={"Origin": origin})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 403
    caught.value.close()


def test_other_host_names_are_refused(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b"200" in client.makefile("rb").readline()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b"403" in client.makefile("rb").readline()


def test_keys_in_all_four_places(tmp_path):
    keys = tmp_path / "keys.toml"
    key = new_key("tester", keys)
    with serving(keys_file=keys) as server:
        url = f"{server.ws}/v1/stream"
        request = urllib.request.Request(
            f"{server.http}/v1/token", method="POST", headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request) as reply:
            token = json.load(reply)["token"]
        good = [
            {"additional_headers": {"Authorization": f"Bearer {key}"}},
            {"additional_headers": {"Authorization": f"Token {key}"}},
            {"additional_headers": {"X-API-Key": key}},
            {"subprotocols": ["token", key]},
            {"subprotocols": ["realtime", f"openai-insecure-api-key.{key}"]},
        ]
        for options in good:
            assert run(talk(url, [PCM, FINISH], **options))[1] == 1000, options
        assert run(talk(f"{url}?token={token}", [PCM, FINISH]))[1] == 1000
        for bad in ("", f"?token={key}", "?token=rt_x.y"):
            said, code = run(talk(url + bad, []))
            assert (said[0]["code"], code) == ("service.unauthorized", 1008)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{server.http}/metrics")
        assert caught.value.code == 401
        caught.value.close()


def test_overload_says_when_to_come_back():
    with serving(max_streams=1) as server:

        async def main():
            async with websockets.connect(f"{server.ws}/v1/stream") as client:
                await client.send(b"\0\0")
                await client.recv()
                return await talk(f"{server.ws}/v1/stream", [b"\0\0"])

        said, code = run(main())
        assert (said[0]["code"], code) == ("service.overloaded", 1013)
        assert said[0]["retry_after"] > 0


def test_sigterm_ends_streams_gently_and_a_client_could_go_on():
    with serving(grace_s=0.3) as server:

        async def main():
            async with websockets.connect(f"{server.ws}/v1/stream") as client:
                await client.send(pcm(say("до конца", before_s=0.5)))
                while json.loads(await client.recv())["type"] != "partial":
                    pass
                server.end_gently()
                return await rest(client), client.close_code

        said, code = run(main())
        assert texts(said) == ["до конца"]
        assert said[-1]["type"] == "going_away"
        assert said[-1]["keep"] == pytest.approx(next(m["end"] for m in said if m["type"] == "final"))
        assert code == 1001


class Flaky:
    """Passes bytes between clients and a server, and cuts each connection after so many bytes of audio."""

    def __init__(self, port, cuts):
        self.port, self.cuts, self.connections = port, list(cuts), 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.meet, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def meet(self, reader, writer):
        self.connections += 1
        left = self.cuts.pop(0) if self.cuts else 1 << 40
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def up():
            nonlocal left
            while (data := await reader.read(2000)) and left > 0:
                left -= len(data)
                up_writer.write(data)
                await up_writer.drain()
                await asyncio.sleep(0.005)

        async def down():
            while data := await up_reader.read(65536):
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        writer.transport.abort()
        up_writer.transport.abort()


def through_flaky(server, cuts, audio):
    """What the client tells when its connections break."""
    made = {}
    ready, over = threading.Event(), threading.Event()

    def proxy():
        async def main():
            async with Flaky(server.port, cuts) as flaky:
                made["flaky"] = flaky
                ready.set()
                while not over.is_set():
                    await asyncio.sleep(0.02)

        asyncio.run(main())

    thread = threading.Thread(target=proxy)
    thread.start()
    ready.wait(PATIENCE_S)
    try:
        said = list(stream(f"http://127.0.0.1:{made['flaky'].address}", audio, sample_rate=8000, sleep=lambda _: None))
    finally:
        over.set()
        thread.join()
    return said, made["flaky"].connections


def test_a_lost_connection_loses_no_word(server):
    words = ["раз", "два", "три", "четыре", "пять"]
    audio = np.concatenate([silence(0.5), *(say(word, after_s=1.0) for word in words)])
    data = pcm(audio)
    expected = list(stream(server.http, packets(data, 1600), sample_rate=8000))
    said, connections = through_flaky(server, [30_000, 50_000], packets(data, 1600))
    assert connections == 3
    assert texts(said) == texts(expected) == words
    starts = [m["start"] for m in said if m["type"] == "final"]
    assert starts == pytest.approx([m["start"] for m in expected if m["type"] == "final"], abs=0.1)


def test_the_client_gives_up_and_says_why(server):
    with pytest.raises(HubUnreachable, match="cannot connect"):
        list(stream("http://127.0.0.1:1", [b""], sample_rate=8000, retries=2, sleep=lambda _: None))
    with pytest.raises(UsageError, match="is no address"):
        list(stream("ftp://x", [b""], sample_rate=8000))
    assert address("https://h:1/") == "wss://h:1/v1/stream"

    def broken():
        yield b"\0\0"
        raise ValueError("the microphone is gone")

    with pytest.raises(ValueError, match="microphone"):
        list(stream(server.http, broken(), sample_rate=8000))


def test_the_client_does_not_insist_on_a_wrong_key(tmp_path):
    new_key("x", tmp_path / "keys.toml")
    with serving(keys_file=tmp_path / "keys.toml") as server, pytest.raises(Unauthorized):
        list(stream(server.http, [b""], sample_rate=8000, key="wrong"))


def test_rechka_stream_prints_what_the_server_hears(server, tmp_path, capfd):
    (tmp_path / "call.wav").write_bytes(wav_bytes(SPEECH, 8000))
    args = ["stream", str(tmp_path / "call.wav"), "--server", server.http, "--fast"]
    assert rechka(args) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split("] ", 1)[-1].split("  ")[-1] for line in lines] == ["привет мир", "как дела"]
    assert rechka([*args, "--json"]) == 0
    assert texts([json.loads(line) for line in capfd.readouterr().out.splitlines()]) == ["привет мир", "как дела"]
    assert rechka(["stream", str(tmp_path / "none.wav"), "--server", server.http]) == 3


def test_tls(certificate):
    cert, key = certificate
    trusting = ssl.create_default_context(cafile=cert)
    trusting.check_hostname = False
    with serving(tls_cert=cert, tls_key=key) as server:
        url = f"wss://127.0.0.1:{server.port}/v1/stream?sample_rate=8000"
        assert texts(run(talk(url, [PCM, FINISH], ssl=trusting))[0]) == ["привет мир", "как дела"]


def test_half_letters_are_refused(server):
    said, code = run(talk(f"{server.ws}/v1/stream", [{"type": "start", "hotwords": ["\ud800"]}]))
    assert (said[0]["code"], code) == ("service.bad_request", 1007)


def test_hotwords_are_heard():
    from rechka.hub.load import load
    from rechka.options import DecoderOptions

    with serving({"toy": load("toy", decoder=DecoderOptions(kind="auto"))}) as server:
        start = {"type": "start", "sample_rate": 8000, "hotwords": {"мир": 3, "дела": 2.5}}
        assert texts(run(talk(f"{server.ws}/v1/stream", [start, PCM, FINISH]))[0]) == ["привет мир", "как дела"]
        said, _ = run(talk(f"{server.ws}/v1/stream?hotwords=мир:3&hotwords=дела&sample_rate=8000", [PCM, FINISH]))
        assert texts(said) == ["привет мир", "как дела"]


def test_names_that_somebody_asks_for_are_not_in_the_metrics():
    with serving() as server:
        for path in ("models/secret/name", "models/", "calls/secret", "calls/secret/events", "calls/events/events"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{server.http}/v1/{path}")
            caught.value.close()
        with urllib.request.urlopen(f"{server.http}/metrics") as reply:
            counted = re.findall(r'rechka_requests_total\{path="([^"]*)"', reply.read().decode())
        known = {"/v1/models/{name}", "/v1/calls/{id}", "/v1/calls/{id}/events", "/v1/calls/events/{id}"}
        assert known - {"/v1/calls/events/{id}"} <= set(counted) <= known | {"unknown"}


def test_metrics_count_what_happened(server):
    run(talk(f"{server.ws}/v1/stream?sample_rate=8000", [PCM, FINISH]))
    with urllib.request.urlopen(f"{server.http}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert values['rechka_streams{model="toy"}'] == 0
    assert values['rechka_streams_total{end="finished"}'] >= 1
    assert values["rechka_audio_seconds_total"] >= len(SPEECH) / 8000 - 0.01
    assert values["rechka_ready"] == 1
    assert values['rechka_requests_total{path="/v1/stream",status="1000"}'] >= 1
