"""The recogniser for models that read audio in chunks: model, evidence, segmenter, decoder, for many streams."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from rechka.errors import IncompatibleParts
from rechka.options import SegmenterOptions
from rechka.protocols import AcousticModel, Decoder, Evidence
from rechka.recognizers.listening import Listener, transducer_of
from rechka.recognizers.phrase import Phrase, segment_of
from rechka.recognizers.stream import Stream
from rechka.segmentation import (
    Action,
    BlankEvidence,
    Close,
    Cut,
    Feed,
    FrameOptions,
    Mark,
    Open,
    Segmenter,
    SegmenterState,
)
from rechka.timeline import Timeline
from rechka.types import F32, Encoded, Event, Final, Frames, LogProbs, ModelSpec, SpeechEnd, SpeechStart, State, Tokens

DecoderFactory: TypeAlias = Callable[[Mapping[str, float] | None], Decoder[Any]]
"""A decoder for the given hotwords (None: those of the model's options)."""

Asked: TypeAlias = "tuple[Decoder[Any], Any, Frames]"
Search: TypeAlias = Generator[Asked, Any, "tuple[Progress, list[Event]]"]
"""One stream's part of a step: asks for decoders' beams to be advanced over frames and is sent the new ones."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream has come. A value: a step that fails leaves the old one in place.

    Attributes:
        model: the model's state.
        segmenter: the segmenter's state.
        kept: (k, V) log-probs, or (k, D) encoder frames, that may still be decoded; bounded by the segmenter's options.
        kept_start: index of the first of them.
        phrase: the open phrase.
        listening: what the search that listens for speech has read; None where log-probs tell it.
    """

    model: State
    segmenter: SegmenterState
    kept: F32
    kept_start: int = 0
    phrase: Phrase | None = None
    listening: Any = None


@dataclass(frozen=True, slots=True)
class _Portion:
    """What one stream puts into a step: audio for the model (None: only the end to be told), and what that means."""

    audio: F32 | None
    dropped: int
    last: bool
    duration: float | None


class ChunkRecognizer:
    """Streams in, events out, for chunked models, CTC and transducers.

    A stream's events do not depend on how its audio was fed, on which other streams shared its steps, nor on how many
    chunks a step took. Thread-safe for distinct streams if the model and the decoder are.

    Args:
        model: a model with ``spec.chunk`` that emits ``LogProbs``, or ``Encoded`` for its ``transducer``.
        decoder_factory: gives the decoder of a stream.
        segmenter_options: where phrases end.
        evidence: speech probability per frame; by default what the model's blank and space leave, and for a transducer
            whether greedy search emits a token (``listening.Listener``).
        max_chunks: chunks of one stream that a step takes at most, when so many wait.
        calibration: of the words' confidence, see ``rechka.text.confidence``; None for the raw one.

    Raises:
        IncompatibleParts: parts that do not fit together.
    """

    def __init__(
        self,
        model: AcousticModel,
        decoder_factory: DecoderFactory,
        segmenter_options: SegmenterOptions | None = None,
        *,
        evidence: Evidence | None = None,
        max_chunks: int = 16,
        calibration: tuple[float, float] | None = None,
    ) -> None:
        self.model = model
        self.spec = model.spec
        self.chunk, self.shift, self.tokens = _check(model.spec)
        self.timeline = Timeline.of(model.spec)
        self.decoder_factory = decoder_factory
        self.segmenter = Segmenter(FrameOptions.of(segmenter_options or SegmenterOptions(), self.timeline))
        self.listener = None
        if evidence is None and model.spec.emits is Encoded:
            self.listener = Listener(transducer_of(model), self.tokens)
        self.evidence: Evidence = evidence or BlankEvidence(self.tokens)
        self.max_chunks = max_chunks
        self.calibration = calibration

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
        decoder = self.decoder_factory(hotwords)
        if decoder.consumes is not self.spec.emits:
            raise IncompatibleParts(
                f"the model emits {self.spec.emits.__name__}, the decoder consumes {decoder.consumes.__name__}",
                remedy="choose a decoder of the model's kind in its card",
            )
        listening = None if self.listener is None else self.listener.search.begin()
        progress = Progress(
            self.model.initial_state(),
            self.segmenter.initial_state(),
            np.zeros((0, 0), np.float32),
            listening=listening,
        )
        return Stream(
            self.spec,
            progress=progress,
            decoder=decoder,
            channel=channel,
            speaker=speaker,
            partials=partials,
            limit_s=limit_s,
            segmenter=self.segmenter.with_pause(min_silence_s, self.timeline),
            drive=drive,
        )

    def pending(self, stream: Stream) -> int:
        """Chunks that wait in a stream's inbox, the last of a finished stream counted as whole."""
        size, finished = stream.inbox.look()
        if finished:
            return -(-size // self.shift)
        return max(0, (size - self.chunk) // self.shift + 1)

    def ready(self, stream: Stream) -> bool:
        """True if ``step`` would make progress on it."""
        return not stream.done and (stream.finished or len(stream.inbox) >= self.chunk)

    def step(self, streams: Sequence[Stream]) -> None:
        """One model step for each of the ready streams. If anything raises, no stream has changed."""
        ready = [stream for stream in streams if self.ready(stream)]
        portions = [self._portion(stream) for stream in ready]
        heard = [i for i, portion in enumerate(portions) if portion.audio is not None]
        frames: dict[int, Frames] = {}
        states: dict[int, State] = {}
        if heard:
            audio = [samples for i in heard if (samples := portions[i].audio) is not None]
            out, new = self.model.step(audio, [ready[i].progress.model for i in heard])
            frames, states = dict(zip(heard, out, strict=True)), dict(zip(heard, new, strict=True))
        searches = [
            self._search(stream, portion, frames.get(i), states.get(i, stream.progress.model))
            for i, (stream, portion) in enumerate(zip(ready, portions, strict=True))
        ]
        results = _run(searches)
        for stream, portion, (progress, events) in zip(ready, portions, results, strict=True):
            stream.progress = progress
            stream.inbox.drop(portion.dropped)
            stream.outbox.extend(events)
            stream.done = portion.last

    def run(self, streams: Sequence[Stream]) -> None:
        """Steps until none of the streams is ready."""
        while any(self.ready(stream) for stream in streams):
            self.step(streams)

    def _portion(self, stream: Stream) -> _Portion:
        size, finished = stream.inbox.look()
        duration = stream.duration if finished else None
        if finished and size == 0:
            return _Portion(None, 0, True, duration)
        k = min(self.max_chunks, -(-size // self.shift) if finished else (size - self.chunk) // self.shift + 1)
        audio = stream.inbox.peek((k - 1) * self.shift + self.chunk)
        dropped = min(k * self.shift, size)
        return _Portion(audio, dropped, finished and dropped == size, duration)

    def _search(self, stream: Stream, portion: _Portion, frames: Frames | None, state: State) -> Search:
        """Evidence, segmenter and decoder over the frames of one stream."""
        work = _Work(self, stream, replace(stream.progress, model=state), portion.duration)
        if frames is not None:
            values = self._checked(frames, work.segmenter.frame, portion)
            # Partials come once per chunk, however many chunks the step took.
            size = self.shift // self.spec.hop if stream.partials else len(values)
            for first in range(0, len(values), size):
                yield from work.advance(values[first : first + size])
                if stream.partials:
                    work.show()
        if portion.last:
            yield from work.flush()
        return work.progress(), work.events

    def _checked(self, frames: Frames, start: int, portion: _Portion) -> F32:
        assert portion.audio is not None
        expected = ((len(portion.audio) - self.chunk) // self.shift + 1) * (self.shift // self.spec.hop)
        if not isinstance(frames, self.spec.emits) or (frames.start, len(frames)) != (start, expected):
            raise IncompatibleParts(
                f"the model gave {len(frames)} frames ({type(frames).__name__}) from frame {frames.start}, "
                f"expected {expected} frames ({self.spec.emits.__name__}) from frame {start}",
                remedy="its spec must tell the hop and the shift that it really has",
            )
        return frames.values


class _Work:
    """A stream's progress while a step is under way, unpacked; nothing of it is seen before the step has succeeded."""

    def __init__(self, recognizer: ChunkRecognizer, stream: Stream, progress: Progress, duration: float | None) -> None:
        self.recognizer = recognizer
        self.stream = stream
        self.before = progress
        self.segmenter = progress.segmenter
        self.kept, self.kept_start = progress.kept, progress.kept_start
        self.phrase = progress.phrase
        self.listening = progress.listening
        self.duration = duration
        self.events: list[Event] = []

    def progress(self) -> Progress:
        return Progress(
            self.before.model, self.segmenter, self.kept, self.kept_start, self.phrase, self.listening
        )  # fmt: skip

    def advance(self, values: F32) -> Generator[Asked, Any, None]:
        """Frames that follow the ones before."""
        piece = self.recognizer.spec.emits(values, self.segmenter.frame)
        listener = self.recognizer.listener
        if listener is None:
            speech = self.recognizer.evidence(piece)
        else:
            speech, self.listening = listener.told((yield listener.search, self.listening, piece), piece)
        actions, self.segmenter = self.stream.segmenter.step(self.segmenter, speech)
        self.kept = np.concatenate([self.kept, values]) if len(self.kept) else values
        yield from self._carry_out(actions)
        self.kept = self.kept[self.segmenter.keep - self.kept_start :]
        self.kept_start = self.segmenter.keep

    def flush(self) -> Generator[Asked, Any, None]:
        """The end of the audio."""
        actions, self.segmenter = self.stream.segmenter.flush(self.segmenter)
        yield from self._carry_out(actions)

    def show(self) -> None:
        """A Partial, if the open phrase reads otherwise than when it was last shown."""
        if self.phrase is not None:
            partial, self.phrase = self.phrase.partial(
                self.stream.decoder,
                self.recognizer.tokens,
                start=self._seconds(self.phrase.start),
                channel=self.stream.channel,
            )
            if partial is not None:
                self.events.append(partial)

    def _carry_out(self, actions: Sequence[Action]) -> Generator[Asked, Any, None]:
        channel = self.stream.channel
        glue: int | None = None
        for action in actions:
            if isinstance(action, Open):
                if self.phrase is None:
                    self.events.append(SpeechStart(self._seconds(action.start), channel))
                self.phrase, glue = Phrase(self.stream.decoder.begin(), action.start, glue=glue), None
                continue
            phrase = self.phrase
            assert phrase is not None, "the segmenter opens a phrase before it asks for anything else"
            if isinstance(action, Feed):
                first, last = action.start - self.kept_start, action.end - self.kept_start
                self.phrase = yield from self._feed(
                    phrase, self.recognizer.spec.emits(self.kept[first:last], action.start)
                )
            elif isinstance(action, Mark):
                self.phrase = phrase.marked(pause=action.pause)
            elif isinstance(action, Cut):
                glue = phrase.mark_last
                self._final(phrase.mark, action)
            else:
                self._final(phrase.beam, action)
                self.events.append(SpeechEnd(self._seconds(action.end), channel))
                self.phrase = None

    def _feed(self, phrase: Phrase, piece: Frames) -> Generator[Asked, Any, Phrase]:
        """The phrase with some frames more."""
        if not isinstance(piece, LogProbs):  # a token of a transducer is in one frame, and no cut goes through it
            return replace(phrase, beam=(yield self.stream.decoder, phrase.beam, piece))
        piece, phrase = phrase.unglued(piece)
        if not len(piece):
            return phrase
        beam = yield self.stream.decoder, phrase.beam, piece
        return replace(phrase, beam=beam, last=int(piece.values[-1].argmax()))

    def _final(self, beam: Any, span: Cut | Close) -> None:
        segment = segment_of(
            self.stream.decoder.best(beam),
            self.recognizer.tokens,
            self.recognizer.timeline,
            start=self._seconds(span.start),
            end=self._seconds(span.end),
            channel=self.stream.channel,
            speaker=self.stream.speaker,
            calibration=self.recognizer.calibration,
        )
        if segment is not None:
            self.events.append(Final(segment))

    def _seconds(self, frame: int) -> float:
        return self.recognizer.timeline.seconds(frame, end=self.duration)


def _run(searches: Sequence[Search]) -> list[tuple[Progress, list[Event]]]:
    """Carry out all searches side by side, so that each decoder advances the beams of its streams together."""
    results: dict[int, tuple[Progress, list[Event]]] = {}
    asked: dict[int, Asked] = {}

    def resume(i: int, beam: Any) -> None:
        try:
            asked[i] = searches[i].send(beam)
        except StopIteration as stop:
            results[i] = stop.value

    for i in range(len(searches)):
        resume(i, None)
    while asked:
        groups: dict[int, list[int]] = {}
        for i in asked:
            groups.setdefault(id(asked[i][0]), []).append(i)
        batch, asked = asked, {}
        for members in groups.values():
            decoder = batch[members[0]][0]
            beams = decoder.advance([batch[i][1] for i in members], [batch[i][2] for i in members])
            for i, beam in zip(members, beams, strict=True):
                resume(i, beam)
    return [results[i] for i in range(len(searches))]


def _check(spec: ModelSpec) -> tuple[int, int, Tokens]:
    """Chunk, shift and tokens of a model that this recogniser can run."""
    if spec.chunk is None or spec.shift is None:
        raise IncompatibleParts("the model reads whole phrases, not chunks", remedy="it needs another recogniser")
    if spec.tokens is None:
        raise IncompatibleParts("the model has no tokens, so nothing can be decoded", remedy="check the model's card")
    if not 0 < spec.shift <= spec.chunk or spec.shift % spec.hop:
        raise IncompatibleParts(
            f"the model's shift of {spec.shift} samples must be whole frames of {spec.hop} and not above its chunk "
            f"of {spec.chunk}"
        )
    return spec.chunk, spec.shift, spec.tokens
