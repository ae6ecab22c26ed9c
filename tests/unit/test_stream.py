"""The stream: its inbox, the packets that it takes, its padding."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from rechka.models import toy
from rechka.recognizers import ChunkRecognizer
from rechka.recognizers.stream import Inbox, as_samples
from rechka.testing import ScriptedDecoder, say
from rechka.types import Final


def recognizer() -> ChunkRecognizer:
    return ChunkRecognizer(toy.ToyModel(), lambda _: ScriptedDecoder(toy.TOKENS.blank))


def test_inbox_is_a_queue_of_samples() -> None:
    inbox, samples = Inbox(), np.arange(100, dtype=np.float32)
    for first in range(0, 100, 7):
        inbox.push(samples[first : first + 7])
    inbox.push(samples[:0])
    assert len(inbox) == 100
    np.testing.assert_array_equal(inbox.peek(30), samples[:30])
    inbox.drop(14)
    inbox.drop(1)
    np.testing.assert_array_equal(inbox.peek(20), samples[15:35])
    np.testing.assert_array_equal(inbox.peek(87), [*samples[15:], 0, 0])
    inbox.drop(85)
    inbox.drop(0)
    assert len(inbox) == 0


def test_int16_and_float_are_the_same_audio() -> None:
    floats = np.array([0.0, 0.5, -1.0], dtype=np.float32)
    for samples in (floats, floats.astype(np.float64), np.array([0, 16384, -32768], dtype=np.int16), list(floats)):
        out = as_samples(samples)
        assert out.dtype == np.float32
        np.testing.assert_array_equal(out, floats)
    assert as_samples([]).shape == (0,)


def test_the_caller_may_reuse_his_buffer() -> None:
    rec, audio = recognizer(), say("да", after_s=1.0)
    stream = rec.open()
    buffer = np.empty(160, dtype=np.float32)
    for first in range(0, len(audio) - 160, 160):
        buffer[:] = audio[first : first + 160]
        stream.feed(buffer)
    buffer[:] = 0.9
    stream.finish()
    rec.run([stream])
    assert [event.segment.text for event in stream.take() if isinstance(event, Final)] == ["да"]


def test_padding_is_not_part_of_the_audio() -> None:
    stream = recognizer().open()
    stream.feed(np.zeros(4000, dtype=np.float32))
    stream.finish()
    assert stream.duration == 0.5
    assert len(stream.inbox) == 2400 + 4000 + 2640


def test_nothing_fed_is_nothing_said() -> None:
    rec = recognizer()
    stream = rec.open()
    stream.feed(np.zeros(0, dtype=np.float32))
    assert not rec.ready(stream)
    stream.finish()
    assert stream.done
    assert not rec.ready(stream)
    assert stream.take() == []


@pytest.mark.parametrize("limit_s", [0.01, 30.0, None])
def test_a_driven_stream_takes_packets_of_any_size(limit_s: float | None) -> None:
    rec = recognizer()
    stream = rec.open(limit_s=limit_s, drive=lambda s: rec.run([s]))
    stream.feed(np.concatenate([say("раз", after_s=40.0), say("два")]))
    stream.finish()
    assert [event.segment.text for event in stream.take() if isinstance(event, Final)] == ["раз", "два"]


def test_one_thread_feeds_while_another_steps() -> None:
    rec, audio = recognizer(), np.concatenate([say("раз два", after_s=1.0)] * 5)
    alone, shared = rec.open(limit_s=None), rec.open(limit_s=None)
    alone.feed(audio)
    alone.finish()
    rec.run([alone])

    def feed() -> None:
        for first in range(0, len(audio), 97):
            shared.feed(audio[first : first + 97])
        shared.finish()

    feeder = threading.Thread(target=feed)
    feeder.start()
    while not shared.done:
        rec.step([shared])
    feeder.join()
    assert shared.take() == alone.take()
