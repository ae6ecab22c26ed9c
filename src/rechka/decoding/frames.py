"""What searches make of log-probs before they look at them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rechka.errors import IncompatibleParts
from rechka.types import Frames, LogProbs, Tokens

FLOOR = -34.538776394910684
"""Natural log of 1e-15, below which nothing is told apart. Source: pyctcdecode."""


def checked(frames: Frames, tokens: Tokens) -> NDArray[np.float64]:
    """Log-probs as float64 (T, V) within [FLOOR, 0]; what is not a number counts as FLOOR.

    Raises:
        IncompatibleParts: frames that are not log-probs, or not over this vocabulary.
    """
    if not isinstance(frames, LogProbs):
        raise IncompatibleParts(f"a CTC search consumes LogProbs, got {type(frames).__name__}")
    values = np.asarray(frames.values)
    if values.ndim != 2 or values.shape[1] != len(tokens):
        raise IncompatibleParts(
            f"expected log-probs over a vocabulary of {len(tokens)} tokens, got an array of shape {values.shape}",
            remedy="use the decoder with the model whose tokens it was built for",
        )
    return np.fmin(np.fmax(values.astype(np.float64), FLOOR), 0.0)
