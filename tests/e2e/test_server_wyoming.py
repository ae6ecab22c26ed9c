"""Wyoming with its own client, and with messages that no client sends."""

import asyncio
import json
import socket
import types

import numpy as np
import pytest

from rechka.testing import say

pytest.importorskip("wyoming", reason="the wyoming client is not installed")
pytest.importorskip("starlette", reason="the server extra is not installed")
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from rechka.server.wyoming import _Client
from rechka.testing.servers import serving
from rechka.testing.waiting import PATIENCE_S, ends_when_cancelled

AUDIO = np.concatenate([say("привет мир", before_s=0.5, after_s=1.5), say("как дела", after_s=1.5)])


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def port():
    port = free_port()
    with serving(wyoming_port=port):
        yield port


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


async def transcript(client, audio, rate=8000, channels=1):
    """As Home Assistant does it."""
    await client.write_event(Transcribe(language="ru").event())
    await client.write_event(AudioStart(rate=rate, width=2, channels=channels).event())
    data = pcm(audio.reshape(-1))
    for start in range(0, len(data), 2048):
        chunk = AudioChunk(rate=rate, width=2, channels=channels, audio=data[start : start + 2048])
        await client.write_event(chunk.event())
    await client.write_event(AudioStop().event())
    pieces = []
    while True:
        event = await client.read_event()
        if Transcript.is_type(event.type):
            return Transcript.from_event(event).text, "".join(pieces)
        if TranscriptChunk.is_type(event.type):
            pieces.append(TranscriptChunk.from_event(event).text)


def test_transcripts_one_after_the_other(port):
    async def main():
        async with AsyncTcpClient("127.0.0.1", port) as client:
            first = await transcript(client, AUDIO)
            second = await transcript(client, say("раз", before_s=0.5, after_s=1, sample_rate=16000), 16000)
            stereo = np.stack([say("два", before_s=0.5, after_s=1)] * 2, axis=1)
            return first, second, await transcript(client, stereo, channels=2)

    assert run(main()) == (("привет мир как дела",) * 2, ("раз", "раз"), ("два", "два"))


def test_silence_and_nothing_are_answered(port):
    async def main():
        async with AsyncTcpClient("127.0.0.1", port) as client:
            silent = await transcript(client, np.zeros(8000, np.float32))
            await client.write_event(AudioStop().event())
            return silent, Transcript.from_event(await client.read_event()).text

    assert run(main()) == (("", ""), "")


def test_describe_and_ping(port):
    async def main():
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())
            await client.write_event(Ping(text="hi").event())
            return info, Pong.from_event(await client.read_event())

    info, pong = run(main())
    assert info.asr[0].models[0].languages == ["ru"]
    assert info.asr[0].supports_transcript_streaming
    assert pong.text == "hi"


@pytest.mark.parametrize(
    "data",
    [
        b"{\n",
        b"[]\n",
        b"x" * 200_000,
        b'{"type": "audio-chunk", "payload_length": 1e12}\n',
        b'{"type": "audio-chunk", "payload_length": -1}\n',
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 4, "channels": 1}}\n',
        b'{"type": "audio-start", "data": {"rate": "x"}}\n',
        b'{"type": "audio-start", "data": {"channels": 99}}\n',
        b'{"type": "describe", "data_length": 3}\n{{{',
        b'{"type": "describe", "data": 5, "data_length": 2}\n{}',
        b'{"type": "transcribe", "data": {"transcript_names": [5]}}\n',
    ],
)
def test_what_cannot_be_is_told_and_closed(port, data):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(data)
        client.settimeout(PATIENCE_S)
        said = b""
        while part := client.recv(65536):
            said += part
    assert json.loads(said.split(b"\n")[0])["type"] == "error"


def test_unknown_messages_pass(port):
    async def main():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b'{"type": "run-satellite"}\n{"type": "ping"}\n')
        line = await reader.readline()
        writer.close()
        return json.loads(line)["type"]

    assert run(main()) == "pong"


@pytest.mark.parametrize("turns", range(6))
def test_the_end_is_not_lost_among_the_messages(turns):
    async def main():
        reader = asyncio.StreamReader()
        settings = types.SimpleNamespace(idle_s=PATIENCE_S, max_message_kb=64)
        client = types.SimpleNamespace(
            reader=reader, session=None, service=types.SimpleNamespace(settings=settings), _size=_Client._size
        )

        async def read():
            while await _Client._read(client) is not None:
                pass

        return await ends_when_cancelled(read(), reader, b'{"type":"ping"}\n', turns)

    assert asyncio.run(main())
