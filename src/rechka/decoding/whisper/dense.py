"""Where a window is divided that holds more text than Whisper can write at once."""

from __future__ import annotations

import numpy as np

from rechka.types import F32

MIN_S = 4.0
"""A shorter window is not divided: nobody says 224 tokens in it, so the text is at fault, not the length."""
BLOCK_S = 0.02
SMOOTH = 7
"""Blocks of a running mean: pauses of 0.15 s and more are wanted, not the closure of a consonant."""


def middle_pause(samples: F32, sample_rate: int) -> int | None:
    """Sample at the quietest place in the middle third of a window; None if it is too short to divide."""
    if len(samples) < MIN_S * sample_rate:
        return None
    block = round(BLOCK_S * sample_rate)
    count = len(samples) // block
    energy = (samples[: count * block].reshape(count, block).astype(np.float64) ** 2).mean(axis=1)
    smooth = np.convolve(energy, np.ones(SMOOTH) / SMOOTH, mode="same")
    low, high = count // 3, -(-2 * count // 3)
    return (low + int(np.argmin(smooth[low:high]))) * block + block // 2
