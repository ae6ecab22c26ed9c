"""A model as a repository for Triton: graphs, their configurations, warm-up, and scripts that build TensorRT engines.

Source of the fields: Triton's ``model_configuration.md`` (dynamic and sequence batching, implicit state, warm-up).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rechka.errors import IncompatibleParts, UsageError
from rechka.export.convert import staged
from rechka.hub.card import Card

ENGINES = ("onnxruntime", "tensorrt", "python")
"""What runs a graph on the server; ``python`` is ONNX Runtime in the Python backend, for servers without the others."""
FAMILIES = ("tone", "gigaam")
GRAPHS = {"tone": ("model",), "gigaam": ("model", "encoder", "decoder", "joiner")}
BATCHED = ("model", "encoder")
"""Graphs whose arrays may all begin with the batch, so that the server can put requests together."""
DELAY_US = 10_000
"""How long a request waits for others: 10 ms, as T-one publishes."""
IDLE_US = 60_000_000
"""A stream that sends nothing for so long has ended, and its state is dropped."""
CANDIDATES = 1024
"""Streams whose state an instance holds at the same time."""
WARM_RUNS = 3
CHUNK = 2400
"""Samples of T-one's chunk, the only free size of a graph that is warmed up."""
TRTEXEC = ("--stronglyTyped", "--builderOptimizationLevel=5", "--skipInference")
"""As published for T-one; there a benchmark, here a build only, hence without its timing flags."""

_TYPES = {1: "FP32", 2: "UINT8", 3: "INT8", 5: "INT16", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16", 11: "FP64"}
"""onnx.TensorProto.DataType -> Triton's names."""


@dataclass(frozen=True, slots=True)
class Array:
    """An input or output of a graph; sizes are None where they are free."""

    name: str
    kind: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How the server runs a model.

    Attributes:
        engine: one of ``ENGINES``.
        sequences: T-one only: the server keeps each stream's state, and clients send samples and nothing else.
        max_batch: requests put together at most.
        instances: copies of each graph, per GPU or in all.
        device: ``"cpu"`` or ``"cuda"``.
    """

    engine: str = "onnxruntime"
    sequences: bool = False
    max_batch: int = 16
    instances: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"engine must be one of {', '.join(ENGINES)}, got {self.engine!r}")
        if self.device not in ("cpu", "cuda"):
            raise UsageError(f"device must be cpu or cuda, got {self.device!r}")
        if self.max_batch < 1 or self.instances < 1:
            raise UsageError(f"max_batch and instances must be 1 or more, got {self.max_batch} and {self.instances}")
        if self.engine == "tensorrt" and self.device != "cuda":
            raise UsageError("TensorRT runs on a GPU", remedy="add --device cuda")


def write_repository(card: Card, files: Mapping[str, Path], out: Path, options: TritonOptions) -> list[str]:
    """Write the repository of a model; it appears whole or not at all.

    Args:
        card: of the model.
        files: by role, on disk.
        out: folder to make.
        options: of the server.

    Returns:
        Names of the server's models.

    Raises:
        IncompatibleParts: a family that is not served this way.
        UsageError: options that do not fit the family, or ``out`` exists.
    """
    if card.family not in FAMILIES:
        raise IncompatibleParts(
            f"models of the family {card.family} are not served by Triton", remedy=f"it takes {', '.join(FAMILIES)}"
        )
    if options.sequences and card.family != "tone":
        raise UsageError(f"the family {card.family} reads whole phrases and has no state to keep on the server")
    names: list[str] = []
    with staged(out) as folder:
        for role in GRAPHS[card.family]:
            if role not in files:
                continue
            name = card.name if role == "model" else f"{card.name}-{role}"
            names.append(name)
            _write_model(folder / name, name, files, role, card, options)
        told = {"model": card.name, "engine": options.engine, "device": options.device, "sequences": options.sequences}
        (folder / "rechka.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return names


def _write_model(
    folder: Path, name: str, files: Mapping[str, Path], role: str, card: Card, options: TritonOptions
) -> None:
    inputs, outputs, parameters = read_graph(files[role])
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copyfile(files[role], version / "model.onnx")
    if (data := files.get("model_data")) is not None and role in BATCHED:
        shutil.copyfile(data, version / data.name)  # weights beyond the limit of one file
    batched = role in BATCHED and _batch_first([*inputs, *outputs])
    text = config(name, inputs, outputs, {**parameters, "family": card.family}, options, batched=batched)
    (folder / "config.pbtxt").write_text(text, encoding="utf-8")
    if options.engine == "python":
        shutil.copyfile(Path(__file__).with_name("triton_model.py"), version / "model.py")
    if options.engine == "tensorrt":
        script = folder / "build_engine.sh"
        script.write_text(build_script(inputs, options.max_batch if batched else 1), encoding="utf-8")
        script.chmod(0o755)


def read_graph(path: Path) -> tuple[list[Array], list[Array], dict[str, str]]:
    """Inputs, outputs and metadata of an ONNX file."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}

    def arrays(values: Any) -> list[Array]:
        return [
            Array(
                value.name,
                _TYPES[value.type.tensor_type.elem_type],
                tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim),
            )
            for value in values
            if value.name not in weights
        ]

    return arrays(model.graph.input), arrays(model.graph.output), {p.key: p.value for p in model.metadata_props}


def _batch_first(arrays: Sequence[Array]) -> bool:
    return all(len(array.shape) > 1 and array.shape[0] is None for array in arrays)


def config(
    name: str,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    parameters: Mapping[str, str],
    options: TritonOptions,
    *,
    batched: bool,
) -> str:
    """``config.pbtxt`` of one graph.

    Args:
        name: of the model on the server.
        inputs, outputs, parameters: of the graph.
        options: of the server.
        batched: whether the first axis of every array is the batch.
    """
    skip = 1 if batched else 0
    state_in, state_out = ("state", "state_next") if options.sequences else ("", "")

    def dims(array: Array) -> str:
        return "[ " + ", ".join(str(-1 if size is None else size) for size in array.shape[skip:]) + " ]"

    def listed(field: str, arrays: Sequence[Array], hidden: str) -> list[str]:
        rows = [
            f'  {{ name: "{a.name}" data_type: TYPE_{a.kind} dims: {dims(a)} }}' for a in arrays if a.name != hidden
        ]
        return [f"{field} [", ",\n".join(rows), "]"]

    platform = {
        "onnxruntime": 'platform: "onnxruntime_onnx"',
        "tensorrt": 'platform: "tensorrt_plan"',
        "python": 'backend: "python"',
    }
    lines = [f'name: "{name}"', platform[options.engine], f"max_batch_size: {options.max_batch if batched else 0}"]
    lines += listed("input", inputs, state_in) + listed("output", outputs, state_out)
    if options.sequences:
        lines += _sequences(next(a for a in inputs if a.name == "state"), dims, options)
    elif batched:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY_US} }}")
    kind = "KIND_GPU" if options.device == "cuda" else "KIND_CPU"
    lines.append(f"instance_group [ {{ count: {options.instances} kind: {kind} }} ]")
    for key, value in sorted(parameters.items()):
        lines.append(f"parameters {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(str(value))} }} }}")
    if not options.sequences:  # a warm-up would leave a stream behind
        lines += _warm_up(inputs, batched, options)
    return "\n".join(lines) + "\n"


def _sequences(state: Array, dims: Any, options: TritonOptions) -> list[str]:
    """Each stream's state on the server: given to it at its first step as zeros, kept from step to step."""
    kept = f"data_type: TYPE_{state.kind} dims: {dims(state)}"
    lines = [
        "sequence_batching {",
        f"  max_sequence_idle_microseconds: {IDLE_US}",
        f"  oldest {{ max_candidate_sequences: {CANDIDATES} max_queue_delay_microseconds: {DELAY_US} }}",
    ]
    if options.engine == "python":  # Python models are told who asks and keep the state themselves
        flag = "fp32_false_true: [ 0, 1 ]"
        lines += [
            "  control_input [",
            f'    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START {flag} }} ] }},',
            f'    {{ name: "END" control [ {{ kind: CONTROL_SEQUENCE_END {flag} }} ] }},',
            '    { name: "STREAM" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }',
            "  ]",
        ]
    else:
        lines += [
            '  state [ { input_name: "state" output_name: "state_next" ' + kept,
            f'            initial_state: {{ name: "silence" zero_data: true {kept} }} }} ]',
        ]
    return [*lines, "}"]


def _warm_up(inputs: Sequence[Array], batched: bool, options: TritonOptions) -> list[str]:
    """A few runs with silence before the first client, alone and as a full batch.

    Graphs that are told lengths get none: the server could only fill them with zeros, and no phrase is that short.
    """
    if not batched or any(array.name.endswith(("length", "lengths")) for array in inputs):
        return []
    lines = []
    for size in sorted({1, options.max_batch}):
        lines.append(f'model_warmup [ {{ name: "silence-{size}" batch_size: {size} count: {WARM_RUNS}')
        for array in inputs:
            dims = ", ".join(str(CHUNK if n is None else n) for n in array.shape[1:])
            value = f"data_type: TYPE_{array.kind} dims: [ {dims} ] zero_data: true"
            lines.append(f'  inputs {{ key: "{array.name}" value: {{ {value} }} }}')
        lines.append("} ]")
    return lines


def build_script(inputs: Sequence[Array], max_batch: int) -> str:
    """A shell script that builds ``1/model.plan`` with trtexec, for batches from one to ``max_batch``."""

    def shapes(batch: int, frames: int) -> str:
        found = []
        for array in inputs:
            sizes = [batch if axis == 0 else size for axis, size in enumerate(array.shape)]
            free = CHUNK if array.name == "signal" else frames
            found.append(f"{array.name}:" + "x".join(str(free if size is None else size) for size in sizes))
        return ",".join(found)

    return "\n".join([
        "#!/bin/sh",
        "# Builds the TensorRT engine of this folder. Run it on the GPU that will serve it, with the TensorRT of that",
        "# server (/usr/src/tensorrt/bin/trtexec in Triton's image): engines fit no other GPU and no other version.",
        "set -eu",
        'cd "$(dirname "$0")/1"',
        '"${TRTEXEC:-trtexec}" --onnx=model.onnx --saveEngine=model.plan.new \\',
        f"  --minShapes={shapes(1, 100)} \\",
        f"  --optShapes={shapes(max_batch, 1000)} \\",
        f"  --maxShapes={shapes(max_batch, 3000)} \\",
        "  " + " ".join(TRTEXEC),
        "mv model.plan.new model.plan",
        "",
    ])  # fmt: skip
