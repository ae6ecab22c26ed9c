"""OpenAI's REST API with OpenAI's own client."""

import io
import json
import math
import urllib.request

import numpy as np
import pytest

from rechka.server.keys import new_key
from rechka.testing import say
from rechka.testing.audio import wav_bytes

openai = pytest.importorskip("openai", reason="the openai client is not installed")
pytest.importorskip("starlette", reason="the server extra is not installed")
serving = pytest.importorskip("rechka.testing.servers").serving

AUDIO = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])
WAV = wav_bytes(AUDIO, 8000)
TEXT = "привет мир как дела"


@pytest.fixture(scope="module")
def server():
    with serving(alias=("my-model=toy",), max_upload_mb=1) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.http}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client, data=WAV, **options):
    return client.audio.transcriptions.create(file=("a.wav", data), **{"model": "whisper-1", **options})


@pytest.mark.parametrize("written", ["https://example.org", "https://example.org/", "https://Example.org"])
def test_other_pages_may_read_answers_however_they_are_written(written):
    with serving(cors_origins=(written,)) as server:
        asked = urllib.request.Request(f"{server.http}/v1/models", headers={"Origin": "https://example.org"})
        with urllib.request.urlopen(asked) as reply:
            assert reply.headers["Access-Control-Allow-Origin"] == "https://example.org"


def test_the_headers_of_openais_client_may_come_from_other_pages():
    """It sends them from browsers too, and a browser asks for leave first."""
    sent = openai.OpenAI(api_key="none").default_headers
    asked = {
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": ",".join(sorted(name.lower() for name in sent)),
    }
    with serving(cors_origins=("https://example.org",)) as server:
        url = f"{server.http}/v1/audio/transcriptions"
        with urllib.request.urlopen(urllib.request.Request(url, method="OPTIONS", headers=asked)) as reply:
            allowed = reply.headers["Access-Control-Allow-Headers"].lower()
        assert all(name.lower() in allowed for name in sent)


def test_json(client):
    reply = ask(client)
    assert reply.text == TEXT
    assert (reply.usage.type, reply.usage.seconds) == ("duration", math.ceil(len(AUDIO) / 8000))


def test_text_and_subtitles(client):
    assert ask(client, response_format="text").strip() == TEXT
    srt = ask(client, response_format="srt")
    assert srt.startswith("1\n00:00:00,")
    assert "привет мир" in srt
    assert ask(client, response_format="vtt").startswith("WEBVTT")


def test_verbose_json(client):
    reply = ask(client, response_format="verbose_json")
    assert (reply.text, reply.language) == (TEXT, "russian")
    assert float(reply.duration) == pytest.approx(len(AUDIO) / 8000, abs=0.01)
    assert [segment.text for segment in reply.segments] == ["привет мир", "как дела"]
    assert reply.segments[0].start < reply.segments[0].end < reply.segments[1].start
    assert reply.segments[0].avg_logprob < 0
    assert reply.words is None
    reply = ask(client, response_format="verbose_json", timestamp_granularities=["word"])
    assert [word.word for word in reply.words] == TEXT.split()
    assert reply.segments is None
    reply = ask(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert len(reply.words) == 4
    assert len(reply.segments) == 2


def test_diarized_json_has_a_speaker_for_each_channel(client):
    left, right = say("левый", before_s=0.5, after_s=3), say("правый", before_s=2, after_s=1.38)
    data = wav_bytes(np.stack([left, right[: len(left)]], axis=1), 8000)
    reply = ask(client, data, response_format="diarized_json", model="gpt-4o-transcribe-diarize")
    assert [(s.speaker, s.text) for s in reply.segments] == [("A", "левый"), ("B", "правый")]


@pytest.mark.parametrize("form", ["json", "text"])
def test_stream_gives_pieces_of_the_whole(client, form):
    events = list(ask(client, stream=True, model="gpt-4o-transcribe", response_format=form))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) == 2
    assert events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text == ask(client).text


def test_stream_with_subtitles_gives_them_whole(server):
    import httpx

    form = {"stream": "true", "response_format": "srt", "model": "whisper-1"}
    reply = httpx.post(f"{server.http}/v1/audio/transcriptions", data=form, files={"file": WAV})
    assert reply.text.startswith("1\n")


def test_streamed_errors_are_raised(client):
    with pytest.raises(openai.APIError, match="format"):
        list(ask(client, b"no audio at all", stream=True))


@pytest.mark.parametrize(
    ("data", "options", "status"),
    [
        (b"", {}, 400),
        (b"no audio at all", {}, 400),
        (WAV, {"model": "nobody"}, 404),
        (WAV, {"response_format": "docx"}, 400),
        (b"\0" * (2 << 20), {}, 413),
    ],
)
def test_errors_are_in_their_shape(client, data, options, status):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, data, **options)
    assert caught.value.status_code == status
    assert caught.value.body["type"] == "invalid_request_error"
    assert caught.value.body["message"]


def test_all_fields_that_the_client_can_send_are_taken(client):
    reply = ask(
        client,
        model="my-model",
        language="ru",
        prompt="Разговор.",
        temperature=0.0,
        chunking_strategy="auto",
        include=["logprobs"],
        known_speaker_names=["a"],
        known_speaker_references=["data:audio/wav;base64,AAAA"],
    )
    assert reply.text == TEXT


def test_models(client):
    found = list(client.models.list())
    assert [model.id for model in found] == ["toy", "my-model"]
    assert client.models.retrieve("toy").owned_by == "rechka"
    assert isinstance(found[0].created, int)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_wrong_and_missing_keys(tmp_path):
    key = new_key("openai", tmp_path / "keys.toml")
    with serving(keys_file=tmp_path / "keys.toml") as server:
        for secret, good in ((key, True), ("wrong", False)):
            with openai.OpenAI(base_url=f"{server.http}/v1", api_key=secret, max_retries=0) as client:
                if good:
                    assert ask(client).text == TEXT
                else:
                    with pytest.raises(openai.AuthenticationError):
                        ask(client)


def test_over_quota_says_when_to_come_back(tmp_path):
    keys = tmp_path / "keys.toml"
    key = new_key("poor", keys)
    keys.write_text(keys.read_text() + "audio_s_per_day = 8\n")
    with (
        serving(keys_file=keys) as server,
        openai.OpenAI(base_url=f"{server.http}/v1", api_key=key, max_retries=0) as client,
    ):
        assert ask(client).text == TEXT
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client)
        assert int(caught.value.response.headers["Retry-After"]) > 0


def test_a_client_that_leaves_frees_its_place(server):
    import socket

    from rechka.testing.waiting import wait_until

    data = wav_bytes(np.tile(AUDIO, 8), 8000)[: (1 << 20) - 2000]
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + data + b"\r\n"
    body += b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n--x--\r\n'
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + body)
        assert client.recv(10)
    wait_until(lambda: not any(engine.active for engine in server.service.engines.values()))


def test_a_form_that_is_none(server):
    import httpx

    url = f"{server.http}/v1/audio/transcriptions"
    for reply in (
        httpx.post(url, content=b"x", headers={"Content-Type": "multipart/form-data; boundary=q"}),
        httpx.post(url, content=b"x", headers={"Content-Type": "multipart/form-data"}),
        httpx.post(url, json={"file": "x"}),
        httpx.post(url, data={"file": "text"}),
        httpx.post(url, data={f"f{i}": "x" for i in range(500)}),
        httpx.post(url, files={"file": io.BytesIO(WAV)}, data={"stream": "perhaps"}),
    ):
        assert reply.status_code == 400
        assert reply.json()["error"]["message"]
    assert httpx.get(url).status_code == 405
    assert json.loads(httpx.get(f"{server.http}/nowhere").text)["error"]["code"] == "service.not_found"
