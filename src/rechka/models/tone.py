"""The T-one family: streaming Conformer-CTC for 8 kHz telephone speech, on ONNX Runtime.

Runs the graph as published (``signal`` int32 [batch, 2400, 1] and ``state`` [batch, 219729] in, ``logprobs`` and
``state_next`` out, state in float16 or float32) and the graphs that ``rechka.export`` writes, whose block form reads
any whole number of chunks in one pass. Streams that stand at different points and bring different amounts of audio
share runs; what a stream gets does not depend on its company.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from rechka.backends import REMOTE, open_backend
from rechka.backends.onnx_file import summarise
from rechka.backends.openvino import OpenVinoBackend
from rechka.errors import BadCard, BadModelFile, BadSamples, MissingExtra, UsageError
from rechka.features.tone import SAMPLE_RATE, SCALE
from rechka.protocols import Backend
from rechka.types import F32, Frames, LogProbs, ModelSpec, State, Tokens

if TYPE_CHECKING:
    from rechka.models.tone_sequence import SequenceTone
    from rechka.models.tone_slots import SlotTone

log = logging.getLogger(__name__)

TOKENS = Tokens((*"абвгдеёжзийклмнопрстуфхцчшщъыьэюя", " ", ""), blank=34)
"""The published vocabulary: thirty-three letters, the space, the blank."""

HOP = 240
"""Samples per output frame: 30 ms."""
CHUNK = 2400
"""Samples per step: 300 ms. The attention's chunks are built into the weights."""
LAG = 2640
"""How late letters are emitted, 0.33 s: the mean measured by T-one's authors, rounded as they do."""
MAX_CHUNKS = 20
"""Chunks that one run of the block form computes, over all its streams; twenty measured fastest, thirty no better."""
PORTABLE_ENGINES = ("openvino", "onnxruntime")
"""What runs the portable form on a CPU, fastest first."""
FIXED_RUNS = ((1, 30), (1, 6), (1, 1), (4, 1), (16, 1))
"""Streams and chunks of a run where every other shape has to be compiled first: a recording, its end, live streams."""


@dataclass(frozen=True, slots=True)
class ToneState:
    """One stream's state: the graph's own, an array (S,) per input for it, and how many frames were emitted."""

    parts: tuple[NDArray[Any], ...]
    frame: int

    @property
    def values(self) -> NDArray[Any]:
        """All of it in one array (S,)."""
        return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)


def load(
    files: Mapping[str, Path], params: Mapping[str, Any], *, device: str = "cpu", threads: int | None = None
) -> ToneModel | SequenceTone | SlotTone:
    """The model of a card.

    Args:
        files: ``model`` is the ONNX graph; ``weights`` a checkpoint, which a GPU runs where torch sees one, with its
            ``config`` if it is not of the published sizes.
        params: ``max_chunks``, if other than the default; OpenVINO has sizes of its own. On a GPU with the weights:
            ``precision`` and ``slots``, see ``rechka.backends.torch.TorchArena``.
    Raises:
        BadCard: no model file, or an unknown parameter.
        BadModelFile: a graph of another family.
        MissingExtra, UsageError: a GPU is asked for and cannot be used.
    """
    unknown = sorted(set(params) - {"max_chunks", "precision", "slots"})
    if unknown:
        raise BadCard(
            f"the family 'tone' has no parameter {', '.join(unknown)}", remedy="it knows max_chunks, precision, slots"
        )
    if device.startswith("cuda") and "weights" in files:
        try:
            return on_slots(files, params, device=device)
        except (MissingExtra, UsageError) as error:
            if "model" not in files:
                raise
            log.warning("the checkpoint is not used, the ONNX graph is: %s", error)
    if "model" not in files:
        remedy = "add [files.model] to the card"
        if "weights" in files:
            remedy = f"make it: rechka models convert {files['weights'].parent}"
        raise BadCard(f"a card of the family 'tone' needs the file role 'model' on device {device}", remedy=remedy)
    engines = _engines(files["model"]) if device == "cpu" else ("onnxruntime",)
    backend = open_backend(files, device=device, threads=threads, engines=engines)
    if device.startswith(REMOTE) and set(backend.inputs) == {"signal"}:
        from rechka.backends.triton import TritonBackend
        from rechka.models.tone_sequence import SequenceTone

        return SequenceTone(cast("TritonBackend", backend))
    limit = {"max_chunks": params["max_chunks"]} if "max_chunks" in params else {}
    return ToneModel(backend, **limit, runs=_runs(backend))


def on_slots(files: Mapping[str, Path], params: Mapping[str, Any], *, device: str, **options: Any) -> SlotTone:
    """The checkpoint of a card with all streams' states on the device.

    Args:
        files: as ``load``.
        params: as ``load``.
        device: of torch.
        options: others of ``TorchArena``.
    Raises:
        MissingExtra: torch is not installed.
        UsageError: torch does not see the device.
    """
    from rechka.models.tone_slots import SlotTone

    try:
        # By name: recognition without a GPU must not import torch, and tools that draw the imports should see that.
        backend = import_module("rechka.backends.torch")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the weights of T-one on a GPU need {error.name}", remedy='pip install "rechka[train]"'
        ) from None
    chosen = {key: params[key] for key in ("precision", "slots") if key in params}
    return SlotTone(backend.open_arena(files["weights"], files.get("config"), device=device, **chosen, **options))


def _engines(path: Path) -> tuple[str, ...]:
    """What runs a graph on a CPU, fastest first as measured; the portable form was made for OpenVINO.

    The published file gains 16 % from OpenVINO, not worth the seconds that compiling takes.
    """
    portable = summarise(path).metadata.get("rechka_form") == "portable"
    return PORTABLE_ENGINES if portable else ("onnxruntime",)


def _runs(backend: Backend) -> tuple[tuple[int, int], ...] | None:
    """The runs that a backend is to be given, None if it may be any."""
    if isinstance(backend, OpenVinoBackend):
        return FIXED_RUNS
    if (backend.metadata.get("rechka_form"), backend.metadata.get("rechka_precision")) != ("portable", "int8"):
        return None
    # ONNX Runtime widens these 8-bit convolutions to float32, whose sums depend on the shape in their last bit, and the
    # next rounding makes a step of that. One shape keeps a stream's result independent of blocks and company.
    log.warning('this graph was made for OpenVINO and is slow without it: pip install "rechka[openvino]"')
    return ((1, 1),)


class ToneModel:
    """T-one on a backend. Holds no stream's state; thread-safe if the backend is.

    Args:
        backend: the graph.
        max_chunks: chunks per run over all streams; at least one per stream is always computed.
        runs: streams and chunks of a run, if no others may be run; (1, 1) must be among them.
    Raises:
        BadModelFile: inputs or outputs that are not T-one's.
        BadCard: ``max_chunks`` below one.
    """

    def __init__(
        self, backend: Backend, max_chunks: int = MAX_CHUNKS, *, runs: Sequence[tuple[int, int]] | None = None
    ) -> None:
        if max_chunks < 1:
            raise BadCard(f"max_chunks must be at least 1, got {max_chunks}")
        inputs = backend.inputs
        self._states = tuple(name for name in inputs if name == "state" or name.startswith("state_"))
        outputs = {"logprobs", *(f"{name}_next" for name in self._states)}
        if set(inputs) != {"signal", *self._states} or not self._states or set(backend.outputs) != outputs:
            raise BadModelFile(
                f"a T-one graph maps signal and state to logprobs and state_next; this one maps "
                f"{', '.join(inputs)} to {', '.join(backend.outputs)}",
                remedy="give the card the family that the file belongs to",
            )
        signal, self._signal_dtype = inputs["signal"]
        shapes = [inputs[name][0] for name in self._states]
        if len(signal) != 3 or signal[1] not in (None, CHUNK) or any(len(s) != 2 or s[1] is None for s in shapes):
            raise BadModelFile(
                f"T-one reads signal [batch, {CHUNK} or any, 1] and state [batch, size]; "
                f"this graph reads {list(signal)} and {', '.join(str(list(shape)) for shape in shapes)}"
            )
        self._backend = backend
        self._max_chunks = max_chunks
        self.one_pass = signal[1] is None
        """Whether the graph takes several chunks in one run."""
        self._runs = None if runs is None else sorted(run for run in runs if self.one_pass or run[1] == 1)
        self.block = max_chunks if self._runs is None else max(chunks for _, chunks in self._runs)
        """Chunks of one stream that are best brought together."""
        self.spec = ModelSpec(SAMPLE_RATE, HOP, CHUNK, CHUNK, CHUNK, LAG, None, TOKENS, LogProbs)

    def initial_state(self) -> State:
        """Silence so far."""
        inputs = self._backend.inputs
        return ToneState(tuple(np.zeros(inputs[name][0][1], inputs[name][1]) for name in self._states), 0)

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """The next chunks of each stream; see ``AcousticModel``.

        Args:
            audio: per stream (k * 2400,) samples in [-1, 1] for some whole k >= 1; louder samples are clipped.
            states: per stream what the last step returned; not modified.
        Raises:
            BadSamples: a length that is no multiple of 2400, or samples that are no numbers.
        """
        signals = [to_integers(samples) for samples in audio]
        parts: list[tuple[NDArray[Any], ...]] = [state.parts for state in states]
        rows: list[list[F32]] = [[] for _ in signals]
        done = [0] * len(signals)
        while active := [i for i, signal in enumerate(signals) if done[i] < len(signal)]:
            members, size, count = self._next_run([(i, (len(signals[i]) - done[i]) // CHUNK) for i in active])
            with self._run(size, count) as (feeds, compute):
                for row, i in enumerate(members):
                    feeds["signal"][row, :, 0] = signals[i][done[i] : done[i] + count * CHUNK]
                    for name, part in zip(self._states, parts[i], strict=True):
                        feeds[name][row] = part
                out = compute()
                after = [out[f"{name}_next"] for name in self._states]
                for row, i in enumerate(members):
                    # Copies, so that a stream does not keep its neighbours' states alive.
                    rows[i].append(out["logprobs"][row].copy())
                    parts[i] = tuple(array[row].copy() for array in after)
                    done[i] += count * CHUNK
        frames: list[Frames] = []
        later: list[State] = []
        for state, values, pieces in zip(states, parts, rows, strict=True):
            logprobs = np.concatenate(pieces, dtype=np.float32)
            frames.append(LogProbs(logprobs, state.frame))
            later.append(ToneState(values, state.frame + len(logprobs)))
        return frames, later

    @contextmanager
    def _run(self, size: int, count: int) -> Iterator[tuple[dict[str, NDArray[Any]], Callable[[], Mapping[str, Any]]]]:
        """Arrays to fill for ``size`` streams of ``count`` chunks, and what then computes the outputs.

        Rows that are not filled hold zeros or what was there before; it does not matter to the others.
        """
        inputs = self._backend.inputs
        shapes = {"signal": (size, count * CHUNK, 1), **{name: (size, inputs[name][0][1]) for name in self._states}}
        if isinstance(self._backend, OpenVinoBackend):
            with self._backend.workspace(shapes) as workspace:
                yield workspace
            return
        backend = self._backend
        feeds = {name: np.zeros(shape, inputs[name][1]) for name, shape in shapes.items()}
        yield feeds, lambda: backend.run(feeds)

    def prepare(self, streams: int) -> None:
        """Compute once in every shape that files and up to so many live streams bring, which compiles it."""
        for size, count in self._runs or ():
            if size == 1 or size < 2 * streams:
                silence = np.zeros(count * CHUNK, np.float32)
                # As many streams as fill more than half of it, and no block that a lone stream could read.
                self.step([silence] * (size // 2 + 1), [self.initial_state()] * (size // 2 + 1))

    def _next_run(self, waiting: Sequence[tuple[int, int]]) -> tuple[list[int], int, int]:
        """Streams of the next run, its size (at least as many), and chunks of each, for streams with chunks to do."""
        everybody = [stream for stream, _ in waiting]
        if self._runs is None:
            shortest = min(chunks for _, chunks in waiting)
            count = min(shortest, max(1, self._max_chunks // len(waiting))) if self.one_pass else 1
            return everybody, len(waiting), count
        block = max(chunks for streams, chunks in self._runs if streams == 1 and chunks <= waiting[0][1])
        if len(waiting) == 1 or block > 1:
            return everybody[:1], 1, block
        # A larger run is worth it if more than half of it is filled.
        size = max(streams for streams, chunks in self._runs if chunks == 1 and streams < 2 * len(waiting))
        return everybody[:size], size, 1


def to_integers(samples: F32) -> NDArray[np.int32]:
    """Samples in [-1, 1] to integers as the graph wants them: 32767 is full scale."""
    if samples.ndim != 1 or len(samples) == 0 or len(samples) % CHUNK:
        raise BadSamples(
            f"T-one reads a whole number of chunks of {CHUNK} samples at {SAMPLE_RATE} Hz, got shape {samples.shape}",
            remedy="let Stream.feed() do the chunking",
        )
    if not np.isfinite(samples).all():
        raise BadSamples("samples must be numbers in [-1, 1], got NaN or infinity", remedy="check the audio source")
    return np.asarray(np.rint(np.clip(samples, -1.0, 1.0) * SCALE), np.int32)
