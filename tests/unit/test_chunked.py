"""The chunk recogniser: events, their order and times, what partials call stable, and parts that do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rechka.errors import IncompatibleParts
from rechka.models import toy
from rechka.options import SegmenterOptions
from rechka.recognizers import ChunkRecognizer
from rechka.recognizers.phrase import whole_words
from rechka.testing import ScriptedDecoder, ScriptedModel, say
from rechka.text.confidence import calibrated
from rechka.types import Encoded, Event, Final, LogProbs, Partial, SpeechEnd, SpeechStart, Tokens


def events_of(model: Any, audio: Any, *, decoder: Any = None, **options: Any) -> list[Event]:
    decoder = decoder or ScriptedDecoder(toy.TOKENS.blank)
    rec = ChunkRecognizer(model, lambda _: decoder, SegmenterOptions(**options))
    stream = rec.open(limit_s=None, channel=3, speaker="4")
    stream.feed(audio)
    stream.finish()
    rec.run([stream])
    return stream.take()


def test_the_events_of_a_phrase() -> None:
    events = events_of(toy.ToyModel(), say("да нет", before_s=0.3, after_s=1.0))
    kinds = [type(event) for event in events]
    assert kinds[0] is SpeechStart
    assert kinds[-2:] == [Final, SpeechEnd]
    assert set(kinds[1:-2]) == {Partial}
    final = events[-2]
    assert isinstance(final, Final)
    assert final.segment.text == "да нет"
    assert (final.segment.channel, final.segment.speaker) == (3, "4")
    assert {event.channel for event in events if not isinstance(event, Final)} == {3}


def test_times_are_those_of_the_audio() -> None:
    """Padding and lag of the model are taken off: the phrase lies where the tones are."""
    for params in ({}, {"pad": 0, "lag": 0}, {"lag": 480}, {"chunk": 4800, "shift": 2400}):
        events = events_of(toy.ToyModel(**params), say("да нет", before_s=1.2, after_s=1.0))
        [segment] = [event.segment for event in events if isinstance(event, Final)]
        assert segment.start == pytest.approx(1.2)
        assert segment.end == pytest.approx(1.2 + 6 * 0.12 - 0.06)


def test_times_do_not_leave_the_audio() -> None:
    events = events_of(toy.ToyModel(lag=0), say("да")[:-500])  # the last tone is cut short
    [segment] = [event.segment for event in events if isinstance(event, Final)]
    assert segment.end <= (4 * 480 - 500) / 8000


def test_stable_text_is_whole_words() -> None:
    partials = [e for e in events_of(toy.ToyModel(), say("да нет да", after_s=1.0)) if isinstance(e, Partial)]
    assert {partial.stable for partial in partials} == {"да", "да нет"}
    assert partials[-1] == Partial("да нет", " да", 0.0, 3)
    unsure = ScriptedDecoder(toy.TOKENS.blank, unsure=5)
    partials = [e for e in events_of(toy.ToyModel(), say("да нет да"), decoder=unsure) if isinstance(e, Partial)]
    assert {partial.stable for partial in partials} == {"", "да"}


def test_whole_words_without_a_space_token() -> None:
    assert whole_words((0, 1), Tokens(("а", "б", ""), 2)) == "аб"


def test_noise_that_reads_as_nothing_gives_no_segment() -> None:
    """Speech by the evidence, but no letter ever wins."""
    tokens = toy.TOKENS
    model = ScriptedModel([tokens.blank] * 30, tokens, winner=0.3)
    events = events_of(model, np.zeros(240 * 30, dtype=np.float32))
    assert [type(event) for event in events] == [SpeechStart, SpeechEnd]


def test_after_a_forced_cut_speech_goes_on() -> None:
    text = "раз два три четыре пять"
    events = events_of(toy.ToyModel(), say(text, after_s=1.0), max_phrase_s=1.5)
    kinds = [type(event) for event in events if not isinstance(event, Partial)]
    assert kinds[0] is SpeechStart
    assert kinds[-1] is SpeechEnd
    assert set(kinds[1:-1]) == {Final}
    assert kinds.count(Final) >= 2
    assert " ".join(event.segment.text for event in events if isinstance(event, Final)) == text


def test_each_frame_is_decoded_at_most_twice() -> None:
    decoder = ScriptedDecoder(toy.TOKENS.blank)
    text = " ".join(["раз два три четыре пять шесть семь"] * 3)
    audio = say(text)
    events_of(toy.ToyModel(), audio, decoder=decoder, max_phrase_s=3.0)
    frames = [frame for call in decoder.calls for first, size in call for frame in range(first, first + size)]
    counts = np.bincount(frames)
    assert counts.max() == 2
    assert counts.sum() < 1.5 * len(audio) / 240


def test_confidence_is_calibrated_where_asked() -> None:
    words = {}
    for calibration in (None, (0.5, -1.0)):
        decoder = ScriptedDecoder(toy.TOKENS.blank)
        rec = ChunkRecognizer(toy.ToyModel(), lambda _, d=decoder: d, calibration=calibration)
        stream = rec.open()
        stream.feed(say("да", after_s=1.0))
        stream.finish()
        rec.run([stream])
        [segment] = [event.segment for event in stream.take() if isinstance(event, Final)]
        words[calibration] = segment.words[0].confidence
    assert words[None] == pytest.approx(toy.WINNER)
    assert words[0.5, -1.0] == calibrated(words[None], (0.5, -1.0)) != words[None]


def test_parts_that_do_not_fit() -> None:
    class OtherDecoder(ScriptedDecoder):
        consumes = Encoded

    model = toy.ToyModel()
    with pytest.raises(IncompatibleParts, match="consumes Encoded"):
        ChunkRecognizer(model, lambda _: OtherDecoder(34)).open()
    for wrong in (
        {"chunk": None, "shift": None},
        {"emits": Encoded},
        {"tokens": None},
        {"shift": 100},
        {"shift": 4800},
    ):
        other = toy.ToyModel()
        other.spec = replace(model.spec, **wrong)
        with pytest.raises(IncompatibleParts):
            ChunkRecognizer(other, lambda _: ScriptedDecoder(34))
    assert model.spec.emits is LogProbs


def test_words_behind_a_possible_cut_are_not_stable() -> None:
    """The phrase is cut at its longest pause; what came after it was shown before, but never as stable."""
    audio = np.concatenate([say("раз два три "), np.zeros(2400, dtype=np.float32), say("ах ох ух эх да нет")])
    events = events_of(toy.ToyModel(), audio, max_phrase_s=2.4)
    finals = [event.segment for event in events if isinstance(event, Final)]
    assert [segment.text for segment in finals] == ["раз два три", "ах ох ух эх да нет"]
    first = [event for event in events if isinstance(event, Partial) and event.start == finals[0].start]
    assert any(event.text.startswith("раз два три ах о") for event in first)
    assert max((event.stable for event in first), key=len) == "раз два три"
