"""The addresses of ASR_FastAPI_WS_RU and of T-one's demonstration server, with what their example clients do."""

import asyncio
import contextlib
import json

import numpy as np
import pytest

from rechka.testing import say, silence
from rechka.testing.audio import wav_bytes

websockets = pytest.importorskip("websockets", reason="the server extra is not installed")
pytest.importorskip("websockets.exceptions")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("starlette", reason="the server extra is not installed")
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


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


async def talk(url, messages):
    said = []
    async with websockets.connect(url) as client:
        for message in messages:
            await client.send(message if isinstance(message, bytes) else json.dumps(message))
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            while True:
                said.append(json.loads(await client.recv()))
    return said, client.close_code


def pieces(data, size=8000):
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("eof", [1, True])
def test_live_speech(server, eof):
    config = {"sample_rate": 8000, "wait_null_answers": False, "do_dialogue": True, "audio_format": "pcm16"}
    said, code = run(talk(f"{server.ws}/ws", [{"config": config}, *pieces(pcm(AUDIO), 8001), {"eof": eof}]))
    assert code == 1000
    assert [message["last_message"] for message in said] == [False, False, True]
    assert [message["data"]["text"] for message in said[:-1]] == ["привет мир", "как дела"]
    assert set(said[0]) == {"channel_name", "silence", "data", "error", "last_message", "sentenced_data"}
    assert set(said[0]["data"]["result"][0]) == {"conf", "start", "end", "word"}
    told = said[-1]["sentenced_data"]["list_of_sentenced_recognitions"]
    assert [entry["text"] for entry in told] == ["привет мир", "как дела"]


def test_silence_is_told_only_if_it_is_wanted(server):
    audio = pieces(pcm(silence(40)), 16000)
    for wanted, count in ((True, 2), (False, 0)):
        config = {"config": {"sample_rate": 8000, "wait_null_answers": wanted}}
        said, _ = run(talk(f"{server.ws}/ws", [config, *audio, {"eof": 1}]))
        assert [message["silence"] for message in said] == [True] * (count + 1)
        assert said[-1]["last_message"]


def test_audio_without_a_config_and_config_after_audio(server):
    said, _ = run(talk(f"{server.ws}/ws", [pcm(AUDIO), {"config": {"sample_rate": 48000}}, {"eof": 1}]))
    assert [message["data"]["text"] for message in said if message["data"]] == ["привет мир", "как дела"]


def test_messages_that_are_whole_recordings(server):
    config = {"config": {"audio_format": "wav", "wait_null_answers": False}}
    first, second = (wav_bytes(say(word, before_s=0.5, after_s=1.5), 8000) for word in ("раз", "два"))
    said, _ = run(talk(f"{server.ws}/ws", [config, first, second, {"eof": 1}]))
    assert [message["data"]["text"] for message in said if message["data"]] == ["раз", "два"]
    said, code = run(talk(f"{server.ws}/ws", [config, b"this is no recording", {"eof": 1}]))
    assert said[0]["error"]
    assert code == 1007


def test_eof_without_audio(server):
    said, code = run(talk(f"{server.ws}/ws", [{"eof": 1}]))
    assert (len(said), said[0]["last_message"], code) == (1, True, 1000)


def test_post_file(server):
    url = f"{server.http}/post_file"
    reply = httpx.post(url, files={"file": wav_bytes(STEREO, 8000)}, data={"do_dialogue": "true"})
    body = reply.json()
    assert (reply.status_code, body["success"], body["error_description"]) == (200, True, None)
    assert {name: [p["data"]["text"] for p in part] for name, part in body["raw_data"].items()} == {
        "channel_1": ["левый"],
        "channel_2": ["правый"],
    }
    dialogue = body["sentenced_data"]
    assert [(e["speaker"], e["text"]) for e in dialogue["list_of_sentenced_recognitions"]] == [
        ("channel_1", "левый"),
        ("channel_2", "правый"),
    ]
    assert dialogue["full_text_only"] == ["левый", "правый"]
    body = httpx.post(url, files={"file": wav_bytes(STEREO, 8000)}, data={"make_mono": "true"}).json()
    assert list(body["raw_data"]) == ["channel_1"]


def test_failures_have_its_shape(server):
    for reply in (
        httpx.post(f"{server.http}/post_file", files={"file": b"no recording"}),
        httpx.post(f"{server.http}/post_file", data={"x": "y"}),
        httpx.post(f"{server.http}/post_one_step_req", json={"AudioFileUrl": "http://127.0.0.1/a.wav"}),
        httpx.post(f"{server.http}/post_one_step_req", content=b"{"),
        httpx.post(f"{server.http}/ws", content=b""),
    ):
        assert reply.status_code == 200
        assert reply.json()["success"] is False
        assert reply.json()["error_description"]


def test_is_alive_needs_no_gpu_library(server):
    body = httpx.get(f"{server.http}/is_alive").json()
    assert (body["error"], body["data"], body["state"]) == (False, "is running", "idle")


def test_t_one(server):
    async def main():
        said = []
        async with websockets.connect(f"{server.ws}/api/ws") as client:
            for piece in [*pieces(pcm(AUDIO), 4800), b""]:
                while (message := json.loads(await client.recv()))["event"] != "ready":
                    said.append(message)
                await client.send(piece)
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                while True:
                    said.append(json.loads(await client.recv()))
            return said, client.close_code

    said, code = run(main())
    assert code == 1000
    assert [m["phrase"]["text"] for m in said] == ["привет мир", "как дела"]
    assert said[0]["phrase"]["start_time"] < said[0]["phrase"]["end_time"]
