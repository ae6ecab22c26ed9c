"""``rechka.evaluate(asr, manifest)``: the toy model knows exactly what was said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

import rechka
from rechka.errors import DataError
from rechka.testing import say, toy_asr


def test_scores_and_counts_unreadable_recordings_as_silence(tmp_path: Path) -> None:
    lines = []
    for number, (spoken, text) in enumerate([("да", "да"), ("нет", "нет"), ("один два", "один три")]):
        soundfile.write(tmp_path / f"{number}.wav", say(spoken), 8000)
        lines.append({"audio_filepath": f"{number}.wav", "text": text, "speaker": f"s{number}"})
    (tmp_path / "broken.wav").write_bytes(b"no sound at all")
    lines.append({"audio_filepath": "broken.wav", "text": "алло", "speaker": "s9"})
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    result = rechka.evaluate(toy_asr(), manifest)
    assert (result.words.substitutions, result.words.deletions, result.words.insertions) == (1, 1, 0)
    assert result.wer == pytest.approx(2 / 5)


def test_an_empty_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("\n", "utf-8")
    with pytest.raises(DataError, match="holds no records"):
        rechka.evaluate(toy_asr(), tmp_path / "m.jsonl")
