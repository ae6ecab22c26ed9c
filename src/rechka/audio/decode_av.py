"""Decoding with PyAV, the extra ``av``: m4a, aac, mp4, webm, mkv, wma, amr, and odd codecs in other containers.

FFmpeg is a large attack surface, so it gets little room: one demuxer family, the one that the bytes call for; no
protocol at all, since all bytes come through our own file object; a time limit per read. Without these, an uploaded SDP
opens network sockets, and an uploaded ffconcat script reads other files.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from rechka.audio.chunker import regroup
from rechka.audio.decode import block_frames, broken, sane
from rechka.audio.inputs import Feed
from rechka.errors import BrokenAudio, EmptyAudio, MissingExtra
from rechka.types import F32

DEMUXERS = {
    "mp4": "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska": "matroska,webm",
    "asf": "asf",
    "aac": "aac",
    "amr": "amr",
    "wav": "wav",
    "ogg": "ogg",
    "caf": "caf",
}
"""FFmpeg's demuxers that may open a container of each kind."""
TIMEOUT_S = 30.0
"""Longest time that opening or one read may take; the bytes are always local."""
MAX_BAD_PACKETS = 50
"""Packets in a row that may fail before the rest is given up."""
_SHORT_S = 0.5
"""A recording that ends this much before the length of its track was cut."""
MAX_PLANES = 8
"""Most channels of a frame that PyAV gives access to safely; 7.1 has them."""
_FORMATS: dict[str, tuple[type[np.generic], float | None]] = {
    "u8": (np.uint8, 2.0**7),
    "s16": (np.int16, 2.0**15),
    "s32": (np.int32, 2.0**31),
    "s64": (np.int64, 2.0**63),
    "flt": (np.float32, None),
    "dbl": (np.float64, None),
}
"""FFmpeg's sample formats: type, and the value of full scale for integers."""


def is_installed() -> bool:
    """Whether PyAV is there."""
    from importlib.util import find_spec

    return find_spec("av") is not None


def import_av(kind: str) -> Any:
    """The PyAV library, at first use.

    Raises:
        MissingExtra: it is not installed, or cannot be loaded.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtra(
            f"{kind} audio is decoded by PyAV, which is not installed", remedy='pip install "rechka[av]"'
        ) from error
    return av


class AvDecoder:
    """A recording in one of FFmpeg's formats; of several audio tracks the first.

    Args:
        feed: its bytes; closed with the decoder.
        kind: of container, as ``container.sniff`` names it.
        name: for messages.

    Raises:
        MissingExtra: PyAV is not installed.
        BrokenAudio: the container cannot be read, or no sample of it decoded.
        EmptyAudio: it has no audio track.
    """

    def __init__(self, feed: Feed, kind: str, name: str) -> None:
        av = import_av(kind)
        self._feed, self._kind, self._name = feed, kind, name
        self.truncated = False
        self._failure: Exception | None = None
        options = {"format_whitelist": DEMUXERS[kind], "protocol_whitelist": ""}
        try:
            self._container = av.open(
                feed, mode="r", options=options, timeout=TIMEOUT_S, metadata_errors="replace", buffer_size=1 << 16
            )
        except Exception as error:  # damaged input makes PyAV raise a dozen types, MemoryError too
            raise self._broken(error) from error
        try:
            self._start()
        except BaseException:
            self._container.close()
            raise

    def _start(self) -> None:
        """Find the track, and decode its first frame: headers lie about rate and channels (HE-AAC)."""
        tracks = self._container.streams.audio
        if not tracks:
            raise EmptyAudio(f"{self._name} ({self._kind}) holds no audio track", remedy="give a file with sound")
        self._track = tracks[0]
        self._claim_s = self._claimed_seconds()
        self._frames = self._decode()
        try:
            first = next(self._frames)
        except StopIteration:
            raise self._broken(self._failure) from self._failure
        self.sample_rate, self.channels = first[0], first[1].shape[1]
        self.frames = None if self._claim_s is None else round(self._claim_s * self.sample_rate)
        self._first = first

    def blocks(self) -> Iterator[F32]:
        """See ``Decoder``; packets that cannot be decoded are left out."""
        return regroup(self._samples(), block_frames(self.sample_rate, self.channels))

    def close(self) -> None:
        """See ``Decoder``."""
        self._container.close()
        self._feed.close()

    def _samples(self) -> Iterator[F32]:
        count = 0
        for rate, frame in chain([self._first], self._frames):
            if rate != self.sample_rate:  # cannot go on the same time axis
                self.truncated = True
                break
            count += len(frame)
            yield sane(_fit_channels(frame, self.channels))
        if self._failure is not None:
            self.truncated = True
        if self._claim_s is not None and count / self.sample_rate < self._claim_s - _SHORT_S:
            self.truncated = True

    def _decode(self) -> Iterator[tuple[int, F32]]:
        """Sample rate and samples of each frame; ``self._failure`` is the error of the end, None if it was clean."""
        packets = iter(self._container.demux(self._track))
        bad = 0
        while bad < MAX_BAD_PACKETS:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - as above; the frames until here stand
                self._failure = error
                break
            try:
                frames = [(int(frame.sample_rate), _to_array(frame)) for frame in packet.decode()]
            except Exception as error:  # noqa: BLE001 - as above
                bad += 1
                self._failure = error
                continue
            if frames:
                bad, self._failure = 0, None
            yield from frames
        self._feed.check(self._name)

    def _claimed_seconds(self) -> float | None:
        """Length of the track as its index tells it; formats without an index only guess."""
        if self._kind == "mp4" and self._track.duration:
            return float(self._track.duration * self._track.time_base)
        alone = len(self._container.streams) == 1
        if self._kind in ("matroska", "asf") and alone and self._container.duration:
            return float(self._container.duration) / 1e6
        return None

    def _broken(self, error: BaseException | None) -> BrokenAudio:
        self._feed.check(self._name)
        remedy = "a recording that was cut lacks the index at its end; get it whole" if self._kind == "mp4" else ""
        reason = (
            "it has no frame"
            if error is None
            else getattr(error, "strerror", None) or str(error) or type(error).__name__
        )
        return broken(self._name, self._kind, reason, remedy)


def _to_array(frame: Any) -> F32:
    """(n, channels) samples of a frame.

    PyAV's own ``to_ndarray`` and ``planes`` look for a null pointer behind the last plane, which is not there for 8
    channels and more: stray memory is read, and the process may crash. So only as many are touched as there are
    channels.

    Raises:
        ValueError: more than 8 channels, or a sample format that is no PCM.
    """
    channels = frame.layout.nb_channels
    kind = frame.format.name.removesuffix("p")
    if channels > MAX_PLANES or kind not in _FORMATS:
        raise ValueError(f"frame of {channels} channels, {frame.format.name}")
    dtype, scale = _FORMATS[kind]
    if frame.format.is_planar:
        planes = frame.planes[:channels]
        array = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in planes], axis=1)
    else:
        array = np.frombuffer(frame.planes[0], dtype, frame.samples * channels).reshape(-1, channels)
    if scale is None:
        return np.array(array, dtype=np.float32)  # a copy: the frame's memory is used again
    middle = scale if kind == "u8" else 0.0
    out: F32 = ((array.astype(np.float64) - middle) / scale).astype(np.float32)
    return out


def _fit_channels(samples: F32, channels: int) -> F32:
    """A frame with another number of channels than the first: their mean on every channel."""
    if samples.shape[1] == channels:
        return samples
    mean = samples.mean(axis=1, keepdims=True, dtype=np.float32)
    out: F32 = np.repeat(mean, channels, axis=1)
    return out
