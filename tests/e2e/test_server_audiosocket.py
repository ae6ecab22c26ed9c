"""AudioSocket replayed as Asterisk sends it, and as nobody should; and the board of calls."""

import asyncio
import json
import socket
import struct
import threading
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.testing import say, toy_asr

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("websockets", reason="the server extra is not installed")
from websockets.sync.client import connect

from rechka.errors import BadRequest, UsageError
from rechka.server.keys import new_key
from rechka.server.settings import Settings
from rechka.server.telephony.audiosocket import HEAD, RATES, frame, parse_head
from rechka.server.webhooks import verify
from rechka.testing.servers import serving
from rechka.testing.telephony import audiosocket, encoded, main, told
from rechka.testing.waiting import PATIENCE_S, wait_until

AUDIO = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])
ID = uuid.UUID("c0ffee00-0000-4000-8000-000000000001")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


def ask(server, path, body=None, key=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.http + path, data, method=method)
    if key:
        request.add_header("X-API-Key", key)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def heard():
    """Bodies that a webhook got, with their signature."""
    found = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.append((body, self.headers["X-Rechka-Signature"]))
            self.send_response(503 if len(found) == 1 else 204)  # the first time it is not in the mood
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{receiver.server_port}/calls", found
    receiver.shutdown()
    receiver.server_close()


@pytest.fixture(scope="module")
def server(heard):
    with serving(audiosocket_port=free_port(), call_webhook=heard[0], webhook_secret="geheim") as running:
        yield running


def port(server):
    return server.service.settings.audiosocket_port


def texts(events):
    return [event["text"] for event in events if event["type"] == "final"]


@pytest.mark.parametrize("hang_up", [True, False])
def test_a_call_is_what_its_recording_is(server, hang_up):
    async def main():
        pcm = encoded(AUDIO, "slin")
        call = await audiosocket("127.0.0.1", port(server), pcm, digits="1#", hang_up=hang_up)
        return call, await told(server.ws, call)

    call, events = run(main())
    wanted = toy_asr().transcribe((AUDIO, 8000))
    assert " ".join(texts(events)) == wanted.text == "привет мир как дела"
    assert events[0]["type"] == "call_start"
    assert events[-1]["type"] == "call_end"
    assert events[-1]["reason"] == "hangup"
    assert events[-1]["transcript"]["text"] == wanted.text
    assert events[-1]["duration"] == pytest.approx(len(AUDIO) / 8000, abs=0.001)
    digits = [(event["digit"], event["time"]) for event in events if event["type"] == "dtmf"]
    assert [digit for digit, _ in digits] == ["1", "#"]
    assert digits[0][1] == pytest.approx(len(AUDIO) / 16000, abs=0.05)
    assert ask(server, f"/v1/calls/{call}")[1]["state"] == "ended"
    assert call in [one["call"] for one in ask(server, "/v1/calls")[1]["data"]]


@pytest.mark.parametrize(("rate", "codec"), [(16000, "slin16"), (48000, "slin48")])
def test_newer_kinds_tell_their_rate(server, rate, codec):
    async def main():
        audio = say("раз два", before_s=0.5, after_s=1.5, sample_rate=rate)
        call = await audiosocket("127.0.0.1", port(server), encoded(audio, codec), rate=rate)
        return texts(await told(server.ws, call))

    assert run(main()) == ["раз два"]


def test_events_come_while_the_call_lasts_and_again_by_http(server):
    """Whoever listens gets a partial while the caller waits; server-sent events bring the same finals."""
    call, pcm = str(uuid.uuid4()), encoded(AUDIO, "slin")
    half = 8000 * 2  # a second: within the first phrase
    with socket.create_connection(("127.0.0.1", port(server))) as client:
        client.sendall(frame(1, uuid.UUID(call).bytes) + frame(0x10, pcm[:320]))
        wait_until(lambda: ask(server, f"/v1/calls/{call}")[0] == 200)
        with connect(f"{server.ws}/v1/calls/{call}/events", compression=None) as listener:
            client.sendall(frame(0x10, pcm[320:half]))
            events = [json.loads(listener.recv(timeout=PATIENCE_S))]
            while events[-1]["type"] != "partial":
                events.append(json.loads(listener.recv(timeout=PATIENCE_S)))
            for at in range(half, len(pcm), 32000):
                client.sendall(frame(0x10, pcm[at : at + 32000]))
            client.sendall(frame(0))
            events += [json.loads(text) for text in listener]
    kinds = [event["type"] for event in events]
    assert "partial" in kinds[: kinds.index("final")]
    with urllib.request.urlopen(f"{server.http}/v1/calls/{call}/events", timeout=PATIENCE_S) as answer:
        blocks = answer.read().decode().split("\n\n")
    numbered = [block.split("\n") for block in blocks if block.startswith("id: ")]
    shown = [json.loads(lines[1].removeprefix("data: ")) for lines in numbered]
    assert texts(shown) == texts(events)
    request = urllib.request.Request(f"{server.http}/v1/calls/{call}/events")
    request.add_header("Last-Event-ID", numbered[-2][0].removeprefix("id: "))
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.read().decode().count("data:") == 1


def test_hotwords_that_the_model_does_not_take_are_told_at_the_announcement(server):
    status, said = ask(server, "/v1/calls", {"hotwords": {"мир": 3}})
    assert (status, said["error"]["code"]) == (400, "usage")
    assert "hotwords" in said["error"]["message"] + said["error"]["remedy"]


def test_two_announced_legs_are_one_dialogue(server):
    async def main(legs):
        first = encoded(say("как дела", before_s=0.3, after_s=2.5), "slin")
        second = encoded(say("хорошо", before_s=2.0, after_s=1.0), "slin")
        await asyncio.gather(
            audiosocket("127.0.0.1", port(server), first, id=legs["client"], speed=4),
            audiosocket("127.0.0.1", port(server), second, id=legs["agent"], speed=4),
        )
        return await told(server.ws, legs["agent"])

    status, call = ask(server, "/v1/calls", {"tracks": ["client", "agent"], "partials": False})
    assert status == 201
    assert call["state"] == "expected"
    events = run(main(call["legs"]))
    segments = events[-1]["transcript"]["segments"]
    assert [(one["speaker"], one["text"]) for one in segments] == [("client", "как дела"), ("agent", "хорошо")]
    assert not any(event["type"] == "partial" for event in events)


def test_the_webhook_is_told_signed_and_again(server, heard):
    run(audiosocket("127.0.0.1", port(server), encoded(AUDIO, "slin"), id=str(ID)))
    body, sign = wait_until(
        lambda: [(body, sign) for body, sign in heard[1][1:] if json.loads(body)["call"] == str(ID)]
    )[0]
    assert verify("geheim", sign, body)
    assert json.loads(body)["transcript"]["text"] == "привет мир как дела"
    assert len(heard[1]) > len({json.loads(body)["call"] for body, _ in heard[1]}), "the first one is told again"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\x0f" + bytes(15),
        frame(0x10, bytes(320)),
        frame(1, ID.bytes) + frame(0x42, b"x"),
        frame(1, ID.bytes) + frame(0x10, bytes(320)) + frame(0x12, bytes(640)),
        frame(1, ID.bytes) + frame(1, ID.bytes),
        frame(1, ID.bytes) + frame(0x10, bytes(320)) + frame(3, b"12"),
    ],
)
def test_what_cannot_be_is_hung_up(server, data):
    with socket.create_connection(("127.0.0.1", port(server))) as client:
        client.sendall(data)
        client.settimeout(PATIENCE_S)
        assert client.recv(100) == frame(0)
        assert client.recv(100) == b""


@pytest.mark.parametrize(
    "data", [b"", b"\x01", frame(1, ID.bytes)[:9], frame(1, ID.bytes), frame(1, ID.bytes) + b"\x10\x01"]
)
def test_truncated_frames_are_a_hangup(server, data):
    with socket.create_connection(("127.0.0.1", port(server))) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(PATIENCE_S)
        assert client.recv(100) == b""


def test_half_open_is_heard_to_its_end():
    """Nothing comes after the audio, not even a close: idle_s ends it, and no word is lost. Odd bytes too."""
    call = uuid.uuid4()
    with (
        serving(audiosocket_port=free_port(), idle_s=0.5) as server,
        socket.create_connection(("127.0.0.1", port(server))) as client,
    ):
        pcm = encoded(say("привет", before_s=0.5), "slin")
        client.sendall(frame(1, call.bytes) + frame(0x10, pcm[:333]) + frame(0x10) + frame(0x10, pcm[333:]))
        events = run(told(server.ws, str(call)))
        assert client.recv(100) == frame(0)
    assert (texts(events), events[-1]["reason"]) == (["привет"], "service.idle")


def test_a_reset_loses_no_word(server):
    call = uuid.uuid4()
    client = socket.create_connection(("127.0.0.1", port(server)))
    client.sendall(frame(1, call.bytes) + frame(0x10, encoded(say("привет", before_s=0.5), "slin")))
    wait_until(lambda: ask(server, f"/v1/calls/{call}")[0] == 200)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert texts(run(told(server.ws, str(call)))) in (["привет"], [])  # the kernel may drop what was not read
    wait_until(lambda: server.service.engine().active == 0)


def test_unknown_calls_and_odd_questions(server):
    assert ask(server, "/v1/calls/unknown")[0] == 404
    assert ask(server, "/v1/calls/x/events?after=-1")[0] in (400, 404)
    for body in ({"tracks": []}, {"tracks": ["a", "a"]}, {"tracks": ["a b"]}, {"tracks": 5}, {"x": 1}, {"model": 5},
                 {"tracks": ["a"] * 9}, {"hotwords": 7}):  # fmt: skip
        assert ask(server, "/v1/calls", body)[0] == 400, body


def test_who_is_let_in(tmp_path):
    """With keys only announced legs, and those that the settings name; calls belong to the key that announced them."""
    keys = tmp_path / "keys.toml"
    mine, others = new_key("mine", keys), new_key("others", keys)
    pcm = encoded(say("привет", before_s=0.5, after_s=1), "slin")
    with serving(audiosocket_port=free_port(), keys_file=keys, audiosocket_ids=("c0ffee*",)) as server:
        stranger = run(audiosocket("127.0.0.1", port(server), pcm))
        _, call = ask(server, "/v1/calls", {}, key=mine)
        leg = call["legs"]["caller"]
        run(audiosocket("127.0.0.1", port(server), pcm, id=leg))
        run(audiosocket("127.0.0.1", port(server), pcm, id=str(ID)))
        assert texts(run(told(server.ws, leg, headers={"X-API-Key": mine}))) == ["привет"]
        assert ask(server, f"/v1/calls/{leg}", key=others)[0] == 404
        assert ask(server, f"/v1/calls/{leg}")[0] == 401
        assert ask(server, f"/v1/calls/{ID}", key=mine)[0] == 404, "calls without an owner need the scope history"
        names = [one.id for one in server.service.calls._calls.values()]
        assert (stranger in names, str(ID) in names) == (False, True)
        run(audiosocket("127.0.0.1", port(server), pcm, id=leg))  # over: not again
        assert server.service.calls.active == 0
    with serving(audiosocket_port=free_port(), audiosocket_peers=("192.0.2.0/24",)) as server:
        call = run(audiosocket("127.0.0.1", port(server), b""))
        assert ask(server, f"/v1/calls/{call}")[0] == 404
    with pytest.raises(UsageError, match="audiosocket_peers"):
        Settings(audiosocket_peers=("asterisk",)).check()


def test_an_announced_call_is_not_heard_when_its_key_is_gone(tmp_path):
    keys = tmp_path / "keys.toml"
    key = new_key("mine", keys)
    pcm = encoded(say("привет", before_s=0.5, after_s=1), "slin")
    with serving(audiosocket_port=free_port(), keys_file=keys) as server:
        _, call = ask(server, "/v1/calls", {}, key=key)
        keys.write_text("")
        run(audiosocket("127.0.0.1", port(server), pcm, id=call["legs"]["caller"]))
        assert [one.state for one in server.service.calls._calls.values()] == ["expected"]


def test_sigterm_finishes_calls_and_reports_them(heard):
    call = uuid.uuid4()
    options = {"audiosocket_port": free_port(), "grace_s": 0.2, "call_webhook": heard[0]}
    with serving(**options) as server, socket.create_connection(("127.0.0.1", port(server))) as client:
        pcm = encoded(say("привет", before_s=0.5), "slin")
        client.sendall(frame(1, call.bytes) + frame(0x10, pcm))
        taken = server.service.metrics.counter("rechka_audio_seconds_total", "")
        wait_until(lambda: taken.value() >= len(pcm) / 16000)
        server.end_gently()
        client.settimeout(PATIENCE_S)
        assert client.recv(100) == frame(0)
    bodies = [json.loads(body) for body, _ in heard[1]]
    assert [body["transcript"]["text"] for body in bodies if body["call"] == str(call)] == ["привет"]


def test_the_load_tool(server, tmp_path, capsys):
    import soundfile

    soundfile.write(tmp_path / "call.wav", AUDIO, 8000)
    where = ["--port", str(server.port), "--audiosocket-port", str(port(server)), "--pace", "0", "--calls", "3"]
    for protocol in ("audiosocket", "chan_websocket", "twilio"):
        assert main([protocol, str(tmp_path / "call.wav"), *where]) == 0
        assert capsys.readouterr().out.splitlines() == ["привет мир как дела"] * 3


@settings(max_examples=50)
@given(st.binary(min_size=HEAD, max_size=HEAD))
def test_heads(head):
    try:
        kind, length = parse_head(head)
    except BadRequest:
        return
    assert kind in (0, 1, 2, 3, 255, *RATES)
    assert (kind, length) == (head[0], head[1] * 256 + head[2])


@settings(max_examples=50)
@given(st.sampled_from(sorted(RATES)), st.binary(max_size=65535))
def test_frames_are_read_as_they_are_written(kind, payload):
    data = frame(kind, payload)
    assert parse_head(data[:HEAD]) == (kind, len(data) - HEAD)
