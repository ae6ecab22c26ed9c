"""A session's audio between the event loop, which brings bytes, and the worker, which decodes, resamples and steps.

The loop only counts; G.711, resampling and everything else that costs time happens in the worker. One lock guards the
queue between the two; all the rest belongs to one side.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from rechka.audio.pcm import PcmDecoder
from rechka.engine.options import SessionOptions
from rechka.recognizers import Stream, StreamRecognizer
from rechka.recognizers.stream import as_samples
from rechka.types import F32, Event, Final, Partial, Refined, SpeechEnd, SpeechStart

QUANTUM_S = 0.1
"""Audio that is worth a step of a model that reads whole phrases."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything before ``time`` seconds is recognised, open phrases included: the answer to ``Session.flush``."""

    time: float


SessionEvent: TypeAlias = Event | Flushed


@dataclass(frozen=True, slots=True)
class _Audio:
    data: bytes | F32
    channel: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Mark:
    last: bool


@dataclass(slots=True)
class Report:
    """What a step brought: events in order, seconds done of each channel, and whether the session is over."""

    events: list[SessionEvent] = field(default_factory=list)
    done_s: tuple[float, ...] = ()
    over: bool = False
    error: Exception | None = None


class Float32Decoder:
    """Packets of 32-bit little-endian floats in [-1, 1]; an incomplete one waits for the next packet."""

    width = 4

    def __init__(self) -> None:
        self._rest = b""

    def push(self, data: bytes) -> F32:
        """(n,) samples that these bytes complete.

        Raises:
            BadSamples: values that are no audio.
        """
        data = self._rest + bytes(data)
        whole = len(data) - len(data) % 4
        self._rest = data[whole:]
        return as_samples(np.frombuffer(data[:whole], dtype="<f4"))


class Intake:
    """Audio of one session on its way into its streams.

    Args:
        recognizer: opens and steps the streams.
        options: of the session.
    """

    def __init__(self, recognizer: StreamRecognizer, options: SessionOptions) -> None:
        self.options = options
        self.rate = options.sample_rate or recognizer.spec.sample_rate
        self.streams: list[Stream] = []
        self._recognizer = recognizer
        self._num = 1 if options.mix else options.channels
        self._offsets = [options.start_s] * self._num
        self._queue: deque[_Audio | _Mark] = deque()
        self._marks = 0
        self._queued_s = [0.0] * self._num
        spec = recognizer.spec
        first = QUANTUM_S if spec.chunk is None else max(0, spec.chunk - spec.pad) / spec.sample_rate
        self._missing_s = [first] * self._num
        self._left = False
        self._ending: _Mark | None = None
        self._over = False
        self._held = False
        self._lock = threading.Lock()
        self._decoders = [self._decoder() for _ in range(1 if options.interleaved else options.channels)]
        self._rest: F32 = np.zeros(0, np.float32)
        self._open()

    # The loop's side

    def push(self, data: bytes | F32, channel: int | None, seconds: float) -> None:
        """Queue a packet."""
        with self._lock:
            self._queue.append(_Audio(data, channel, seconds))
            for i in range(self._num) if channel is None or self.options.mix else (channel,):
                self._queued_s[i] += seconds

    def mark(self, *, last: bool) -> None:
        """Queue a flush, or the end."""
        with self._lock:
            self._queue.append(_Mark(last))
            self._marks += 1

    def hold(self, held: bool) -> None:
        """While held nothing is stepped: nobody takes the events."""
        self._held = held

    @property
    def worth(self) -> bool:
        """Whether a step would make progress, as far as both sides can tell."""
        if self._held or self._over:
            return False
        with self._lock:
            return (
                self._left
                or self._marks > 0
                or any(
                    queued > 0 and queued >= missing
                    for queued, missing in zip(self._queued_s, self._missing_s, strict=True)
                )
            )

    def clear(self) -> None:
        """Forget everything; called when no worker holds the session."""
        with self._lock:
            self._queue.clear()
            self._marks = 0
            self._over = True
        self.streams = []

    # The worker's side

    def ingest(self) -> list[Stream]:
        """Feed what is queued, up to the next flush or the end; the streams that are ready then.

        Raises:
            BadSamples: values that are no audio.
        """
        while self._ending is None:
            with self._lock:
                if not self._queue:
                    break
                item = self._queue.popleft()
                if isinstance(item, _Audio):
                    for i in range(self._num) if item.channel is None or self.options.mix else (item.channel,):
                        # Sums of floats: what is queued is exactly nothing when the queue is empty.
                        self._queued_s[i] = self._queued_s[i] - item.seconds if self._queue else 0.0
            if isinstance(item, _Mark):
                self._ending = item
                with self._lock:
                    self._marks -= 1
                for stream in self.streams:
                    stream.finish()
            else:
                self._feed(item)
        return [stream for stream in self.streams if self._recognizer.ready(stream)]

    def collect(self) -> Report:
        """The events of the last step, times counted from the session's beginning."""
        if self._over:  # offered once more while the worker that ended it had it
            return Report(over=True)
        events: list[SessionEvent] = [
            shifted(event, offset)
            for stream, offset in zip(self.streams, self._offsets, strict=True)
            for event in stream.take()
        ]
        if self._ending is not None and all(stream.done for stream in self.streams):
            self._offsets = [o + s.duration for o, s in zip(self._offsets, self.streams, strict=True)]
            if self._ending.last:
                self._over = True
                self.streams = []
            else:
                events.append(Flushed(max(self._offsets)))
                self._open()
            self._ending = None
        self._missing_s = [self._missing(stream) for stream in self.streams]
        self._left = any(self._recognizer.ready(stream) for stream in self.streams)
        return Report(events, self._done(), self._over)

    def _open(self) -> None:
        options = self.options
        self.streams = [
            self._recognizer.open(
                hotwords=options.hotwords or None,
                channel=channel,
                speaker=str(channel + 1) if self._num > 1 else None,
                partials=options.partials,
                min_silence_s=options.min_silence_s,
                limit_s=None,  # Session.feed keeps the limit
            )
            for channel in range(self._num)
        ]

    def _decoder(self) -> PcmDecoder | Float32Decoder:
        return Float32Decoder() if self.options.encoding == "f32le" else PcmDecoder(self.options.encoding)

    def _feed(self, item: _Audio) -> None:
        if item.channel is not None:
            self.streams[item.channel].feed(self._samples(item.data, self._decoders[item.channel]), self.rate)
            return
        samples = self._samples(item.data, self._decoders[0])
        if self.options.channels > 1:
            samples = np.concatenate([self._rest, samples])
            whole = len(samples) - len(samples) % self.options.channels
            self._rest = samples[whole:].copy()
            table = samples[:whole].reshape(-1, self.options.channels)
            columns = [table.mean(axis=1, dtype=np.float32)] if self.options.mix else list(table.T)
        else:
            columns = [samples]
        for stream, column in zip(self.streams, columns, strict=True):
            stream.feed(column, self.rate)

    @staticmethod
    def _samples(data: bytes | F32, decoder: PcmDecoder | Float32Decoder) -> F32:
        return decoder.push(data) if isinstance(data, bytes) else as_samples(data)

    def _missing(self, stream: Stream) -> float:
        chunk = stream.spec.chunk
        if chunk is None:
            return QUANTUM_S
        return max(0, chunk - len(stream.inbox)) / stream.spec.sample_rate

    def _done(self) -> tuple[float, ...]:
        if not self.streams:
            return tuple(self._offsets)
        return tuple(
            offset + max(0.0, stream.duration - len(stream.inbox) / stream.spec.sample_rate)
            for stream, offset in zip(self.streams, self._offsets, strict=True)
        )


def shifted(event: Event, seconds: float) -> Event:
    """The event ``seconds`` later."""
    if not seconds:
        return event
    if isinstance(event, (SpeechStart, SpeechEnd)):
        return replace(event, time=event.time + seconds)
    if isinstance(event, Partial):
        return replace(event, start=event.start + seconds)
    segment = event.segment
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    segment = replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)
    return Final(segment) if isinstance(event, Final) else Refined(segment)
