"""What both searches over transducers share: rows of predictor outputs, and checks of model, vocabulary and frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rechka.errors import IncompatibleParts
from rechka.protocols import PredictorState, Transducer
from rechka.types import F32, Encoded, Frames, Tokens


class Pool:
    """Predictor outputs and states of many hypotheses, one row each."""

    def __init__(self, predicted: F32, states: PredictorState) -> None:
        self.predicted = predicted
        self.states = states

    @classmethod
    def stacked(cls, parts: Sequence[tuple[F32, PredictorState]]) -> Pool:
        """The rows of all parts, in order."""
        states = tuple(np.concatenate(arrays) for arrays in zip(*(part[1] for part in parts), strict=True))
        return cls(np.concatenate([part[0] for part in parts]), states)

    def rows(self, index: Any) -> tuple[F32, PredictorState]:
        """A copy of some rows."""
        return self.predicted[index], tuple(state[index] for state in self.states)


def checked(transducer: Transducer, tokens: Tokens) -> tuple[int, frozenset[int]]:
    """Symbol limit and skipped ids of a transducer that fits the vocabulary."""
    if transducer.blank != tokens.blank:
        raise IncompatibleParts(
            f"the transducer's blank is {transducer.blank}, the vocabulary's is {tokens.blank}",
            remedy="the token file belongs to another model",
        )
    if transducer.max_symbols < 1:
        raise IncompatibleParts(f"max_symbols must be at least 1, got {transducer.max_symbols}")
    return transducer.max_symbols, frozenset((transducer.blank, *transducer.skips))


def as_encoded(piece: Frames) -> Encoded:
    """``piece``, if its values are an encoder's output (T, D).

    Raises:
        IncompatibleParts: other frames, such as log-probabilities: the model is no transducer.
    """
    if not isinstance(piece, Encoded) or piece.values.ndim != 2:
        raise IncompatibleParts(f"a transducer search consumes Encoded frames (T, D), got {type(piece).__name__}")
    return piece
