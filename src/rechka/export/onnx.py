"""Export to ONNX: the file appears under its name only after it was run and compared with the torch module."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rechka.errors import BadModelFile, ModelNotFound, OutputError, UsageError
from rechka.export import tone
from rechka.export.graph import check_model
from rechka.export.verify import Drift, probe_signal, require, run_chunks
from rechka.nn.tone_config import ToneConfig
from rechka.nn.weights import check_names, read_weights

Result = TypeVar("Result")

CHUNKS = 6
"""Length of the comparison: more than the 0.9 s that attention sees, and a state that has travelled."""


def write_verified(model: Any, path: Path, verify: Callable[[Path], Result]) -> Result:
    """Write a ``ModelProto`` to a temporary name beside ``path``, let ``verify`` look at it, and only then rename it.

    Raises:
        OutputError: the folder cannot be written to.
        Whatever ``verify`` raises; then nothing is left behind and a file of that name is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write into {path.parent}: {error.strerror}", remedy="check folder and space"
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString())
        result = verify(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}", remedy="check folder and space") from error
    finally:
        temporary.unlink(missing_ok=True)
    return result


def read_config(path: Path) -> ToneConfig:
    """The architecture from a ``config.json``: the published layout or ``ToneConfig.to_dict``."""
    if not path.is_file():
        raise ModelNotFound(f"no configuration at {path}", remedy="check the path")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadModelFile(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadModelFile(f"{path} holds a {type(values).__name__}, expected an object with the model's sizes")
    return ToneConfig.from_dict(values)


def export_tone(
    weights: Path | Mapping[str, Any],
    output: Path,
    *,
    config: ToneConfig | None = None,
    form: str = "block",
    precision: str = "fp32",
    state: str | None = None,
    calibration: Any = None,
) -> Drift:
    """Write a T-one model as ONNX.

    Args:
        weights: a checkpoint (``.safetensors``, or torch), with or without the ``tone.`` prefix, or arrays by name.
        output: the file to write; a file of that name is replaced at once or not at all.
        config: the architecture; None means the published one.
        form: ``"block"``: any number of chunks per run, for rechka; ``"published"``: one chunk per run, as the original
            file, which sherpa-onnx and T-one's own pipeline read; ``"portable"``: any number of chunks per run,
            standard operations, the fastest form for OpenVINO on a CPU.
        precision: ``"fp32"``, ``"fp16"`` (half the size) or ``"int8"`` (a quarter, and faster).
        state: ``"float32"`` or ``"float16"``; None means float16 for the published fp16 file, as in the original, and
            float32 otherwise.
        calibration: for ``portable`` in int8, see ``tone.build``.
    Returns:
        What the file says against what torch says.
    Raises:
        UsageError: an unknown form, precision or state.
        BadModelFile: weights that do not fit the configuration, or a graph that does not say what torch says.
    """
    for name, value, known in (("form", form, tone.FORMS), ("precision", precision, tone.PRECISIONS)):
        if value not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if state is None:
        state = "float16" if (form, precision) == ("published", "fp16") else "float32"
    if state not in tone.STATES:
        raise UsageError(f"state must be one of {', '.join(tone.STATES)}, got {state!r}")
    if form == "portable" and state != "float32":
        raise UsageError(f"the portable form keeps its state in float32, got {state!r}")
    config = config or ToneConfig()
    arrays = weights if isinstance(weights, Mapping) else read_weights(weights)
    module = _module(arrays, config, what="the given arrays" if isinstance(weights, Mapping) else str(weights))
    model = tone.build(arrays, config, form=form, precision=precision, state=state, calibration=calibration)
    check_model(model)
    signal = probe_signal(2, CHUNKS * config.chunk_samples)
    expected = _run_torch(module, signal, config.chunk_samples)

    def verify(path: Path) -> Drift:
        found, _ = run_chunks(path, signal, chunk=config.chunk_samples)
        drift = Drift.between(expected, found)
        require(drift, precision, what=str(output))
        return drift

    return write_verified(model, Path(output), verify)


def _module(arrays: Mapping[str, Any], config: ToneConfig, *, what: str) -> Any:
    import torch

    from rechka.nn.tone import Tone

    with torch.device("meta"):
        skeleton = Tone(config)
    check_names(arrays, {name: tuple(value.shape) for name, value in skeleton.state_dict().items()}, what=what)
    module = Tone(config)
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, assign=True)
    return module.eval()


def _run_torch(module: Any, signal: Any, chunk: int) -> Any:
    import torch

    state, parts = module.initial_state(len(signal)), []
    with torch.no_grad():
        for piece in torch.from_numpy(signal).float().div(32767).split(chunk, dim=1):
            logprobs, state = module.step(piece, state)
            parts.append(logprobs)
    return torch.cat(parts, dim=1).numpy()
