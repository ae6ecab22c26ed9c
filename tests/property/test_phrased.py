"""Phrase models: any chunking, batch mix and interleaving give the same events; no cut drops or doubles a letter."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.models import toy
from rechka.options import DecoderOptions, SegmenterOptions
from rechka.recognizers import PhraseRecognizer, assemble
from rechka.testing import chunkings, say, silence
from rechka.types import F32, Event, Final, Frames, LogProbs, Partial, Refined, SpeechEnd, SpeechStart, State


class LoudVad:
    """What is loud is speech, for as long as it lasts; the energy detector takes an endless sound for noise."""

    sample_rate, window = 8000, 160

    def initial_state(self) -> State:
        return np.zeros(0, dtype=np.float32)

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[F32], list[State]]:
        joined = [np.concatenate([state, samples]) for state, samples in zip(states, audio, strict=True)]
        whole = [len(samples) // 160 * 160 for samples in joined]
        loud = [np.abs(s[:n]).reshape(-1, 160).max(axis=1, initial=0) for s, n in zip(joined, whole, strict=True)]
        return [(p > 0.1).astype(np.float32) for p in loud], [s[n:] for s, n in zip(joined, whole, strict=True)]


LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"
GREEDY = DecoderOptions(kind="greedy")
GEOMETRIES: list[dict[str, int]] = [{}, {"pad": 480}, {"pad": 960, "lag": 480}, {"max_len": 8000 * 6}]


def recognizer(
    model: Any = None, *, max_phrase_s: float = 3.0, max_chunks: int | None = None, max_batch: int = 8
) -> PhraseRecognizer:
    options = SegmenterOptions(0.5, min_silence_s=0.5, expand_s=0.1, max_phrase_s=max_phrase_s, vad="energy")
    found = assemble(model or toy.ToyPhraseModel(), decoder=GREEDY, segmenter=options, max_chunks=max_chunks)
    assert isinstance(found, PhraseRecognizer)
    found.max_batch = max_batch
    return found


def listen(rec: PhraseRecognizer, audio: F32, sizes: list[int], *, partials: bool = True) -> list[Event]:
    stream = rec.open(drive=lambda s: rec.run([s]), partials=partials)
    events: list[Event] = []
    first = 0
    for size in sizes:
        stream.feed(audio[first : first + size])
        events += stream.take()
        first += size
    stream.finish()
    return events + stream.take()


def at_once(rec: PhraseRecognizer, audio: F32, *, partials: bool = True) -> list[Event]:
    stream = rec.open(limit_s=None, partials=partials)
    stream.feed(audio)
    stream.finish()
    rec.run([stream])
    return stream.take()


def finals(events: list[Event]) -> list[str]:
    return [event.segment.text for event in events if isinstance(event, Final)]


@st.composite
def talks(draw: st.DrawFn) -> tuple[F32, str]:
    """Words with pauses of any length between them: phrases are closed, cut in pauses, and cut without any."""
    word = st.text(LETTERS, min_size=1, max_size=8)
    parts = draw(st.lists(st.tuples(word, st.one_of(st.just(0), st.integers(0, 8000))), min_size=1, max_size=14))
    audio = [np.zeros(draw(st.integers(0, 6000)), dtype=np.float32)]
    audio += [np.pad(say(text + " "), (0, pause)) for text, pause in parts]
    return np.concatenate(audio), " ".join(text for text, _ in parts)


@settings(max_examples=50)
@given(
    data=st.data(),
    talk=talks(),
    geometry=st.sampled_from(GEOMETRIES),
    max_chunks=st.integers(1, 400),
    longest=st.sampled_from([1.5, 3.0, 30.0]),
)
def test_any_chunking_gives_the_same_events(
    data: st.DataObject, talk: tuple[F32, str], geometry: dict[str, int], max_chunks: int, longest: float
) -> None:
    audio, text = talk
    model = toy.load({}, {"whole": True, **geometry})
    rec = recognizer(model, max_chunks=max_chunks, max_phrase_s=longest, max_batch=data.draw(st.integers(1, 5)))
    live = listen(rec, audio, data.draw(chunkings(len(audio))))
    assert live == at_once(recognizer(model, max_phrase_s=longest), audio)
    check_events(live, len(audio) / 8000)
    quiet = at_once(rec, audio, partials=False)
    assert [event for event in live if not isinstance(event, Partial)] == quiet
    heard = "".join(finals(quiet)).replace(" ", "")
    assert heard == text.replace(" ", ""), "a cut lost or doubled a letter"


def check_events(events: list[Event], duration: float) -> None:
    """Order, times and stable prefixes of one stream's events."""
    speaking, clock, stable, start = False, 0.0, "", None
    last: Event | None = None
    for event in events:
        if isinstance(event, SpeechStart):
            assert not speaking
            assert clock <= event.time <= duration
            speaking, clock, stable, start, last = True, event.time, "", None, None
        elif isinstance(event, Partial):
            assert speaking
            assert event != last, "a Partial that says nothing new"
            assert event.text.startswith(event.stable)
            assert event.stable.startswith(stable), "a stable prefix was taken back"
            assert start is None or event.start == start
            assert event.text == " ".join(event.text.split())
            stable, start, last = event.stable, event.start, event
        elif isinstance(event, Final):
            segment = event.segment
            assert speaking
            assert segment.text
            assert segment.text.startswith(stable)
            assert not stable or segment.text[len(stable) :][:1] in ("", " "), "a stable word grew"
            assert start is None or start == segment.start
            assert clock <= segment.start <= segment.end <= duration
            assert " ".join(word.text for word in segment.words) == segment.text
            edges = [segment.start, *(t for word in segment.words for t in (word.start, word.end)), segment.end]
            assert edges == sorted(edges)
            clock, stable, start, last = segment.end, "", None, event
        elif isinstance(event, Refined):
            assert isinstance(last, Final)
            assert (event.segment.start, event.segment.end) == (last.segment.start, last.segment.end)
            assert event.segment.text != last.segment.text
        else:
            assert isinstance(event, SpeechEnd)
            assert speaking
            assert clock <= event.time <= duration
            speaking, clock = False, event.time
    assert not speaking


@settings(max_examples=20)
@given(
    words=st.lists(st.text("абвг", min_size=1, max_size=5), min_size=15, max_size=40),
    longest=st.sampled_from([3.0, 6.0]),
)
def test_speech_without_a_pause_is_cut_between_words(words: list[str], longest: float) -> None:
    """Repeated letters and words, no pause, many cuts: every word is there once and whole."""
    audio = say(" ".join(words), before_s=0.3)
    events = at_once(recognizer(max_phrase_s=longest), audio, partials=False)
    assert " ".join(finals(events)) == " ".join(words)
    assert len(finals(events)) > 1 or len(audio) < 8000 * (longest + 1)


@settings(max_examples=30)
@given(
    data=st.data(),
    letters=st.lists(st.integers(0, 32), min_size=40, max_size=90),
)
def test_not_even_a_silent_frame(data: st.DataObject, letters: list[int]) -> None:
    """One word of half a minute: divided where it must be, no letter lost or doubled, however it was fed."""
    steps = (np.cumsum([letter % 32 + 1 for letter in letters]) % 33).tolist()  # neighbours differ
    tone = np.arange(toy.HOP * 3) / 8000
    audio = np.concatenate([0.5 * np.sin(2 * np.pi * toy.frequency(step) * tone) for step in steps])
    audio = np.concatenate([silence(1.0), audio.astype(np.float32), silence(1.0)])
    rec = recognizer()
    rec.vad = LoudVad()
    events = listen(rec, audio, data.draw(chunkings(len(audio))), partials=False)
    assert "".join(finals(events)) == toy.TOKENS.text(steps)


VOICES = [
    say("раз два", after_s=0.7),
    np.concatenate([say("три", before_s=0.41, after_s=1.1), say("четыре пять шесть семь восемь девять десять")]),
    silence(2.0),
    say("пять шесть", before_s=1.03, after_s=0.2),
    silence(0.0),
]


@cache
def alone(voice: int) -> list[Event]:
    return at_once(recognizer(), VOICES[voice])


@settings(max_examples=60)
@given(data=st.data(), max_chunks=st.integers(1, 40), max_batch=st.integers(1, 4))
def test_any_interleaving(data: st.DataObject, max_chunks: int, max_batch: int) -> None:
    """A random schedule of feeding, stepping any subset, and taking."""
    rec = recognizer(max_chunks=max_chunks, max_batch=max_batch)
    voices = data.draw(st.lists(st.integers(0, len(VOICES) - 1), min_size=1, max_size=5))
    streams = [rec.open(limit_s=None) for _ in voices]
    fed, events = [0] * len(voices), [list[Event]() for _ in voices]
    who = st.integers(0, len(voices) - 1)
    acts = st.one_of(
        st.tuples(st.just("feed"), st.sets(who, min_size=1, max_size=1), st.integers(1, 9000)),
        st.tuples(st.just("step"), st.sets(who), st.just(0)),
        st.tuples(st.just("take"), st.sets(who), st.just(0)),
    )
    for what, members, size in data.draw(st.lists(acts, max_size=60)):
        if what == "step":
            rec.step([streams[i] for i in members])
        for i in members if what != "step" else ():
            if what == "take":
                events[i] += streams[i].take()
            else:
                streams[i].feed(VOICES[voices[i]][fed[i] : fed[i] + size])
                fed[i] += size
    for i, stream in enumerate(streams):
        stream.feed(VOICES[voices[i]][fed[i] :])
        stream.finish()
    rec.run(streams)
    for i, stream in enumerate(streams):
        assert [*events[i], *stream.take()] == alone(voices[i])


class WatchedModel(toy.ToyPhraseModel):
    """The toy, noting what shared each step."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        self.batches.append(len(audio))
        return super().step(audio, states)


def test_phrases_of_one_file_share_a_step() -> None:
    model = WatchedModel()
    audio = np.concatenate([say("раз два", after_s=1.0), say("три", after_s=1.0), say("четыре", after_s=1.0)])
    assert finals(at_once(recognizer(model), audio, partials=False)) == ["раз два", "три", "четыре"]
    assert model.batches == [3]


class FickleModel(toy.ToyPhraseModel):
    """A model that changes its mind: each decode of a phrase emits whatever the seed says, a letter per 120 ms."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        frames, after = super().step(audio, states)
        fickle: list[Frames] = []
        for piece in frames:
            values = piece.values.copy()
            rng = np.random.default_rng([self.seed, len(piece)])
            heard = values.argmax(axis=1)
            for i in np.flatnonzero(heard != toy.TOKENS.blank):
                if rng.random() < 0.1:
                    values[i] = np.roll(values[i], int(rng.integers(1, 34)))
            fickle.append(LogProbs(values, piece.start))
        return fickle, after


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16), sizes=chunkings(8000 * 9), longest=st.sampled_from([2.0, 4.0, 20.0]))
def test_stable_never_changes_even_if_the_model_does(seed: int, sizes: list[int], longest: float) -> None:
    text = "да нет мы вы да он от до за по на не бы ли да нет мы"
    audio = np.pad(say(text), (4000, 8000 * 9))[: 8000 * 9]
    rec = recognizer(FickleModel(seed), max_phrase_s=longest)
    events = listen(rec, audio, sizes)
    check_events(events, 9.0)
    assert events == at_once(rec, audio)


def test_a_changed_mind_is_told_as_refined() -> None:
    """Where the last decode contradicts what was called stable, the final keeps its word and a better text follows."""
    audio = np.pad(say("да нет мы вы да он от до за по на не"), (4000, 8000))
    told = 0
    for seed in range(8):
        rec = recognizer(FickleModel(seed), max_phrase_s=20.0)
        live, quiet = at_once(rec, audio), at_once(rec, audio, partials=False)
        better = [event.segment for event in live if isinstance(event, Refined)]
        [final] = [event.segment for event in live if isinstance(event, Final)]
        [offline] = [event.segment for event in quiet if isinstance(event, Final)]
        assert (better[-1] if better else final).text == offline.text
        told += len(better)
    assert told


def test_an_hour_takes_no_more_memory_than_a_minute() -> None:
    """What a stream holds after each step is bounded by its longest phrase."""
    rec = recognizer(max_phrase_s=4.0)
    stream = rec.open(drive=lambda s: rec.run([s]), partials=False)
    piece = np.concatenate([say("раз два три четыре пять шесть семь"), silence(2.3), np.zeros(37, dtype=np.float32)])
    most, count = 0, 0

    def play(seconds: float) -> None:
        nonlocal most, count
        for _ in range(round(seconds * 8000 / len(piece))):
            stream.feed(piece)
            count += sum(isinstance(event, Final) for event in stream.take())
            most = max(most, sum(len(part) for part in stream.progress.walk.kept) + len(stream.inbox))

    play(60)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    play(400)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert most <= 8000 * 8
    assert count > 90
    assert grown < 300_000
