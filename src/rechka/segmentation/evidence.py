"""Speech probability per frame, from whatever can tell speech from silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rechka.errors import IncompatibleParts
from rechka.types import F32, Frames, LogProbs, Tokens


def blank_evidence(frames: LogProbs, silent: Sequence[int]) -> F32:
    """Speech probability per frame from CTC output: one minus the mass of the silent tokens.

    Args:
        frames: (T, V) natural-log probabilities.
        silent: ids counted as silence, usually blank and space.
    Returns:
        (T,) in [0, 1].
    Raises:
        IncompatibleParts: an id is outside the vocabulary.
    Source: T-one's splitter, which uses a threshold of 0.9 on the silent mass.
    """
    size = frames.values.shape[1]
    if not all(0 <= token < size for token in silent):
        raise IncompatibleParts(
            f"silent tokens {tuple(silent)} do not fit a vocabulary of {size}",
            remedy="the token list of the model's card must be the one it was trained with",
        )
    mass = np.exp(frames.values[:, list(silent)]).sum(axis=1, dtype=np.float32)
    evidence: F32 = np.clip(np.float32(1.0) - mass, 0.0, 1.0)
    return evidence


class BlankEvidence:
    """``blank_evidence`` for one vocabulary: fits the ``Evidence`` protocol.

    Args:
        tokens: vocabulary of the model; its blank and space count as silence.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.silent = tokens.silent

    def __call__(self, frames: Frames, /) -> F32:
        """(T,) in [0, 1].

        Raises:
            IncompatibleParts: frames that are no CTC output, or of another vocabulary.
        """
        if not isinstance(frames, LogProbs):
            raise IncompatibleParts(f"blank evidence reads LogProbs, got {type(frames).__name__}")
        return blank_evidence(frames, self.silent)
