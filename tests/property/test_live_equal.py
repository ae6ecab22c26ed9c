"""Many live streams give exactly what each gives alone: in the engine, and through a real server over WebSockets."""

import asyncio
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.engine import SessionOptions
from rechka.hub.load import load
from rechka.testing import chunkings, say, silence, toy_asr
from rechka.testing.engines import running_engine
from rechka.types import Final, Partial

ROOT = Path(__file__).parents[2]
PHRASES = ["привет мир", "да", "как дела", "это река", "а б в"]


def speech(picks, rate):
    """Phrases with pauses between, float samples."""
    parts = [say(PHRASES[i], before_s=0.3 + 0.1 * i, after_s=0.9, sample_rate=rate) for i in picks]
    return np.concatenate([*parts, silence(0.2)])


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


async def one(engine, data, sizes, options, waits):
    """A session whose packets of odd sizes come with odd waits between."""
    async with await engine.open(options) as session:

        async def feed():
            at = 0
            for size, wait in zip(sizes, itertools.cycle(waits), strict=False):
                await session.feed(data[at : at + size])
                at += size
                await asyncio.sleep(wait / 1000)
            session.finish()

        feeding = asyncio.create_task(feed())
        events = [event async for event in session]
        await feeding
        return events


def run(asr, jobs, **options):
    async def main():
        async with running_engine(asr, **options) as engine:
            return await asyncio.gather(*(one(engine, *job) for job in jobs))

    return asyncio.run(asyncio.wait_for(main(), 120))


def settled(events):
    return [event for event in events if not isinstance(event, Partial)]


@settings(max_examples=15)
@given(data=st.data())
def test_streams_together_are_streams_apart(data):
    asr = toy_asr()
    jobs, alone = [], []
    for picks in data.draw(
        st.lists(st.lists(st.sampled_from(range(len(PHRASES))), max_size=3), min_size=2, max_size=8)
    ):
        rate, channels = data.draw(st.sampled_from([8000, 16000, 11025])), data.draw(st.sampled_from([1, 2]))
        audio = pcm(np.repeat(speech(picks, 8000), channels)) if rate != 16000 else pcm(
            np.repeat(np.repeat(speech(picks, 8000), 2), channels)
        )  # fmt: skip
        options = SessionOptions(sample_rate=rate, channels=channels, partials=data.draw(st.booleans()))
        sizes = data.draw(chunkings(len(audio), largest=9001))
        waits = data.draw(st.lists(st.sampled_from([0, 0, 1, 3]), min_size=1, max_size=4))
        if sum(waits) * len(sizes) / len(waits) > 300:
            waits = [0]
        jobs.append((audio, sizes, options, waits))
        alone.append(run(asr, [(audio, [len(audio)], options, [0])], workers=1, max_batch=1)[0])
    engine = {"workers": data.draw(st.integers(1, 3)), "max_batch": data.draw(st.integers(1, 5))}
    found = run(asr, jobs, **engine, max_wait_ms=data.draw(st.sampled_from([0.0, 2.0])), inbox_s=1.5)
    for expected, events in zip(alone, found, strict=True):
        assert sorted(map(repr, settled(events))) == sorted(map(repr, settled(expected)))  # of one channel: in order
        for channel in (0, 1):
            of = [e for e in settled(events) if isinstance(e, Final) and e.segment.channel == channel]
            assert of == [e for e in settled(expected) if isinstance(e, Final) and e.segment.channel == channel]


def test_streams_of_the_embedded_model_over_websockets():
    """Real speech, from different places of it, in packets of different sizes, some after waits."""
    websockets = pytest.importorskip("websockets", reason="the server extra is not installed")
    serving = pytest.importorskip("rechka.testing.servers").serving
    asr = load("rechka-mini", threads=1)
    samples, rate = soundfile.read(ROOT / "examples" / "prompt.wav", dtype="int16")
    chance = random.Random(5)
    pause = np.zeros(round(0.8 * rate), np.int16)
    audios = [np.concatenate([np.roll(samples, 4000 * i), pause, samples[: 6000 * (i + 1)]]) for i in range(4)]
    expected = [
        "\n".join(e.segment.text for e in asr.stream((audio, rate), partials=False) if isinstance(e, Final))
        for audio in audios
    ]
    assert all(expected)

    async def talk(server, audio, size):
        data, at, finals = audio.astype("<i2").tobytes(), 0, []
        async with websockets.connect(f"{server.ws}/v1/stream?sample_rate={rate}", compression=None) as client:

            async def send():
                nonlocal at
                while at < len(data):
                    step = chance.randint(1, 2 * size)
                    await client.send(data[at : at + step])
                    at += step
                    await asyncio.sleep(chance.choice([0, 0, 0.005]))
                await client.send('{"type": "finish"}')

            sending = asyncio.create_task(send())
            async for text in client:
                message = json.loads(text)
                if message["type"] == "final":
                    finals.append(message["text"])
            await sending
        return "\n".join(finals)

    async def everybody(server):
        jobs = [(i, size) for i in range(len(audios)) for size in (999, 3200, 20001)]
        return jobs, await asyncio.gather(*(talk(server, audios[i], size) for i, size in jobs))

    with serving({"rechka-mini": asr}) as server:
        jobs, found = asyncio.run(asyncio.wait_for(everybody(server), 300))
    for (i, size), text in zip(jobs, found, strict=True):
        assert text == expected[i], f"recording {i} in packets of about {size} bytes"
