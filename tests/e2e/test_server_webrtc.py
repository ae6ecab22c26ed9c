"""WebRTC with aiortc's own client: a recording goes in over Opus, words come on the data channel."""

import asyncio
import contextlib
import fractions
import io
import json
import threading
import types
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.testing import say, toy_asr

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("aiortc", reason="the webrtc extra is not installed")
import aiortc
import av

import rechka
from rechka.audio import open_source
from rechka.errors import BadRequest
from rechka.server.keys import new_key
from rechka.server.routes.webrtc import CODECS, _Peer, codec_of, ice
from rechka.server.settings import Settings
from rechka.testing.servers import serving
from rechka.testing.waiting import PATIENCE_S, wait_until

PROMPT = Path(__file__).parents[2] / "examples/prompt.wav"
PACKET_S = 0.02


class Recording(aiortc.MediaStreamTrack):
    """Samples of 48 kHz, a packet each 20 ms and never in bursts, of which a receiver would drop some; then silence,
    as a microphone has it."""

    kind = "audio"

    def __init__(self, samples):
        super().__init__()
        self._samples = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        self._at = 0
        self.spoken, self.hung = asyncio.Event(), False

    async def recv(self):
        await asyncio.sleep(3600 if self.hung else PACKET_S)
        size = round(PACKET_S * 48000)
        part = self._samples[self._at : self._at + size]
        part = np.pad(part, (0, size - len(part)))
        frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, self._at, fractions.Fraction(1, 48000)
        self._at += size
        if self._at > len(self._samples) + 48000 // 2:
            self.spoken.set()
        return frame


def loud(samples, rate):
    source = open_source((samples, rate), sample_rate=48000)
    return np.concatenate([chunk[0].samples for chunk in source])


def post(server, body, key=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.http}/v1/webrtc", data, {"Content-Type": "application/json"})
    if key:
        request.add_header("X-API-Key", key)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def talk(server, samples, *, only=None, end="finish", **fields):
    """Messages of one conversation; it ends with a message, or by leaving."""
    connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    channel = connection.createDataChannel("events")
    messages, over, ready = [], asyncio.Event(), asyncio.Event()

    @channel.on("message")
    def _(text):
        messages.append(json.loads(text))
        ready.set()
        if messages[-1]["type"] in ("done", "error", "going_away"):
            over.set()

    try:
        recording = Recording(samples)
        sender = connection.addTransceiver(recording, "sendonly")
        if only:
            known = aiortc.RTCRtpSender.getCapabilities("audio").codecs
            sender.setCodecPreferences([codec for codec in known if codec.mimeType == only])
        await connection.setLocalDescription(await connection.createOffer())
        offer = {"sdp": connection.localDescription.sdp, "type": "offer", **fields}
        status, answer = await asyncio.to_thread(post, server, offer)
        assert status == 200, answer
        await connection.setRemoteDescription(aiortc.RTCSessionDescription(answer["sdp"], answer["type"]))
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        await asyncio.wait_for(recording.spoken.wait(), PATIENCE_S)
        if end == "finish":
            channel.send('{"type": "finish"}')
        elif end == "drain":
            server.end_gently()
        elif end == "hang":
            recording.hung = True
        if end != "leave":
            await asyncio.wait_for(over.wait(), PATIENCE_S)
    finally:
        await connection.close()
    return answer, messages


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 3 * PATIENCE_S))


def text_of(messages):
    return " ".join(one["text"] for one in messages if one["type"] == "final")


@pytest.fixture(scope="module")
def server():
    with serving(webrtc=True, grace_s=0.2) as running:
        yield running


def test_a_real_recording_with_the_embedded_model():
    """Over G.711, so that what is heard is what a file of it holds; Opus would change a word or two."""
    import soundfile

    asr = rechka.load("rechka-mini")
    samples, rate = soundfile.read(PROMPT, dtype="float32")
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="ULAW")
    with serving({asr.name: asr}, webrtc=True) as server:
        answer, messages = run(talk(server, loud(samples, rate), only="audio/PCMU"))
    kinds = [one["type"] for one in messages]
    assert (kinds[0], kinds[-1], answer["sample_rate"]) == ("ready", "done", 8000)
    assert "partial" in kinds
    assert (
        text_of(messages)
        == asr.transcribe(file.getvalue()).text
        == "нажмите звездочку для получения помощи или решетку для выхода"
    )


@pytest.mark.parametrize("only", ["audio/opus", "audio/G722"])
def test_codecs_and_an_end_by_leaving_nothing_behind(server, only):
    audio = say("привет мир", before_s=0.5, after_s=0.5)
    answer, messages = run(talk(server, loud(audio, 8000), only=only, partials=False))
    assert text_of(messages) == toy_asr().transcribe((audio, 8000)).text == "привет мир"
    assert answer["sample_rate"] == CODECS[only.split("/")[1].lower()]
    wait_until(lambda: server.service.engine().active == 0)


def test_who_leaves_frees_the_session(server):
    _, messages = run(talk(server, loud(say("раз"), 8000), end="leave"))
    assert messages[0]["type"] == "ready"
    wait_until(lambda: server.service.engine().active == 0)


def test_a_track_that_stops_coming_is_heard_to_its_end():
    """Half-open: idle_s ends it, and no word is lost."""
    with serving(webrtc=True, idle_s=3.0) as server:
        _, messages = run(talk(server, loud(say("раз", before_s=0.3), 8000), end="hang"))
    assert (messages[-1]["type"], messages[-1]["code"]) == ("error", "service.idle")
    assert text_of(messages) == "раз"


def test_sigterm_sends_the_last_words():
    with serving(webrtc=True, grace_s=0.2) as server:
        audio = loud(say("привет", before_s=0.3), 8000)
        _, messages = run(talk(server, audio, end="drain"))
    assert (messages[-1]["type"], text_of(messages)) == ("going_away", "привет")


def offer(*lines):
    return {"type": "offer", "sdp": "\r\n".join(["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", *lines, ""])}


OPUS = ("m=audio 9 UDP/TLS/RTP/SAVPF 96", "a=rtpmap:96 opus/48000/2")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "answer", "sdp": ""},
        {"type": "offer"},
        {"type": "offer", "sdp": 5},
        {"type": "offer", "sdp": "x" * 100_000},
        {"type": "offer", "sdp": "v=0"},
        offer("m=video 9 UDP/TLS/RTP/SAVPF 96", "a=rtpmap:96 VP8/90000"),
        offer("m=audio 9 UDP/TLS/RTP/SAVPF 96", "a=rtpmap:96 SILK/16000"),
        offer(*OPUS),
        offer(*OPUS, *OPUS),
        offer(*OPUS, *["a=candidate:1 1 UDP 1 192.0.2.1 9 typ host"] * 41),
        offer(*OPUS, *["m=video 9 x 1"] * 9),
        offer(*OPUS, "a=candidate:x", "a=fingerprint:x", "a=setup:y"),
        {**offer(*OPUS), "pause": "x"},
        {**offer(*OPUS), "partials": 5},
        {**offer(*OPUS), "model": 5},
        {**offer(*OPUS), "colour": 5},
        b"\xff\xfe",
    ],
)
def test_what_cannot_be_is_refused(server, body):
    status, answer = post(server, body)
    assert (status, answer["error"]["code"]) in ((400, "service.bad_request"), (400, "usage"))
    assert server.service.engine().active == 0


def test_off_by_default_and_behind_keys(tmp_path):
    keys = tmp_path / "keys.toml"
    mine = new_key("mine", keys)
    with serving(keys_file=keys) as server:
        assert post(server, offer(*OPUS))[0] == 401
        assert post(server, offer(*OPUS), key=mine)[0] == 404


def test_ice_servers_are_those_of_the_settings_and_no_others():
    assert ice(Settings()).iceServers == []
    found = ice(Settings(webrtc_ice=("stun:a:1", "turn:b:2"), webrtc_ice_user="u", webrtc_ice_password="p")).iceServers
    assert [(one.urls, one.username, one.credential) for one in found] == [
        ("stun:a:1", None, None),
        ("turn:b:2", "u", "p"),
    ]


@given(
    st.text(max_size=300) | st.lists(st.sampled_from([*OPUS, "a=rtpmap:0 PCMU/8000", "m=audio", "\n"])).map("\n".join)
)
def test_offers(sdp):
    with contextlib.suppress(BadRequest):
        assert codec_of(sdp) in CODECS


def test_the_limit_holds_for_offers_that_come_together():
    asr, opening, let_go, found = toy_asr(), [], threading.Event(), []
    opened = asr.recognizer.open

    def slowly(**options):
        opening.append(True)
        assert let_go.wait(PATIENCE_S)
        return opened(**options)

    offer = {"type": "offer", "sdp": "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=rtpmap:0 PCMU/8000\r\n"}
    with serving({"toy": asr}, webrtc=True, max_webrtc=1) as server:
        asr.recognizer.open = slowly
        asking = [threading.Thread(target=lambda: found.append(post(server, offer)[0])) for _ in range(2)]
        for thread in asking:
            thread.start()
        wait_until(lambda: len(opening) + len(found) == 2)
        let_go.set()
        for thread in asking:
            thread.join()
    assert found[0] in (429, 503)
    assert found[1] == 400


@pytest.mark.parametrize("turns", range(6))
def test_a_connection_that_is_ended_hears_no_more_though_a_packet_comes_just_then(turns):
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, fractions.Fraction(1, 48000)

    class Track:
        def __init__(self):
            self.packet = asyncio.get_running_loop().create_future()
            self.hung = asyncio.Event()

        async def recv(self):
            if self.packet is None:
                self.hung.set()
                raise aiortc.MediaStreamError
            found, self.packet = await self.packet, None
            return found

    async def main():
        track = Track()

        async def feed(_):
            pass

        session = types.SimpleNamespace(finished=False, rate=48000, feed=feed)
        settings = types.SimpleNamespace(idle_s=PATIENCE_S)
        peer = types.SimpleNamespace(session=session, service=types.SimpleNamespace(settings=settings), _feed=feed)
        hearing = asyncio.create_task(_Peer._hear(peer, track))
        for _ in range(6):
            await asyncio.sleep(0)
        track.packet.set_result(frame)
        for _ in range(turns):
            await asyncio.sleep(0)
        if not track.hung.is_set():
            hearing.cancel()
            await asyncio.wait({hearing})
            assert hearing.cancelled()

    asyncio.run(main())
