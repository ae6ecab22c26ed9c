"""From a model to its recogniser: the kind by the spec, options handed on, parts that do not fit refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rechka.errors import IncompatibleParts, UsageError
from rechka.models import toy
from rechka.options import DecoderOptions, SegmenterOptions
from rechka.recognizers import ChunkRecognizer, PhraseRecognizer, assemble, default_segmenter
from rechka.recognizers.blocks import PHRASED
from rechka.testing import say
from rechka.types import Encoded, Final

GREEDY = DecoderOptions(kind="greedy")
ENERGY = replace(PHRASED, vad="energy")


def words_of(recognizer: Any) -> list[Any]:
    stream = recognizer.open(limit_s=None)
    stream.feed(say("да нет", before_s=0.5, after_s=1.0))
    stream.finish()
    recognizer.run([stream])
    return [word for event in stream.take() if isinstance(event, Final) for word in event.segment.words]


@pytest.mark.parametrize(("params", "kind"), [({}, ChunkRecognizer), ({"whole": True}, PhraseRecognizer)])
def test_the_spec_chooses_the_recogniser(params: dict[str, Any], kind: type) -> None:
    recognizer = assemble(toy.load({}, params), decoder=GREEDY, segmenter=ENERGY, max_chunks=7)
    assert isinstance(recognizer, kind)
    assert recognizer.max_chunks == 7
    assert [word.text for word in words_of(recognizer)] == ["да", "нет"]


@pytest.mark.parametrize("params", [{}, {"whole": True}])
def test_the_calibration_reaches_the_words(params: dict[str, Any]) -> None:
    model = toy.load({}, params)
    raw = words_of(assemble(model, decoder=GREEDY, segmenter=ENERGY))
    fitted = words_of(assemble(model, decoder=GREEDY, segmenter=ENERGY, calibration=(0.5, -1.0)))
    assert raw[0].confidence == pytest.approx(0.98)
    assert fitted[0].confidence < 0.9


def test_each_kind_of_evidence_has_its_own_values() -> None:
    assert default_segmenter(toy.ToyModel().spec) == SegmenterOptions()
    assert default_segmenter(toy.ToyPhraseModel().spec) == PHRASED


def test_the_default_vad_is_silero() -> None:
    recognizer = assemble(toy.ToyPhraseModel(), decoder=GREEDY)
    assert isinstance(recognizer, PhraseRecognizer)
    assert (type(recognizer.vad).__name__, recognizer.vad.sample_rate) == ("SileroVad", 8000)


def test_parts_that_do_not_fit() -> None:
    model = toy.ToyPhraseModel()
    with pytest.raises(UsageError, match="'silero' or 'energy'"):
        assemble(model, decoder=GREEDY, segmenter=replace(PHRASED, vad="ears"))
    model.spec = replace(model.spec, emits=Encoded)
    with pytest.raises(IncompatibleParts, match="no transducer"):
        assemble(model, decoder=GREEDY)
    model.spec = replace(model.spec, tokens=None)
    with pytest.raises(IncompatibleParts, match="no tokens"):
        assemble(model, decoder=GREEDY)
    odd = toy.ToyPhraseModel()
    odd.spec = replace(odd.spec, sample_rate=22050)
    with pytest.raises(IncompatibleParts, match="8000 or 16000"):
        assemble(odd, decoder=GREEDY)
    assert np.isfinite(assemble(odd, decoder=GREEDY, segmenter=ENERGY).block)  # type: ignore[union-attr]
