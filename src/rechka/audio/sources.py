"""Audio sources: anything that can be a recording, given as chunks of every channel at the wanted rate.

Memory does not grow with the length of the recording, whatever it comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from rechka.audio import choose, container, decode, wav
from rechka.audio.inputs import Pipe, to_input
from rechka.audio.pcm import ENCODINGS, Encoding
from rechka.audio.resample import Resampler, checked_rate
from rechka.errors import AudioTooLong, BadSamples, BrokenAudio, UsageError
from rechka.types import F32, AudioChunk

if TYPE_CHECKING:
    from rechka.protocols import AudioSource

Chunks: TypeAlias = Iterator[tuple[AudioChunk, ...]]
Channels: TypeAlias = Literal["mix", "split"]

PIPE_HEAD = 4096
"""Bytes of a pipe that are awaited before its format is judged."""
RAW_RATE = 8000
"""Rate of raw audio unless told otherwise: telephony."""
_SCALES = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}


def open_source(
    source: Any,
    *,
    sample_rate: int | None = None,
    channels: Channels = "mix",
    encoding: Encoding | None = None,
    encoding_rate: int | None = None,
    max_seconds: float | None = None,
) -> AudioSource:
    """A recording as an ``AudioSource``.

    Args:
        source: path; bytes; binary file object, rewindable or not; ``(array, rate)`` with int16, int32 or float in
            [-1, 1], shape (n,) or (n, channels); or another ``AudioSource``. The format is told by the content.
        sample_rate: of the chunks; None for the recording's own.
        channels: ``"mix"`` averages all channels into one, ``"split"`` keeps them apart.
        encoding: ``"alaw"``, ``"mulaw"`` or ``"s16le"`` for raw mono audio without a header.
        encoding_rate: sample rate of raw audio; None for 8000.
        max_seconds: a longer recording is refused, when its header tells or else when that much was decoded.

    Raises:
        AudioNotFound: no such file, a folder, or no permission.
        NotAudio, BrokenAudio, EmptyAudio: nothing to decode. The last two also come while iterating.
        AudioTooLong: longer than ``max_seconds``; also comes while iterating.
        BadSamples: an array, or a file of floats, that is no audio; for files it comes while iterating.
        MissingExtra: the format needs PyAV, which is not installed.
        UsageError: arguments that do not go together, or a file object in text mode.
    """
    if channels not in ("mix", "split"):
        raise UsageError(f"channels must be mix or split, got {channels!r}")
    if max_seconds is not None and not max_seconds > 0:
        raise UsageError(f"max_seconds must be above zero, got {max_seconds!r}")
    wanted = _Wanted(None if sample_rate is None else checked_rate(sample_rate), channels == "mix", max_seconds)
    readable = isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read")
    if encoding is not None or encoding_rate is not None:
        if encoding not in ENCODINGS:
            raise UsageError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
        if not readable:
            raise UsageError("encoding is for raw bytes, and this source has samples", remedy="leave encoding out")
    if readable:
        return _open_bytes(source, wanted, encoding, checked_rate(encoding_rate or RAW_RATE))
    if isinstance(source, tuple) and len(source) == 2:
        return _open_array(*source, wanted)
    if hasattr(source, "sample_rate") and hasattr(source, "__iter__"):
        return _open_other(source, wanted)
    remedy = "pass (array, sample_rate)" if hasattr(source, "__array__") or isinstance(source, list) else ""
    raise UsageError(
        "a source is a path, bytes, a file object, (array, sample_rate) or an AudioSource, "
        f"got {type(source).__name__}",
        remedy=remedy,
    )


class _Wanted:
    """How the chunks shall be."""

    def __init__(self, sample_rate: int | None, mix: bool, max_seconds: float | None) -> None:
        self.sample_rate = sample_rate
        self.mix = mix
        self.max_seconds = max_seconds

    def check(self, seconds: float | None, name: str) -> None:
        """Refuse a recording of this length.

        Raises:
            AudioTooLong: more than the limit.
        """
        if self.max_seconds is not None and seconds is not None and seconds > self.max_seconds:
            raise AudioTooLong(
                f"{name} is longer than the limit of {self.max_seconds:g} s", remedy="cut it, or raise the limit"
            )


class Source:
    """An ``AudioSource`` that mixes, resamples and checks blocks of samples.

    Args:
        begin: gives the blocks (n, channels) of one pass, and a function that says at its end if it broke off.
        sample_rate: of the blocks.
        channels: of the blocks.
        frames: in all, if known.
        wanted: how the chunks shall be.
        name: for messages.
    """

    def __init__(
        self,
        begin: Callable[[], tuple[Iterator[F32], Callable[[], bool]]],
        *,
        sample_rate: int,
        channels: int,
        frames: int | None,
        wanted: _Wanted,
        name: str,
    ) -> None:
        self._begin = begin
        self._in_rate, self._in_channels = sample_rate, channels
        self._wanted, self._name = wanted, name
        self._duration = None if frames is None else frames / sample_rate
        self._truncated = False

    @property
    def sample_rate(self) -> int:
        """Samples per second of the chunks."""
        return self._wanted.sample_rate or self._in_rate

    @property
    def channels(self) -> int:
        """Channels of the chunks."""
        return 1 if self._wanted.mix else self._in_channels

    @property
    def duration(self) -> float | None:
        """Seconds, if the container tells."""
        return self._duration

    @property
    def truncated(self) -> bool:
        """After iteration: the recording broke off before its end."""
        return self._truncated

    def __iter__(self) -> Chunks:
        """The chunks, about half a second each."""
        self._truncated = False
        blocks, broke_off = self._begin()
        try:
            yield from self._convert(blocks, broke_off)
            self._truncated = broke_off()
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def _convert(self, blocks: Iterator[F32], broke_off: Callable[[], bool]) -> Chunks:
        resamplers = [Resampler(self._in_rate, self.sample_rate) for _ in range(self.channels)]
        count = start = 0
        for block in blocks:
            check_values(block, self._name)
            count += len(block)
            self._wanted.check(count / self._in_rate, self._name)
            mono = self._wanted.mix and block.shape[1] > 1
            columns = [block.mean(axis=1, dtype=np.float32)] if mono else list(block.T)
            outs = [resampler.push(column) for resampler, column in zip(resamplers, columns, strict=True)]
            if len(outs[0]):
                yield tuple(AudioChunk(out, self.sample_rate, start) for out in outs)
                start += len(outs[0])
        if count == 0 and broke_off():
            raise BrokenAudio(f"{self._name} was cut before its first sample", remedy="get the whole file")
        if count == 0:
            raise choose.empty(self._name)
        outs = [resampler.flush() for resampler in resamplers]
        if len(outs[0]):
            yield tuple(AudioChunk(out, self.sample_rate, start) for out in outs)


def check_values(block: F32, name: str) -> None:
    """Refuse samples that are no audio.

    Raises:
        BadSamples: NaN, infinite, or far outside of [-1, 1].
    """
    peak = float(np.abs(block).max()) if block.size else 0.0
    if not peak <= decode.LARGEST:  # also true for NaN
        raise BadSamples(
            f"{name} must have samples in [-1, 1], got a value of magnitude {peak:g}",
            remedy="divide 16-bit values by 32768, and look for NaN",
        )


def _open_bytes(
    source: str | os.PathLike[str] | bytes | IO[bytes], wanted: _Wanted, encoding: Encoding | None, raw_rate: int
) -> Source:
    given = to_input(source)
    if isinstance(given, Pipe):
        live = _open_pipe(given, wanted, encoding, raw_rate)
        if live is not None:
            return live
        given = given.spool()
    start = choose.decoder_of(given, encoding, raw_rate)
    probe = start()
    try:
        rate, channels, frames = choose.checked_format(probe, given.name)
        wanted.check(None if frames is None else frames / rate, given.name)
    finally:
        probe.close()

    def begin() -> tuple[Iterator[F32], Callable[[], bool]]:
        decoder = start()
        return _blocks(decoder), lambda: decoder.truncated

    return Source(begin, sample_rate=rate, channels=channels, frames=frames, wanted=wanted, name=given.name)


def _blocks(decoder: decode.Decoder) -> Iterator[F32]:
    """The decoder's blocks; it is closed at their end."""
    try:
        yield from decoder.blocks()
    finally:
        decoder.close()


def _open_pipe(pipe: Pipe, wanted: _Wanted, encoding: Encoding | None, raw_rate: int) -> Source | None:
    """A source that decodes while the pipe runs; None if its format must be copied first."""
    head = pipe.peek(PIPE_HEAD if encoding is None else 1)
    if encoding is not None:
        if not head:
            raise choose.empty(pipe.name)
        decoder = decode.raw_stream(pipe.read, encoding, raw_rate)
    else:
        if not container.tag_bytes(head):
            choose.sniffed(head, pipe.name)
        form = wav.parse_wav(head)
        if form is None:
            return None
        decoder = decode.wav_stream(pipe.read, form)
    rate, channels, frames = choose.checked_format(decoder, pipe.name)
    passes = iter([decoder])

    def begin() -> tuple[Iterator[F32], Callable[[], bool]]:
        decoder = next(passes, None)
        if decoder is None:
            raise UsageError(f"{pipe.name} is a pipe and was read already", remedy="open a new source")
        return _blocks(decoder), lambda: decoder.truncated

    return Source(begin, sample_rate=rate, channels=channels, frames=frames, wanted=wanted, name=pipe.name)


def _open_array(array: Any, rate: Any, wanted: _Wanted) -> Source:
    in_rate = checked_rate(rate)
    samples = np.asarray(array)
    good = np.issubdtype(samples.dtype, np.floating) or samples.dtype in _SCALES
    if not good:
        raise BadSamples(
            f"samples must be int16, int32 or float, got {samples.dtype}", remedy="convert them to float32 in [-1, 1]"
        )
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2:
        raise BadSamples(f"samples must have shape (n,) or (n, channels), got {samples.shape}")
    num, channels = samples.shape
    if num == 0:
        raise choose.empty("the array")
    if not 1 <= channels <= decode.MAX_CHANNELS or num < channels:
        raise BadSamples(
            f"samples must have shape (n, channels) with at most {decode.MAX_CHANNELS} channels, got {samples.shape}",
            remedy="transpose an array of shape (channels, n)",
        )
    wanted.check(num / in_rate, "the array")

    def blocks() -> Iterator[F32]:
        size = decode.block_frames(in_rate, channels)
        for start in range(0, num, size):
            yield _to_float(samples[start : start + size])

    for block in blocks():
        check_values(block, "the array")
    return Source(
        lambda: (blocks(), lambda: False),
        sample_rate=in_rate,
        channels=channels,
        frames=num,
        wanted=wanted,
        name="the array",
    )


def _to_float(samples: Any) -> F32:
    scale = _SCALES.get(samples.dtype)
    with np.errstate(over="ignore"):  # a float64 that becomes infinite is refused
        return np.asarray(samples if scale is None else samples / scale, dtype=np.float32)


def _open_other(source: Any, wanted: _Wanted) -> AudioSource:
    """Another source, converted if it is not as wanted already."""
    other: AudioSource = source
    same_rate = wanted.sample_rate in (None, other.sample_rate)
    if same_rate and (other.channels == 1 or not wanted.mix) and wanted.max_seconds is None:
        return other
    wanted.check(other.duration, "the source")

    def begin() -> tuple[Iterator[F32], Callable[[], bool]]:
        return _stacked(other), lambda: other.truncated

    rate = checked_rate(other.sample_rate)
    frames = None if other.duration is None else round(other.duration * rate)
    return Source(begin, sample_rate=rate, channels=other.channels, frames=frames, wanted=wanted, name="the source")


def _stacked(chunks: Iterable[tuple[AudioChunk, ...]]) -> Iterator[F32]:
    running = iter(chunks)
    try:
        for chunk in running:
            yield np.stack([part.samples for part in chunk], axis=1)
    finally:
        close = getattr(running, "close", None)
        if close is not None:
            close()
