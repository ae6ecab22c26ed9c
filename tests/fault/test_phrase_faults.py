"""Phrase models under bad treatment: poison in a batch, wrong frames, speech forever, nothing but silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rechka.errors import IncompatibleParts, UsageError
from rechka.models import toy
from rechka.options import DecoderOptions, SegmenterOptions
from rechka.recognizers import PhraseRecognizer, assemble
from rechka.segmentation.vad import EnergyVad
from rechka.testing import ScriptedDecoder, say, silence
from rechka.types import F32, Encoded, Final, Frames, State

POISON = 0.123
OPTIONS = SegmenterOptions(0.5, min_silence_s=0.5, expand_s=0.1, max_phrase_s=5.0, vad="energy")


class PoisonedModel(toy.ToyPhraseModel):
    """The toy, failing on a phrase with a certain sample in it."""

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        if any((samples == np.float32(POISON)).any() for samples in audio):
            raise RuntimeError("poison")
        return super().step(audio, states)


def recognizer(model: Any = None, **options: Any) -> PhraseRecognizer:
    found = assemble(model or toy.ToyPhraseModel(), decoder=DecoderOptions(kind="greedy"), segmenter=OPTIONS, **options)
    assert isinstance(found, PhraseRecognizer)
    return found


def test_a_failing_model_leaves_every_stream_as_it_was() -> None:
    rec = recognizer(PoisonedModel())
    good, bad = rec.open(limit_s=None), rec.open(limit_s=None)
    good.feed(say("раз два три", before_s=0.3, after_s=1.0))
    spoiled = say("четыре", before_s=0.3, after_s=1.0)
    spoiled[3000] = POISON
    bad.feed(spoiled)
    for stream in (good, bad):
        stream.finish()
    before = good.progress, bad.progress, len(good.inbox), len(bad.inbox)
    with pytest.raises(RuntimeError, match="poison"):
        rec.step([good, bad])
    assert (good.progress, bad.progress, len(good.inbox), len(bad.inbox)) == before
    rec.run([good])
    assert [event.segment.text for event in good.take() if isinstance(event, Final)] == ["раз два три"]
    assert not bad.done


class WrongModel(toy.ToyPhraseModel):
    """The toy, giving frames of another kind than it promised."""

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        return [Encoded(np.zeros((3, 4), np.float32)) for _ in audio], list(states)


def test_parts_that_break_their_word() -> None:
    rec = recognizer(WrongModel())
    stream = rec.open(limit_s=None)
    stream.feed(say("да", before_s=0.3, after_s=1.0))
    stream.finish()
    with pytest.raises(IncompatibleParts, match="gave Encoded"):
        rec.run([stream])


def test_parts_that_do_not_fit() -> None:
    def factory(_: Any) -> Any:
        return ScriptedDecoder(toy.TOKENS.blank)

    with pytest.raises(IncompatibleParts, match="16000"):
        PhraseRecognizer(toy.ToyPhraseModel(), factory, EnergyVad(16000))
    with pytest.raises(IncompatibleParts, match="chunks"):
        PhraseRecognizer(toy.ToyModel(), factory, EnergyVad(8000))  # type: ignore[arg-type]
    with pytest.raises(IncompatibleParts, match="too little"):
        PhraseRecognizer(toy.ToyPhraseModel(max_len=8000), factory, EnergyVad(8000))
    with pytest.raises(UsageError, match="partial_s"):
        PhraseRecognizer(toy.ToyPhraseModel(), factory, EnergyVad(8000), partial_s=0)


def test_silence_forever_keeps_nothing() -> None:
    rec = recognizer()
    stream = rec.open(drive=lambda s: rec.run([s]))
    for _ in range(600):
        stream.feed(silence(1.0))
    assert stream.take() == []
    assert sum(map(len, stream.progress.walk.kept)) < 2000
    assert len(stream.inbox) < rec.block


def test_speech_forever_keeps_a_phrase() -> None:
    rec = recognizer()
    stream = rec.open(drive=lambda s: rec.run([s]), partials=False)
    piece, most, texts = say("раз два три четыре пять "), 0, []
    for _ in range(40):
        stream.feed(piece)
        most = max(most, sum(map(len, stream.progress.walk.kept)))
        texts += [event.segment.text for event in stream.take() if isinstance(event, Final)]
    stream.finish()
    texts += [event.segment.text for event in stream.take() if isinstance(event, Final)]
    assert " ".join(texts) == " ".join(["раз два три четыре пять"] * 40)
    assert most <= rec.geometry.longest + 8000


def test_phrases_of_any_length_can_be_read() -> None:
    """None is too short, and one that is too long for the model goes through the VAD."""
    rec = recognizer(toy.ToyPhraseModel(max_len=8000 * 6))
    long = np.concatenate([silence(0.5), say(" ".join(["раз два три четыре"] * 8)), silence(0.5)])
    assert len(long) > 8000 * 12
    found = rec.read([np.zeros(0, np.float32), np.zeros(1, np.float32), long, say("да")])
    assert [segment.text for segment in found] == ["", "", " ".join(["раз два три четыре"] * 8), "да"]
    assert [segment.start for segment in found] == [0.0] * 4
