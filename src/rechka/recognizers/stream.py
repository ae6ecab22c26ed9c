"""One audio on its way through a recogniser: samples in at one end, events out at the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadSamples, StreamClosed, StreamFull, UsageError
from rechka.types import F32, Event, ModelSpec

if TYPE_CHECKING:
    from rechka.audio.resample import Resampler
    from rechka.protocols import Decoder
    from rechka.segmentation import Segmenter

PIECE_S = 30.0
"""Samples pass a resampler and a bounded inbox in pieces of at most this length."""


class Inbox:
    """Samples that wait for a step. One thread may push and close while another looks, peeks and drops."""

    def __init__(self) -> None:
        self.closed = False
        self._pieces: deque[F32] = deque()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._size

    def push(self, samples: F32) -> None:
        """Append; the array must not be changed afterwards."""
        if len(samples):
            with self._lock:
                self._pieces.append(samples)
                self._size += len(samples)

    def close(self, samples: F32) -> None:
        """Append the last samples; nothing is pushed afterwards."""
        with self._lock:
            self._pieces.append(samples)
            self._size += len(samples)
            self.closed = True

    def look(self) -> tuple[int, bool]:
        """How many samples wait, and whether these are the last."""
        with self._lock:
            return self._size, self.closed

    def peek(self, size: int) -> F32:
        """The first ``size`` samples, zeros where there are fewer."""
        out = np.zeros(size, dtype=np.float32)
        filled = 0
        with self._lock:
            for piece in self._pieces:
                part = piece[: size - filled]
                out[filled : filled + len(part)] = part
                filled += len(part)
                if filled == size:
                    break
        return out

    def drop(self, size: int) -> None:
        """Forget the first ``size`` samples."""
        with self._lock:
            self._size -= size
            while size and size >= len(self._pieces[0]):
                size -= len(self._pieces.popleft())
            if size:
                self._pieces[0] = self._pieces[0][size:]


class Stream:
    """The state of one audio: inbox, progress, outbox. Made by a recogniser's ``open``.

    Feed audio in packets of any size, at any rate; padding, chunks and lag are taken care of. One thread may feed,
    finish and take while another steps; a stream has no other protection against sharing.

    Args:
        spec: of the model.
        progress: the recogniser's values for this stream; opaque to everyone else.
        decoder: searches this stream's phrases.
        channel: number that its events carry.
        speaker: name that its segments carry.
        partials: whether ``Partial`` events are wanted.
        limit_s: seconds of audio that the inbox holds; None for no limit.
        segmenter: cuts this stream's phrases, where the recogniser cuts any.
        drive: called after each piece of audio, to run the steps at once; None if others run them.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        progress: Any,
        decoder: Decoder[Any],
        channel: int = 0,
        speaker: str | None = None,
        partials: bool = True,
        limit_s: float | None = PIECE_S,
        segmenter: Segmenter | None = None,
        drive: Callable[[Stream], None] | None = None,
    ) -> None:
        self.spec = spec
        self.progress = progress
        self.decoder = decoder
        self.channel = channel
        self.speaker = speaker
        self._segmenter = segmenter
        self.partials = partials
        self.limit = None if limit_s is None else max(round(limit_s * spec.sample_rate), spec.chunk or 0)
        self.inbox = Inbox()
        self.outbox: deque[Event] = deque()
        self.num_samples = 0
        self.done = False
        self.language: str | None = None
        """Told by a recogniser that finds out which language is spoken."""
        self._drive = drive
        self._resampler: Resampler | None = None
        self._rate = 0

    @property
    def segmenter(self) -> Segmenter:
        """Cuts this stream's phrases."""
        assert self._segmenter is not None, "a recogniser that cuts phrases opens its streams with a segmenter"
        return self._segmenter

    @property
    def finished(self) -> bool:
        """True after ``finish``."""
        return self.inbox.closed

    @property
    def duration(self) -> float:
        """Seconds of audio fed so far, padding not counted."""
        return self.num_samples / self.spec.sample_rate

    @property
    def room(self) -> int | None:
        """Samples at the model's rate that the inbox takes now; None if it has no limit."""
        return None if self.limit is None else max(0, self.limit - len(self.inbox))

    def feed(self, samples: NDArray[Any] | Sequence[float], sample_rate: int | None = None) -> None:
        """Add audio.

        Args:
            samples: (n,) float in [-1, 1] or int16, any n.
            sample_rate: of the samples, the same in every call; None for the model's own.

        Raises:
            StreamClosed: after ``finish``.
            StreamFull: more than the inbox has room for, and nobody runs the steps; nothing was taken.
            BadSamples: another type or shape, or values that are no audio; nothing was taken.
            UsageError: another sample rate than before; nothing was taken.
        """
        if self.finished:
            raise StreamClosed("audio came after finish()", remedy="open a new stream")
        audio = as_samples(samples)
        rate = sample_rate or self.spec.sample_rate
        if self._rate not in (0, rate):
            raise UsageError(
                f"the stream began at {self._rate} Hz, now audio of {rate} Hz came",
                remedy="open a stream for each rate",
            )
        if self._drive is None and self.limit is not None:
            self._check_room(len(audio) * self.spec.sample_rate / rate)
        self._set_rate(rate)
        piece = max(1, round(PIECE_S * rate))
        for start in range(0, len(audio), piece):
            part = audio[start : start + piece]
            self._push(part if self._resampler is None else self._resampler.push(part))

    def finish(self) -> None:
        """No more audio will come; what was fed is recognised to its end. A second call does nothing."""
        if self.finished:
            return
        if self._resampler is not None:
            self._push(self._resampler.flush())
        # As much silence as the model wants behind the audio, and enough for its last letters to come out.
        self.done = self.num_samples == 0
        behind = 0 if self.done else max(self.spec.pad, self.spec.lag, self.spec.tail)
        self.inbox.close(np.zeros(behind, dtype=np.float32))
        if self._drive is not None:
            self._drive(self)

    def take(self) -> list[Event]:
        """The events since the last call, oldest first."""
        events = []
        while self.outbox:
            events.append(self.outbox.popleft())
        return events

    def _check_room(self, size: float) -> None:
        room = self.room or 0
        if size > room + 1:
            raise StreamFull(
                f"the inbox has room for {room / self.spec.sample_rate:.2f} s of audio, "
                f"got {size / self.spec.sample_rate:.2f} s",
                remedy="run the recogniser's step before feeding more, or feed smaller packets",
            )

    def _set_rate(self, rate: int) -> None:
        if self._rate == 0 and rate != self.spec.sample_rate:
            from rechka.audio.resample import Resampler

            self._resampler = Resampler(rate, self.spec.sample_rate)
        self._rate = rate

    def _push(self, samples: F32) -> None:
        if len(samples):
            if self.num_samples == 0:
                self.inbox.push(np.zeros(self.spec.pad, dtype=np.float32))
            self.num_samples += len(samples)
            self.inbox.push(samples)
            if self._drive is not None:
                self._drive(self)


LARGEST = 8.0
"""Float samples beyond this are taken for integers that were not scaled; resampling overshoots 1 by little."""


def as_samples(samples: NDArray[Any] | Sequence[float]) -> F32:
    """Mono float32 in [-1, 1], a copy, from floats in [-1, 1] or int16.

    Raises:
        BadSamples: another type or shape, or values that are not finite or far outside of [-1, 1].
    """
    array = np.asarray(samples)
    if array.ndim != 1:
        raise BadSamples(
            f"samples must be mono, shape (n,), got shape {array.shape}", remedy="open one stream for each channel"
        )
    if array.dtype == np.int16:
        return array.astype(np.float32) / np.float32(32768.0)
    if array.size == 0:
        return np.zeros(0, dtype=np.float32)
    if not np.issubdtype(array.dtype, np.floating):
        raise BadSamples(
            f"samples must be float or int16, got {array.dtype}", remedy="convert them to float32 in [-1, 1]"
        )
    out = array.astype(np.float32)
    peak = float(np.abs(out).max())
    if not peak <= LARGEST:  # also true for NaN
        raise BadSamples(
            f"samples must lie in [-1, 1], got a value of magnitude {peak:g}",
            remedy="divide 16-bit samples by 32768, or pass them as int16",
        )
    return out
