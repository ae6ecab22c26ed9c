"""The recogniser for models that read whole phrases: VAD, segmenter, model, decoder, for many streams.

A VAD on the audio is the evidence, the one ``Segmenter`` cuts, and every closed phrase is decoded whole. While a phrase
is open it can be decoded again and again (``agreement.py``), so that offline models show text live. A phrase that grows
too long is cut at its best pause; where there is none, both parts hear the audio around the cut (``joining.py``).

A step has three passes. The first walks over the new audio of each stream and notes what is to be decoded; the second
decodes the notes of all streams, in batches of phrases of about the same length; the third reads the results in order
and makes events. So phrases of many streams, or of one file, share the model's calls, and events depend on nothing but
the audio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rechka.errors import IncompatibleParts, UsageError
from rechka.options import SegmenterOptions
from rechka.protocols import AcousticModel, Decoder
from rechka.recognizers.blocks import BlockRecognizer
from rechka.recognizers.chunked import DecoderFactory
from rechka.recognizers.phrase import segment_of
from rechka.recognizers.phrase_walk import WalkState
from rechka.recognizers.stream import Stream
from rechka.recognizers.talk import Talk, Teller
from rechka.segmentation.vad import Vad
from rechka.timeline import Timeline
from rechka.types import F32, Event, Final, Frames, Hypothesis, Segment, State, Tokens


@dataclass(frozen=True, slots=True)
class PhraseProgress:
    """How far a stream has come. A value: a step that fails leaves the old one in place."""

    vad: State
    walk: WalkState
    talk: Talk


class PhraseRecognizer(BlockRecognizer):
    """Streams in, events out, for models that read whole phrases.

    A stream's events do not depend on how its audio was fed, on which other streams shared its steps, nor on how much
    audio a step took. Memory of a stream is bounded by the longest phrase. Thread-safe for distinct streams if model,
    decoder and VAD are.

    Args:
        model: a model with ``spec.chunk`` None. ``spec.pad`` is the silence that it wants around every phrase.
        decoder_factory: gives the decoder of a stream.
        vad: evidence, at the model's sample rate.
        segmenter_options: where phrases end.
        partial_s: an open phrase is decoded again after so many seconds of audio.
        max_chunks: blocks of a tenth of a second that a step takes of one stream at most.
        max_batch: phrases of one call of the model.
        calibration: of the words' confidence, see ``rechka.text.confidence``; None for the raw one.

    Raises:
        IncompatibleParts: parts that do not fit together.
        UsageError: ``partial_s`` that is not above zero.
    """

    def __init__(
        self,
        model: AcousticModel,
        decoder_factory: DecoderFactory,
        vad: Vad,
        segmenter_options: SegmenterOptions | None = None,
        *,
        partial_s: float = 0.8,
        max_chunks: int = 320,
        max_batch: int = 8,
        calibration: tuple[float, float] | None = None,
    ) -> None:
        if not partial_s > 0:
            raise UsageError(f"partial_s must be above 0, got {partial_s}", remedy="0.8 is the default")
        self.model = model
        self.tokens = _check(model)
        super().__init__(model.spec, vad, segmenter_options, partial_s=partial_s, max_chunks=max_chunks)
        self.timeline = Timeline.of(model.spec)
        self.decoder_factory = decoder_factory
        self.max_batch = max_batch
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
        walk = WalkState(self.segmenter.initial_state())
        return Stream(
            replace(self.spec, pad=0, lag=0),  # silence is put around phrases, not around streams
            progress=PhraseProgress(self.vad.initial_state(), walk, Talk()),
            decoder=self._decoder(hotwords),
            channel=channel,
            speaker=speaker,
            partials=partials,
            limit_s=limit_s,
            segmenter=self.segmenter.with_pause(min_silence_s, self.windows),
            drive=drive,
        )

    def step(self, streams: Sequence[Stream]) -> None:
        """Some audio of each of the ready streams. If anything raises, no stream has changed."""
        ready = [stream for stream in streams if self.ready(stream)]
        portions, states, walks = self._walked(ready)
        notes = [(stream.decoder, note) for stream, walk in zip(ready, walks, strict=True) for note in walk.requests]
        decoded = self._decode([note.audio for _, note in notes], [note.frame for _, note in notes], notes)
        results: list[tuple[Talk, list[Event]]] = []
        for stream, walk in zip(ready, walks, strict=True):
            hypotheses, decoded = decoded[: len(walk.requests)], decoded[len(walk.requests) :]
            teller = Teller(self.geometry, self.tokens, stream.progress.talk, self._segment, stream)
            results.append(teller.tell(walk.notes, hypotheses))
        for stream, (audio, last), walk, state, (talk, events) in zip(
            ready, portions, walks, states, results, strict=True
        ):
            stream.progress = PhraseProgress(state, walk.result(), talk)
            stream.inbox.drop(len(audio))
            stream.outbox.extend(events)
            stream.done = last

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        """Phrases that others have cut, each decoded as it is; times count from its own start.

        Args:
            phrases: each (n,) at the model's sample rate; one longer than ``geometry.longest`` goes through the VAD.
            hotwords: words or phrases to expect, with their boosts.
        Returns:
            A segment for each; its text is empty if nothing was recognised.
        """
        decoder = self._decoder(hotwords)
        short = [i for i, audio in enumerate(phrases) if 0 < len(audio) <= self.geometry.longest]
        notes = [(decoder, None)] * len(short)
        found = dict(zip(short, self._decode([phrases[i] for i in short], [0] * len(short), notes), strict=True))
        return [
            self._segment(found[i], 0.0, 0.0, len(audio) / self.spec.sample_rate)
            if i in found
            else self._read_long(audio, hotwords)
            for i, audio in enumerate(phrases)
        ]

    def _read_long(self, audio: F32, hotwords: Mapping[str, float] | None) -> Segment:
        """One text of all phrases that the VAD finds."""
        stream = self.open(hotwords=hotwords, partials=False, limit_s=None)
        stream.feed(audio)
        stream.finish()
        self.run([stream])
        segments = [event.segment for event in stream.take() if isinstance(event, Final)]
        words = tuple(word for segment in segments for word in segment.words)
        return Segment(" ".join(segment.text for segment in segments), 0.0, len(audio) / self.spec.sample_rate, words)

    def _decoder(self, hotwords: Mapping[str, float] | None) -> Decoder[Any]:
        decoder = self.decoder_factory(hotwords)
        if decoder.consumes is not self.spec.emits:
            raise IncompatibleParts(
                f"the model emits {self.spec.emits.__name__}, the decoder consumes {decoder.consumes.__name__}",
                remedy="choose a decoder of the model's kind in its card",
            )
        return decoder

    def _decode(
        self, audio: Sequence[F32], starts: Sequence[int], owners: Sequence[tuple[Decoder[Any], Any]]
    ) -> list[Hypothesis]:
        """The best hypothesis of each phrase; frames are absolute, ``starts`` being that of its first sample."""
        results: dict[int, Hypothesis] = {}
        order = sorted(range(len(audio)), key=lambda i: len(audio[i]))
        pad = np.zeros(self.spec.pad, dtype=np.float32)
        for first in range(0, len(order), self.max_batch):
            members = order[first : first + self.max_batch]
            out, _ = self.model.step(
                [np.concatenate([pad, audio[i], pad]) for i in members],
                [self.model.initial_state() for _ in members],
            )
            frames = dict(zip(members, self._checked(out), strict=True))
            groups: dict[int, list[int]] = {}
            for i in members:
                groups.setdefault(id(owners[i][0]), []).append(i)
            for group in groups.values():
                decoder = owners[group[0]][0]
                beams = decoder.advance(
                    [decoder.begin() for _ in group], [replace(frames[i], start=starts[i]) for i in group]
                )
                results.update((i, decoder.best(beam)) for i, beam in zip(group, beams, strict=True))
        return [results[i] for i in range(len(audio))]

    def _checked(self, frames: Sequence[Frames]) -> Sequence[Frames]:
        for piece in frames:
            if not isinstance(piece, self.spec.emits):
                raise IncompatibleParts(
                    f"the model gave {type(piece).__name__}, its spec says {self.spec.emits.__name__}",
                    remedy="its spec must tell what it really emits",
                )
        return frames

    def _segment(
        self, best: Hypothesis, start: float, end: float, limit: float, stream: Stream | None = None
    ) -> Segment:
        """A hypothesis as a Segment; its words lie between ``start`` and ``limit`` and may reach beyond ``end``."""
        channel, speaker = (0, None) if stream is None else (stream.channel, stream.speaker)
        segment = segment_of(
            best,
            self.tokens,
            self.timeline,
            start=start,
            end=limit,
            channel=channel,
            speaker=speaker,
            calibration=self.calibration,
        )
        if segment is None:
            return Segment("", start, end, (), speaker, channel)
        words = tuple(replace(w, start=max(w.start, start), end=max(w.end, start)) for w in segment.words)
        return replace(segment, words=words, end=max(end, words[-1].end) if words else end)


def _check(model: AcousticModel) -> Tokens:
    """The tokens of a model that this recogniser can run."""
    spec = model.spec
    if spec.chunk is not None:
        raise IncompatibleParts("the model reads chunks, not whole phrases", remedy="it needs ChunkRecognizer")
    if spec.tokens is None:
        raise IncompatibleParts("the model has no tokens, so nothing can be decoded", remedy="check the model's card")
    return spec.tokens
