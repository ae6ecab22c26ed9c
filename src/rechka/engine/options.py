"""Settings of an engine and of one session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rechka.errors import UsageError

MAX_CHANNELS = 8
MAX_HOTWORDS = 1000
MAX_HOTWORD_LENGTH = 200
MIN_PAUSE_S, MAX_PAUSE_S = 0.01, 30.0
RATES = (1_000, 192_000)
WIDTHS = {"s16le": 2, "alaw": 1, "mulaw": 1, "f32le": 4}
"""Encodings of raw audio -> bytes of a sample."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How many streams share one model, and how.

    Attributes:
        workers: threads that step the model; None for the cores that this process may use, and one for a GPU.
        max_batch: streams of one step.
        max_wait_ms: how long a ready stream waits for company.
        max_streams: open sessions.
        max_queue_age_s: no new session is opened while ready streams have to wait longer than this.
        inbox_s: seconds of audio that a session holds before ``feed`` waits.
        bulk_s: the same for a session that is not live: what one step of it takes at most.
        max_events: events that wait to be taken before a session is no longer stepped.
        max_session_s: audio of one session; None for no limit.
    """

    workers: int | None = None
    max_batch: int = 16
    max_wait_ms: float = 5.0
    max_streams: int = 200
    max_queue_age_s: float = 1.0
    inbox_s: float = 10.0
    bulk_s: float = 4.0
    max_events: int = 1000
    max_session_s: float | None = None


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a client says about the audio that it will send and the events that it wants.

    Attributes:
        sample_rate: of the audio; None for the model's own.
        encoding: of bytes: ``"s16le"``, ``"mulaw"``, ``"alaw"`` or ``"f32le"``. Arrays may be fed instead.
        channels: of the audio. Each becomes a stream of its own, and its events carry its number.
        mix: average the channels into one stream instead.
        interleaved: samples of all channels alternate in each packet. False: every packet is of one channel, which
            ``feed`` names.
        hotwords: words or phrases to expect, each with its boost.
        partials: whether ``Partial`` events are wanted.
        min_silence_s: a pause this long ends a phrase; None for the model's own.
        start_s: added to all times: a client that comes back after a lost connection goes on where it was.
        bulk: not live: steps of live sessions come first.

    Raises:
        UsageError: a value out of its range.
    """

    sample_rate: int | None = None
    encoding: str = "s16le"
    channels: int = 1
    mix: bool = False
    interleaved: bool = True
    hotwords: Mapping[str, float] = field(default_factory=dict)
    partials: bool = True
    min_silence_s: float | None = None
    start_s: float = 0.0
    bulk: bool = False

    def __post_init__(self) -> None:
        if self.sample_rate is not None and not RATES[0] <= self.sample_rate <= RATES[1]:
            raise UsageError(
                f"a sample rate is a whole number from {RATES[0]} to {RATES[1]} Hz, got {self.sample_rate}"
            )
        if self.encoding not in WIDTHS:
            raise UsageError(f"encoding must be one of {', '.join(WIDTHS)}, got {self.encoding!r}")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise UsageError(f"channels must be from 1 to {MAX_CHANNELS}, got {self.channels}")
        if self.mix and not self.interleaved:
            raise UsageError("channels that come in packets of their own cannot be mixed")
        if len(self.hotwords) > MAX_HOTWORDS or any(len(word) > MAX_HOTWORD_LENGTH for word in self.hotwords):
            raise UsageError(
                f"at most {MAX_HOTWORDS} hotwords of at most {MAX_HOTWORD_LENGTH} letters each, "
                f"got {len(self.hotwords)}"
            )
        if self.min_silence_s is not None and not MIN_PAUSE_S <= self.min_silence_s <= MAX_PAUSE_S:
            raise UsageError(
                f"min_silence_s must be from {MIN_PAUSE_S:g} to {MAX_PAUSE_S:g}, got {self.min_silence_s:g}"
            )
        if not 0.0 <= self.start_s < 1e7:
            raise UsageError(f"start_s must be from 0 up to ten million, got {self.start_s:g}")
