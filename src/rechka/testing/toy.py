"""Speech for the toy model, and a recogniser around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rechka.models import toy
from rechka.types import F32

if TYPE_CHECKING:
    from rechka.recognizers.asr import Asr

TONE_FRAMES, GAP_FRAMES = (
    2,
    2,
)  # a gap of two frames holds a whole silent frame at any offset, so "лл" stays two letters
LETTER = (TONE_FRAMES + GAP_FRAMES) * toy.HOP


def silence(seconds: float) -> F32:
    """So many seconds of zeros at the toy's 8000 Hz."""
    return np.zeros(round(seconds * toy.SAMPLE_RATE), dtype=np.float32)


def say(text: str, *, before_s: float = 0.0, after_s: float = 0.0, sample_rate: int = toy.SAMPLE_RATE) -> F32:
    """Tone speech that the toy model recognises as ``text``, 120 ms a letter, spaces included.

    Args:
        text: lower-case Russian letters and single spaces.
        before_s: silence before the first letter.
        after_s: silence after the last.
        sample_rate: of the result.
    """
    scale = sample_rate / toy.SAMPLE_RATE
    letter = np.zeros((len(text), round(LETTER * scale)), dtype=np.float64)
    time = np.arange(round(TONE_FRAMES * toy.HOP * scale)) / sample_rate
    for row, symbol in zip(letter, text, strict=True):
        row[: len(time)] = 0.5 * np.sin(2 * np.pi * toy.frequency(toy.TOKENS.symbols.index(symbol)) * time)
    before, after = (np.zeros(round(seconds * sample_rate)) for seconds in (before_s, after_s))
    return np.concatenate([before, letter.reshape(-1), after]).astype(np.float32)


def toy_asr(**params: Any) -> Asr:
    """An ``Asr`` around the toy model with a greedy decoder; ``params`` as in the toy's card."""
    from rechka.options import DecoderOptions
    from rechka.recognizers import Asr, assemble

    recognizer = assemble(toy.load({}, params), decoder=DecoderOptions(kind="greedy"))
    return Asr(recognizer, name="toy", language="ru")


def fragile_asr(_: Any = None) -> Asr:
    """The toy, whose process ends without a word on a recording that has ``fatal`` in its name."""
    import os
    from collections.abc import Iterator

    asr = toy_asr()
    hear = asr.transcribe_many

    def checked(sources: Any) -> Iterator[Any]:
        for source in sources:
            if isinstance(source, str) and "fatal" in source:
                os._exit(139)
            yield source

    asr.transcribe_many = lambda sources, **options: hear(checked(sources), **options)  # type: ignore[method-assign]
    return asr
