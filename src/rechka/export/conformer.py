"""The embedded model's graph: features and state in, log-probabilities and next state out; any batch, any chunks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rechka.backends.ort import OrtBackend
from rechka.errors import BadModelFile
from rechka.nn.conformer import SUBSAMPLING, StreamingConformer

OPSET = 18
TOLERANCE = 2e-4
"""Largest difference of a log-probability between torch and the written graph that is let through."""


class _Step(nn.Module):
    def __init__(self, model: StreamingConformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.step(features, state)


def export(model: StreamingConformer, path: Path) -> float:
    """Write ``model`` as ONNX.

    Inputs: ``features`` (B, 4 chunk k, bands), ``state`` (B, S). Outputs: ``logprobs`` (B, chunk k, V), ``state_next``.

    The file gets its name only after ONNX Runtime has reproduced torch on random features, streamed and in one block.

    Returns:
        The largest difference seen.
    Raises:
        BadModelFile: the graph differs by more than TOLERANCE.
    """
    model = model.eval()
    unit = SUBSAMPLING * model.config.chunk
    features, state = torch.randn(2, 2 * unit, model.config.bands), torch.zeros(2, model.layout.size)
    batch, chunks = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("chunks", min=1, max=4096)
    program = torch.onnx.export(
        _Step(model), (features, state), dynamo=True, opset_version=OPSET,
        input_names=["features", "state"], output_names=["logprobs", "state_next"],
        dynamic_shapes=({0: batch, 1: unit * chunks}, {0: batch}),
        optimize=True, verbose=False,
    )  # fmt: skip
    temporary = path.with_name(path.name + ".part")
    program.save(str(temporary))
    difference = _difference(model, temporary)
    if difference > TOLERANCE:
        temporary.unlink()
        raise BadModelFile(f"the exported graph differs from torch by {difference:.1e}, allowed is {TOLERANCE:.0e}")
    os.replace(temporary, path)
    return difference


def _difference(model: StreamingConformer, path: Path) -> float:
    backend = OrtBackend(path, threads=1)
    unit = SUBSAMPLING * model.config.chunk
    features = torch.randn(3, 6 * unit, model.config.bands, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(features)[0].numpy()
    worst = 0.0
    for step in (1, 3, 6):
        state = np.zeros((3, model.layout.size), np.float32)
        parts = []
        for start in range(0, 6, step):
            piece = features[:, start * unit : (start + step) * unit].numpy()
            out = backend.run({"features": piece, "state": state})
            state = out["state_next"]
            parts.append(out["logprobs"])
        worst = max(worst, float(np.abs(np.concatenate(parts, axis=1) - expected).max()))
    return worst
