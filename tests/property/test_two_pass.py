"""Two passes: finals come first, refined texts after them, the same for any chunking, batch and rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.errors import StreamFull
from rechka.models import toy
from rechka.options import DecoderOptions, SegmenterOptions
from rechka.recognizers import Asr, PhraseRecognizer, TwoPassRecognizer, assemble, two_pass
from rechka.recognizers.blocks import PHRASED
from rechka.recognizers.two_pass import StreamReader, as_reader
from rechka.recognizers.whole import WholePhrases
from rechka.testing import chunkings, say, silence, toy_asr
from rechka.types import F32, Event, Final, ModelSpec, Refined, Segment, SpeechEnd, SpeechStart, Word

GREEDY = DecoderOptions(kind="greedy")
ENERGY = replace(PHRASED, vad="energy")


def first(**options: Any) -> Any:
    return assemble(toy.ToyModel(), decoder=GREEDY, segmenter=SegmenterOptions(**options))


class ScriptedReader:
    """Hears with the toy and says it otherwise.

    Args:
        change: from what was heard to what is read.
        rate: of the audio it wants.
    """

    def __init__(self, change: Callable[[str], str], rate: int = 8000) -> None:
        spec = toy.ToyPhraseModel().spec
        self.spec: ModelSpec = replace(spec, sample_rate=rate)
        self.ears = assemble(toy.ToyPhraseModel(), decoder=GREEDY, segmenter=ENERGY)
        self.change = change
        self.calls: list[tuple[list[int], Any]] = []
        self.fail = False

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        self.calls.append(([len(audio) for audio in phrases], hotwords))
        if self.fail:
            raise RuntimeError("out of memory")
        assert isinstance(self.ears, PhraseRecognizer)
        heard = self.ears.read([audio[:: self.spec.sample_rate // 8000] for audio in phrases])
        found = []
        for segment in heard:
            texts = self.change(segment.text).split()
            step = segment.end / max(1, len(texts))
            words = tuple(Word(text, i * step, (i + 1) * step, 0.9) for i, text in enumerate(texts))
            found.append(replace(segment, text=" ".join(texts), words=words))
        return found


def at_once(rec: Any, audio: F32, rate: int = 8000) -> list[Event]:
    stream = rec.open(limit_s=None)
    stream.feed(audio, rate)
    stream.finish()
    rec.run([stream])
    assert stream.done
    return list(stream.take())


def texts(events: Sequence[Event], kind: type = Refined) -> list[str]:
    return [event.segment.text for event in events if isinstance(event, kind)]  # type: ignore[union-attr]


TALK = np.concatenate(
    [
        say("привет мир", before_s=0.5, after_s=1.0),
        say("да"),
        silence(1.1),
        say("как дела", after_s=0.9),
        say("ну и ну"),
    ]
)


@settings(max_examples=15)
@given(data=st.data(), rate=st.sampled_from([8000, 16000]), second=st.sampled_from([8000, 16000]), cut=st.booleans())
def test_any_chunking_gives_the_same_events(data: st.DataObject, rate: int, second: int, cut: bool) -> None:
    """With phrases cut by force too: then the second model hears no context of the neighbours."""
    audio = np.repeat(TALK, rate // 8000)
    options = {"max_phrase_s": 1.0} if cut else {}
    rec = TwoPassRecognizer(first(**options), ScriptedReader(str.upper, second))
    whole = at_once(rec, audio, rate)
    stream = rec.open(drive=lambda s: rec.run([s]))
    live, begin = [], 0
    for size in data.draw(chunkings(len(audio))):
        stream.feed(audio[begin : begin + size], rate)
        live += stream.take()
        begin += size
    stream.finish()
    live += stream.take()
    assert live == whole
    refined = texts(live)
    assert [text.lower() for text in refined] == texts(live, Final)
    assert " ".join(refined).replace(" ", "") == "ПРИВЕТМИРДАКАКДЕЛАНУИНУ"
    others = [event for event in live if not isinstance(event, Refined)]
    assert others == at_once(first(**options), audio, rate), "the first pass goes through unchanged"
    for before, event in pairwise(live):
        if isinstance(event, Refined):
            assert isinstance(before, Final)
            assert (before.segment.start, before.segment.end) == (event.segment.start, event.segment.end)


@settings(max_examples=8)
@given(data=st.data(), num=st.integers(1, 4), steps=st.lists(st.sets(st.integers(0, 3)), max_size=20))
def test_any_batch_gives_the_same_events(data: st.DataObject, num: int, steps: list[set[int]]) -> None:
    rec = TwoPassRecognizer(first(), ScriptedReader(str.upper))
    expected = [at_once(rec, TALK[i * 4000 :]) for i in range(num)]
    streams = [rec.open(limit_s=None) for _ in range(num)]
    for i, stream in enumerate(streams):
        stream.feed(TALK[i * 4000 :])
        stream.finish()
    for members in steps:
        rec.step([streams[i] for i in members if i < num])
    rec.run(streams)
    assert [stream.take() for stream in streams] == expected


def test_the_second_model_hears_a_batch() -> None:
    reader = ScriptedReader(str.upper)
    rec = TwoPassRecognizer(first(), reader)
    streams = [rec.open(limit_s=None, hotwords=None) for _ in range(3)]
    for stream in streams:
        stream.feed(say("да нет", after_s=1.0))
        stream.finish()
    rec.run(streams)
    assert [len(sizes) for sizes, _ in reader.calls] == [3]


def test_what_the_witness_did_not_hear() -> None:
    """A model that goes on after the end, and one that says nothing."""
    events = at_once(TwoPassRecognizer(first(), ScriptedReader(lambda text: text + " спасибо за просмотр")), TALK)
    [*_, last] = [event.segment for event in events if isinstance(event, Refined)]
    assert (last.text, last.labels["dropped"]) == ("ну и ну", ["спасибо за просмотр"])
    events = at_once(TwoPassRecognizer(first(), ScriptedReader(lambda text: ""), name="big"), TALK)
    for event in events:
        if isinstance(event, Refined):
            assert event.segment.labels == {"refined_by": "big", "rejected": "empty"}
    assert texts(events) == texts(events, Final)


def test_a_second_pass_that_fails_loses_nothing() -> None:
    reader = ScriptedReader(str.upper)
    rec = TwoPassRecognizer(first(), reader)
    expected = at_once(rec, TALK)
    stream = rec.open(limit_s=None)
    stream.feed(TALK)
    stream.finish()
    reader.fail = True
    with pytest.raises(RuntimeError, match="memory"):
        rec.run([stream])
    events = stream.take()
    assert isinstance(events[-1], Final), "the first pass was told"
    reader.fail = False
    rec.run([stream])
    assert [*events, *stream.take()] == expected


def test_transcripts_hold_the_refined_text() -> None:
    asr = Asr(TwoPassRecognizer(first(), ScriptedReader(str.upper)), name="both", language="ru")
    result = asr.transcribe((TALK, 8000))
    assert result.text == "ПРИВЕТ МИР ДА КАК ДЕЛА НУ И НУ"
    assert {segment.labels["refined_by"] for segment in result.segments} == {"second"}
    assert texts(list(asr.stream((TALK, 8000)))) == [segment.text for segment in result.segments]


def test_memory_does_not_grow() -> None:
    """Seven minutes, most of them without a word."""
    rec = TwoPassRecognizer(first(), ScriptedReader(str.upper, 16000))
    stream = rec.open(drive=lambda s: rec.run([s]))
    most = 0
    for _ in range(40):
        for piece in (say("раз два три", after_s=1.0), silence(7.5)):
            stream.feed(piece)
            most = max(most, len(stream.progress.audio))
            assert len(stream.progress.queue) <= 3
    assert most <= 16 * 16000
    assert len(texts(stream.take())) == 40


def test_a_full_inbox_takes_nothing_on_either_side() -> None:
    rec = TwoPassRecognizer(first(), ScriptedReader(str.upper))
    stream = rec.open(limit_s=1.0)
    stream.feed(np.zeros(4000, np.float32))
    with pytest.raises(StreamFull):
        stream.feed(np.zeros(8000, np.float32))
    assert (stream.num_samples, len(stream.progress.audio)) == (4000, 4000)
    empty = rec.open()
    empty.finish()
    assert empty.done


@pytest.mark.parametrize("params", [{}, {"chunk": 3600, "shift": 2400, "pad": 480, "lag": 960}, {"pad": 0, "lag": 480}])
def test_a_chunked_model_can_read_whole_phrases(params: dict[str, int]) -> None:
    model = toy.ToyModel(**params)
    reader = as_reader(assemble(model, decoder=GREEDY))
    silent = np.zeros(max(0, 480 - model.spec.pad), np.float32)
    phrases = [np.concatenate([silent, say(text)]) for text in ("да", "раз два три", "нет")]
    segments = reader.read(phrases)
    assert [segment.text for segment in segments] == ["да", "раз два три", "нет"]
    for segment, audio in zip(segments, phrases, strict=True):
        assert segment.words[-1].end == pytest.approx(len(audio) / 8000 - 0.06, abs=0.1)
    with pytest.raises(Exception, match="whole phrases already"):
        WholePhrases(toy.ToyPhraseModel())


def test_any_recogniser_can_be_the_second() -> None:
    reader = StreamReader(assemble(toy.ToyPhraseModel(), decoder=GREEDY, segmenter=ENERGY))
    audio = np.concatenate([silence(0.3), say("да нет", after_s=1.0), say("ну"), silence(0.3)])
    assert [segment.text for segment in reader.read([audio, silence(1.0)])] == ["да нет ну", ""]
    asr = two_pass(toy_asr(), toy_asr(pad=0, lag=0))
    assert asr.name == "toy+toy"
    assert asr.transcribe((TALK, 8000)).text == "привет мир да как дела ну и ну"


def test_events_keep_their_order() -> None:
    events = at_once(TwoPassRecognizer(first(), ScriptedReader(str.upper)), TALK)
    kinds = [type(event) for event in events if isinstance(event, (SpeechStart, Final, Refined, SpeechEnd))]
    assert kinds == [SpeechStart, Final, Refined, SpeechEnd] * 4
