"""What computes a graph: named arrays in, named arrays out, whatever is behind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rechka.errors import UsageError

if TYPE_CHECKING:
    from rechka.protocols import Backend

REMOTE = "triton://"
"""Beginning of a device that is an inference server: ``triton://HOST:PORT/NAME``."""


ENGINES = ("onnxruntime", "openvino")
"""What computes graphs on a CPU."""
ENGINE_VARIABLE = "RECHKA_BACKEND"
"""Environment variable that names one of ``ENGINES``, for those who do not want the fastest that is installed."""


def cpu_engine(measured: Sequence[str] = ("onnxruntime",)) -> str:
    """The engine that is to run a graph on a CPU.

    Args:
        measured: engines that run the graph, fastest first; the first that is installed is taken.

    Raises:
        UsageError: the environment variable names no engine.
    """
    from rechka.backends.openvino import is_installed

    wanted = os.environ.get("RECHKA_BACKEND", "")
    if wanted and wanted not in ENGINES:
        raise UsageError(f"{ENGINE_VARIABLE} must be one of {', '.join(ENGINES)}, got {wanted!r}")
    return wanted or next(name for name in measured if name != "openvino" or is_installed())


def open_backend(
    files: Mapping[str, Path],
    role: str = "model",
    *,
    device: str = "cpu",
    threads: int | None = None,
    engines: Sequence[str] = ("onnxruntime",),
) -> Backend:
    """The graph of a model's file on a device.

    Args:
        files: of the model, by role.
        role: which of them.
        device: ``"cpu"``, ``"cuda"``, or ``"triton://HOST:PORT/NAME"``, where the server knows the graph as ``NAME``,
            or ``NAME-role`` if it is not the role ``model``.
        threads: see ``OrtBackend``.
        engines: what runs the graph on a CPU, fastest first; ``"openvino"`` only by callers that bring few shapes.

    Raises:
        RechkaError: as the backend says.
    """
    if device.startswith(REMOTE):
        from rechka.backends.triton import TritonBackend

        address, _, name = device[len(REMOTE) :].partition("/")
        return TritonBackend(address, name if role == "model" else f"{name}-{role}")
    if device == "cpu" and cpu_engine(engines) == "openvino":
        from rechka.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(files[role], threads=threads, fixed_shapes="openvino" in engines)
    from rechka.backends.ort import OrtBackend

    return OrtBackend(files[role], device=device, threads=threads)
