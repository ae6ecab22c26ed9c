"""Streams under bad treatment: poison in a batch, silence forever, speech forever, too much audio, the wrong audio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rechka.errors import BadSamples, IncompatibleParts, StreamClosed, StreamFull, UsageError
from rechka.models import toy
from rechka.options import SegmenterOptions
from rechka.recognizers import ChunkRecognizer, Stream
from rechka.testing import ScriptedDecoder, ScriptedModel, say
from rechka.types import F32, Event, Final, Frames, LogProbs, State

POISON = 0.123


class PoisonedModel(toy.ToyModel):
    """The toy, failing on a chunk that begins with a certain sample."""

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        if any(samples[0] == np.float32(POISON) for samples in audio):
            raise RuntimeError("poison")
        return super().step(audio, states)


def recognizer(model: Any = None, decoder: Any = None, **options: Any) -> ChunkRecognizer:
    decoder = decoder or ScriptedDecoder(toy.TOKENS.blank)
    return ChunkRecognizer(model or toy.ToyModel(), lambda _: decoder, SegmenterOptions(**options), max_chunks=4)


def texts(events: list[Event]) -> list[str]:
    return [event.segment.text for event in events if isinstance(event, Final)]


def fill(rec: ChunkRecognizer, audio: F32) -> Stream:
    stream = rec.open(limit_s=None)
    stream.feed(audio)
    stream.finish()
    return stream


def test_a_failing_model_leaves_every_stream_as_it_was() -> None:
    rec = recognizer(PoisonedModel())
    good = fill(rec, say("раз два три", after_s=1.0))
    poisoned_audio = say("четыре", after_s=3.0)
    poisoned_audio[7200] = POISON  # the fourth chunk, padding counted; a step takes four
    bad = fill(rec, poisoned_audio)
    rec.step([good, bad])
    before = good.progress, bad.progress, len(good.inbox), len(bad.inbox)
    with pytest.raises(RuntimeError, match="poison"):
        rec.step([good, bad])
    assert (good.progress, bad.progress, len(good.inbox), len(bad.inbox)) == before
    rec.run([good])  # retried without the culprit
    assert texts(good.take()) == ["раз два три"]
    assert not bad.done


def test_a_failing_decoder_leaves_every_stream_as_it_was() -> None:
    failing, fine = ScriptedDecoder(toy.TOKENS.blank, fail_at=40), ScriptedDecoder(toy.TOKENS.blank)
    rec = ChunkRecognizer(toy.ToyModel(), lambda words: failing if words else fine, max_chunks=4)
    good, bad = rec.open(limit_s=None), rec.open(hotwords={"раз": 1.0}, limit_s=None)
    for stream in (good, bad):
        stream.feed(say("раз два три", after_s=1.0))
        stream.finish()
    with pytest.raises(RuntimeError, match="frame 40"):
        rec.run([bad, good])
    events = good.take()
    rec.run([good])
    assert texts(events + good.take()) == ["раз два три"]


def test_silence_forever_takes_no_memory() -> None:
    rec = recognizer()
    stream = rec.open(drive=lambda s: rec.run([s]))
    packet = np.zeros(8000, dtype=np.float32)
    for _ in range(1200):
        stream.feed(packet)
    assert stream.take() == []
    assert len(stream.inbox) < 2400
    assert len(stream.progress.kept) <= 3
    assert stream.progress.phrase is None


@pytest.mark.parametrize("gap", [0, 1])
def test_speech_forever_takes_bounded_memory(gap: int) -> None:
    """Five minutes without a pause that ends a phrase; with gap 0 not even a silent frame."""
    letters = np.random.default_rng(0).integers(0, 33, 10_000 // (gap + 1))
    ids = np.stack([letters, np.full_like(letters, toy.TOKENS.blank)], axis=1)[:, : gap + 1].reshape(-1)
    rec = recognizer(ScriptedModel(ids, toy.TOKENS), max_phrase_s=30.0)
    stream = rec.open(drive=lambda s: rec.run([s]))
    packet = np.zeros(240 * 50, dtype=np.float32)
    largest, letters_out, longest = 0, 0, 0
    for _ in range(len(ids) // 50):
        stream.feed(packet)
        largest = max(largest, len(stream.progress.kept))
        longest = max(longest, len(stream.progress.phrase.beam.tokens))
        letters_out += sum(len(text) for text in texts(stream.take()))
    assert largest <= 1000 // 3 + 20 + 10
    assert longest <= 1000 + 3
    assert letters_out > 0.8 * 0.95 * len(letters)


@pytest.mark.parametrize("seed", range(3))
def test_a_cut_through_speech_doubles_no_letter(seed: int) -> None:
    """Letters that last several frames, without a silent frame between: the cut falls into one of them."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, 33, 150).cumsum() % 33  # neighbours differ
    ids = np.repeat(steps, rng.integers(1, 9, 150))
    rec = recognizer(ScriptedModel(ids, toy.TOKENS), max_phrase_s=1.5)
    stream = fill(rec, np.zeros(240 * (len(ids) + 30), dtype=np.float32))
    rec.run([stream])
    assert "".join(texts(stream.take())) == toy.TOKENS.text(steps)


def test_a_full_inbox_refuses_and_takes_nothing() -> None:
    rec = recognizer()
    stream = rec.open(limit_s=1.0)
    stream.feed(np.zeros(5000, dtype=np.float32))
    room = stream.room
    assert room == 8000 - 2400 - 5000  # padding is inside already
    with pytest.raises(StreamFull, match="room for") as caught:
        stream.feed(np.zeros(room + 100, dtype=np.float32))
    assert caught.value.code == "stream.full"
    assert stream.num_samples == 5000
    rec.run([stream])
    stream.feed(np.zeros(room + 100, dtype=np.float32))
    assert stream.num_samples == 5000 + room + 100


def test_audio_after_the_end() -> None:
    stream = recognizer().open()
    stream.finish()
    stream.finish()
    assert stream.done
    with pytest.raises(StreamClosed):
        stream.feed(np.zeros(1, dtype=np.float32))


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((10, 2), dtype=np.float32),
        np.zeros(10, dtype=np.int32),
        np.zeros(10, dtype=np.uint8),
        np.zeros(10, dtype=np.complex64),
        np.array([0.0, np.nan], dtype=np.float32),
        np.array([0.0, np.inf]),
        np.array([3000.0, -12.0]),
        np.array(["а"]),
        np.float32(0.5),
    ],
)
def test_what_is_no_audio_is_refused_whole(samples: Any) -> None:
    stream = recognizer().open()
    with pytest.raises(BadSamples):
        stream.feed(samples)
    assert stream.num_samples == 0


def test_one_rate_per_stream() -> None:
    stream = recognizer().open()
    stream.feed(np.zeros(100, dtype=np.float32), 8000)
    with pytest.raises(UsageError, match="16000"):
        stream.feed(np.zeros(100, dtype=np.float32), 16000)
    assert stream.num_samples == 100


class BrokenModel(toy.ToyModel):
    """The toy, with a spec that promises another shift than it has."""

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        frames, after = super().step(audio, states)
        return [LogProbs(piece.values[:-1], piece.start) for piece in frames], after


def test_a_model_that_breaks_its_word_is_named() -> None:
    rec = recognizer(BrokenModel())
    with pytest.raises(IncompatibleParts, match="expected 30 frames"):
        rec.run([fill(rec, np.zeros(10, dtype=np.float32))])
