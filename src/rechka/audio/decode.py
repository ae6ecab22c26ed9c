"""Decoders: from a container's bytes to blocks of float samples at the recording's own rate.

soundfile reads wav, flac, mp3, ogg (vorbis, opus), aiff, au, caf and w64; PyAV (``decode_av``) the rest. Raw audio, and
PCM wav from a pipe, are decoded by ourselves as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from rechka.audio import wav
from rechka.audio.inputs import Feed
from rechka.audio.pcm import PcmDecoder
from rechka.errors import BrokenAudio, MissingExtra
from rechka.types import F32

BLOCK_S = 0.5
"""Length of the blocks that decoders give."""
MAX_CHANNELS = 64
"""More are taken for a damaged header, or an array that was not transposed."""
LARGEST = 8.0
"""Samples beyond this cannot have been meant for [-1, 1]; lossy codecs overshoot 1 by little."""


class Decoder(Protocol):
    """One pass over one recording."""

    sample_rate: int
    channels: int
    frames: int | None
    """Length that the container claims, if it does."""
    truncated: bool
    """After the last block: the recording broke off."""

    def blocks(self) -> Iterator[F32]:
        """(n, channels) blocks of about half a second."""
        ...

    def close(self) -> None:
        """Let go of the bytes."""
        ...


def block_frames(sample_rate: int, channels: int) -> int:
    """Frames per block: half a second, less for a crowd of channels so that memory stays bounded."""
    return max(1024, min(round(BLOCK_S * sample_rate), (1 << 21) // channels))


def checked_channels(channels: int, name: str) -> int:
    """Number of channels.

    Raises:
        BrokenAudio: none, or more than 64.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise BrokenAudio(
            f"{name} claims {channels} channels, 1 to {MAX_CHANNELS} are possible", remedy="the file is damaged"
        )
    return channels


class SoundfileDecoder:
    """A recording in one of soundfile's formats.

    Args:
        feed: its bytes; closed with the decoder.
        kind: of container, as ``container.sniff`` names it.
        name: for messages.
        cut: the bytes end before the recording does; soundfile takes no notice of it.

    Raises:
        BrokenAudio: the header cannot be read.
    """

    def __init__(self, feed: Feed, kind: str, name: str, *, cut: bool = False) -> None:
        soundfile = import_soundfile()
        self._error = soundfile.LibsndfileError
        self._feed, self._kind, self._name, self._cut = feed, kind, name, cut
        try:
            self._file = _one_way(soundfile)(feed)
        except (self._error, RuntimeError, TypeError, ValueError) as error:
            feed.check(name)
            raise broken(name, kind, error) from error
        feed.check(name)
        self.sample_rate = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        frames = int(self._file.frames)
        self.frames = frames if 0 < frames < 1 << 40 else None
        self.truncated = False

    def blocks(self) -> Iterator[F32]:
        """See ``Decoder``; a file that ends in an error gives what came before it."""
        size = block_frames(self.sample_rate, self.channels)
        count = 0
        more = True
        while more:
            block: F32 = np.full((size, self.channels), np.nan, dtype=np.float32)
            try:
                got = int(self._file.buffer_read_into(block, dtype="float32"))
                more = got == size
            except (self._error, RuntimeError) as error:
                # What was decoded before the error is in the block, but its number is lost: it is where the mark ends.
                marks = np.isnan(block).all(axis=1)
                got = int(marks.argmax()) if marks.any() else size
                more, self.truncated = False, True
                if count + got == 0:
                    self._feed.check(self._name)
                    raise broken(self._name, self._kind, error) from error
            self._feed.check(self._name)
            count += got
            if got:
                yield self._sane(block[:got])
        short = self._kind == "flac" and self.frames is not None and count < self.frames
        self.truncated = self.truncated or self._cut or short

    def close(self) -> None:
        """See ``Decoder``."""
        self._file.close()
        self._feed.close()

    def _sane(self, block: F32) -> F32:
        """Damaged lossy audio may decode to anything; a click is better than the loss of the recording."""
        return sane(block) if self._kind in ("mp3", "ogg") else block


class Chain:
    """Recordings one behind the other in one file, as chained Ogg has them.

    Args:
        makers: of their decoders; the first is opened at once.

    Raises:
        BrokenAudio: the first cannot be decoded.
    """

    def __init__(self, makers: Sequence[Callable[[], Decoder]]) -> None:
        self._current = makers[0]()
        self._following = makers[1:]
        self.sample_rate, self.channels = self._current.sample_rate, self._current.channels
        self.frames = None if self._following else self._current.frames
        self.truncated = False

    def blocks(self) -> Iterator[F32]:
        """See ``Decoder``; ends, truncated, where a recording has another format or cannot be decoded."""
        yield from self._current.blocks()
        for make in self._following:
            self.close()
            try:
                self._current = make()
            except BrokenAudio:
                self.truncated = True
                return
            if (self._current.sample_rate, self._current.channels) != (self.sample_rate, self.channels):
                self.truncated = True
                return
            yield from self._current.blocks()
        self.truncated = self._current.truncated

    def close(self) -> None:
        """See ``Decoder``."""
        self._current.close()


def _one_way(soundfile: Any) -> Any:
    """soundfile's class without its seek after every read, which makes mpg123 forget the bits that frames share."""

    class OneWayFile(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return OneWayFile


class PcmStream:
    """Samples decoded as their bytes arrive: raw audio, or the data of a wav.

    Args:
        read: gives from 1 to n bytes, or none at the end.
        sample_rate: of the samples.
        channels: per frame.
        decode: whole frames' bytes to (n, channels) samples.
        frame_bytes: bytes of a frame.
        data_bytes: length of the samples if it is known.
        exact: a half frame at the end means that the recording broke off.
        close: called at the end.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        sample_rate: int,
        channels: int,
        decode: Callable[[bytes], F32],
        frame_bytes: int,
        data_bytes: int | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self.frames = None if data_bytes is None else data_bytes // frame_bytes
        self.truncated = False
        self._read, self._decode, self._close = read, decode, close
        self._frame_bytes, self._left = frame_bytes, data_bytes

    def blocks(self) -> Iterator[F32]:
        """See ``Decoder``; from a live pipe the blocks are what is there, so that nothing waits."""
        size = block_frames(self.sample_rate, self.channels) * self._frame_bytes
        rest = b""
        while self._left is None or self._left > 0:
            data = self._read(size if self._left is None else min(size, self._left))
            if not data:
                break
            if self._left is not None:
                self._left -= len(data)
            data = rest + data
            whole = len(data) - len(data) % self._frame_bytes
            rest = data[whole:]
            if whole:
                yield self._decode(data[:whole])
        self.truncated = bool(rest) or bool(self._left)

    def close(self) -> None:
        """See ``Decoder``."""
        self._close()


def raw_stream(
    read: Callable[[int], bytes], encoding: str, sample_rate: int, close: Callable[[], None] = lambda: None
) -> PcmStream:
    """Raw mono audio without a header: ``"s16le"``, ``"alaw"`` or ``"mulaw"``."""
    decoder = PcmDecoder(encoding)
    return PcmStream(
        read,
        sample_rate=sample_rate,
        channels=1,
        decode=lambda data: decoder.push(data)[:, None],
        frame_bytes=decoder.width,
        close=close,
    )


def wav_stream(
    read: Callable[[int], bytes], form: wav.WavFormat, close: Callable[[], None] = lambda: None
) -> PcmStream:
    """The data of a wav whose header ``form`` describes; ``read`` begins at the header."""
    left = form.data_start
    while left and (part := read(left)):
        left -= len(part)
    return PcmStream(
        read,
        sample_rate=form.sample_rate,
        channels=form.channels,
        decode=form.decode,
        frame_bytes=form.frame_bytes,
        data_bytes=form.data_bytes,
        close=close,
    )


def broken(name: str, kind: str, reason: object, remedy: str = "") -> BrokenAudio:
    """The error for a recording of a known kind that gave nothing."""
    text = str(getattr(reason, "error_string", reason)).strip().rstrip(".")
    remedy = remedy or "the file is damaged or was cut; get it again, or convert it to wav"
    return BrokenAudio(f"{name} begins like {kind}, but cannot be decoded: {text}", remedy=remedy)


def sane(block: F32) -> F32:
    """The block without values that are no audio: infinite and NaN become 0, others are clipped far outside [-1, 1]."""
    clean: F32 = np.clip(np.nan_to_num(block, copy=True, nan=0.0, posinf=0.0, neginf=0.0), -LARGEST, LARGEST)
    return clean


def import_soundfile() -> Any:
    """The soundfile library, at first use.

    Raises:
        MissingExtra: the C library that it wraps is not there.
    """
    try:
        import soundfile
    except OSError as error:  # its wheel for this platform does not carry libsndfile
        raise MissingExtra(
            f"soundfile cannot load libsndfile: {error}",
            remedy="install libsndfile: apt install libsndfile1, or brew install libsndfile",
        ) from error
    return soundfile
