"""T-one on a GPU: seconds of audio per second, latency, and how far the device's own limits are, by size of the batch.

Samples come from the machine's memory and log-probabilities go back there, as in use: nothing is left out. What the
device can do is measured in the same run: its products of matrices, its memory, the link to it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from rechka.backends.torch import FP8_CAPABILITY, TorchArena
from rechka.export.verify import Drift, probe_signal
from rechka.nn.fused import rows_in_8_bits
from rechka.nn.tone import Tone
from rechka.nn.tone_config import ToneConfig
from rechka.nn.weights import recipe_weights

PUBLISHED = 17_203.0
"""Seconds of audio per second that T-one's authors report for TensorRT on an H100 at batch 1024, without transfers."""
CHUNK_S = 0.3
FILE_CHUNKS = 16
"""Chunks of a recording that one run takes."""
DRIFT_STREAMS, DRIFT_CHUNKS = 4, 12
SEED = 777
LATENCY_RUNS = 100
STREAMS = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Kernels and precision, as ``TorchArena`` knows them."""

    kernels: str
    precision: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device can do at best.

    Attributes:
        tflops: of products of large matrices, by precision, in 10^12 operations a second.
        memory_gb_s: read and written, in 10^9 bytes a second.
        to_device_gb_s, from_device_gb_s: between page-locked memory and the device.
    """

    tflops: Mapping[str, float]
    memory_gb_s: float
    to_device_gb_s: float
    from_device_gb_s: float


@dataclass(frozen=True, slots=True)
class Point:
    """One size of a batch.

    Attributes:
        mode: ``"live"``: a chunk of each stream a run; ``"files"``: ``FILE_CHUNKS`` of them.
        streams, chunks: of one run.
        audio_s: seconds of audio per second, steps one behind the other, all transfers included.
        of_products: share of what products at the device's peak would allow.
        of_memory: the same for reading the weights once a run and every stream's state.
        ratio: to ``PUBLISHED``.
        p50_ms, p95_ms: of one run by itself, from samples in memory to log-probabilities in memory.
    """

    mode: str
    streams: int
    chunks: int
    audio_s: float
    of_products: float
    of_memory: float
    ratio: float
    p50_ms: float
    p95_ms: float


@dataclass(slots=True)
class Result:
    """What was measured of a contestant; ``error`` if it could not run."""

    kernels: str
    precision: str
    load_s: float = 0.0
    drift: dict[str, float] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    error: str = ""


def contestants(device: Any, kernels: Sequence[str], precisions: Sequence[str]) -> list[Contestant]:
    """All pairs that a device can run, 8 bits only with hardware for it; the usual precision of all kernels first."""
    able = device.type != "cuda" or torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    return [Contestant(k, p) for p in precisions if able or p != "fp8" for k in kernels]


def limits(device: Any, *, size: int = 8192, megabytes: int = 2048) -> Limits:
    """Measure them, on random numbers: zeros run faster than data does."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(size, size, generator=generator).to(device)
    operations = 2.0 * size**3 / 1e12
    tflops = {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        a = square.to(dtype)
        tflops[name] = operations / _best(lambda a=a: a @ a, device)  # type: ignore[misc]
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY:
        rows = rows_in_8_bits(square)
        tflops["fp8"] = operations / _best(
            lambda: torch._scaled_mm(
                rows.values, rows.values.t(), scale_a=rows.scale, scale_b=rows.scale.t(), out_dtype=torch.bfloat16
            ),
            device,
        )
    one, other = (torch.zeros(megabytes << 20, dtype=torch.uint8, device=device) for _ in range(2))
    memory = 2.0 * one.numel() / _best(lambda: other.copy_(one), device) / 1e9
    part = one[: min(one.numel(), 256 << 20)]
    host = torch.zeros(part.numel(), dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = part.numel() / _best(lambda: part.copy_(host, non_blocking=True), device) / 1e9
    back = part.numel() / _best(lambda: host.copy_(part, non_blocking=True), device) / 1e9
    return Limits(tflops, memory, there, back)


def _best(work: Callable[[], Any], device: Any, rounds: int = 5, repeats: int = 4) -> float:
    """Seconds of one call, the best round of some."""
    work()
    best = float("inf")
    for _ in range(rounds):
        _wait(device)
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        _wait(device)
        best = min(best, (time.perf_counter() - begin) / repeats)
    return best


def _wait(device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_weights(config: ToneConfig) -> dict[str, Any]:
    """Weights of the full size, for figures of speed."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Tone(config).state_dict().items()}
    return recipe_weights(shapes, SEED)


def reference(arrays: Mapping[str, Any], config: ToneConfig, device: Any) -> tuple[Any, Any]:
    """Samples (B, n) that reach all parts of the network, and torch's log-probabilities for them in float32."""
    signal = probe_signal(DRIFT_STREAMS, DRIFT_CHUNKS * config.chunk_samples).astype(np.int16)
    module = Tone(config)
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=False)
    module.to(device).eval()
    with torch.inference_mode():
        wave = torch.from_numpy(signal).to(device).float() / 32767
        return signal, module.step(wave, module.initial_state(len(signal)))[0].cpu().numpy()


def drift(arena: TorchArena, signal: Any, wanted: Any) -> Drift:
    """From ``reference``, chunk by chunk and each stream among the others."""
    slots = list(range(len(signal)))
    pieces = np.split(signal, signal.shape[1] // arena.chunk, axis=1)
    found = [arena.run(slots, [i] * len(slots), np.ascontiguousarray(piece)) for i, piece in enumerate(pieces)]
    return Drift.between(wanted, np.concatenate(found, axis=1))


def point(arena: TorchArena, limit: Limits, streams: int, chunks: int, seconds: float) -> Point:
    """One size, for so many seconds, and its latency."""
    generator = np.random.default_rng(0)
    loud = 3000 * generator.standard_normal((3, streams, chunks * arena.chunk), np.float32)
    signals = loud.clip(-32767, 32767).astype(np.int16)
    slots, turn = list(range(streams)), 0

    def begin() -> Any:
        nonlocal turn
        turn += 1
        return arena.submit(slots, [turn * chunks] * streams, signals[turn % len(signals)])

    for _ in range(3):
        begin().result()
    start, done, pending = time.perf_counter(), 0, begin()
    while done < 4 or time.perf_counter() - start < seconds:
        later = begin()
        pending.result()
        pending, done = later, done + 1
    pending.result()
    audio_s = (done + 1) * streams * chunks * CHUNK_S / (time.perf_counter() - start)
    taken, until = list[float](), time.perf_counter() + seconds
    while len(taken) < 5 or (len(taken) < LATENCY_RUNS and time.perf_counter() < until):
        begun = time.perf_counter()
        begin().result()
        taken.append(1000 * (time.perf_counter() - begun))
    per_s = audio_s / CHUNK_S / chunks  # streams' turns a second
    operations, moved = 2 * arena.arithmetic * chunks, arena.bytes_per_run / streams + arena.bytes_per_slot
    peak = limit.tflops.get(arena.precision, limit.tflops["bf16"])
    return Point(
        "live" if chunks == 1 else "files", streams, chunks, audio_s, per_s * operations / 1e12 / peak,
        per_s * moved / 1e9 / limit.memory_gb_s, audio_s / PUBLISHED,
        float(np.percentile(taken, 50)), float(np.percentile(taken, 95)),
    )  # fmt: skip


def measure(
    arrays: Mapping[str, Any], config: ToneConfig, device: str, chosen: Sequence[Contestant], limit: Limits, *,
    streams: Sequence[int] = STREAMS, seconds: float = 1.0, tell: Callable[[str], None],
) -> list[Result]:  # fmt: skip
    """Everything about every contestant; one that fails says why and does not stop the others."""
    live = sorted({*streams, DRIFT_STREAMS})
    files = sorted({max(1, number // FILE_CHUNKS) for number in streams})
    signal, wanted = reference(arrays, config, torch.device(device))
    results = []
    for contestant in chosen:
        result = Result(**asdict(contestant))
        results.append(result)
        name = f"{contestant.kernels} {contestant.precision}"
        tell(f"{name}: loading")
        began, arena = time.perf_counter(), None
        try:
            arena = TorchArena(
                arrays, config, device=device, precision=contestant.precision, kernels=contestant.kernels,
                slots=max(live), runs={1: live, FILE_CHUNKS: files},
            )  # fmt: skip
            result.load_s = time.perf_counter() - began
            result.drift = asdict(drift(arena, signal, wanted))
            for number, chunks in [*((n, 1) for n in live), *((n, FILE_CHUNKS) for n in files)]:
                result.points.append(point(arena, limit, number, chunks, seconds))
                tell(f"{name}: {number} x {chunks}: {result.points[-1].audio_s:,.0f} s of audio per second")
        except Exception as error:  # noqa: BLE001 - compilers of kernels raise what they like; the others go on
            result.error = f"{type(error).__name__}: {str(error)[:300]}"
            tell(f"{name}: {result.error}")
        del arena
        gc.collect()
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
    return results


def machine(device: Any) -> dict[str, Any]:
    """What the figures were made on."""
    found: dict[str, Any] = {"device": str(device), "torch": torch.__version__}
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        found |= {
            "name": torch.cuda.get_device_name(device), "capability": f"{capability[0]}.{capability[1]}",
            "cuda": torch.version.cuda, "memory_gb": torch.cuda.get_device_properties(device).total_memory / 1e9,
        }  # fmt: skip
    return found
