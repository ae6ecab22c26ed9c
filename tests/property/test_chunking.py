"""Any chunking of the audio gives the same events, offline equals streaming, and events keep their promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding import build_decoder
from rechka.models import toy
from rechka.options import DecoderOptions, SegmenterOptions
from rechka.recognizers import Asr, ChunkRecognizer, Stream
from rechka.testing import ScriptedDecoder, ScriptedModel, chunkings, say, silence
from rechka.types import F32, Event, Final, Partial, SpeechEnd, SpeechStart

GEOMETRIES: list[dict[str, int]] = [
    {},  # like T-one
    {"chunk": 2400, "pad": 0, "lag": 0},
    {"chunk": 3600, "shift": 2400, "pad": 480, "lag": 960},  # with look-ahead
    {"chunk": 240, "pad": 2400, "lag": 240},
]
SHORT = SegmenterOptions(max_phrase_s=3.0)


def recognizer(
    geometry: dict[str, int], *, unsure: int = 0, max_chunks: int = 16, short: bool = False
) -> ChunkRecognizer:
    model = toy.load({}, geometry)
    options = SHORT if short else SegmenterOptions()
    decoder = ScriptedDecoder(toy.TOKENS.blank, unsure=unsure)
    return ChunkRecognizer(model, lambda _: decoder, options, max_chunks=max_chunks)


@st.composite
def texts(draw: st.DrawFn) -> str:
    words = draw(st.lists(st.text("абвгдежзийклмнопрстуфхцчшщъыьэюяё", min_size=1, max_size=7), min_size=1, max_size=4))
    return " ".join(words)


@st.composite
def recordings(draw: st.DrawFn) -> tuple[F32, list[str]]:
    """Tone speech: phrases between pauses of a second or more, at any offset."""
    phrases = draw(st.lists(texts(), max_size=3))
    parts = [np.zeros(draw(st.integers(0, 3000)), dtype=np.float32)]
    for phrase in phrases:
        parts += [say(phrase), silence(1.0), np.zeros(draw(st.integers(0, 5000)), dtype=np.float32)]
    if draw(st.booleans()):
        parts = parts[:-2]  # the recording ends with the last letter, or is empty
    return np.concatenate(parts) if parts else silence(0), phrases


@st.composite
def talks(draw: st.DrawFn) -> F32:
    """Words with pauses of any length between them, so that phrases are closed, cut at pauses, and cut through."""
    words = st.text("абвгдежз ", min_size=1, max_size=6).filter(lambda word: not word.isspace())
    parts = draw(st.lists(st.tuples(words, st.integers(0, 6000)), min_size=1, max_size=12))
    return np.concatenate([np.pad(say(word + " "), (0, pause)) for word, pause in parts])


def listen(rec: ChunkRecognizer, audio: F32, sizes: list[int]) -> list[Event]:
    """Live: every packet is recognised at once."""
    stream = rec.open(drive=lambda s: rec.run([s]))
    events: list[Event] = []
    first = 0
    for size in sizes:
        stream.feed(audio[first : first + size])
        events += stream.take()
        first += size
    stream.finish()
    return events + stream.take()


def at_once(rec: ChunkRecognizer, audio: F32, *, partials: bool = True) -> list[Event]:
    """Everything is there before the first step."""
    stream = rec.open(limit_s=None, partials=partials)
    stream.feed(audio)
    stream.finish()
    rec.run([stream])
    return stream.take()


def finals(events: list[Event]) -> list[str]:
    return [event.segment.text for event in events if isinstance(event, Final)]


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    recording=recordings(),
    geometry=st.sampled_from(GEOMETRIES),
    max_chunks=st.integers(1, 20),
    short=st.booleans(),
)
def test_any_chunking_gives_the_same_events(
    data: st.DataObject, recording: tuple[F32, list[str]], geometry: dict[str, int], max_chunks: int, short: bool
) -> None:
    audio, _ = recording
    sizes = data.draw(chunkings(len(audio)))
    live = listen(recognizer(geometry, short=short), audio, sizes)
    assert live == at_once(recognizer(geometry, max_chunks=max_chunks, short=short), audio)
    quiet = at_once(recognizer(geometry, max_chunks=max_chunks, short=short), audio, partials=False)
    assert [event for event in live if not isinstance(event, Partial)] == quiet


@settings(max_examples=40, deadline=None)
@given(recording=recordings(), geometry=st.sampled_from(GEOMETRIES))
def test_the_toy_hears_exactly_what_was_said(recording: tuple[F32, list[str]], geometry: dict[str, int]) -> None:
    audio, phrases = recording
    padded = audio if geometry.get("pad", 2400) else np.concatenate([silence(0.3), audio])
    expected = phrases if len(audio) else []
    assert finals(at_once(recognizer(geometry), padded)) == expected
    cut = "".join(finals(at_once(recognizer(geometry, short=True), padded)))
    assert cut.replace(" ", "") == "".join(expected).replace(" ", ""), "a cut lost or doubled a letter"


@settings(max_examples=40, deadline=None)
@given(data=st.data(), recording=recordings(), geometry=st.sampled_from(GEOMETRIES))
def test_offline_equals_streaming(
    data: st.DataObject, recording: tuple[F32, list[str]], geometry: dict[str, int]
) -> None:
    audio, _ = recording
    asr = Asr(recognizer(geometry), name="toy", language="ru")
    live = listen(asr.recognizer, audio, data.draw(chunkings(len(audio))))
    segments = [event.segment for event in live if isinstance(event, Final)]
    stream = asr.open()
    stream.feed(audio)
    stream.finish()
    assert stream.take() == live
    assert segments == [
        event.segment for event in at_once(asr.recognizer, audio, partials=False) if isinstance(event, Final)
    ]


@settings(max_examples=60, deadline=None)
@given(audio=talks(), geometry=st.sampled_from(GEOMETRIES), unsure=st.integers(0, 4), short=st.booleans())
def test_events_keep_their_promises(audio: F32, geometry: dict[str, int], unsure: int, short: bool) -> None:
    events = at_once(recognizer(geometry, unsure=unsure, short=short), audio)
    check_events(events, len(audio) / 8000)


def check_events(events: list[Event], duration: float) -> None:
    """Order, times and stable prefixes of one stream's events."""
    speaking = False
    clock, stable, start = 0.0, "", None
    last: Partial | None = None
    for event in events:
        if isinstance(event, SpeechStart):
            assert not speaking
            assert clock <= event.time <= duration
            speaking, clock, stable, start, last = True, event.time, "", None, None
        elif isinstance(event, Partial):
            assert speaking
            assert event != last, "a Partial that says nothing new"
            assert event.text.startswith(stable)
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
            check_words(segment.words, segment.start, segment.end, segment.text)
            clock, stable, start, last = segment.end, "", None, None
        else:
            assert isinstance(event, SpeechEnd)
            assert speaking
            assert clock <= event.time <= duration
            speaking, clock = False, event.time
    assert not speaking


def check_words(words: tuple[Any, ...], start: float, end: float, text: str) -> None:
    assert " ".join(word.text for word in words) == text
    clock = 0.0
    for word in words:
        assert clock <= word.start <= word.end <= end
        clock = word.end
        assert word.confidence is None or 0.0 <= word.confidence <= 1.0


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), loud=st.floats(2.0, 8.0), words=st.booleans(), sizes=chunkings(240 * 400))
def test_a_beam_search_keeps_the_promises_too(seed: int, loud: float, words: bool, sizes: list[int]) -> None:
    """Unsure log-probs, where hypotheses overtake each other until late."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(400, len(toy.TOKENS)))
    values[np.arange(400), rng.choice([*range(6), 33, 34, 34, 34], 400)] += loud
    values[150:180, 34] += 20
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    hotwords = {"абв": 3.0, "где": 2.0} if words else {}
    decoder = build_decoder(toy.TOKENS, DecoderOptions(kind="beam", beam_width=8, hotwords=hotwords))
    model = ScriptedModel(values, toy.TOKENS)
    options = SegmenterOptions(silence_threshold=0.8, max_phrase_s=3.0)
    rec = ChunkRecognizer(model, lambda _: decoder, options, max_chunks=7)
    audio = np.zeros(240 * 400, dtype=np.float32)
    events = at_once(rec, audio)
    check_events(events, len(audio) / 8000)
    assert len(finals(events)) > 1
    assert events == listen(rec, audio, sizes)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_over_long_phrases_are_cut_between_words(geometry: dict[str, int]) -> None:
    text = "раз два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать"
    audio = np.concatenate([silence(0.3), say(text)])
    rec = recognizer(geometry)
    cutting = ChunkRecognizer(rec.model, rec.decoder_factory, SegmenterOptions(max_phrase_s=4.0))
    events = at_once(cutting, audio)
    assert len(finals(events)) > 2
    assert " ".join(finals(events)) == text
    assert sum(isinstance(event, SpeechStart) for event in events) == 1
    check_events(events, len(audio) / 8000)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rate=st.sampled_from([8000, 16000, 22050, 48000]))
def test_any_rate_any_packets(data: st.DataObject, rate: int) -> None:
    audio = say("один два", before_s=0.5, after_s=1.0, sample_rate=rate)
    rec = recognizer({})
    stream: Stream = rec.open(drive=lambda s: rec.run([s]))
    first = 0
    for size in data.draw(chunkings(len(audio))):
        stream.feed(audio[first : first + size], rate)
        first += size
    stream.finish()
    assert finals(stream.take()) == ["один два"]
