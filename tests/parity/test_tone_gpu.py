"""T-one on a GPU, with CUDA graphs, all kernels and precisions, against the torch module in float32 on the CPU."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs rechka[train]")

from rechka.backends.torch import FP8_CAPABILITY, TorchArena  # noqa: E402
from rechka.export.onnx import read_config  # noqa: E402
from rechka.nn.tone import Tone  # noqa: E402
from rechka.nn.tone_config import ToneConfig  # noqa: E402
from rechka.nn.weights import read_weights, recipe_weights  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"),
]

DATA = Path(__file__).parents[1] / "data" / "tone"
STREAMS, CHUNKS, CHUNK = 6, 9, 2400
LIMITS = {"fp32": 1e-4, "fp16": 0.03, "bf16": 0.15, "fp8": 0.6}
"""Largest difference of a probability; random weights give flat distributions that move easily."""


@lru_cache
def model(size: str) -> tuple[ToneConfig, Any, Any, Any]:
    """Configuration, weights, samples (STREAMS, n) and log-probabilities (STREAMS, T, V)."""
    config = read_config(DATA / "mini_config.json") if size == "mini" else ToneConfig()
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Tone(config).state_dict().items()}
    weights = read_weights(DATA / "mini.safetensors") if size == "mini" else recipe_weights(shapes, 777)
    module = Tone(config).eval()
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    noise = (
        np.random.default_rng(0).standard_normal((STREAMS, CHUNKS * CHUNK)) * np.geomspace(50, 12000, STREAMS)[:, None]
    )
    samples = noise.clip(-32767, 32767).astype(np.int16)
    with torch.no_grad():
        wanted, _ = module.step(torch.from_numpy(samples).float() / 32767, module.initial_state(STREAMS))
    return config, weights, samples, wanted.numpy()


def arena(size: str, precision: str, kernels: str) -> TorchArena:
    if precision == "fp8" and torch.cuda.get_device_capability() < FP8_CAPABILITY:
        pytest.skip("this GPU has no 8-bit floating point products")
    config, weights, _, _ = model(size)
    return TorchArena(
        weights, config, device="cuda", precision=precision, kernels=kernels, slots=9, runs={1: (1, 2, 8), 3: (2, 4)}
    )


@pytest.mark.parametrize(
    ("size", "precision", "kernels"),
    [
        ("mini", "fp32", "eager"), ("mini", "fp32", "fused"), ("mini", "fp32", "compiled"),
        ("full", "fp32", "fused"), ("full", "bf16", "eager"), ("full", "bf16", "fused"), ("full", "fp16", "fused"),
        ("mini", "fp16", "tiled"), ("full", "bf16", "tiled"), ("full", "fp8", "eager"), ("full", "fp8", "fused"),
    ],
)  # fmt: skip
def test_streams_that_come_and_go(size: str, precision: str, kernels: str) -> None:
    """Runs of all sizes, several under way at once, slots in no order, their last owners' leavings in them."""
    _, _, samples, wanted = model(size)
    tone = arena(size, precision, kernels)
    rng = np.random.default_rng(1)
    tone.run(list(range(8)), [0] * 8, rng.integers(-9000, 9000, (8, CHUNK)).astype(np.int16))
    slots, heard = list(rng.permutation(9)[:STREAMS]), [0] * STREAMS
    found: list[list[Any]] = [[] for _ in range(STREAMS)]
    pending: list[tuple[list[int], Any]] = []
    while any(count < CHUNKS for count in heard):
        chunks = 3 if rng.integers(3) == 0 else 1
        able = [stream for stream in range(STREAMS) if heard[stream] + chunks <= CHUNKS]
        going = list(rng.permutation(able)[: rng.integers(1, tone.largest(chunks) + 1)])
        if not going:
            continue
        pieces = [samples[s, heard[s] * CHUNK : (heard[s] + chunks) * CHUNK] for s in going]
        asked = tone.submit([int(slots[s]) for s in going], [heard[s] for s in going], np.stack(pieces))
        pending.append((going, asked))
        for stream in going:
            heard[stream] += chunks
    for going, asked in pending:
        for stream, rows in zip(going, asked.result(), strict=True):
            found[stream].append(rows)
    everything = np.stack([np.concatenate(rows) for rows in found])
    assert np.isfinite(everything).all()
    assert np.abs(np.exp(everything) - np.exp(wanted)).max() < LIMITS[precision]


def test_an_idle_slot_keeps_its_state_to_the_bit() -> None:
    _, _, samples, _ = model("mini")
    tone = arena("mini", "bf16", "fused")
    tone.run([0, 1], [0, 0], samples[:2, :CHUNK])
    before = tone.save(1)
    tone.run([3, 0, 2], [0, 1, 0], samples[:3, :CHUNK])  # of eight rows five are nobody's
    assert all(torch.equal(a, b) for a, b in zip(before, tone.save(1), strict=True))
