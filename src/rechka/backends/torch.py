"""T-one on a GPU: many streams whose states never leave it, one copy of samples in, one copy of results out.

Every size of a batch has a CUDA graph of its own, captured when the arena is made, so that a step is one launch. A
batch that is smaller than its graph is filled with rows that belong to no stream. While one step is computed the
samples of the next are on their way (``submit``).

On ``device="cpu"`` the same code runs without graphs: that is how its results are tested where there is no GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rechka.errors import BadModelFile, MissingExtra, UsageError
from rechka.nn.fused import Compiled, Reference
from rechka.nn.tone import Tone
from rechka.nn.tone_config import ToneConfig
from rechka.nn.tone_net import arithmetic, make_net, num_weights
from rechka.nn.tone_slots import Slots, clock, period, published_state, step
from rechka.nn.weights import read_weights
from rechka.types import F32

Samples = NDArray[np.int16]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
KERNELS = ("eager", "compiled", "fused", "tiled")
FP8_CAPABILITY = (8, 9)
"""First compute capability whose matrix units take 8-bit floating point: Ada; Hopper is 9.0."""
FP8_LIMIT = 0.1
"""Largest mean divergence (Kullback-Leibler, nats per frame) from float32 that 8 bits may make."""
RUNS: Mapping[int, tuple[int, ...]] = {
    1: (1, 4, 16, 64, 128, 256, 512, 1024, 2048),
    4: (1, 4, 16, 64, 256),
    16: (1, 4, 16, 64),
}
"""Chunks of a run -> numbers of streams that it is captured for. Beyond 64 a half-empty run costs what a full one does,
so there they are closer together."""
DEFAULT_SLOTS = 2048
HEADER = 4
"""16-bit words before the samples of a row: slot and clock as 32-bit integers."""
PROBE_CHUNKS = 8


class Pending:
    """A step that was asked for."""

    def __init__(self, fetch: Callable[[], Any]) -> None:
        self._fetch = fetch

    def result(self) -> Any:
        """Wait for it; the array is the caller's own."""
        return self._fetch()


class TorchArena:
    """T-one's weights and the states of up to ``slots`` streams on one device. Thread-safe.

    Args:
        arrays: the weights by name.
        config: the architecture.
        device: ``"cuda"`` (or ``"cuda:1"``), or ``"cpu"``.
        precision: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"fp8"``; None means bf16 on a GPU and fp32 on a CPU.
        slots: streams that have their state on the device at the same time.
        runs: chunks -> numbers of streams of a run; one chunk must be among them.
        kernels: one of ``KERNELS``: ``"fused"`` are those of ``rechka.nn.fused_triton``; None means them on a GPU, and
            ``"eager"`` on a CPU.
        tokens: results are the best token of every frame instead of log-probabilities.
    Raises:
        UsageError: a device that is not there, an unknown precision or kernel, or 8 bits on a GPU that has none.
        MissingExtra: Triton is not installed and its kernels are wanted.
        BadModelFile: weights of another architecture, or 8 bits that change the results too much.
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        config: ToneConfig | None = None,
        *,
        device: str = "cuda",
        precision: str | None = None,
        slots: int = DEFAULT_SLOTS,
        runs: Mapping[int, Sequence[int]] = RUNS,
        kernels: str | None = None,
        tokens: bool = False,
    ) -> None:
        self.config = config or ToneConfig()
        self.device = find_device(device)
        on_gpu = self.device.type == "cuda"
        self.precision = precision or ("bf16" if on_gpu else "fp32")
        self.kernels = kernels or ("fused" if on_gpu else "eager")
        _check(self.device, self.precision, self.kernels, slots, runs)
        self.num_slots, self.tokens = slots, tokens
        self.chunk, self.frames = self.config.chunk_samples, self.config.chunk_size
        self._period = period(self.config)
        self._ops = _operations(self.kernels)
        self._lock = threading.Lock()
        self._net = make_net(
            arrays, self.config, device=self.device, dtype=PRECISIONS[self.precision], in_8_bits=self.precision == "fp8"
        )
        self._slots = Slots.make(self._net, slots)
        self.runs = {chunks: tuple(sorted(sizes)) for chunks, sizes in sorted(runs.items())}
        self._lane: _Direct | _Graphs = (_Graphs if on_gpu else _Direct)(self)
        if self.precision == "fp8":
            self._check_8_bits(arrays)

    @property
    def bytes_per_slot(self) -> int:
        """What one stream takes on the device."""
        return self._slots.bytes_per_slot

    @property
    def bytes_per_run(self) -> int:
        """Weights that every run reads, about."""
        return num_weights(self.config) * (1 if self.precision == "fp8" else PRECISIONS[self.precision].itemsize)

    @property
    def arithmetic(self) -> float:
        """Multiply-adds of one chunk of one stream."""
        return arithmetic(self.config)

    def largest(self, chunks: int) -> int:
        """Streams of a run of so many chunks at most."""
        return self.runs[chunks][-1]

    def run(self, slots: Sequence[int], heard: Sequence[int], signal: Samples) -> Any:
        """``submit``, and wait."""
        return self.submit(slots, heard, signal).result()

    def submit(self, slots: Sequence[int], heard: Sequence[int], signal: Samples) -> Pending:
        """Begin the next step of some streams. Steps happen in the order in which they are submitted.

        Args:
            slots: of the streams, all different.
            heard: chunks that each of them has heard; 0 begins a new stream in the slot.
            signal: (streams, k * chunk) samples, for a k of ``runs`` and no more streams than ``largest(k)``.
        Returns:
            What will be (streams, 10 * k, V) float32 log-probabilities, or (streams, 10 * k) uint8 tokens.
        """
        chunks, rest = divmod(signal.shape[1], self.chunk)
        count = len(signal)
        if rest or chunks not in self.runs or not 0 < count <= self.largest(chunks):
            raise UsageError(
                f"a run takes {', '.join(f'{k} chunks of up to {self.largest(k)} streams' for k in self.runs)}; "
                f"got {signal.shape[1]} samples of {count} streams"
            )
        if len(set(slots)) != count or not all(0 <= slot < self.num_slots for slot in slots):
            raise UsageError(f"a run takes different slots from 0 to {self.num_slots - 1}, one per stream")
        size = next(size for size in self.runs[chunks] if size >= count)
        with self._lock:
            return self._lane.submit(slots, [clock(n, self._period) for n in heard], signal, chunks, size)

    def save(self, slot: int) -> list[Any]:
        """What a slot remembers, as tensors on the CPU: for ``restore``, in this process."""
        with self._lock, torch.inference_mode():
            self._lane.settle()
            return [tensor[slot].to("cpu", copy=True) for tensor in self._slots.tensors]

    def restore(self, slot: int, saved: Sequence[Any]) -> None:
        """Put back what ``save`` gave, in the same or another slot."""
        with self._lock, torch.inference_mode():
            self._lane.settle()
            for tensor, values in zip(self._slots.tensors, saved, strict=True):
                tensor[slot].copy_(values)
            self._lane.settle()

    def state(self, slot: int, heard: int) -> F32:
        """A slot's stream in the layout of the published model, (state_size,)."""
        with self._lock, torch.inference_mode():
            self._lane.settle()
            return np.asarray(published_state(self._net, self._slots, slot, heard).float().cpu().numpy())

    def _compute(self, rows: Any) -> Any:
        """(B, 4 + k * 2400) 16-bit words to results in the type that is copied back."""
        owners, heard = rows[:, :HEADER].contiguous().view(torch.int32).long().t().contiguous()
        found = step(self._net, self._slots, owners, heard, rows[:, HEADER:], self._ops)
        if self.tokens:
            return found.argmax(dim=-1).to(torch.uint8)
        return found.half() if self._net.dtype != torch.float32 else found

    def _check_8_bits(self, arrays: Mapping[str, Any]) -> None:
        """Compare with float32 in torch, chunk by chunk, on sound of all loudnesses."""
        generator = np.random.default_rng(0)
        loud = np.repeat(np.geomspace(1e-3, 0.5, PROBE_CHUNKS), self.chunk)
        signal = np.asarray(generator.standard_normal(loud.shape) * loud * 32767).clip(-32767, 32767).astype(np.int16)
        module = Tone(self.config)
        module.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, strict=False
        )
        module.to(self.device).eval()
        with torch.inference_mode():
            wave = torch.from_numpy(signal)[None].to(self.device).float() / 32767
            wanted = module.step(wave, module.initial_state())[0][0].cpu().numpy()
            rows = []
            for heard, piece in enumerate(torch.from_numpy(signal).to(self.device).view(PROBE_CHUNKS, 1, -1)):
                owner, at = (torch.tensor([n], device=self.device) for n in (0, clock(heard, self._period)))
                rows.append(step(self._net, self._slots, owner, at, piece, self._ops)[0].cpu().numpy())
            found = np.concatenate(rows)
        drift = float((np.exp(wanted) * (wanted - found)).sum(axis=-1).mean())
        if not drift <= FP8_LIMIT:  # so written that NaN fails
            raise BadModelFile(
                f"products in 8 bits diverge from float32 by {drift:.2g} nats per frame, allowed are {FP8_LIMIT}",
                remedy="use bf16 for this model",
            )


class _Direct:
    """Runs at once and without graphs."""

    def __init__(self, arena: TorchArena) -> None:
        self._arena = arena

    def submit(
        self, slots: Sequence[int], clocks: Sequence[int], signal: Samples, chunks: int, size: int
    ) -> Pending:  # fmt: skip
        arena = self._arena
        rows = np.zeros((size, HEADER + chunks * arena.chunk), np.int16)
        _fill(rows, slots, clocks, signal, arena.num_slots)
        with torch.inference_mode():
            found = arena._compute(torch.from_numpy(rows).to(arena.device))[: len(signal)]
        values = found.float().cpu().numpy() if found.is_floating_point() else found.cpu().numpy()
        return Pending(lambda: values)

    def settle(self) -> None:
        """Everything that was submitted is done."""


class _Stage:
    """Page-locked memory for one step, and the events that say when it may be used again."""

    def __init__(self, words: int, results: int, dtype: Any, device: Any) -> None:
        self.words = torch.empty(words, dtype=torch.int16, pin_memory=True)
        self.on_device = torch.empty(words, dtype=torch.int16, device=device)
        self.results = torch.empty(results, dtype=dtype, pin_memory=True)
        self.arrived, self.read, self.done = (torch.cuda.Event() for _ in range(3))
        self.taken: Pending | None = None


class _Graphs:
    """One CUDA graph per size of a batch; two stages, so that samples travel while the step before is computed."""

    def __init__(self, arena: TorchArena) -> None:
        self._arena, device = arena, arena.device
        row = {chunks: HEADER + chunks * arena.chunk for chunks in arena.runs}
        words = max(arena.largest(chunks) * row[chunks] for chunks in arena.runs)
        self._input = torch.zeros(words, dtype=torch.int16, device=device)
        self._main, self._copies = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._graphs: dict[tuple[int, int], tuple[Any, Any, Any]] = {}
        pool = torch.cuda.graph_pool_handle()
        sizes = [(size, chunks) for chunks, all_sizes in arena.runs.items() for size in all_sizes]
        for size, chunks in sorted(sizes, key=lambda pair: -pair[0] * pair[1]):  # the largest makes the pool
            rows = self._input[: size * row[chunks]].view(size, row[chunks])
            self._graphs[size, chunks] = self._capture(rows, pool)
        results = max(out.numel() for _, _, out in self._graphs.values())
        dtype = next(iter(self._graphs.values()))[2].dtype
        self._stages = [_Stage(words, results, dtype, device) for _ in range(2)]
        self._turn = 0

    def _capture(self, rows: Any, pool: Any) -> tuple[Any, Any, Any]:
        """Run once, which compiles and chooses algorithms, then record."""
        rows.zero_()
        rows.view(torch.int32)[:, 0] = self._arena.num_slots
        graph = torch.cuda.CUDAGraph()
        convolutions = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
        with torch.inference_mode(), torch.cuda.device(self._arena.device), convolutions:
            torch.cuda.synchronize()
            with torch.cuda.stream(self._main):
                for _ in range(2):
                    self._arena._compute(rows)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, pool=pool, stream=self._main):
                out = self._arena._compute(rows)
        return graph, rows, out

    def submit(
        self, slots: Sequence[int], clocks: Sequence[int], signal: Samples, chunks: int, size: int
    ) -> Pending:  # fmt: skip
        stage = self._stages[self._turn % len(self._stages)]
        self._turn += 1
        if stage.taken is not None:
            stage.taken.result()  # its results are kept for whoever asks; the memory is wanted again
        graph, rows, out = self._graphs[size, chunks]
        words = rows.numel()
        _fill(stage.words[:words].view(rows.shape).numpy(), slots, clocks, signal, self._arena.num_slots)
        with torch.inference_mode(), torch.cuda.device(self._arena.device):
            with torch.cuda.stream(self._copies):
                self._copies.wait_event(stage.read)
                stage.on_device[:words].copy_(stage.words[:words], non_blocking=True)
                stage.arrived.record()
            with torch.cuda.stream(self._main):
                self._main.wait_event(stage.arrived)
                rows.view(-1).copy_(stage.on_device[:words])
                stage.read.record()
                graph.replay()
                wanted = out[: len(signal)]
                stage.results[: wanted.numel()].copy_(wanted.reshape(-1), non_blocking=True)
                stage.done.record()
        stage.taken = pending = Pending(_once(stage, wanted.numel(), tuple(wanted.shape)))
        return pending

    def settle(self) -> None:
        """Wait until everything that was submitted, and whatever else was asked of the device, is done."""
        torch.cuda.synchronize(self._arena.device)


def _once(stage: _Stage, count: int, shape: tuple[int, ...]) -> Callable[[], Any]:
    """Waits, and copies the results out of the stage the first time it is asked."""
    lock, kept = threading.Lock(), list[Any]()

    def fetch() -> Any:
        with lock:
            if not kept:
                stage.done.synchronize()
                found = stage.results[:count].numpy().reshape(shape)
                kept.append(found.astype(np.float32) if found.dtype == np.float16 else found.copy())
            return kept[0]

    return fetch


def _fill(rows: Samples, slots: Sequence[int], clocks: Sequence[int], signal: Samples, nobody: int) -> None:
    """Write a batch; the rows behind it belong to nobody, whatever their samples are."""
    header = rows[:, :HEADER].view(np.int32)
    header[:, 0], header[:, 1] = nobody, 0
    header[: len(slots), 0], header[: len(slots), 1] = slots, clocks
    rows[: len(signal), HEADER:] = signal


def find_device(name: str) -> Any:
    """A device of torch by its name.

    Raises:
        UsageError: there is none of that name on this machine.
    """
    kind, _, number = name.partition(":")
    if name == "cpu" or (kind == "cuda" and torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count()):
        return torch.device(name)
    raise UsageError(
        f"device {name!r} was asked for, and torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices",
        remedy="check the driver with nvidia-smi and install a CUDA build of torch",
    )


def _operations(kernels: str) -> Reference:
    if kernels == "eager":
        return Reference()
    if kernels == "compiled":
        return Compiled()
    try:
        from rechka.nn.fused_triton import Fused, Tiled
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the fused kernels need {error.name}, which torch brings on Linux with CUDA", remedy="pip install triton"
        ) from None
    return Fused() if kernels == "fused" else Tiled()


def _check(device: Any, precision: str, kernels: str, slots: int, runs: Mapping[int, Sequence[int]]) -> None:
    for what, value, known in (("precision", precision, tuple(PRECISIONS)), ("kernels", kernels, KERNELS)):
        if value not in known:
            raise UsageError(f"{what} must be one of {', '.join(known)}, got {value!r}")
    if slots < 1 or 1 not in runs or any(not sizes or min(sizes) < 1 for sizes in runs.values()):
        raise UsageError(
            f"an arena has at least one slot and runs of one chunk; got {slots} slots and runs {dict(runs)}"
        )
    if precision == "fp8" and device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise UsageError(
            f"{torch.cuda.get_device_name(device)} has no 8-bit floating point products", remedy="use bf16"
        )


def open_arena(weights: Path, config: Path | None = None, **options: Any) -> TorchArena:
    """An arena from a checkpoint (``.safetensors`` or torch) and its ``config.json``; options as ``TorchArena``."""
    import json

    try:
        sizes = ToneConfig() if config is None else ToneConfig.from_dict(json.loads(config.read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadModelFile(f"{config} is no configuration of T-one: {error}") from error
    try:
        return TorchArena(read_weights(weights), sizes, **options)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"the device has too little memory for the model and its slots: {str(error).splitlines()[0]}",
            remedy="set fewer slots under [params] in the card, or free the device",
        ) from error
