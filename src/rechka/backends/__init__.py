"""What computes a graph: named arrays in, named arrays out, whatever is behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rechka.protocols import Backend

REMOTE = "triton://"
"""Beginning of a device that is an inference server: ``triton://HOST:PORT/NAME``."""


def open_backend(
    files: Mapping[str, Path], role: str = "model", *, device: str = "cpu", threads: int | None = None
) -> Backend:
    """The graph of a model's file on a device.

    Args:
        files: of the model, by role.
        role: which of them.
        device: ``"cpu"``, ``"cuda"``, or ``"triton://HOST:PORT/NAME"``, where the server knows the graph as ``NAME``,
            or ``NAME-role`` if it is not the role ``model``.
        threads: see ``OrtBackend``.

    Raises:
        RechkaError: as the backend says.
    """
    if device.startswith(REMOTE):
        from rechka.backends.triton import TritonBackend

        address, _, name = device[len(REMOTE) :].partition("/")
        return TritonBackend(address, name if role == "model" else f"{name}-{role}")
    from rechka.backends.ort import OrtBackend

    return OrtBackend(files[role], device=device, threads=threads)
