"""Speech and silence from a transducer: a frame is speech if greedy search emits a token in it.

Encoder frames do not tell silence by themselves, so one search runs over all of them, beside those of the phrases. It
costs a joiner call per frame, little beside the encoder, and cannot miss what would have been decoded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rechka.decoding.transducer import GreedyPath, TransducerGreedy
from rechka.errors import IncompatibleParts
from rechka.protocols import AcousticModel, Transducer
from rechka.types import F32, Frames, Tokens


class Listener:
    """Evidence for a chunked transducer: ``search`` advanced over all frames, and what its paths tell.

    Args:
        transducer: of the model.
        tokens: its vocabulary.
    """

    def __init__(self, transducer: Transducer, tokens: Tokens) -> None:
        self.search = TransducerGreedy(transducer, tokens)

    def told(self, path: GreedyPath, piece: Frames) -> tuple[F32, GreedyPath]:
        """Speech probability (T,) per frame of ``piece``, 0 or 1, and the path to go on from.

        Args:
            path: after ``piece``; its tokens are forgotten, so that a stream of any length needs no more memory.
            piece: the frames that it was advanced over.
        """
        speech = np.zeros(len(piece), np.float32)
        speech[[frame - piece.start for frame in path.frames]] = 1.0
        return speech, replace(path, tokens=(), frames=(), logprobs=(), score=0.0)


def transducer_of(model: AcousticModel) -> Transducer:
    """The transducer of a model that emits ``Encoded``.

    Raises:
        IncompatibleParts: it has none.
    """
    transducer: Transducer | None = getattr(model, "transducer", None)
    if transducer is None:
        raise IncompatibleParts("the model emits Encoded but has no transducer, so nothing can be decoded")
    return transducer
