"""ONNX Runtime behind the Backend face: named arrays in, named arrays out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from rechka.errors import BadModelFile, MissingExtra, ModelNotFound, UsageError

Array = NDArray[Any]

DEVICES = ("cpu", "cuda")
MAX_DEFAULT_THREADS = 4
"""Speech models are small: beyond a few threads per call, more streams per call help and more threads do not."""

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}

_BAD_FILE = tuple(
    getattr(ort.capi.onnxruntime_pybind11_state, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
)
"""What ONNX Runtime raises for a file that is no graph, or a graph that it cannot run. They share no base class."""


def default_threads() -> int:
    """Threads that one ``run`` uses when the caller names no number: the cores this process may use, at most four."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return min(MAX_DEFAULT_THREADS, cores)


class OrtBackend:
    """A graph loaded into ONNX Runtime.

    Thread-safe: ``run`` keeps nothing between calls, so many threads may call it at once on one object.

    Args:
        model: path of an ``.onnx`` file, or its bytes.
        device: ``"cpu"`` or ``"cuda"``.
        threads: threads within one ``run``; None means ``default_threads()``. Idle threads sleep and do not spin:
            spinning costs up to a whole core of CPU time when the machine is shared with other work.
    Raises:
        ModelNotFound: the path does not exist.
        BadModelFile: not an ONNX graph, or one that this ONNX Runtime cannot run.
        UsageError: an unknown device, fewer than one thread, or CUDA is installed but does not start.
        MissingExtra: ``cuda`` is asked for and this ONNX Runtime is a CPU build.
    """

    def __init__(self, model: str | Path | bytes, *, device: str = "cpu", threads: int | None = None) -> None:
        providers = _providers(device)
        options = _session_options(default_threads() if threads is None else threads)
        name = "the given bytes" if isinstance(model, bytes) else str(model)
        if not isinstance(model, bytes):
            model = Path(model)
            if not model.is_file():
                raise ModelNotFound(f"no model file at {name}", remedy="check the path, or pull the model again")
        try:
            self._session = ort.InferenceSession(
                model if isinstance(model, bytes) else str(model), sess_options=options, providers=providers
            )
        except _BAD_FILE as error:
            raise BadModelFile(
                f"ONNX Runtime {ort.__version__} cannot load {name}: {_first_line(error)}",
                remedy="the file may be damaged or made for a newer ONNX Runtime; pull it again or upgrade onnxruntime",
            ) from error
        if device == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise UsageError(
                "device 'cuda' was asked for, but ONNX Runtime could not start CUDA and offers only the CPU",
                remedy="check the driver and the CUDA and cuDNN libraries, or use device 'cpu'",
            )
        self.device = device
        self.threads = options.intra_op_num_threads
        self._inputs = MappingProxyType(
            {
                node.name: (tuple(d if isinstance(d, int) else None for d in node.shape), _dtype(node.type))
                for node in self._session.get_inputs()
            }
        )
        self._outputs = tuple(node.name for node in self._session.get_outputs())
        self._metadata = MappingProxyType(dict(self._session.get_modelmeta().custom_metadata_map))

    @property
    def inputs(self) -> Mapping[str, tuple[Any, np.dtype[Any]]]:
        """Shape (None where dynamic) and dtype of every input by name."""
        return self._inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self._outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        """Key-value texts stored in the model file."""
        return self._metadata

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs from all inputs.

        Raises:
            UsageError: a name, shape or dtype that the graph does not take.
        """
        try:
            values = self._session.run(list(self._outputs), dict(feeds))
        except (ort.capi.onnxruntime_pybind11_state.InvalidArgument, ValueError) as error:
            wanted = ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in self._inputs.items())
            given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            raise UsageError(
                f"the graph takes {wanted}; got {given}", remedy="the model file does not fit its family"
            ) from error
        return dict(zip(self._outputs, values, strict=True))


def _providers(device: str) -> list[str]:
    if device not in DEVICES:
        raise UsageError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise MissingExtra(
            "device 'cuda' needs a CUDA build of ONNX Runtime and this one is for the CPU",
            remedy="pip uninstall onnxruntime && pip install onnxruntime-gpu",
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _session_options(threads: int) -> Any:
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = (
        3  # errors only: they arrive as exceptions anyway, warnings are about the graph's author
    )
    return options


def _dtype(name: str) -> np.dtype[Any]:
    if name not in _DTYPES:
        raise BadModelFile(f"the graph has an input of type {name}", remedy="only dense numeric inputs are supported")
    return np.dtype(_DTYPES[name])


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
