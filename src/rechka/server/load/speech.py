"""What the clients say: recordings strung together with pauses, each string a script that several calls read out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.audio import open_source
from rechka.errors import UsageError

PAUSE_S = (0.8, 2.0)
"""Quiet between two recordings, shortest and longest: long enough to end a phrase."""
HUSH = 4
"""Amplitude of the quiet's noise in steps of 16 bits: a telephone line is never digital zero."""
MAX_CLIP_S = 60.0
"""Of a longer recording the beginning is used."""


@dataclass(frozen=True, slots=True)
class Script:
    """Audio of a call.

    Attributes:
        number: calls of the same script must be heard alike.
        data: 16-bit little-endian, mono.
        rate: samples per second.
    """

    number: int
    data: bytes
    rate: int

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.data) / 2 / self.rate


def read_clips(paths: Sequence[Path], rate: int) -> list[NDArray[np.int16]]:
    """Recordings as 16-bit mono at one rate.

    Raises:
        AudioError: one that cannot be read.
        UsageError: there are none.
    """
    if not paths:
        raise UsageError("no recordings to send", remedy="name some: rechka bench serve RECORDING...")
    found = []
    for path in paths:
        pieces: list[Any] = []
        for chunks in open_source(path, sample_rate=rate, channels="mix"):
            pieces.append(chunks[0].samples)
            if sum(map(len, pieces)) >= MAX_CLIP_S * rate:
                break
        samples = np.concatenate(pieces)[: round(MAX_CLIP_S * rate)]
        found.append((np.clip(samples, -1, 1) * 32767).astype("<i2"))
    return found


def make_scripts(
    clips: Sequence[NDArray[np.int16]], rate: int, *, count: int, seconds: float, seed: int = 0
) -> list[Script]:
    """So many different scripts of about so many seconds, always the same for the same seed.

    Each begins and ends with quiet, so that every phrase ends by its pause and none by the end of the call.
    """
    chance = np.random.default_rng(seed)

    def quiet(least: float = PAUSE_S[0]) -> NDArray[np.int16]:
        size = round(chance.uniform(least, PAUSE_S[1]) * rate)
        return chance.integers(-HUSH, HUSH + 1, size, dtype=np.int16)

    scripts = []
    for number in range(count):
        parts = [quiet(0.0)]
        while sum(map(len, parts)) < seconds * rate:
            parts += [clips[int(chance.integers(len(clips)))], quiet()]
        parts.append(quiet())
        scripts.append(Script(number, np.concatenate(parts).astype("<i2").tobytes(), rate))
    return scripts
