"""rechka: Russian speech recognition, live and from files.

    import rechka

    asr = rechka.load()
    print(asr.transcribe("call.wav"))
    for event in asr.stream(rechka.microphone()):
        print(event)

Names are imported when they are first used, so that ``import rechka`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rechka import evaluate, export
    from rechka.audio import microphone, open_source
    from rechka.errors import RechkaError
    from rechka.hub.load import load
    from rechka.options import DecoderOptions, SegmenterOptions
    from rechka.recognizers import Asr, Stream, assemble
    from rechka.server.start import serve
    from rechka.train.adapt import finetune
    from rechka.types import (
        AudioChunk,
        Event,
        Final,
        Partial,
        Refined,
        Segment,
        SpeechEnd,
        SpeechStart,
        Transcript,
        Word,
    )

__version__ = "0.1.0"

__all__ = [
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

_HOMES = {
    "load": "rechka.hub.load",
    "microphone": "rechka.audio",
    "open_source": "rechka.audio",
    "Asr": "rechka.recognizers",
    "Stream": "rechka.recognizers",
    "assemble": "rechka.recognizers",
    "DecoderOptions": "rechka.options",
    "SegmenterOptions": "rechka.options",
    "RechkaError": "rechka.errors",
    "finetune": "rechka.train.adapt",
    "serve": "rechka.server.start",
}
_CALLED = ("evaluate", "export")
"""Packages that can be called."""


def __getattr__(name: str) -> Any:
    if name in _CALLED:
        return import_module(f"rechka.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'rechka' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "rechka.types")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
