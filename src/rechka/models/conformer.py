"""The embedded model's family: telephone-band features in NumPy, a streaming Conformer-CTC in ONNX Runtime.

One step reads whole chunks of 320 ms. The graph (``rechka.export.conformer``) takes ``features`` (B, 32 k, 15) and
``state`` (B, S) and gives ``logprobs`` (B, 8 k, V) and ``state_next``; streams with the same k share one call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rechka.backends import open_backend
from rechka.errors import BadCard, BadModelFile
from rechka.features import bands
from rechka.protocols import Backend
from rechka.types import F32, Frames, LogProbs, ModelSpec, Tokens

LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюя "
"""Order of the outputs; ё is written е; the blank comes last."""
FRAME = 4 * bands.STEP
"""Samples per output frame: 40 ms."""


@dataclass(frozen=True, slots=True)
class ConformerState:
    """A stream's features, network state (S,), and the number of output frames so far."""

    features: bands.BandState
    network: F32
    frames: int


class ConformerModel:
    """The AcousticModel of family ``conformer``.

    Args:
        backend: runs the graph.
        chunk: samples of one chunk.
        lag: samples by which letters come late (measured, from the card).
    Raises:
        BadModelFile: the graph's inputs and outputs are others.
    """

    def __init__(self, backend: Backend, *, chunk: int = 8 * FRAME, lag: int = 0) -> None:
        self._backend = backend
        inputs = backend.inputs
        if set(inputs) != {"features", "state"} or set(backend.outputs) != {"logprobs", "state_next"}:
            raise BadModelFile(
                f"expected inputs features, state and outputs logprobs, state_next; got {sorted(inputs)} and "
                f"{sorted(backend.outputs)}",
                remedy="this graph belongs to another family",
            )
        self._state_size = int(inputs["state"][0][1])
        tokens = Tokens((*LETTERS, ""), blank=len(LETTERS))
        self.spec = ModelSpec(
            sample_rate=bands.SAMPLE_RATE, hop=FRAME, chunk=chunk, shift=chunk, pad=chunk, lag=lag, max_len=None,
            tokens=tokens, emits=LogProbs,
        )  # fmt: skip

    def initial_state(self) -> ConformerState:
        """Silence before, nothing heard."""
        return ConformerState(bands.BandState.initial(), np.zeros(self._state_size, np.float32), 0)

    def step(
        self, audio: Sequence[F32], states: Sequence[ConformerState], /
    ) -> tuple[list[Frames], list[ConformerState]]:
        """One step of each stream; see ``rechka.protocols.AcousticModel``.

        Raises:
            ValueError: audio that is no whole number of chunks.
        """
        groups: dict[int, list[int]] = defaultdict(list)
        for index, samples in enumerate(audio):
            if not len(samples) or len(samples) % self.spec.chunk:  # type: ignore[operator]
                raise ValueError(f"audio must hold whole chunks of {self.spec.chunk} samples, got {len(samples)}")
            groups[len(samples)].append(index)
        frames: dict[int, Frames] = {}
        after: dict[int, ConformerState] = {}
        for members in groups.values():
            pushed = [bands.push(audio[i], states[i].features) for i in members]
            out = self._backend.run(
                {
                    "features": np.stack([features for features, _ in pushed]),
                    "state": np.stack([states[i].network for i in members]),
                }
            )
            for row, i in enumerate(members):
                values = out["logprobs"][row]
                frames[i] = LogProbs(values, states[i].frames)
                after[i] = ConformerState(pushed[row][1], out["state_next"][row], states[i].frames + len(values))
        return [frames[i] for i in range(len(audio))], [after[i] for i in range(len(audio))]


def load(
    files: Mapping[str, Path], params: Mapping[str, Any], *, device: str = "cpu", threads: int | None = None
) -> ConformerModel:
    """Build the model from its card's files and parameters (``chunk_ms``, ``lag_ms``).

    Raises:
        BadCard: a parameter that is missing or no number.
        BadModelFile: the graph cannot be read or is another family's.
    """
    try:
        chunk = round(float(params["chunk_ms"]) * bands.SAMPLE_RATE / 1000)
        lag = round(float(params.get("lag_ms", 0)) * bands.SAMPLE_RATE / 1000)
    except (KeyError, TypeError, ValueError) as error:
        raise BadCard(f"family conformer needs numbers chunk_ms and lag_ms in [params], got {dict(params)}") from error
    return ConformerModel(open_backend(files, device=device, threads=threads), chunk=chunk, lag=lag)
