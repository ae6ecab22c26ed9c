"""Any batch mix and any interleaving of streams gives the events that each stream gives alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.models import toy
from rechka.recognizers import ChunkRecognizer, Stream
from rechka.testing import ScriptedDecoder, say, silence
from rechka.types import F32, Event, Frames, State

VOICES = [
    say("раз два", after_s=0.7),
    np.concatenate([say("три", before_s=0.41, after_s=1.1), say("четыре")]),
    silence(2.0),
    say("пять шесть", before_s=1.03, after_s=0.2),
    silence(0.0),
]


class WatchedModel(toy.ToyModel):
    """The toy, noting how many streams shared each step."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        self.batches.append(len(audio))
        return super().step(audio, states)


def recognizer(max_chunks: int = 4) -> ChunkRecognizer:
    decoder = ScriptedDecoder(toy.TOKENS.blank)
    return ChunkRecognizer(WatchedModel(), lambda _: decoder, max_chunks=max_chunks)


@cache
def alone(voice: int) -> list[Event]:
    rec = recognizer()
    stream = rec.open(limit_s=None)
    stream.feed(VOICES[voice])
    stream.finish()
    rec.run([stream])
    return stream.take()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), max_chunks=st.integers(1, 8))
def test_any_interleaving(data: st.DataObject, max_chunks: int) -> None:
    """A random schedule of feeding, stepping any subset, and taking."""
    rec = recognizer(max_chunks)
    voices = data.draw(st.lists(st.integers(0, len(VOICES) - 1), min_size=1, max_size=5))
    streams = [rec.open(limit_s=None) for _ in voices]
    fed = [0] * len(voices)
    events: list[list[Event]] = [[] for _ in voices]
    schedule = data.draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("feed"), st.integers(0, len(voices) - 1), st.integers(1, 9000)),
                st.tuples(st.just("step"), st.sets(st.integers(0, len(voices) - 1)), st.just(0)),
                st.tuples(st.just("take"), st.integers(0, len(voices) - 1), st.just(0)),
            ),
            max_size=60,
        )
    )
    for what, who, size in schedule:
        act(what, who, size, rec, streams, voices, fed, events)
    for i, stream in enumerate(streams):
        if not stream.finished:
            stream.feed(VOICES[voices[i]][fed[i] :])
            stream.finish()
    rec.run(streams)
    for i, stream in enumerate(streams):
        assert [*events[i], *stream.take()] == alone(voices[i])


def act(
    what: str,
    who: Any,
    size: int,
    rec: ChunkRecognizer,
    streams: list[Stream],
    voices: list[int],
    fed: list[int],
    events: list[list[Event]],
) -> None:
    if what == "step":
        rec.step([streams[i] for i in who])
    elif what == "take":
        events[who] += streams[who].take()
    elif not streams[who].finished:
        samples = VOICES[voices[who]][fed[who] : fed[who] + size]
        streams[who].feed(samples)
        fed[who] += len(samples)
        if fed[who] == len(VOICES[voices[who]]):
            streams[who].finish()


def test_streams_share_a_step() -> None:
    rec = recognizer(max_chunks=1)
    streams = [rec.open(limit_s=None) for _ in VOICES]
    for stream, audio in zip(streams, VOICES, strict=True):
        stream.feed(audio)
        stream.finish()
    rec.run(streams)
    assert isinstance(rec.model, WatchedModel)
    assert rec.model.batches[0] == 4  # the empty one needs no step
    assert len(rec.model.batches) == max(-(-(len(audio) + 2400 + 2640) // 2400) for audio in VOICES)
    assert [stream.take() for stream in streams] == [alone(i) for i in range(len(VOICES))]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, len(VOICES) - 2), st.integers(1, 6)), min_size=1, max_size=5),
    seed=st.integers(0, 9),
)
def test_the_model_itself_does_not_mix_streams(rows: list[tuple[int, int]], seed: int) -> None:
    model = toy.ToyModel()
    rng = np.random.default_rng(seed)
    audio = [np.resize(VOICES[voice], k * 2400) * np.float32(rng.uniform(0.8, 1.0)) for voice, k in rows]
    states = [model.initial_state() for _ in rows]
    together, after = model.step(audio, states)
    for samples, state, frames, new in zip(audio, states, together, after, strict=True):
        [single], [single_new] = model.step([samples], [state])
        np.testing.assert_array_equal(single.values, frames.values)
        assert single_new == new
