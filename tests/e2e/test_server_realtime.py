"""OpenAI's Realtime API with OpenAI's own client."""

import base64
import json

import numpy as np
import pytest

from rechka.server.keys import new_key
from rechka.testing import say

openai = pytest.importorskip("openai", reason="the openai client is not installed")
websockets = pytest.importorskip("websockets", reason="the server extra is not installed")
pytest.importorskip("websockets.exceptions")
pytest.importorskip("websockets.sync.client")
pytest.importorskip("starlette", reason="the server extra is not installed")
serving = pytest.importorskip("rechka.testing.servers").serving

AUDIO = np.concatenate(
    [
        say("привет мир", before_s=0.5, after_s=1.5, sample_rate=24000),
        say("как дела", after_s=1.5, sample_rate=24000),
    ]
)
COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def append(connection, data, size=9601):
    for start in range(0, len(data), size):
        connection.input_audio_buffer.append(audio=base64.b64encode(data[start : start + size]).decode())


def until(connection, kind, count=1):
    said = []
    while sum(event.type == kind for event in said) < count:
        said.append(connection.recv())
    return said


def connect(server, key="none"):
    client = openai.OpenAI(base_url=f"{server.http}/v1", api_key=key)
    return client.realtime.connect(extra_query={"intent": "transcription"})


def completed(said):
    return [event.transcript for event in said if event.type == COMPLETED]


def test_turns(server):
    with connect(server) as connection:
        created = connection.recv()
        assert (created.type, created.session.type) == ("session.created", "transcription")
        connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": {"model": "gpt-4o-transcribe", "language": "ru"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 600},
                    }
                },
            }
        )
        assert connection.recv().type == "session.updated"
        append(connection, pcm(AUDIO))
        said = until(connection, COMPLETED, 2)
    assert completed(said) == ["привет мир", "как дела"]
    for item in {event.item_id for event in said if event.type == COMPLETED}:
        own = [event for event in said if getattr(event, "item_id", None) == item]
        deltas = "".join(event.delta for event in own if event.type == DELTA)
        assert deltas == own[-1].transcript
        assert own[-1].usage.type == "duration"
        kinds = [event.type for event in own if event.type != DELTA]
        assert kinds == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            COMPLETED,
        ]
    kinds = [event.type for event in said]
    assert kinds.count("conversation.item.added") == kinds.count("conversation.item.done") == 2
    assert all(event.event_id for event in said)
    committed = [event for event in said if event.type == "input_audio_buffer.committed"]
    assert [event.previous_item_id for event in committed] == [None, committed[0].item_id]


def test_commits_by_hand(server):
    with connect(server) as connection:
        connection.session.update(session={"type": "transcription", "audio": {"input": {"turn_detection": None}}})
        append(connection, pcm(AUDIO))
        connection.input_audio_buffer.commit()
        said = until(connection, COMPLETED)
        append(connection, pcm(say("раз", before_s=0.3, sample_rate=24000)))
        connection.input_audio_buffer.commit()
        said += until(connection, COMPLETED)
    assert completed(said) == ["привет мир как дела", "раз"]
    assert not [event for event in said if "speech" in event.type]


def test_silence_that_is_committed_is_answered(server):
    with connect(server) as connection:
        append(connection, bytes(48000))
        connection.input_audio_buffer.commit()
        assert completed(until(connection, COMPLETED)) == [""]


def test_telephone_codes(server):
    from rechka.audio.pcm import MULAW

    audio = say("добрый день", before_s=0.5, after_s=1.5)
    order = np.argsort(MULAW.astype(int))
    data = order[np.clip(np.searchsorted(MULAW[order], audio * 32767), 0, 255)].astype(np.uint8).tobytes()
    with connect(server) as connection:
        connection.session.update(
            session={"type": "transcription", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
        )
        append(connection, data, 160)
        assert completed(until(connection, COMPLETED)) == ["добрый день"]


def test_clear_forgets_what_was_not_committed(server):
    with connect(server) as connection:
        append(connection, pcm(say("забудь", before_s=0.5, sample_rate=24000)))
        connection.input_audio_buffer.clear()
        until(connection, "input_audio_buffer.cleared")
        append(connection, pcm(say("запомни", before_s=0.5, after_s=1.5, sample_rate=24000)))
        said = until(connection, COMPLETED)
    assert completed(said) == ["запомни"]
    stopped = next(event for event in said if event.type == "input_audio_buffer.speech_stopped")
    assert stopped.audio_end_ms > 1500  # time goes on


@pytest.mark.parametrize(
    "event",
    [
        {"type": "input_audio_buffer.append", "audio": "***"},
        {"type": "input_audio_buffer.append", "audio": 5},
        {"type": "input_audio_buffer.commit"},
        {"type": "response.create"},
        {"type": "session.update", "session": []},
        {"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/opus"}}}}},
        {"type": "session.update", "session": {"audio": {"input": {"format": "pcm"}}}},
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": 5}}}},
        {"type": "session.update", "session": {"audio": {"input": {"format": {"type": []}}}}},
        {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": 5}}}}},
        {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": ["toy"]}}}}},
        {},
    ],
)
def test_wrong_events_are_told_and_the_session_goes_on(server, event):
    with websockets.sync.client.connect(f"{server.ws}/v1/realtime") as connection:
        connection.recv()
        connection.send(json.dumps({**event, "event_id": "mine"}))
        said = json.loads(connection.recv())
        assert (said["type"], said["error"]["event_id"]) == ("error", "mine")
        data = base64.b64encode(pcm(AUDIO)).decode()
        connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": data}))
        while json.loads(connection.recv())["type"] != COMPLETED:
            pass


def test_the_old_shape(server):
    with websockets.sync.client.connect(f"{server.ws}/v1/realtime?intent=transcription") as connection:
        connection.recv()
        session = {"input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "whisper-1"}}
        connection.send(json.dumps({"type": "transcription_session.update", "session": session}))
        said = json.loads(connection.recv())
        assert said["type"] == "transcription_session.updated"
        assert said["session"]["audio"]["input"]["format"]["type"] == "audio/pcmu"


def test_keys_and_client_secrets(tmp_path):
    key = new_key("rt", tmp_path / "keys.toml")
    with serving(keys_file=tmp_path / "keys.toml") as server:
        client = openai.OpenAI(base_url=f"{server.http}/v1", api_key=key)
        secret = client.realtime.client_secrets.create(session={"type": "transcription"})
        for good in (key, secret.value):
            with connect(server, good) as connection:
                assert connection.recv().type == "session.created"
        protocols = ["realtime", f"openai-insecure-api-key.{secret.value}"]
        with websockets.sync.client.connect(f"{server.ws}/v1/realtime", subprotocols=protocols) as connection:
            assert connection.subprotocol == "realtime"
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught, connect(server, "wrong"):
            pass
        assert caught.value.response.status_code == 401
