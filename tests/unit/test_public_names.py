"""What ``import rechka`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rechka

NAMES = [
    "Asr",
    "AudioChunk",
    "DecoderOptions",
    "Event",
    "Final",
    "Partial",
    "RechkaError",
    "Refined",
    "Segment",
    "SegmenterOptions",
    "SpeechEnd",
    "SpeechStart",
    "Stream",
    "Transcript",
    "Word",
    "assemble",
    "evaluate",
    "export",
    "finetune",
    "load",
    "microphone",
    "open_source",
    "serve",
]


def test_the_list() -> None:
    assert rechka.__all__ == NAMES
    assert set(NAMES) <= set(dir(rechka))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there(name: str) -> None:
    assert getattr(rechka, name) is not None


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rechka.nonsense  # noqa: B018


def test_import_costs_nothing() -> None:
    heavy = "{'numpy', 'onnxruntime', 'torch', 'soundfile', 'soxr', 'huggingface_hub', 'rich', 'typer'}"
    code = f"import rechka, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
