"""A model that reads chunks, made to read whole phrases: any streaming model can then refine what another heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rechka.errors import IncompatibleParts
from rechka.protocols import AcousticModel
from rechka.types import F32, Frames, State


class WholePhrases:
    """An ``AcousticModel`` with ``spec.chunk`` None around one with chunks.

    Each phrase begins with a fresh state and is followed by as much silence as the model's lag and last chunk need.

    Args:
        model: reads chunks.

    Raises:
        IncompatibleParts: it reads whole phrases already.
    """

    def __init__(self, model: AcousticModel) -> None:
        spec = model.spec
        if spec.chunk is None or spec.shift is None:
            raise IncompatibleParts("the model reads whole phrases already", remedy="use it as it is")
        self._model, self._chunk, self._shift = model, spec.chunk, spec.shift
        self._tail = max(0, spec.lag - spec.pad)  # the recogniser puts ``pad`` behind every phrase
        self.spec = replace(spec, chunk=None, shift=None)

    def initial_state(self) -> State:
        """A phrase needs none."""
        return None

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """Each phrase whole; see ``AcousticModel``."""
        whole = []
        for samples in audio:
            count = max(1, -(-(len(samples) + self._tail) // self._shift))
            size = (count - 1) * self._shift + self._chunk
            whole.append(np.pad(samples, (0, size - len(samples))))
        frames, _ = self._model.step(whole, [self._model.initial_state() for _ in audio])
        return frames, list(states)
