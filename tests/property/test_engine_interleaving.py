"""However sessions are interleaved, cut and flooded, each gives the events that it gives alone."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.engine import SessionOptions
from rechka.hub.load import load
from rechka.models.toy import ToyPhraseModel
from rechka.options import DecoderOptions
from rechka.recognizers import Asr, assemble
from rechka.segmentation.vad import EnergyVad
from rechka.testing import chunkings, say, silence, toy_asr
from rechka.testing.engines import running_engine
from rechka.types import Partial

AUDIO = [
    np.concatenate([say("привет мир", before_s=0.5, after_s=1.0), say("как дела", after_s=1.2)]),
    say("коротко", before_s=0.2),
    silence(3.0),
    np.concatenate([say("а", before_s=1.0, after_s=0.3), say("бв", after_s=2.0)]),
]


def phrased_toy():
    recognizer = assemble(ToyPhraseModel(), decoder=DecoderOptions(kind="greedy"), vad=EnergyVad(8000))
    return Asr(recognizer, name="toy", language="ru")


def settled(events):
    """All but partials: how many of those are seen depends on how fast they are taken."""
    return [event for event in events if not isinstance(event, Partial)]


async def one(engine, audio, sizes, options):
    async with await engine.open(options) as session:

        async def feed():
            at = 0
            for size in sizes:
                await session.feed(audio[at : at + size])
                at += size
                await asyncio.sleep(0)
            session.finish()

        feeding = asyncio.create_task(feed())
        events = [event async for event in session]
        await feeding
        return events


def together(asr, jobs, **options):
    async def main():
        async with running_engine(asr, **options) as engine:
            return await asyncio.gather(*(one(engine, *job) for job in jobs))

    return asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize("make", [toy_asr, phrased_toy])
@settings(max_examples=12)
@given(data=st.data())
def test_any_mix_gives_each_session_its_own_events(make, data):
    asr = make()
    picks = data.draw(st.lists(st.integers(0, len(AUDIO) - 1), min_size=1, max_size=6))
    jobs = [
        (
            AUDIO[i],
            data.draw(chunkings(len(AUDIO[i]), largest=4000)),
            SessionOptions(min_silence_s=data.draw(st.sampled_from([None, 0.3, 1.5])), bulk=data.draw(st.booleans())),
        )
        for i in picks
    ]
    found = together(
        asr, jobs, workers=data.draw(st.integers(1, 3)), max_batch=data.draw(st.integers(1, 4)), inbox_s=1.0
    )
    for (audio, _, options), events in zip(jobs, found, strict=True):
        stream = asr.recognizer.open(limit_s=None, min_silence_s=options.min_silence_s)
        stream.feed(audio)
        stream.finish()
        asr.recognizer.run([stream])
        assert settled(events) == settled(stream.take())


def test_the_embedded_model_hears_each_of_many_as_if_alone():
    asr = load("rechka-mini", threads=1)
    rate = asr.spec.sample_rate
    noise = np.random.default_rng(0).standard_normal(rate) * 0.02
    tones = [np.sin(np.arange(2 * rate) * f / rate * 2 * np.pi) * 0.2 for f in (200, 700)]
    audio = [np.concatenate([noise, tone, noise]).astype(np.float32) for tone in tones] + [noise.astype(np.float32)]
    jobs = [(samples, [len(samples)], SessionOptions(partials=False)) for samples in audio] * 2
    found = together(asr, jobs, workers=2)
    for (samples, _, _), events in zip(jobs, found, strict=True):
        assert settled(events) == settled(asr.stream((samples, rate), partials=False))
