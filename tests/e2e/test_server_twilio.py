"""Twilio's Media Streams replayed: two tracks, lost and doubled packets, signatures, and what Twilio never sends."""

import asyncio
import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.testing import say, silence, toy_asr

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("websockets", reason="the server extra is not installed")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rechka.audio import open_source
from rechka.errors import BadRequest
from rechka.server.keys import new_key
from rechka.server.telephony.twilio import Media, Place, parse_media, parse_start, signature
from rechka.testing.servers import serving
from rechka.testing.telephony import encoded, told, twilio, twilio_messages
from rechka.testing.waiting import PATIENCE_S, wait_until

CALLER, AGENT = say("как дела", before_s=0.5, after_s=3.5), say("хорошо", before_s=2.5, after_s=1.5)
TRACKS = {"inbound": encoded(CALLER, "ulaw"), "outbound": encoded(AGENT, "ulaw")}


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


def replay(server, tracks, **options):
    async def main():
        call = await twilio(server.ws, tracks, **options)
        return await told(server.ws, call)

    return run(main())


def messages(tracks=TRACKS, call="CA1", **options):
    return [json.dumps(message) for message in twilio_messages(tracks, call=call, **options)]


def test_two_tracks_are_one_dialogue(server):
    events = replay(server, TRACKS, parameters={"who": "Анна"})
    transcript = events[-1]["transcript"]
    assert [(one["speaker"], one["text"]) for one in transcript["segments"]] == [
        ("caller", "как дела"),
        ("agent", "хорошо"),
    ]
    for name, data in TRACKS.items():
        wanted = toy_asr().transcribe(open_source(data, encoding="mulaw")).text
        speaker = {"inbound": "caller", "outbound": "agent"}[name]
        assert [one["text"] for one in transcript["segments"] if one["speaker"] == speaker] == [wanted]
    assert events[0]["parameters"]["who"] == "Анна"
    assert events[0]["tracks"] == ["caller", "agent"]


@pytest.mark.parametrize("track", ["inbound", "outbound"])
def test_one_track(server, track):
    events = replay(server, {track: TRACKS[track]})
    assert events[-1]["transcript"]["text"] in ("как дела", "хорошо")
    assert len(events[0]["tracks"]) == 1


def test_lost_packets_do_not_move_what_follows(server):
    """Silence is lost: the text and its times stay as they are, and the gap is told."""
    lost = range(5, 20)
    whole, broken = replay(server, TRACKS), replay(server, TRACKS, lost=lost)
    gaps = [event for event in broken if event["type"] == "gap"]
    assert [(gap["time"], gap["duration"], gap["track"]) for gap in gaps] == [
        (0.1, 0.3, "caller"),
        (0.1, 0.3, "agent"),
    ]
    for one, other in zip(whole[-1]["transcript"]["segments"], broken[-1]["transcript"]["segments"], strict=True):
        assert one["text"] == other["text"]
        assert one["start"] == pytest.approx(other["start"], abs=0.05)


def test_doubled_and_late_packets_are_dropped(server):
    sent = messages(call="CA-doubled")
    sent[50:50] = sent[40:50]
    with connect(f"{server.ws}/v1/twilio") as socket:
        for message in sent:
            socket.send(message)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=PATIENCE_S)
    assert run(told(server.ws, "CA-doubled"))[-1]["transcript"]["text"] == "как дела хорошо"


def test_keys_of_the_telephone_and_messages_of_two_way_streams(server):
    sent = messages(call="CA-keys")
    sent[60:60] = [
        json.dumps({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "5"}}),
        json.dumps({"event": "mark", "mark": {"name": "x"}}),
    ]
    with connect(f"{server.ws}/v1/twilio") as socket:
        for message in sent:
            socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=PATIENCE_S)
    assert closed.value.rcvd.code == 1000
    events = run(told(server.ws, "CA-keys"))
    assert [(event["digit"], event["track"]) for event in events if event["type"] == "dtmf"] == [("5", "caller")]


def test_signatures(tmp_path):
    """With an auth token keys are of no use, and only signed connections are taken."""
    keys = tmp_path / "keys.toml"
    mine = new_key("mine", keys)
    with serving(twilio_auth_token="12345", keys_file=keys) as server:
        call = run(twilio(server.ws, TRACKS, token="12345", call="CA-signed"))
        with connect(f"{server.ws}/v1/calls/{call}/events", additional_headers={"X-API-Key": mine}) as socket:
            assert (
                json.loads(socket.recv(timeout=PATIENCE_S))["code"] == "service.not_found"
            )  # it needs the scope history
        assert server.service.calls._calls[call].result["text"] == "как дела хорошо"
        for headers in ({}, {"X-API-Key": mine}, {"X-Twilio-Signature": signature("other", f"{server.ws}/v1/twilio")}):
            with pytest.raises(InvalidStatus) as refused, connect(
                f"{server.ws}/v1/twilio", additional_headers=headers
            ):  # fmt: skip
                pass
            assert refused.value.response.status_code == 403
    with serving(twilio_auth_token="12345", public_url="wss://asr.example.org") as server:
        headers = {"X-Twilio-Signature": signature("12345", "wss://asr.example.org/v1/twilio?a=b")}
        with connect(f"{server.ws}/v1/twilio?a=b", additional_headers=headers):
            pass


def test_the_signature_is_the_hmac_of_the_address():
    """The value is from another program: printf URL | openssl dgst -sha1 -hmac 12345 -binary | base64."""
    assert signature("12345", "wss://example.com/stream") == "KG4JbhDlv15BMlxSTOWKt9btbgg="


def test_a_key_in_the_parameters(tmp_path):
    keys = tmp_path / "keys.toml"
    mine = new_key("mine", keys)
    with serving(keys_file=keys) as server:

        async def main():
            call = await twilio(server.ws, TRACKS, parameters={"token": mine, "who": "x"})
            return await told(server.ws, call, headers={"X-API-Key": mine})

        events = run(main())
        assert events[-1]["transcript"]["text"] == "как дела хорошо"
        assert mine not in json.dumps(events)
        for parameters in ({}, {"token": "rk_wrong"}):
            with connect(f"{server.ws}/v1/twilio") as socket:
                for message in messages(parameters=parameters)[:2]:
                    socket.send(message)
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(timeout=PATIENCE_S)
            assert closed.value.rcvd.code == 1008


START = messages()[1]


def media(**changes):
    told = {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": "/////w==", **changes}
    return json.dumps({"event": "media", "media": told})


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (["{}"], 1007),
        (["[]"], 1007),
        ([b"\x00\xff"], 1007),
        ([media()], 1007),
        ([START.replace("audio/x-mulaw", "audio/l16")], 1007),
        ([START.replace("8000", "16000")], 1007),
        ([START.replace('"outbound"', '"inbound"')], 1007),
        ([START.replace('"CA1"', '"a b"')], 1007),
        ([START, START], 1007),
        ([START, media(payload="%%%")], 1007),
        ([START, media(payload=5)], 1007),
        ([START, media(track="x")], 1007),
        ([START, media(timestamp="-5")], 1007),
        ([START, media(timestamp="1e12")], 1007),
        ([START, media(timestamp="9999999999999999999999")], 1007),
        ([START, media(payload="A" * 300_000)], 1007),
    ],
)
def test_what_cannot_be_closes(server, sent, code):
    assert code_of(server, sent) == code
    wait_until(lambda: server.service.engine().active == 0)


def test_who_says_nothing_more_is_left():
    with serving(idle_s=0.3) as server:
        assert code_of(server, [START, media()]) == 1008
        wait_until(lambda: server.service.engine().active == 0)


def code_of(server, sent):
    """With which the server closes after these messages."""
    with connect(f"{server.ws}/v1/twilio", compression=None) as socket:
        for message in sent:
            socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=PATIENCE_S)
    return closed.value.rcvd.code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["streamSid", "callSid", "tracks", "mediaFormat", "customParameters"]), JSON))
def test_starts(start):
    try:
        found = parse_start({"event": "start", "start": start})
    except BadRequest:
        return
    assert set(found.tracks) <= {"inbound", "outbound"}
    assert all(isinstance(value, str) for value in found.parameters.values())


@settings(max_examples=50)
@given(JSON | st.dictionaries(st.sampled_from(["track", "chunk", "timestamp", "payload"]), JSON))
def test_media(value):
    try:
        found = parse_media({"media": value})
    except BadRequest:
        return
    assert isinstance(found.data, bytes)
    assert found.at_ms >= 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 320)), max_size=12))
def test_places_only_grow_and_follow_the_time(packets):
    """Whatever comes twice, late or not at all: what is taken never lies before what was, nor after its stamp."""
    place, highest = Place(), -1
    for number, size in packets:
        before = place.samples
        missing = place.take(Media("inbound", number, number * 20, bytes(size)))
        if number <= highest:
            assert (missing, place.samples) == (None, before)
            continue
        highest = number
        assert missing is not None
        assert place.samples == before + missing + size
        assert missing == 0 or before + missing == number * 160


def test_base64_of_silence_is_silence():
    data = encoded(silence(0.02), "ulaw")
    message = {"media": {"payload": base64.b64encode(data).decode()}}
    assert set(parse_media(message).data) == {0xFF}
