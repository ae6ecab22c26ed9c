"""Transducers: any mix of streams and any cut of the audio give the same frames and the same events."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")

import rechka
from rechka.hub.layouts import recognise
from rechka.models import zipformer
from rechka.testing.transducers import KINDS, write_transducer
from rechka.types import F32

STREAMING = KINDS[1:]


@cache
def folder(kind: str) -> Path:
    return write_transducer(Path(mkdtemp(prefix="rechka-")) / kind, kind, blank=10.0)


@cache
def opened(kind: str) -> Any:
    card = recognise(folder(kind))
    assert card is not None
    return zipformer.load({role: folder(kind) / file.path for role, file in card.files.items()}, {}, threads=1)


def noise(samples: int, seed: int) -> F32:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("kind", STREAMING)
@settings(max_examples=8)
@given(counts=st.lists(st.integers(1, 5), min_size=1, max_size=4), data=st.data())
def test_any_mix_and_any_number_of_chunks(kind: str, counts: list[int], data: st.DataObject) -> None:
    model = opened(kind)
    chunk, shift = model.spec.chunk, model.spec.shift
    audio = [noise(chunk + (count - 1) * shift, seed) for seed, count in enumerate(counts)]
    alone = [model.step([samples], [model.initial_state()])[0][0] for samples in audio]
    states = [model.initial_state() for _ in audio]
    done = [0] * len(audio)
    parts: list[list[F32]] = [[] for _ in audio]
    while pending := [i for i, count in enumerate(counts) if done[i] < count]:
        chosen = data.draw(st.lists(st.sampled_from(pending), min_size=1, unique=True))
        takes = [data.draw(st.integers(1, counts[i] - done[i])) for i in chosen]
        pieces = [
            audio[i][done[i] * shift : (done[i] + take - 1) * shift + chunk]
            for i, take in zip(chosen, takes, strict=True)
        ]
        frames, after = model.step(pieces, [states[i] for i in chosen])
        for i, take, piece, state in zip(chosen, takes, frames, after, strict=True):
            assert piece.start == sum(map(len, parts[i]))
            parts[i].append(piece.values)
            states[i] = state
            done[i] += take
    for whole, pieces in zip(alone, parts, strict=True):
        np.testing.assert_allclose(np.concatenate(pieces), whole.values, atol=1e-4)


@settings(max_examples=10)
@given(sizes=st.lists(st.sampled_from([0, 400, 5000, 5001, 16000, 20000]), min_size=1, max_size=5))
def test_a_batch_of_phrases_is_its_phrases(sizes: list[int]) -> None:
    model = opened("offline")
    audio = [noise(size, seed) for seed, size in enumerate(sizes)]
    frames, states = model.step(audio, [7 * i for i in range(len(audio))])
    for i, (samples, piece, state) in enumerate(zip(audio, frames, states, strict=True)):
        (alone,), _ = model.step([samples], [0])
        assert (piece.start, state) == (7 * i, 7 * i + len(piece))
        np.testing.assert_allclose(piece.values, alone.values, atol=1e-4)


@pytest.mark.parametrize("kind", ["zipformer2", "conformer"])
@settings(max_examples=6)
@given(cuts=st.lists(st.integers(1, 40000), max_size=6))
def test_events_do_not_depend_on_how_audio_is_fed(kind: str, cuts: list[int]) -> None:
    asr = rechka.load(folder(kind), threads=1)
    audio = noise(40000, 11)
    audio[15000:] *= np.float32(0.001)
    whole = asr.transcribe((audio, 16000))
    assert whole.words
    stream = asr.open()
    before = 0
    for cut in [*sorted(cuts), len(audio)]:
        stream.feed(audio[before:cut], 16000)
        before = max(before, cut)
    stream.finish()
    finals = [event.segment for event in stream.take() if isinstance(event, rechka.Final)]
    assert [segment.to_dict() for segment in finals] == [segment.to_dict() for segment in whole.segments]
