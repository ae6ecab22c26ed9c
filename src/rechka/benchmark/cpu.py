"""T-one on this CPU, every variant beside plain ONNX Runtime in one run: files, live streams, latency, drift.

All contestants take turns round by round, so that whatever else the machine does hits all of them alike, and ratios
are taken within a round. Every contestant uses all cores, in as many one-thread workers; plain ONNX Runtime is tried
both so and with one session over all cores before the rounds, and the way that is faster there is what others are
compared with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rechka.backends.openvino import OpenVinoBackend, is_installed
from rechka.backends.ort import OrtBackend
from rechka.benchmark.roofline import TONE_GFLOP, has_bf16
from rechka.export import tone as writer
from rechka.export.verify import Drift, probe_signal, run_chunks
from rechka.models.tone import CHUNK, FIXED_RUNS, ToneModel
from rechka.nn.tone_config import ToneConfig
from rechka.protocols import Backend
from rechka.types import F32

CHUNK_S = 0.3
PROBE = 30
"""Chunks of the sound that everything reads: the largest block that the recogniser takes from a file."""
LIVE_STEPS = 8
"""Steps of a live turn, per worker."""
TURN_S = 2.0
"""About the length of a turn with files: long enough that its end, which one worker reaches first, weighs little."""
TRIES = 5
"""Turns of each way of plain ONNX Runtime that decide between them."""
LIVE_BATCH = 16
"""Streams of one live step at most: the server's default."""
SEED = 777


@dataclass(frozen=True, slots=True)
class Variant:
    """A graph on an engine. ``roof`` names the precision whose product speed bounds it."""

    name: str
    file: str
    engine: str
    roof: str
    bf16: bool = False


@dataclass(slots=True)
class Result:
    """What was measured of a variant; ratios are to plain ONNX Runtime: median, lowest, highest of the rounds.

    Attributes:
        file_s: seconds of audio per second of wall time on all cores, file mode.
        file_cpu_s: seconds of audio per second of CPU time.
        roofline: the latter as a share of what products of this precision would allow.
        live_s: as ``file_s``, for the live streams, all of them always ready.
        load: streams in real time for the latency: 70 % of ``live_s``.
        p50_ms, p95_ms: from the end of a chunk to its log-probabilities at that load.
        drift: from torch, on synthetic sound.
    """

    name: str
    file_s: float
    file_cpu_s: float
    roofline: float
    file_ratio: tuple[float, float, float]
    live_s: float
    live_ratio: tuple[float, float, float]
    load: int
    p50_ms: float
    p95_ms: float
    drift: dict[str, float]


def variants() -> list[Variant]:
    """What this machine can run; the first is what all are compared with."""
    found = [
        Variant("plain ONNX Runtime, batch 1", "published-fp16", "plain", "fp32"),
        Variant("ONNX Runtime, blocks, fp32", "block-fp32", "onnxruntime", "fp32"),
        Variant("ONNX Runtime, blocks, int8", "block-int8", "onnxruntime", "int8"),
    ]
    if is_installed():
        found.append(Variant("OpenVINO, fp32", "portable-fp32", "openvino", "fp32"))
        if has_bf16():
            found.append(Variant("OpenVINO, bf16", "portable-fp32", "openvino", "bf16", bf16=True))
            found.append(Variant("OpenVINO, int8, rest bf16", "portable-int8", "openvino", "int8", bf16=True))
        found.append(Variant("OpenVINO, full int8", "portable-int8", "openvino", "int8"))
    return found


def write_models(folder: Path, names: Sequence[str], weights: Mapping[str, Any] | None = None) -> F32:
    """Write the graphs, of random weights unless others are given; torch's answer to the probe signal (1, T, V)."""
    import torch

    from rechka.nn.tone import Tone
    from rechka.nn.weights import recipe_weights

    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Tone().state_dict().items()}
    arrays = recipe_weights(shapes, SEED) if weights is None else weights
    for name in dict.fromkeys(names):
        form, precision = name.split("-")
        state = "float16" if form == "published" else "float32"
        model = writer.build(arrays, ToneConfig(), form=form, precision=precision, state=state)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    module = Tone()
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, assign=True)
    module.eval()
    with torch.no_grad():
        signal = torch.from_numpy(_probe()).float() / 32767
        return np.asarray(module.step(signal, module.initial_state())[0].numpy())


def _probe() -> Any:
    return probe_signal(1, PROBE * CHUNK)


class _Count:
    """Work that is left, for whichever worker is free: a core that others use now and then does not hold up the end."""

    def __init__(self, left: int) -> None:
        self._left, self._lock = left, threading.Lock()

    def take(self) -> int:
        """What was left before, 0 if nothing."""
        with self._lock:
            left, self._left = self._left, max(0, self._left - 1)
            return left


class Contestant:
    """A variant, loaded: works through files or live streams on all cores."""

    def __init__(self, variant: Variant, path: Path, cores: int) -> None:
        self.variant, self.cores = variant, cores
        self._backend: Backend = (
            OpenVinoBackend(path, threads=1, bf16=variant.bf16)
            if variant.engine == "openvino"
            else OrtBackend(path, threads=1)
        )
        self._wide = OrtBackend(path, threads=cores) if variant.engine == "plain" and cores > 1 else None
        self._model = ToneModel(self._backend, runs=FIXED_RUNS if variant.engine == "openvino" else None)
        self._block = self._model.block
        self._audio = (_probe()[0] / 32767).astype(np.float32)
        self._steps = 1  # of a turn with files, per worker

    def settle(self) -> None:
        """Warm up, choose the length of a turn, and of plain ONNX Runtime's two ways the one with the faster median."""
        if self._wide is not None:
            wide, narrow = self._wide, self._backend
            tries = [(self._plain(narrow), self._plain(wide)) for _ in range(TRIES)]
            alone, together = (median(way[0] for way in ways) for ways in zip(*tries, strict=True))
            self._backend = wide if together > alone else narrow
        self.files()
        speed, _ = self.files()
        self._steps = max(1, round(TURN_S * speed / (self._block * CHUNK_S * self.cores)))

    def drift(self, reference: F32) -> Drift:
        """From ``reference``."""
        return Drift.between(reference, run_chunks(self._backend, _probe(), chunk=CHUNK)[0])

    def files(self) -> tuple[float, float]:
        """Seconds of audio per second of wall time and of CPU time, every core with a recording of its own."""
        if self.variant.engine == "plain":
            return self._plain(self._backend)
        left = _Count(self._steps * self.cores)
        audio = self._audio[: self._block * CHUNK]

        def work(_: int) -> None:
            states = [self._model.initial_state()]
            while left.take():
                states = self._model.step([audio], states)[1]

        return self._timed(work, self._steps * self._block * self.cores)

    def live(self, streams: int) -> tuple[float, float]:
        """The same for chunks of many streams, shared out among the cores."""
        if self.variant.engine == "plain":
            return self._plain(self._backend)
        shares = [list(range(worker, streams, self.cores)) for worker in range(self.cores)]

        def work(worker: int) -> None:
            mine = shares[worker]
            for start in range(0, len(mine), LIVE_BATCH):
                count = len(mine[start : start + LIVE_BATCH])
                states = [self._model.initial_state()] * count
                for turn in range(LIVE_STEPS):
                    piece = self._audio[turn * CHUNK : (turn + 1) * CHUNK]
                    _, states = self._model.step([piece] * count, states)

        return self._timed(work, LIVE_STEPS * streams)

    def latency(self, streams: int, seconds: float) -> list[float]:
        """Seconds from the end of each chunk to its result, for streams in real time with evenly spread beginnings."""
        states = [self._model.initial_state() for _ in range(streams)]
        begin = time.perf_counter() + 0.1
        due = [begin + CHUNK_S * (stream / streams) for stream in range(streams)]
        taken: set[int] = set()
        lock, late = threading.Lock(), list[float]()
        batch = 1 if self.variant.engine == "plain" else LIVE_BATCH

        def serve(_: int) -> None:
            while (now := time.perf_counter()) < begin + seconds:
                with lock:
                    ready = sorted((s for s in range(streams) if due[s] <= now and s not in taken), key=due.__getitem__)
                    mine = ready[:batch]
                    taken.update(mine)
                if not mine:
                    time.sleep(0.001)
                    continue
                later = self._model.step([self._audio[:CHUNK]] * len(mine), [states[s] for s in mine])[1]
                with lock:
                    done = time.perf_counter()
                    for stream, state in zip(mine, later, strict=True):
                        states[stream] = state
                        late.append(done - due[stream])
                        due[stream] += CHUNK_S
                        taken.discard(stream)

        self._timed(serve, 1)
        return late

    def _plain(self, backend: Backend) -> tuple[float, float]:
        """As ONNX Runtime's documentation shows it: a chunk per run, the state handed back."""
        workers = 1 if backend is self._wide else self.cores
        left = _Count(self._steps * self._block * self.cores)

        def work(_: int) -> None:
            state = np.zeros((1, backend.inputs["state"][0][1]), backend.inputs["state"][1])
            signal = _probe()
            while taken := left.take():
                i = taken % PROBE
                piece = signal[:, i * CHUNK : (i + 1) * CHUNK, None]
                state = backend.run({"signal": piece, "state": state})["state_next"]

        return self._timed(work, self._steps * self._block * self.cores, workers)

    def _timed(self, work: Callable[[int], Any], chunks: int, workers: int | None = None) -> tuple[float, float]:
        """Audio seconds per wall second and per CPU second of ``work`` in every worker."""
        failed: list[BaseException] = []

        def guarded(worker: int) -> None:
            try:
                work(worker)
            except BaseException as error:  # noqa: BLE001 - told by the caller's thread below
                failed.append(error)

        threads = [threading.Thread(target=guarded, args=(i,)) for i in range(workers or self.cores)]
        wall, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if failed:
            raise failed[0]
        return chunks * CHUNK_S / wall, chunks * CHUNK_S / cpu


def measure(
    contestants: Sequence[Contestant], reference: F32, peaks: Callable[[], Mapping[str, float]], *,
    rounds: int, streams: int, seconds: float, tell: Callable[[str], None],
) -> tuple[list[Result], dict[str, float]]:  # fmt: skip
    """Everything about every contestant, and the speed of products on one core in G operations per second.

    The first contestant is what they are compared with. What the machine could do is asked before the rounds and after
    them, and the higher answer counts: a share of a peak that was met in a slow minute says nothing.
    """
    tell("measuring the peak of matrix products")
    before = peaks()
    drifts = [contestant.drift(reference) for contestant in contestants]
    for contestant in contestants:
        tell(f"warming up: {contestant.variant.name}")
        contestant.settle()
        for count in sorted({count for count, _ in FIXED_RUNS}):  # every shape that live streams may bring
            contestant.live(count * contestant.cores)
    files: list[list[tuple[float, float]]] = [[] for _ in contestants]
    live: list[list[tuple[float, float]]] = [[] for _ in contestants]
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for i, contestant in enumerate(contestants):
            files[i].append(contestant.files())
        for i, contestant in enumerate(contestants):
            live[i].append(contestant.live(streams))
    tell("measuring the peak of matrix products again")
    peak = {name: max(speed, before.get(name, 0.0)) for name, speed in peaks().items()}
    results = []
    for i, contestant in enumerate(contestants):
        tell(f"latency: {contestant.variant.name}")
        live_s = median(wall for wall, _ in live[i])
        load = max(1, int(0.7 * live_s))
        late = 1000 * np.array(contestant.latency(load, seconds))
        cpu_s = median(cpu for _, cpu in files[i])
        results.append(
            Result(
                contestant.variant.name, median(wall for wall, _ in files[i]), cpu_s,
                cpu_s * TONE_GFLOP / peak[contestant.variant.roof], _ratio(files[i], files[0]),
                live_s, _ratio(live[i], live[0]), load,
                float(np.percentile(late, 50)), float(np.percentile(late, 95)), asdict(drifts[i]),
            )
        )  # fmt: skip
    return results, peak


def _ratio(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> tuple[float, float, float]:
    ratios = [a / b for (a, _), (b, _) in zip(one, other, strict=True)]
    return median(ratios), min(ratios), max(ratios)
