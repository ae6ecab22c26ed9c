"""Two passes: a streaming model shows text at once, an offline model refines every closed phrase.

The first recogniser's events pass through unchanged. After each ``Final`` the audio of that phrase goes to the second
model, and if the witness rules (``witness.py``) let its text stand, a ``Refined`` event follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rechka.recognizers.asr import Asr
from rechka.recognizers.assemble import make_vad
from rechka.recognizers.chunked import ChunkRecognizer
from rechka.recognizers.face import StreamRecognizer
from rechka.recognizers.phrased import PhraseRecognizer
from rechka.recognizers.stream import PIECE_S, Inbox, Stream, as_samples
from rechka.recognizers.whole import WholePhrases
from rechka.recognizers.witness import judge
from rechka.types import F32, Event, Final, ModelSpec, Refined, Segment, SpeechEnd, SpeechStart, Word

if TYPE_CHECKING:
    from rechka.audio.resample import Resampler

CONTEXT_S = 0.3
"""Silence around a phrase that the second model hears too. Phrases end with a pause of 0.6 seconds."""
MARGIN_S = 5.0
"""Audio kept before the place that the first pass has reached; a phrase may begin there that was not told yet."""
KEPT_S = 150.0
"""Audio kept of an open phrase at most; the first pass cuts phrases after a minute."""


class PhraseReader(Protocol):
    """What the second pass asks of a recogniser."""

    @property
    def spec(self) -> ModelSpec:
        """Of its model; only the sample rate matters here."""
        ...

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        """Each phrase as a segment with times from its own start; an empty text if nothing was recognised."""
        ...


class StreamReader:
    """Any recogniser as a ``PhraseReader``: each phrase is a stream of its own.

    Args:
        recognizer: with its own idea of where phrases end; what it finds in a phrase is joined.
    """

    def __init__(self, recognizer: StreamRecognizer) -> None:
        self.recognizer = recognizer
        self.spec = recognizer.spec

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        """See ``PhraseReader``."""
        streams = []
        for audio in phrases:
            stream = self.recognizer.open(hotwords=hotwords, partials=False, limit_s=None)
            stream.feed(audio)
            stream.finish()
            streams.append(stream)
        self.recognizer.run(streams)
        return [self._joined(stream) for stream in streams]

    @staticmethod
    def _joined(stream: Stream) -> Segment:
        segments = [event.segment for event in stream.take() if isinstance(event, Final)]
        words = tuple(word for segment in segments for word in segment.words)
        return Segment(" ".join(segment.text for segment in segments), 0.0, stream.duration, words)


def as_reader(recognizer: Any) -> PhraseReader:
    """The second pass of a recogniser: itself if it can read phrases; a chunked model reads each phrase as a whole."""
    if isinstance(recognizer, ChunkRecognizer):
        vad = make_vad("energy", recognizer.spec.sample_rate)  # only for phrases beyond all limits
        return PhraseRecognizer(
            WholePhrases(recognizer.model), recognizer.decoder_factory, vad, calibration=recognizer.calibration
        )
    if hasattr(recognizer, "read"):
        reader: PhraseReader = recognizer
        return reader
    return StreamReader(recognizer)


@dataclass
class Second:
    """What the second pass keeps of a stream: events that wait for it, and the audio that they may need.

    Attributes:
        audio: at the second model's rate, from sample ``start`` on.
        queue: events of the first pass that were not told yet, the first of which may be a told Final to be refined.
        told: the first of the queue was told.
        open_s: where the open phrase begins, None outside of phrases.
        after_cut: the phrase before ended without a pause.
    """

    audio: Inbox = field(default_factory=Inbox)
    start: int = 0
    queue: deque[Event] = field(default_factory=deque)
    told: bool = False
    open_s: float | None = None
    after_cut: bool = False


class TwoPassStream(Stream):
    """A stream that two recognisers hear: the first one's inbox, and a copy of the audio for the second.

    Args:
        first: the first recogniser's stream, without a drive.
        rate: of the second model.
        hotwords: for the second pass.
        drive: see ``Stream``.
    """

    def __init__(
        self,
        first: Stream,
        rate: int,
        *,
        hotwords: Mapping[str, float] | None = None,
        drive: Callable[[Stream], None] | None = None,
    ) -> None:
        super().__init__(
            first.spec, progress=Second(), decoder=first.decoder, channel=first.channel, speaker=first.speaker,
            partials=first.partials, limit_s=None, drive=drive,
        )  # fmt: skip
        self.first = first
        self.hotwords = hotwords
        self.inbox = first.inbox
        self.limit = first.limit
        self.second_rate = rate
        self._tap: Resampler | None = None

    def feed(self, samples: NDArray[Any] | Sequence[float], sample_rate: int | None = None) -> None:
        """See ``Stream.feed``."""
        audio = as_samples(samples)
        rate = sample_rate or self.spec.sample_rate
        piece = len(audio) if self._drive is None else max(1, round(PIECE_S * rate))
        for start in range(0, len(audio) or 1, piece or 1):
            part = audio[start : start + piece]
            self.first.feed(part, rate)  # raises before anything is taken
            self.num_samples = self.first.num_samples
            if self._tap is None and len(part):
                from rechka.audio.resample import Resampler

                self._tap = Resampler(rate, self.second_rate)
            if self._tap is not None:
                self.progress.audio.push(self._tap.push(part))
            if self._drive is not None:
                self._drive(self)

    def finish(self) -> None:
        """See ``Stream.finish``."""
        if self.finished:
            return
        # The copy is closed first, so that whoever sees the end of one sees the end of the other.
        rest = np.zeros(0, dtype=np.float32) if self._tap is None else self._tap.flush()
        self.progress.audio.close(rest)
        self.first.finish()
        self.num_samples, self.done = self.first.num_samples, self.first.done
        if self._drive is not None:
            self._drive(self)


class TwoPassRecognizer:
    """Streams in, events out: those of the first recogniser, and ``Refined`` where the second knows better.

    Events do not depend on how the audio was fed nor on the batch. A step that fails in the first pass has changed
    nothing; one that fails in the second has told what the first pass found, and tries the same phrases again.

    Args:
        first: streaming; its segmenter decides where phrases end.
        second: reads closed phrases.
        name: of the second model, for the label ``refined_by``.
    """

    def __init__(self, first: StreamRecognizer, second: PhraseReader, *, name: str = "second") -> None:
        self.first = first
        self.second = second
        self.name = name
        self.spec = first.spec
        self.max_chunks = first.max_chunks

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
        """A new stream; see ``Stream`` for the arguments."""
        first = self.first.open(
            hotwords=hotwords,
            channel=channel,
            speaker=speaker,
            partials=partials,
            limit_s=None if drive is not None else limit_s,
            min_silence_s=min_silence_s,
        )
        return TwoPassStream(first, self.second.spec.sample_rate, hotwords=hotwords, drive=drive)

    def pending(self, stream: Stream) -> int:
        """Chunks that wait for the first pass."""
        return self.first.pending(_two(stream).first)

    def ready(self, stream: Stream) -> bool:
        """True if ``step`` would make progress on it."""
        return not stream.done and (self.first.ready(_two(stream).first) or self._wanted(_two(stream)) is not None)

    def step(self, streams: Sequence[Stream]) -> None:
        """One step of the first pass for each of the ready streams, then the second pass for what it closed."""
        ready = [_two(stream) for stream in streams if self.ready(stream)]
        self.first.step([stream.first for stream in ready])
        for stream in ready:
            stream.progress.queue.extend(stream.first.take())
            self._tell(stream)
        while wanted := [(stream, audio) for stream in ready if (audio := self._wanted(stream)) is not None]:
            self._refine(wanted)
        for stream in ready:
            self._forget(stream)
            stream.done = stream.first.done and not stream.progress.queue

    def run(self, streams: Sequence[Stream]) -> None:
        """Steps until none of the streams is ready."""
        while any(self.ready(stream) for stream in streams):
            self.step(streams)

    def _tell(self, stream: TwoPassStream) -> None:
        """Events as far as the first Final that is not refined; that one is told and stays in the queue."""
        state: Second = stream.progress
        while state.queue and not state.told:
            event = state.queue[0]
            stream.outbox.append(event)
            if isinstance(event, Final):
                state.told = True
                return
            state.queue.popleft()
            if isinstance(event, SpeechStart):
                state.open_s = event.time
            elif isinstance(event, SpeechEnd):
                state.open_s, state.after_cut = None, False

    def _wanted(self, stream: TwoPassStream) -> tuple[F32, float] | None:
        """The audio of the phrase that is to be refined and its first second; None if there is none, or not all yet."""
        state: Second = stream.progress
        if not state.told:
            return None
        event = state.queue[0]
        assert isinstance(event, Final)
        rate = stream.second_rate
        closed = len(state.queue) > 1 and isinstance(state.queue[1], SpeechEnd)
        begin = event.segment.start - (0.0 if state.after_cut else CONTEXT_S)
        first = max(state.start, round(begin * rate), 0)
        last = round((event.segment.end + (CONTEXT_S if closed else 0.0)) * rate)
        size, finished = state.audio.look()
        if state.start + size < last and not finished:
            return None
        return state.audio.peek(max(0, min(last - state.start, size)))[first - state.start :], first / rate

    def _refine(self, wanted: Sequence[tuple[TwoPassStream, tuple[F32, float]]]) -> None:
        """One phrase of each stream; hotwords divide them into calls."""
        groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
        for i, (stream, _) in enumerate(wanted):
            groups.setdefault(tuple((stream.hotwords or {}).items()), []).append(i)
        for hotwords, members in groups.items():
            read = self.second.read([wanted[i][1][0] for i in members], hotwords=dict(hotwords) or None)
            for i, segment in zip(members, read, strict=True):
                stream, (_, begin) = wanted[i]
                self._settle(stream, segment, begin)

    def _settle(self, stream: TwoPassStream, second: Segment, begin: float) -> None:
        """The phrase is refined; go on with what came after it."""
        state: Second = stream.progress
        event = state.queue.popleft()
        assert isinstance(event, Final)
        first = event.segment
        better = judge(first.words, _moved(second.words, begin, first)).segment(first, self.name)
        if better is not None:
            stream.outbox.append(Refined(better))
        state.told = False
        state.open_s, state.after_cut = first.end, True  # until the end of speech is told
        self._tell(stream)

    def _forget(self, stream: TwoPassStream) -> None:
        """Let go of audio that no phrase can need."""
        state: Second = stream.progress
        reached = (stream.num_samples - len(stream.inbox)) / stream.spec.sample_rate - MARGIN_S
        since = [reached] if state.open_s is None else [max(min(reached, state.open_s), reached - KEPT_S)]
        since += [event.segment.start for event in state.queue if isinstance(event, Final)]
        since += [event.time for event in state.queue if isinstance(event, SpeechStart)]
        first = round((min(since) - CONTEXT_S) * stream.second_rate)
        size = min(max(0, first - state.start), len(state.audio))
        state.audio.drop(size)
        state.start += size


def two_pass(first: Asr, second: Asr) -> Asr:
    """Recognition with ``first``, every phrase refined with ``second``."""
    recognizer = TwoPassRecognizer(first.recognizer, as_reader(second.recognizer), name=second.name)
    asr = Asr(recognizer, name=f"{first.name}+{second.name}", language=first.language)
    asr.note = first.note
    return asr


def _two(stream: Stream) -> TwoPassStream:
    assert isinstance(stream, TwoPassStream), "a stream is stepped by the recogniser that opened it"
    return stream


def _moved(words: Sequence[Word], begin: float, phrase: Segment) -> list[Word]:
    """The words on the clock of the stream, within the times of the phrase."""

    def clip(time: float) -> float:
        return min(max(time + begin, phrase.start), phrase.end)

    return [replace(word, start=clip(word.start), end=clip(word.end)) for word in words]
