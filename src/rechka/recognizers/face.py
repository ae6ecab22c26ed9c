"""The outward face of every recogniser: what ``Asr``, the command line and servers need to run streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from rechka.recognizers.stream import Stream
from rechka.types import ModelSpec


class StreamRecognizer(Protocol):
    """Streams in, events out: ``ChunkRecognizer``, ``PhraseRecognizer``, ``TwoPassRecognizer``."""

    @property
    def spec(self) -> ModelSpec:
        """What the outside must know of the model that hears first; its sample rate is that of the inboxes."""
        ...

    @property
    def max_chunks(self) -> int:
        """Chunks of one stream that a step takes at most; worth as many waiting."""
        ...

    def open(
        self,
        *,
        hotwords: Mapping[str, float] | None = None,
        channel: int = 0,
        speaker: str | None = None,
        partials: bool = True,
        limit_s: float | None = 30.0,
        min_silence_s: float | None = None,
        drive: Callable[[Stream], None] | None = None,
    ) -> Stream:
        """A new stream; see ``Stream`` for the arguments.

        ``min_silence_s``: a pause this long ends a phrase of this stream; None for the recogniser's own.
        """
        ...

    def pending(self, stream: Stream) -> int:
        """Chunks that wait in a stream's inbox, the last of a finished stream counted as whole."""
        ...

    def ready(self, stream: Stream) -> bool:
        """True if ``step`` would make progress on it."""
        ...

    def step(self, streams: Sequence[Stream]) -> None:
        """One step of each of the ready streams."""
        ...

    def run(self, streams: Sequence[Stream]) -> None:
        """Steps until none of the streams is ready."""
        ...
