"""Settings of Whisper decoding: ranges, and plain values as they stand in cards and on command lines."""

from __future__ import annotations

from typing import Any

import pytest

from rechka.decoding.whisper import WhisperOptions
from rechka.errors import UsageError


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "fast"}, {"task": "sing"}, {"beam_size": 0}, {"temperatures": ()}, {"temperatures": (3.0,)},
     {"max_new": 300}, {"chunk_s": 40.0}, {"stride_s": 15.0}, {"vad": "none", "mode": "packed"}, {"partial_s": 0.0},
     {"guard_silence_s": 2.0, "word_times": False}, {"commit": "never"}, {"vad": "other"}],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        WhisperOptions(**wrong)


def test_options_from_plain_values() -> None:
    found = WhisperOptions.parse(
        {"temperatures": [0, 0.5], "languages": ["ru", "en"], "min_logprob": -2, "stamps": True}
    )
    assert found.temperatures == (0.0, 0.5)
    assert found.languages == ("ru", "en")
    assert found.min_logprob == -2.0
    for wrong in ({"tempo": 1}, {"beam_size": "5"}, {"beam_size": True}, {"languages": "ru"}, {"stamps": "yes"}):
        with pytest.raises(UsageError):
            WhisperOptions.parse(wrong)
