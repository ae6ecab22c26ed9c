"""Recognisers for models without text: phrases that get labels, and encoders that are only asked for embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol, cast

from rechka.errors import IncompatibleParts, UsageError
from rechka.options import SegmenterOptions
from rechka.protocols import Labeller
from rechka.recognizers.blocks import BlockRecognizer
from rechka.recognizers.phrase_walk import Note, Noted, WalkState
from rechka.recognizers.stream import Stream
from rechka.segmentation.vad import Vad
from rechka.types import Event, Final, ModelSpec, Segment, State


class LabelModel(Labeller, Protocol):
    """A labelling model: also tells its sample rate and longest input."""

    @property
    def spec(self) -> ModelSpec:
        """What the outside must know."""
        ...


@dataclass(frozen=True, slots=True)
class LabelProgress:
    """How far a stream has come. A value."""

    vad: State
    walk: WalkState


class LabelRecognizer(BlockRecognizer):
    """Streams in, events out: every phrase becomes a ``Final`` without text whose segment has the model's labels.

    Phrases are cut as ``PhraseRecognizer`` cuts them; there are no partials, and hotwords mean nothing.

    Args:
        model: labels whole phrases.
        vad: evidence, at the model's sample rate.
        segmenter_options: where phrases end.
        max_chunks: blocks of a tenth of a second that a step takes of one stream at most.

    Raises:
        IncompatibleParts: a VAD of another sample rate.
    """

    def __init__(
        self, model: LabelModel, vad: Vad, segmenter_options: SegmenterOptions | None = None, *, max_chunks: int = 320
    ) -> None:
        self.model = model
        super().__init__(model.spec, vad, segmenter_options, partial_s=1.0, max_chunks=max_chunks)

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

        Raises:
            UsageError: hotwords.
        """
        if hotwords:
            raise UsageError("the model gives labels, no text, so it takes no hotwords")
        progress = LabelProgress(self.vad.initial_state(), WalkState(self.segmenter.initial_state()))
        return Stream(
            self.spec,
            progress=progress,
            decoder=cast(Any, None),  # nothing is decoded
            channel=channel,
            speaker=speaker,
            partials=False,
            limit_s=limit_s,
            segmenter=self.segmenter.with_pause(min_silence_s, self.windows),
            drive=drive,
        )

    def step(self, streams: Sequence[Stream]) -> None:
        """Some audio of each of the ready streams. If anything raises, no stream has changed."""
        ready = [stream for stream in streams if self.ready(stream)]
        portions, states, walks = self._walked(ready)
        labels = iter(self.model.labels([note.audio for walk in walks for note in walk.requests]))
        told = [
            [self._event(note, labels, stream) for note in walk.notes]
            for stream, walk in zip(ready, walks, strict=True)
        ]
        for stream, (audio, last), walk, state, events in zip(ready, portions, walks, states, told, strict=True):
            stream.progress = LabelProgress(state, walk.result())
            stream.inbox.drop(len(audio))
            stream.outbox.extend(events)
            stream.done = last

    def _event(self, note: Noted, labels: Iterator[dict[str, Any]], stream: Stream) -> Event:
        if not isinstance(note, Note):
            return replace(note, channel=stream.channel)
        segment = Segment("", note.start, max(note.start, note.end), (), stream.speaker, stream.channel, next(labels))
        return Final(segment)


class EmbeddingRecognizer:
    """Stands in for a recogniser where the model gives embeddings only: opening a stream says so.

    Args:
        model: an ``Embedder`` with a ``spec``.
    """

    max_chunks = 1

    def __init__(self, model: Any) -> None:
        self.model = model
        self.spec: ModelSpec = model.spec

    def open(self, **_: Any) -> NoReturn:
        """There is nothing to recognise.

        Raises:
            IncompatibleParts: always.
        """
        raise IncompatibleParts(
            "the model gives embeddings, no text", remedy="call embed(), or load a ctc or rnnt model to transcribe"
        )

    def pending(self, stream: Stream) -> int:
        """Nothing ever waits."""
        return 0

    def ready(self, stream: Stream) -> bool:
        """Never."""
        return False

    def step(self, streams: Sequence[Stream]) -> None:
        """Nothing to do: there are no streams."""

    def run(self, streams: Sequence[Stream]) -> None:
        """Nothing to do: there are no streams."""
