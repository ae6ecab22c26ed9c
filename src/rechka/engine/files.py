"""A recording through the engine: read in a thread, recognised among the live streams, never in their way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from rechka.audio import open_source
from rechka.engine.engine import Engine
from rechka.engine.intake import Flushed
from rechka.engine.options import MAX_CHANNELS, SessionOptions
from rechka.engine.session import Meter, Session
from rechka.errors import BadSamples, Draining
from rechka.recognizers.asr import refined
from rechka.types import AudioChunk, Event, Final, Refined, Segment, Transcript

OnEvent: TypeAlias = Callable[[Event], None]
OnProgress: TypeAlias = Callable[[float, "float | None"], None]


async def transcribe(
    engine: Engine,
    source: Any,
    *,
    options: SessionOptions | None = None,
    split: bool = False,
    max_seconds: float | None = None,
    meter: Meter | None = None,
    on_event: OnEvent | None = None,
    on_progress: OnProgress | None = None,
) -> Transcript:
    """The text of a recording; cancelling the task frees everything.

    Args:
        engine: recognises.
        source: as ``rechka.open_source`` takes it: path, bytes, file object or (array, rate). Read in a thread.
        options: hotwords, partials and the pause; rate, encoding and channels come from the source. With
            ``bulk=False`` it competes with live sessions, else their steps come first (the default).
        split: one speaker per channel; else the channels are averaged.
        max_seconds: a longer recording is refused.
        meter: see ``Engine.open``.
        on_event: told every event, in the loop.
        on_progress: told seconds recognised, and seconds in all if known, in the loop.

    Raises:
        AudioError: the source cannot be used as audio.
        Overloaded: the engine takes no session now.
        Draining: nor later, or it stopped before the end of the recording.
        StreamFailed: a fault inside.
    """
    loop = asyncio.get_running_loop()
    opened = await loop.run_in_executor(
        engine.pool,
        lambda: open_source(
            source,
            sample_rate=engine.asr.spec.sample_rate,
            channels="split" if split else "mix",
            max_seconds=max_seconds,
        ),
    )
    if opened.channels > MAX_CHANNELS:
        raise BadSamples(
            f"the recording has {opened.channels} channels, at most {MAX_CHANNELS} can be told apart",
            remedy="leave out the wish to split channels",
        )
    base = options or SessionOptions(partials=False, bulk=True)
    base = replace(base, sample_rate=opened.sample_rate, channels=opened.channels, mix=False, interleaved=True)
    segments: list[Segment] = []
    reader = Reader(opened)
    async with await engine.open(base, meter=meter) as session:
        feeding = asyncio.create_task(_feed(session, reader, engine))
        try:
            async for event in session:
                if isinstance(event, Flushed):
                    continue
                if isinstance(event, Final):
                    segments.append(event.segment)
                elif isinstance(event, Refined):
                    segments = refined(segments, event.segment)
                if on_event is not None:
                    on_event(event)
                if on_progress is not None:
                    on_progress(session.done_s, opened.duration)
        finally:
            if not feeding.done():
                feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            await asyncio.shield(loop.run_in_executor(engine.pool, reader.close))
        error = None if feeding.cancelled() else feeding.exception()
        if error is not None:
            raise error
        if feeding.cancelled() or not session.complete:  # half a text must not be taken for all of it
            raise _stopped()
        duration = session.fed_s
    return Transcript(
        segments=tuple(sorted(segments, key=lambda segment: (segment.start, segment.channel))),
        language=engine.asr.language,
        model=engine.asr.name,
        duration=duration,
        truncated=opened.truncated,
    )


class Reader:
    """A source read by one thread at a time, and closed when none reads."""

    def __init__(self, source: Iterable[tuple[AudioChunk, ...]]) -> None:
        self._chunks = iter(source)
        self._lock = threading.Lock()

    def next(self) -> tuple[AudioChunk, ...] | None:
        """The next chunk of every channel; None at the end."""
        with self._lock:
            return next(self._chunks, None)

    def close(self) -> None:
        """Let go of the source."""
        with self._lock:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()


async def _feed(session: Session, reader: Reader, engine: Engine) -> None:
    """Read and feed to the end; an error ends the session, so that the reader of its events wakes up."""
    loop = asyncio.get_running_loop()
    try:
        while (chunk := await loop.run_in_executor(engine.pool, reader.next)) is not None:
            samples = [part.samples for part in chunk]
            await session.feed(samples[0] if len(samples) == 1 else np.stack(samples, axis=1).reshape(-1))
            if session.drained:
                raise _stopped()
        session.finish()
    except BaseException:
        session.cancel()
        raise


def _stopped() -> Draining:
    return Draining("the server stopped before the end of the recording", remedy="send it again", retry_after_s=5.0)
