"""vosk-server's protocol with its clients' habits: lock step, never waiting, never reading, no config."""

import asyncio
import contextlib
import json

import numpy as np
import pytest

from rechka.hub.load import load
from rechka.options import DecoderOptions
from rechka.testing import say, silence

websockets = pytest.importorskip("websockets", reason="the server extra is not installed")
pytest.importorskip("websockets.exceptions")
pytest.importorskip("starlette", reason="the server extra is not installed")
from rechka.testing.servers import serving, websocket_scope  # noqa: E402

AUDIO = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


PCM = pcm(AUDIO)


@pytest.fixture(scope="module")
def server():
    models = {"toy": load("toy", decoder=DecoderOptions(kind="auto"))}  # hotwords need a beam
    with serving(models, send_s=600.0) as running:  # a slow machine is no client that takes nothing
        yield running


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def texts(replies):
    return [reply["text"] for reply in replies if reply.get("text")]


async def lock_step(url, config=None, data=PCM, size=8000, end='{"eof" : 1}'):
    """What vosk-server's own test.py does: send, receive, send, receive."""
    replies = []
    async with websockets.connect(url) as client:
        if config is not None:
            await client.send(json.dumps({"config": config}))
        for start in range(0, len(data), size):
            await client.send(data[start : start + size])
            replies.append(json.loads(await client.recv()))
        await client.send(end)
        replies.append(json.loads(await client.recv()))
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            await client.recv()
    return replies


@pytest.mark.parametrize("path", ["/", "", "/vosk"])
def test_one_reply_to_each_message_without_a_config(server, path):
    replies = run(lock_step(server.ws + path))
    assert len(replies) == -(-len(PCM) // 8000) + 1
    assert texts(replies) == ["привет мир", "как дела"]
    assert all(set(reply) <= {"partial", "result", "text"} for reply in replies)
    assert any(reply.get("partial") for reply in replies)
    words = next(reply for reply in replies if reply.get("text"))["result"]
    assert [set(word) for word in words] == [{"conf", "start", "end", "word"}] * 2
    assert "result" not in replies[-1]


@pytest.mark.parametrize("size", [1333, 3200, len(PCM)])
def test_any_packets_even_odd_ones(server, size):
    replies = run(lock_step(server.ws, size=size))
    assert " ".join(texts(replies)) == "привет мир как дела"


def test_single_bytes(server):
    replies = run(lock_step(server.ws, data=b"\0" * 101, size=1))
    assert replies == [{"partial": ""}] * 101 + [{"text": ""}]


def test_config_rate_words_alternatives(server):
    audio = pcm(say("добрый день", before_s=0.5, after_s=1.0, sample_rate=16000))
    replies = run(lock_step(server.ws, {"sample_rate": 16000.0, "words": 0, "phrase_list": ["день", "[unk]"]}, audio))
    assert texts(replies) == ["добрый день"]
    assert not any("result" in reply for reply in replies)
    replies = run(lock_step(server.ws, {"sample_rate": 16000, "max_alternatives": 3}, audio))
    found = [reply["alternatives"][0] for reply in replies if "alternatives" in reply]
    assert [one["text"] for one in found if one["text"]] == ["добрый день"]
    assert found[0]["confidence"] > 0.5
    assert found[0]["result"][0]["word"] == "добрый"


@pytest.mark.parametrize("end", ['{"eof":1}', '{"eof": true}', '{ "eof" : 1 }'])
def test_eof_in_any_spelling_and_without_audio(server, end):
    assert run(lock_step(server.ws, data=b"", end=end)) == [{"text": ""}]


def test_reset_gives_a_final_and_goes_on(server):
    async def main():
        async with websockets.connect(server.ws) as client:
            await client.send(pcm(say("раз", before_s=0.5)))
            await client.recv()
            await client.send('{"reset" : 1}')
            reset = json.loads(await client.recv())
            await client.send(pcm(say("два", before_s=0.2)))
            await client.recv()
            await client.send('{"eof" : 1}')
            return reset, json.loads(await client.recv())

    reset, last = run(main())
    assert (reset["text"], last["text"]) == ("раз", "два")


def test_config_after_audio_needs_no_reply_and_breaks_nothing(server):
    async def main():
        async with websockets.connect(server.ws) as client:
            await client.send(PCM[:8000])
            await client.recv()
            await client.send('{"config": {"sample_rate": 48000}}')
            await client.send(PCM[8000:])
            first = json.loads(await client.recv())
            await client.send('{"eof" : 1}')
            return texts([first, json.loads(await client.recv())])

    assert " ".join(run(main())) == "привет мир как дела"


def test_a_client_that_does_not_wait_gets_all_replies(server):
    """Asterisk's module writes 3200 bytes after 3200 bytes, and reads whatever is there."""

    async def main():
        async with websockets.connect(server.ws) as client:
            count = 0
            for start in range(0, len(PCM), 3200):
                await client.send(PCM[start : start + 3200])
                count += 1
            await client.send('{"eof" : 1}')
            replies = []
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                while True:
                    replies.append(json.loads(await client.recv()))
            return replies, count

    replies, count = run(main())
    assert texts(replies) == ["привет мир", "как дела"]
    assert len(replies) <= count + 1


def test_a_client_that_never_reads_is_heard_to_the_end(server):
    """Not one reply leaves. On a real socket the kernel says when, and tiny buffers lose acknowledgements too."""
    finals = server.service.metrics.counter("rechka_events_total", "", ("kind",))
    before = finals.value("Final")
    data = pcm(np.concatenate([AUDIO] * 5))
    heard = [{"type": "websocket.receive", "bytes": data[start : start + 640]} for start in range(0, len(data), 640)]
    messages = iter([{"type": "websocket.connect"}, *heard, {"type": "websocket.disconnect", "code": 1006}])
    sent = []

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])
        if message["type"] != "websocket.accept":
            await asyncio.Event().wait()

    server.call(server.server.config.loaded_app(websocket_scope("/"), receive, send))
    assert sent == ["websocket.accept", "websocket.send"]
    assert finals.value("Final") - before == 10
    assert server.service.connections == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"config": {"sample_rate": "fast"}}', '{"config": {"sample_rate": 1}}'])
def test_what_cannot_be_is_told(server, text):
    async def main():
        async with websockets.connect(server.ws) as client:
            await client.send(text)
            await client.send(b"\0\0")
            said = json.loads(await client.recv())
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                await client.recv()
            return said, client.close_code

    said, code = run(main())
    assert set(said) == {"error", "code"}
    assert code == 1007


def test_model_in_a_config_loads_nothing(server):
    replies = run(lock_step(server.ws, {"model": "/etc/passwd"}))
    assert texts(replies) == ["привет мир", "как дела"]


def test_silence_gives_empty_partials(server):
    replies = run(lock_step(server.ws, data=pcm(silence(3))))
    assert replies[:-1] == [{"partial": ""}] * (len(replies) - 1)
    assert replies[-1] == {"text": ""}
