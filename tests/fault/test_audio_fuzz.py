"""Damaged recordings of every format give finite samples or one of our own errors, and come to an end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rechka.audio import open_source
from rechka.errors import RechkaError
from rechka.testing.audio import OneWay, damaged

DATA = Path(__file__).parent.parent / "data" / "audio"
NAMES = sorted(path.name for path in DATA.iterdir() if path.suffix not in (".md", ".sh"))
NEED_AV = (".m4a", ".aac", ".webm", ".mkv", ".wma", ".mp4")
LIMIT_S = 60.0


MAGIC = (
    b"RIFF\0\0\0\0WAVE",
    b"fLaC",
    b"OggS",
    b"ID3",
    b"\xff\xfb",
    b"\xff\xf1",
    b"FORM\0\0\0\0AIFF",
    b".snd",
    b"caff",
    b"#!AMR\n",
    b"\x1a\x45\xdf\xa3",
    b"\0\0\0\x20ftyp",
)


def outcome(source: Any) -> RechkaError | None:
    """Reads to the end; the typed error that stopped it. Any other exception gets through."""
    try:
        opened = open_source(source, sample_rate=8000, max_seconds=LIMIT_S)
        assert math.isfinite(opened.duration or 0.0)
        for chunk in opened:
            assert all(np.isfinite(part.samples).all() for part in chunk)
    except RechkaError as error:
        return error
    return None


@pytest.mark.parametrize("name", NAMES)
def test_damage_gives_audio_or_a_typed_error(name: str) -> None:
    if name.endswith(NEED_AV):
        pytest.importorskip("av")

    @given(data=damaged((DATA / name).read_bytes()), pipe=st.booleans())
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def check(data: bytes, pipe: bool) -> None:
        error = outcome(OneWay(data) if pipe else data)
        assert error is None or (error.message and error.code.startswith("audio."))

    check()


@given(data=st.binary(max_size=300), start=st.sampled_from([b"", *MAGIC]))
@settings(max_examples=100, deadline=None)
def test_noise_behind_a_magic_word(data: bytes, start: bytes) -> None:
    error = outcome(start + data)
    assert error is None or error.code.startswith(("audio.", "missing_extra"))
