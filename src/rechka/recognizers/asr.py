"""The object that users hold: a recogniser with a name, for files, live sources and packets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from rechka.errors import IncompatibleParts, RechkaError, UsageError
from rechka.recognizers.face import StreamRecognizer
from rechka.recognizers.stream import Stream
from rechka.types import F32, AudioChunk, Event, Final, ModelSpec, Refined, Segment, Transcript

if TYPE_CHECKING:
    from rechka.protocols import AudioSource, Embedder

Channels: TypeAlias = Literal["mix", "split"]
Progress: TypeAlias = Callable[[float, "float | None"], None]
"""Called with the seconds recognised and the seconds in all, None while these are not known."""


class Asr:
    """Speech recognition with one model.

    Thread-safe: calls share the model and nothing else.

    Args:
        recognizer: runs the model.
        name: of the model, as in its card.
        language: that it recognises, as an ISO 639-1 code.
    """

    def __init__(self, recognizer: StreamRecognizer, *, name: str, language: str) -> None:
        self.recognizer = recognizer
        self.name = name
        self.language = language
        self.note = ""
        """What the user should be told about the choice of the model, once; ``rechka.load`` sets it."""

    def __repr__(self) -> str:
        return f"Asr(name={self.name!r}, language={self.language!r}, sample_rate={self.spec.sample_rate})"

    @property
    def spec(self) -> ModelSpec:
        """What the model's outside must know."""
        return self.recognizer.spec

    def transcribe(
        self,
        source: Any,
        *,
        channels: Channels = "mix",
        hotwords: Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> Transcript:
        """The text of a recording.

        Args:
            source: path, bytes, file object, (array, sample_rate), or an ``AudioSource``.
            channels: ``"mix"`` for one text of all channels, ``"split"`` for one speaker per channel.
            hotwords: words or phrases to expect, each with its boost in natural-log units.
            progress: told after every step.

        Raises:
            AudioError: the source cannot be used as audio.
            UsageError: arguments out of their range.
        """
        report = None if progress is None else _without_index(progress)
        for result in self.transcribe_many([source], channels=channels, hotwords=hotwords, progress=report):
            if isinstance(result, RechkaError):
                raise result
            return result
        raise AssertionError("one source gives one result")

    def transcribe_many(
        self,
        sources: Iterable[Any],
        *,
        channels: Channels = "mix",
        hotwords: Mapping[str, float] | None = None,
        progress: Callable[[int, float, float | None], None] | None = None,
        batch: int = 8,
    ) -> Iterator[Transcript | RechkaError]:
        """The texts of several recordings, recognised side by side, in the order of ``sources``.

        A recording that fails gives its error in its place and does not stop the others.

        Args:
            sources: as in ``transcribe``; read as far as needed. An error in place of one is given back in its turn.
            channels: as in ``transcribe``.
            hotwords: as in ``transcribe``.
            progress: called with the index of a source, its seconds done, and its seconds in all if known.
            batch: recordings that are open at the same time.
        """
        _check_channels(channels)
        waiting = enumerate(sources)
        jobs: deque[_Job] = deque()
        more = True
        try:
            while more or jobs:
                while more and sum(not job.over for job in jobs) < max(1, batch):
                    following = next(waiting, None)
                    if following is None:
                        more = False
                        break
                    jobs.append(_Job(self, *following, channels, hotwords))
                active = [job for job in jobs if not job.over]
                for job in active:
                    job.read()
                self._step(active)
                for job in active:
                    job.settle()
                    if progress is not None and job.error is None:
                        progress(job.index, job.done_s, job.total_s)
                while jobs and jobs[0].over:
                    yield jobs.popleft().result()
        finally:
            for job in jobs:
                job.close()

    def stream(
        self,
        source: Any,
        *,
        channels: Channels = "mix",
        hotwords: Mapping[str, float] | None = None,
        partials: bool = True,
    ) -> Iterator[Event]:
        """Events as they come.

        Args:
            source: as in ``transcribe``, or any iterable of tuples with one ``AudioChunk`` per channel.
            channels: as in ``transcribe``.
            hotwords: as in ``transcribe``.
            partials: whether ``Partial`` events are wanted.

        Raises:
            AudioError: the source cannot be used as audio; the events until then have been given.
            UsageError: arguments out of their range.
        """
        _check_channels(channels)
        pieces, num_channels = self._pieces(source, channels)
        streams = self._open_all(num_channels, hotwords, partials=partials) if num_channels else []
        chunks = iter(pieces)
        try:
            for chunk in chunks:
                streams = streams or self._open_all(len(_mixed(chunk, channels)), hotwords, partials=partials)
                for stream, part in zip(streams, _mixed(chunk, channels), strict=True):
                    stream.feed(part.samples, part.sample_rate)
                yield from self._drain(streams)
            for stream in streams:
                stream.finish()
            yield from self._drain(streams)
        finally:
            _close(chunks)

    def open(self, *, hotwords: Mapping[str, float] | None = None, partials: bool = True) -> Stream:
        """A stream to push packets into: ``feed`` recognises at once, ``take`` gives the events.

        Args:
            hotwords: as in ``transcribe``.
            partials: whether ``Partial`` events are wanted.
        """
        return self.recognizer.open(hotwords=hotwords, partials=partials, drive=lambda s: self.recognizer.run([s]))

    def embed(self, source: Any) -> F32:
        """(T, D) encoder frames of a recording, one per ``spec.hop`` samples, its channels averaged.

        Args:
            source: as in ``transcribe``; all of it is held in memory.

        Raises:
            IncompatibleParts: the model gives no embeddings.
            AudioError: the source cannot be used as audio.
        """
        model = getattr(self.recognizer, "model", None)
        if not hasattr(model, "embed"):
            raise IncompatibleParts(
                f"the model {self.name} gives no embeddings", remedy="load an encoder, such as gigaam-v3-ssl"
            )
        parts = [chunk[0].samples for chunk in self._source(source, "mix")]
        found: F32 = cast("Embedder", model).embed(np.concatenate(parts))
        return found

    def _open_all(self, num_channels: int, hotwords: Mapping[str, float] | None, *, partials: bool) -> list[Stream]:
        """One stream per channel, without a limit: the caller reads no further than it steps."""
        split = num_channels > 1
        return [
            self.recognizer.open(
                hotwords=hotwords,
                channel=channel,
                speaker=str(channel + 1) if split else None,
                partials=partials,
                limit_s=None,
            )
            for channel in range(num_channels)
        ]

    def _drain(self, streams: Sequence[Stream]) -> Iterator[Event]:
        while any(self.recognizer.ready(stream) for stream in streams):
            self.recognizer.step(streams)
            for stream in streams:
                yield from stream.take()

    def _pieces(self, source: Any, channels: Channels) -> tuple[Iterable[tuple[AudioChunk, ...]], int | None]:
        """The chunks of a source, and how many channels they have if that is known before the first."""
        plain = isinstance(source, Iterable) and not isinstance(source, (str, bytes, bytearray, memoryview, tuple))
        if plain and not hasattr(source, "read") and not hasattr(source, "sample_rate"):
            return source, None
        opened = self._source(source, channels)
        return opened, opened.channels

    def _source(self, source: Any, channels: Channels) -> AudioSource:
        from rechka.audio import open_source

        opened: AudioSource = open_source(source, sample_rate=self.spec.sample_rate, channels=channels)
        return opened

    def _step(self, jobs: Sequence[_Job]) -> None:
        """One step of all jobs together; when that fails, one by one, so that only the culprit stops."""
        running = [job for job in jobs if job.error is None]
        try:
            self.recognizer.step([stream for job in running for stream in job.streams])
        except RechkaError as error:
            if len(running) == 1:
                running[0].error = error
                return
            for job in running:
                self._step([job])


class _Job:
    """One recording of ``transcribe_many``."""

    def __init__(
        self, asr: Asr, index: int, source: Any, channels: Channels, hotwords: Mapping[str, float] | None
    ) -> None:
        self.asr = asr
        self.index = index
        self.error: RechkaError | None = None
        self.over = False
        self.streams: list[Stream] = []
        self.segments: list[Segment] = []
        self.source: AudioSource | None = None
        self.chunks: Iterator[tuple[AudioChunk, ...]] = iter(())
        try:
            if isinstance(source, RechkaError):
                raise source
            self.source = asr._source(source, channels)
            self.chunks = iter(self.source)
            self.streams = asr._open_all(self.source.channels, hotwords, partials=False)
        except RechkaError as error:
            self.error = error

    @property
    def total_s(self) -> float | None:
        """Seconds in all, if the source tells."""
        return None if self.source is None else self.source.duration

    @property
    def done_s(self) -> float:
        """Seconds recognised: what was fed less what waits, padding counted as audio at the very end only."""
        spec = self.asr.spec
        return min(
            (max(0.0, stream.duration - len(stream.inbox) / spec.sample_rate) for stream in self.streams), default=0.0
        )

    def read(self) -> None:
        """Read until a full step's worth of chunks waits, or to the end."""
        recognizer = self.asr.recognizer
        try:
            while not self.error and self.streams and not self.streams[0].finished:
                if recognizer.pending(self.streams[0]) >= recognizer.max_chunks:
                    return
                chunk = next(self.chunks, None)
                for i, stream in enumerate(self.streams):
                    if chunk is None:
                        stream.finish()
                    else:
                        stream.feed(chunk[i].samples, chunk[i].sample_rate)
        except RechkaError as error:
            self.error = error

    def settle(self) -> None:
        """Collect what the step gave; notice the end."""
        for stream in self.streams:
            for event in stream.take():
                if isinstance(event, Final):
                    self.segments.append(event.segment)
                elif isinstance(event, Refined):
                    self.segments = refined(self.segments, event.segment)
        if self.error is not None or all(stream.done for stream in self.streams):
            self.close()

    def close(self) -> None:
        """Let go of the source."""
        self.over = True
        _close(self.chunks)

    def result(self) -> Transcript | RechkaError:
        """The text, or the error that stopped it."""
        if self.error is not None:
            return self.error
        return Transcript(
            segments=tuple(sorted(self.segments, key=lambda segment: (segment.start, segment.channel))),
            language=next((stream.language for stream in self.streams if stream.language), self.asr.language),
            model=self.asr.name,
            duration=max((stream.duration for stream in self.streams), default=0.0),
            truncated=self.source is not None and self.source.truncated,
        )


def refined(segments: Sequence[Segment], better: Segment) -> list[Segment]:
    """The segments with a ``Refined`` one in the place of that which began at the same time; gone if it is empty."""
    old = (better.channel, better.start)
    kept = [better if (segment.channel, segment.start) == old else segment for segment in segments]
    return [segment for segment in kept if segment is not better or better.text]


def _mixed(chunk: tuple[AudioChunk, ...], channels: Channels) -> tuple[AudioChunk, ...]:
    """The chunk as it is, or its channels averaged into one."""
    if channels == "split" or len(chunk) == 1:
        return chunk
    first = chunk[0]
    mean: F32 = np.stack([part.samples for part in chunk]).mean(axis=0, dtype=np.float32)
    return (AudioChunk(mean, first.sample_rate, first.start),)


def _close(chunks: Iterator[Any]) -> None:
    """End a generator now rather than when it is collected, so that its file is closed."""
    close = getattr(chunks, "close", None)
    if close is not None:
        close()


def _check_channels(channels: str) -> None:
    if channels not in ("mix", "split"):
        raise UsageError(f"channels must be mix or split, got {channels!r}")


def _without_index(progress: Progress) -> Callable[[int, float, float | None], None]:
    return lambda _, done, total: progress(done, total)
