"""The pause that ends a phrase can differ from stream to stream of one recogniser."""

import numpy as np
import pytest

from rechka.errors import UsageError
from rechka.models.toy import ToyPhraseModel
from rechka.options import DecoderOptions
from rechka.recognizers import assemble
from rechka.segmentation.vad import EnergyVad
from rechka.testing import say, silence, toy_asr
from rechka.types import Final


def phrased():
    return assemble(ToyPhraseModel(), decoder=DecoderOptions(kind="greedy"), vad=EnergyVad(8000))


def chunked():
    return toy_asr().recognizer


@pytest.mark.parametrize("make", [chunked, phrased])
def test_streams_of_one_recogniser_end_phrases_each_after_its_own_pause(make):
    recognizer = make()
    audio = np.concatenate([say("раз", before_s=0.5), silence(1.0), say("два", after_s=2.0)])
    streams = [recognizer.open(min_silence_s=pause, partials=False) for pause in (0.6, 1.5, None)]
    for stream in streams:
        stream.feed(audio)
        stream.finish()
    recognizer.run(streams)
    counts = [sum(isinstance(event, Final) for event in stream.take()) for stream in streams]
    assert counts == [2, 1, 2]


@pytest.mark.parametrize("pause", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pause_that_is_no_length_is_refused(pause):
    with pytest.raises(UsageError, match="min_silence_s"):
        chunked().open(min_silence_s=pause)
