"""What recognisers share that hear in blocks while a VAD cuts phrases: inboxes, blocks, walks over new audio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from rechka.errors import IncompatibleParts
from rechka.options import SegmenterOptions
from rechka.recognizers.phrase_walk import Geometry, Walk
from rechka.recognizers.stream import Stream
from rechka.segmentation import FrameOptions, Segmenter
from rechka.segmentation.vad import Vad
from rechka.timeline import Timeline
from rechka.types import F32, ModelSpec, State

PHRASED = SegmenterOptions(silence_threshold=0.7, min_silence_s=0.6, expand_s=0.2, max_phrase_s=22.0)
"""Where phrases end by default. Silero's own threshold is 0.5 (0.3 here, since a lost word costs more than a little
noise that is decoded for nothing); GigaAM was trained on pieces of up to 25 seconds."""

BLOCK_S = 0.1
"""Audio is taken in blocks of about this length."""


class BlockRecognizer(ABC):
    """Streams that are taken in blocks. Their progress has ``vad`` and ``walk``, the states of VAD and phrase cutting.

    Args:
        spec: of the model.
        vad: evidence, at the model's sample rate.
        segmenter_options: where phrases end; None for ``PHRASED``.
        partial_s: an open phrase is looked at again after so many seconds of audio.
        max_chunks: blocks that a step takes of one stream at most.

    Raises:
        IncompatibleParts: a VAD of another sample rate.
    """

    def __init__(
        self,
        spec: ModelSpec,
        vad: Vad,
        segmenter_options: SegmenterOptions | None,
        *,
        partial_s: float,
        max_chunks: int,
    ) -> None:
        if vad.sample_rate != spec.sample_rate:
            raise IncompatibleParts(
                f"the model hears {spec.sample_rate} Hz, the VAD {vad.sample_rate} Hz",
                remedy="make the VAD for the model's sample rate",
            )
        self.spec, self.vad = spec, vad
        self.windows = Timeline(vad.sample_rate, vad.window)
        options = FrameOptions.of(segmenter_options or PHRASED, self.windows)
        self.geometry, options = Geometry.of(spec, vad.window, options, partial_s)
        self.segmenter = Segmenter(options)
        self.block = vad.window * max(1, round(BLOCK_S * vad.sample_rate / vad.window))
        self.max_chunks = max_chunks

    @abstractmethod
    def step(self, streams: Sequence[Stream]) -> None:
        """Some audio of each of the ready streams. If anything raises, no stream has changed."""

    def pending(self, stream: Stream) -> int:
        """Blocks that wait in a stream's inbox, the last of a finished stream counted as whole."""
        size, finished = stream.inbox.look()
        return -(-size // self.block) if finished else size // self.block

    def ready(self, stream: Stream) -> bool:
        """True if ``step`` would make progress on it."""
        return not stream.done and (stream.finished or len(stream.inbox) >= self.block)

    def run(self, streams: Sequence[Stream]) -> None:
        """Steps until none of the streams is ready."""
        while any(self.ready(stream) for stream in streams):
            self.step(streams)

    def _portion(self, stream: Stream) -> tuple[F32, bool]:
        """The audio of the next step, and whether it is the last."""
        size, finished = stream.inbox.look()
        most = self.max_chunks * self.block
        take = min(size, most) if finished else min(size // self.block * self.block, most)
        return stream.inbox.peek(take), finished and take == size

    def _walked(self, ready: Sequence[Stream]) -> tuple[list[tuple[F32, bool]], Sequence[State], list[Walk]]:
        """The next audio of streams (and whether it is the last), the VAD's states after it, and what is to be done."""
        portions = [self._portion(stream) for stream in ready]
        silence = np.zeros(self.vad.window - 1, np.float32)  # so that the last window is heard
        heard, states = self.vad.step(
            [np.concatenate([audio, silence]) if last else audio for audio, last in portions],
            [stream.progress.vad for stream in ready],
        )
        walks = []
        for stream, (audio, last), probabilities in zip(ready, portions, heard, strict=True):
            walk = Walk(stream.segmenter, self.geometry, stream.progress.walk, partials=stream.partials)
            walk.hear(audio, probabilities, last=last)
            walks.append(walk)
        return portions, states, walks
