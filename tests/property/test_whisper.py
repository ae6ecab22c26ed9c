"""Whatever a kernel writes, a recording comes out whole: events in order, times inside, nothing raised."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding.whisper import Alignment, Generated, WhisperOptions
from rechka.models.whisper import WhisperModel
from rechka.recognizers.whisper import WhisperRecognizer
from rechka.segmentation.vad import EnergyVad
from rechka.testing.whisper import ScriptedKernel, WordCodec, clock
from rechka.types import Final, Partial, Refined, SpeechEnd, SpeechStart

CODEC = WordCodec()
TEXTS = CODEC.encode("раз два , три . « четыре » Субтитры сделал речка речка - \ufffd 5")
SPECIAL = CODEC.special

TOKEN = st.one_of(
    st.sampled_from(TEXTS), st.integers(0, 1500).map(SPECIAL.stamp), st.integers(SPECIAL.end, SPECIAL.no_stamps),
    st.just(10**6),
)  # fmt: skip
ANSWER = st.builds(
    Generated,
    st.lists(TOKEN, max_size=12).map(tuple),
    st.one_of(st.floats(-60, 0), st.just(math.nan), st.just(-math.inf)),
    st.floats(0, 1),
    st.booleans(),
)
SOUND = np.concatenate([clock(5.0), clock(2.0, start=5.0, level=0.0), clock(33.0, start=7.0)])
SOUND[::7] += 0.001  # so that no energy is exactly that of a tone


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "packed"},
        {"mode": "packed", "stamps": True, "guard_silence_s": 1.0},
        {"mode": "sequential"},
        {"mode": "sequential", "stamps": False, "word_times": False},
        {"mode": "chunked", "stride_s": 2.0},
        {"mode": "packed", "live": True},
        {"mode": "packed", "live": True, "commit": "alignment"},
    ],
)
@given(answers=st.lists(ANSWER, min_size=1, max_size=5), places=st.lists(st.integers(-5, 3000), min_size=1, max_size=9))
@settings(max_examples=15, deadline=None)
def test_any_answers_give_sound_events(options: dict[str, Any], answers: list[Generated], places: list[int]) -> None:
    count = 0

    def script(ask: Any) -> Generated:
        nonlocal count
        count += 1
        return answers[count % len(answers)]

    def align(audio: Any, tokens: Any) -> Alignment:
        frames = tuple(places[i % len(places)] for i in range(len(tokens) + 1))
        return Alignment(frames, tuple((0.9, 0.0, math.nan)[i % 3] for i in range(len(tokens))))

    live = options.get("live", False)
    settings_ = {key: value for key, value in options.items() if key != "live"}
    kernel = ScriptedKernel(script, places=align)
    made = WhisperOptions(language="ru", temperatures=(0.0, 0.6), vad="energy", batch_size=3, **settings_)
    recognizer = WhisperRecognizer(WhisperModel(kernel, CODEC, made), vad=EnergyVad(16000, window_s=0.032))
    stream = recognizer.open(partials=live, limit_s=None)
    for first in range(0, len(SOUND), 80000):
        stream.feed(SOUND[first : first + 80000])
        recognizer.run([stream])
    stream.finish()
    recognizer.run([stream])
    assert stream.done
    assert count < 400  # it went on, whatever it was told
    open_ = False
    for event in stream.take():
        if isinstance(event, (Final, Refined)):
            segment = event.segment
            assert segment.text or isinstance(event, Refined)  # empty: nothing stayed of what was told
            assert 0.0 <= segment.start <= segment.end <= 40.0 + 1e-6
            for word in segment.words:
                assert -1e-6 <= word.start <= word.end <= 40.0 + 1e-6
                assert word.confidence is None or 0.0 <= word.confidence <= 1.0
            segment.to_dict()
        elif isinstance(event, SpeechStart):
            assert not open_
            open_ = True
        elif isinstance(event, SpeechEnd):
            assert open_
            open_ = False
        else:
            assert isinstance(event, Partial)
            assert live
