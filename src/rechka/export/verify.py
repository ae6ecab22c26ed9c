"""Does an exported graph say what the network says?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rechka.backends.ort import OrtBackend
from rechka.errors import BadModelFile
from rechka.protocols import Backend
from rechka.types import F32


@dataclass(frozen=True, slots=True)
class Drift:
    """How far log-probabilities (..., V) are from a reference.

    Attributes:
        max_logprob: largest difference of a log-probability.
        max_prob: largest difference of a probability.
        kl: mean Kullback-Leibler divergence per frame, in nats.
        agreement: share of frames whose best token is the same.
    """

    max_logprob: float
    max_prob: float
    kl: float
    agreement: float

    @classmethod
    def between(cls, reference: F32, other: F32) -> Drift:
        """Measure."""
        p, q = reference.astype(np.float64), other.astype(np.float64)
        return cls(
            float(np.abs(p - q).max()),
            float(np.abs(np.exp(p) - np.exp(q)).max()),
            float((np.exp(p) * (p - q)).sum(axis=-1).mean()),
            float((p.argmax(axis=-1) == q.argmax(axis=-1)).mean()),
        )

    def __str__(self) -> str:
        return (
            f"log-probabilities differ by at most {self.max_logprob:.2g}, probabilities by {self.max_prob:.2g}, "
            f"KL {self.kl:.2g} nats per frame, same best token in {100 * self.agreement:.1f} % of frames"
        )


LIMITS = {"fp32": 1e-3, "fp16": 3e-2, "int8": 0.3}
"""Largest difference of a probability that an export may have, by precision. A wrong graph is off by far more."""


def require(drift: Drift, precision: str, *, what: str) -> None:
    """Raise BadModelFile unless the drift is within the limit of the precision."""
    if not drift.max_prob <= LIMITS[precision]:  # so written that NaN fails
        raise BadModelFile(
            f"{what} was not written: {drift}; at most {LIMITS[precision]} in probability is allowed for {precision}",
            remedy="report this with the configuration of the model; an fp32 export may still do",
        )


def probe_signal(streams: int, samples: int, seed: int = 0) -> Any:
    """Integer audio (streams, samples) that reaches all parts of a network: noise and hums that swell and fade."""
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / 8000
    loudness = 0.02 + 0.5 * np.sin(2 * np.pi * generator.uniform(0.3, 2, (streams, 1)) * time) ** 4
    pitch = generator.uniform(90, 250, (streams, 1))
    hum = sum(np.sin(2 * np.pi * pitch * n * time + n) / n for n in range(1, 12))
    sound = loudness * (0.4 * hum + 0.3 * generator.standard_normal((streams, samples)))
    return np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int32)


def run_chunks(path: Path | bytes | Backend, signal: Any, *, chunk: int, per_run: int = 1) -> tuple[F32, F32]:
    """A T-one graph over a signal (B, n), ``per_run`` chunks a run: log-probabilities (B, T, V), and the last state."""
    backend = OrtBackend(path, threads=1) if isinstance(path, (Path, bytes)) else path
    state = {
        name: np.zeros((len(signal), shape[1]), dtype)
        for name, (shape, dtype) in backend.inputs.items()
        if name != "signal"
    }
    parts = []
    for start in range(0, signal.shape[1], per_run * chunk):
        out = backend.run({"signal": signal[:, start : start + per_run * chunk, None], **state})
        parts.append(out["logprobs"])
        state = {name: out[f"{name}_next"] for name in state}
    return np.concatenate(parts, axis=1), np.concatenate(list(state.values()), axis=1, dtype=np.float32)
