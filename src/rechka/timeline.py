"""The only arithmetic between samples, frames and seconds."""

from __future__ import annotations

from dataclasses import dataclass

from rechka.types import ModelSpec


@dataclass(frozen=True, slots=True)
class Timeline:
    """Maps a model's frames to seconds of the audio that the caller gave.

    Args:
        sample_rate: samples per second.
        hop: samples per frame.
        pad: samples of silence that were put before the audio.
        lag: samples by which the model emits late.
    """

    sample_rate: int
    hop: int
    pad: int = 0
    lag: int = 0

    @classmethod
    def of(cls, spec: ModelSpec) -> Timeline:
        """The timeline of a model."""
        return cls(spec.sample_rate, spec.hop, spec.pad, spec.lag)

    def seconds(self, frame: int, *, end: float | None = None) -> float:
        """Time of the first sample of ``frame``, pad and lag taken off, not below zero nor beyond ``end``."""
        time = max(0.0, (frame * self.hop - self.pad - self.lag) / self.sample_rate)
        return time if end is None else min(time, end)

    def frames(self, seconds: float) -> int:
        """Number of whole frames in a duration of ``seconds``, rounded to the nearest."""
        return round(seconds * self.sample_rate / self.hop)
