"""The embedded model as shipped: it hears the bundled recording, streams as it reads files, and was tested fairly."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

import rechka
from rechka.hub.registry import EMBEDDED, find
from rechka.hub.verify import verify
from rechka.types import Final, Partial

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "examples" / "prompt.wav"
SPOKEN = (ROOT / "examples" / "prompt.txt").read_text("utf-8").strip()
SETS = ROOT / "recipes" / "embedded" / "sets.npz"
BUDGET = 40_000_000
"""Model and language model together, in bytes."""


@pytest.fixture(scope="module")
def asr() -> rechka.Asr:
    return rechka.load(EMBEDDED, threads=1)


def test_it_hears_the_bundled_recording(asr: rechka.Asr) -> None:
    transcript = asr.transcribe(RECORDING)
    assert transcript.text == SPOKEN
    words = transcript.words
    assert all(word.start < word.end for word in words)
    assert all(one.end <= two.start + 1e-6 for one, two in itertools.pairwise(words))
    assert all(0.0 <= (word.confidence or 0.0) <= 1.0 for word in words)


def test_a_stream_in_odd_pieces_gives_what_the_file_gives(asr: rechka.Asr) -> None:
    samples, rate = soundfile.read(RECORDING, dtype="float32")
    stream = asr.open()
    events = []
    for piece in np.array_split(samples, 37):
        stream.feed(piece, rate)
        while asr.recognizer.ready(stream):
            asr.recognizer.step([stream])
        events += stream.take()
    stream.finish()
    while asr.recognizer.ready(stream):
        asr.recognizer.step([stream])
    events += stream.take()
    finals = [event.segment.text for event in events if isinstance(event, Final)]
    assert " ".join(finals) == SPOKEN
    stable = ""
    for event in events:
        if isinstance(event, Partial):
            assert event.stable.startswith(stable)
            stable = event.stable
        elif isinstance(event, Final):
            stable = ""


def test_files_are_whole_and_within_the_budget() -> None:
    entry = find(EMBEDDED)
    assert [file.state for file in verify(entry)] == ["ok", "ok"]
    assert sum(entry.path(role).stat().st_size for role in entry.card.files) <= BUDGET
    assert entry.card.license == "GPL-3.0-or-later"
    assert "GNU GENERAL PUBLIC LICENSE" in (entry.folder / "LICENSE").read_text("utf-8")


def test_no_test_sentence_and_no_test_speaker_was_trained_on() -> None:
    with np.load(SETS) as sets:
        assert len(sets["train_sentences"]) > 10_000
        assert len(sets["test_sentences"]) > 500
        assert not len(np.intersect1d(sets["train_sentences"], sets["test_sentences"]))
        assert not len(np.intersect1d(sets["train_speakers"], sets["test_speakers"]))
