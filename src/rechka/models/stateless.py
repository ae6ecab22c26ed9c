"""Stateless predictor and joiner of icefall's transducers: a decoder graph over the last tokens, and a joiner graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile
from rechka.protocols import Backend, PredictorState
from rechka.types import F32

MAX_CONTEXT = 16
"""A larger ``context_size`` is no stateless decoder; icefall's is 2."""
REMEMBERED = 8192
"""Outputs of the decoder that are kept, by context: 16 MB. Speech comes back to few of all pairs of tokens."""


class StatelessTransducer:
    """A ``protocols.Transducer`` whose state is the tuple of the last tokens.

    A hypothesis begins with -1 in all places but the last, which holds the blank: the graph embeds -1 as zeros, as in
    training (icefall pads its contexts so, and sherpa-onnx feeds the same).

    Args:
        decoder: maps tokens (N, context_size) to (N, D); its metadata or its shape tells the context.
        joiner: maps encoder frames (N, E) and decoder outputs (N, D) to logits (N, V).
    Raises:
        BadModelFile: other inputs or outputs.
    """

    blank = 0
    max_symbols = 1

    def __init__(self, decoder: Backend, joiner: Backend) -> None:
        if len(decoder.inputs) != 1 or len(decoder.outputs) != 1 or len(joiner.inputs) != 2:
            raise BadModelFile(
                f"a stateless decoder maps tokens to one output and a joiner two inputs to logits; these map "
                f"{', '.join(decoder.inputs)} to {', '.join(decoder.outputs)} and {', '.join(joiner.inputs)} to "
                f"{', '.join(joiner.outputs)}",
                remedy="decoder and joiner belong to another family, or were exchanged",
            )
        self._decoder, self._joiner = decoder, joiner
        ((self._tokens, (shape, self._dtype)),) = decoder.inputs.items()
        if len(shape) != 2 or not np.issubdtype(self._dtype, np.integer):
            raise BadModelFile(f"a stateless decoder reads tokens (N, context_size), this one {self._dtype}{shape}")
        self.context = _context_size(decoder, shape[1])
        self._known: dict[bytes, F32] = {}
        self._encoded, self._predicted = joiner.inputs
        self._width = joiner.inputs[self._encoded][0][-1]
        self.skips: tuple[int, ...] = (self.blank,)
        self.vocabulary = self._probe()

    def _probe(self) -> int:
        """Size of the vocabulary, learnt from one call, which also shows that the graphs fit each other."""
        predicted, _ = self.initial(1)
        width = self._width if self._width is not None else predicted.shape[1]
        logits = self.join(np.zeros((1, width), np.float32), predicted)
        if logits.ndim != 2:
            raise BadModelFile(f"a joiner gives logits (N, V), this one an array of shape {logits.shape}")
        return int(logits.shape[1])

    def checked(self, values: NDArray[np.float32]) -> F32:
        """Encoder frames (T, E), if the joiner can read them.

        Raises:
            BadModelFile: frames of another width.
        """
        if self._width is not None and values.shape[-1] != self._width:
            raise BadModelFile(
                f"the encoder gives frames of {values.shape[-1]}, the joiner reads {self._width}",
                remedy="encoder and joiner belong to different models",
            )
        return values

    def initial(self, n: int) -> tuple[F32, PredictorState]:
        """Predictor output (n, D) and states of ``n`` hypotheses without tokens."""
        context = np.full((n, self.context), -1, np.int64)
        context[:, -1] = self.blank
        return self._predict(context), (context,)

    def predict(self, tokens: NDArray[np.int64], states: PredictorState) -> tuple[F32, PredictorState]:
        """Predictor output (N, D) and states after one more token each."""
        context = np.concatenate([states[0][:, 1:], tokens[:, None]], axis=1)
        return self._predict(context), (context,)

    def _predict(self, context: NDArray[np.int64]) -> F32:
        """Outputs for contexts (N, context_size); the graph is asked only for those that are not remembered."""
        if len(self._known) > REMEMBERED:
            self._known = {}  # threads that read the old table keep it until they are done
        known = self._known
        keys = [row.tobytes() for row in context]
        new = {key: i for i, key in enumerate(keys) if key not in known}
        if new:
            asked = context[list(new.values())].astype(self._dtype, copy=False)
            out = self._decoder.run({self._tokens: asked})[self._decoder.outputs[0]]
            known.update(zip(new, out.astype(np.float32, copy=False).reshape(len(asked), -1), strict=True))
        return np.stack([known[key] for key in keys])

    def join(self, encoded: F32, predicted: F32) -> F32:
        """Natural-log probabilities (N, V) for pairs of a frame (N, E) and a predictor output (N, D)."""
        out = self._joiner.run({self._encoded: encoded, self._predicted: predicted})
        logits: F32 = out[self._joiner.outputs[0]].astype(np.float32, copy=False)
        logits -= logits.max(axis=-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return logits


def _context_size(decoder: Backend, fixed: int | None) -> int:
    told = decoder.metadata.get("context_size", "")
    size = int(told) if told.isascii() and told.isdigit() and len(told) < 4 else fixed
    if size is None or not 1 <= size <= MAX_CONTEXT or fixed not in (None, size):
        raise BadModelFile(
            f"the decoder's context_size is {told or 'not told'} and its input holds {fixed or 'any number of'} tokens",
            remedy="export it with icefall's export-onnx script, which writes context_size",
        )
    return size
