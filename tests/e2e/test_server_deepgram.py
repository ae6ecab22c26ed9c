"""Deepgram's API with Deepgram's own client."""

import threading

import numpy as np
import pytest

from rechka.server.keys import new_key
from rechka.testing import say
from rechka.testing.audio import wav_bytes, wav_header

deepgram = pytest.importorskip("deepgram", reason="the deepgram client is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("starlette", reason="the server extra is not installed")
DeepgramClientEnvironment = pytest.importorskip("deepgram.environment").DeepgramClientEnvironment
serving = pytest.importorskip("rechka.testing.servers").serving

AUDIO = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])
LEFT = say("левый", before_s=0.5, after_s=3)
STEREO = np.stack([LEFT, say("правый", before_s=2, after_s=1.38)[: len(LEFT)]], axis=1)


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def client_of(server, key="none"):
    environment = DeepgramClientEnvironment(
        base=server.http, production=server.ws, agent=server.ws, agent_rest=server.http
    )
    return deepgram.DeepgramClient(api_key=key, environment=environment)


def live(client, audio, *, after=lambda connection: None, **options):
    """All messages, the audio being sent in small packets, then CloseStream."""
    options = {"model": "nova-3", "encoding": "linear16", "sample_rate": 8000, **options}
    said = []
    with client.listen.v1.connect(**options) as connection:

        def send():
            for start in range(0, len(audio), 3201):
                connection.send_media(audio[start : start + 3201])
            after(connection)
            connection.send_close_stream()

        thread = threading.Thread(target=send)
        thread.start()
        said = list(connection)
        thread.join()
    return said


def finals(said, channel=0):
    return [
        m.channel.alternatives[0].transcript
        for m in said
        if m.type == "Results" and m.is_final and m.channel_index[0] == channel
    ]


def test_live(server):
    said = live(client_of(server), pcm(AUDIO), interim_results="true", vad_events="true", utterance_end_ms="1000")
    assert finals(said) == ["привет мир", "как дела"]
    assert {type(m).__name__ for m in said} == {
        "ListenV1Results", "ListenV1Metadata", "ListenV1SpeechStarted", "ListenV1UtteranceEnd",
    }  # fmt: skip
    final = next(m for m in said if m.type == "Results" and m.is_final)
    assert final.speech_final
    assert not final.from_finalize
    assert [word.word for word in final.channel.alternatives[0].words] == ["привет", "мир"]
    assert any(m.type == "Results" and not m.is_final for m in said)
    assert said[-1].type == "Metadata"
    assert said[-1].duration == pytest.approx(len(AUDIO) / 8000, abs=0.001)
    assert said[-1].request_id == final.metadata.request_id


def test_interim_results_are_off_unless_asked_for(server):
    said = live(client_of(server), pcm(AUDIO))
    assert {m.is_final for m in said if m.type == "Results"} == {True}


def test_finalize_and_keep_alive(server):
    def after(connection):
        connection.send_finalize()
        connection.send_keep_alive()
        connection.send_media(pcm(say("два", before_s=0.2, after_s=1)))

    said = live(client_of(server), pcm(say("раз", before_s=0.5)), after=after)
    assert finals(said) == ["раз", "два"]
    assert [m.from_finalize for m in said if m.type == "Results" and m.is_final] == [True, False]


def test_channels(server):
    said = live(client_of(server), pcm(STEREO.reshape(-1)), channels="2", multichannel="true")
    assert (finals(said, 0), finals(said, 1)) == (["левый"], ["правый"])
    assert {m.channel_index[1] for m in said if m.type == "Results"} == {2}
    said = live(client_of(server), pcm(STEREO.reshape(-1)), channels="2")
    assert finals(said) == ["левый", "правый"]


def test_endpointing(server):
    audio = pcm(np.concatenate([say("раз", before_s=0.5, after_s=1.0), say("два", after_s=2.0)]))
    assert finals(live(client_of(server), audio, endpointing="1500")) == ["раздва"]
    assert finals(live(client_of(server), audio, endpointing="300")) == ["раз", "два"]


def test_wav_without_a_named_encoding(server):
    data = wav_header(8000, data_bytes=0xFFFFFFFF) + pcm(AUDIO)
    assert finals(live(client_of(server), data, encoding=None, sample_rate=None)) == ["привет мир", "как дела"]


def test_recording(server):
    reply = client_of(server).listen.v1.media.transcribe_file(request=wav_bytes(AUDIO, 8000), utterances=True)
    found = reply.results.channels[0].alternatives[0]
    assert found.transcript == "привет мир как дела"
    assert [word.word for word in found.words] == ["привет", "мир", "как", "дела"]
    assert [u.transcript for u in reply.results.utterances] == ["привет мир", "как дела"]
    assert reply.metadata.duration == pytest.approx(len(AUDIO) / 8000, abs=0.01)
    reply = client_of(server).listen.v1.media.transcribe_file(request=wav_bytes(STEREO, 8000), multichannel=True)
    assert [c.alternatives[0].transcript for c in reply.results.channels] == ["левый", "правый"]


def test_raw_recording(server):
    url = f"{server.http}/v1/listen?encoding=linear16&sample_rate=8000"
    body = httpx.post(url, content=pcm(AUDIO)).json()
    assert body["results"]["channels"][0]["alternatives"][0]["transcript"] == "привет мир как дела"


@pytest.mark.parametrize(
    ("query", "content", "status"),
    [
        ("", b"no recording", 400),
        ("?encoding=g729", b"", 400),
        ("?sample_rate=x", b"", 400),
        ("?model=nobody", b"", 404),
        ("?multichannel=perhaps", b"", 400),
    ],
)
def test_errors_of_recordings(server, query, content, status):
    reply = httpx.post(f"{server.http}/v1/listen{query}", content=content)
    assert reply.status_code == status
    assert set(reply.json()) == {"err_code", "err_msg", "request_id"}
    reply = httpx.post(f"{server.http}/v1/listen", json={"url": "http://127.0.0.1/x.wav"})
    assert reply.status_code == 403


def test_a_refused_handshake_has_a_status(tmp_path):
    key = new_key("dg", tmp_path / "keys.toml")
    with serving(keys_file=tmp_path / "keys.toml") as server:
        assert finals(live(client_of(server, key), pcm(AUDIO))) == ["привет мир", "как дела"]
        with pytest.raises(Exception, match="401"):
            live(client_of(server, "wrong"), pcm(AUDIO))
