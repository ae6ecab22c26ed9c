"""A real Triton core on this machine, out of the package nvidia-pytriton, for tests and trials without a GPU.

That package pins numpy below 2, so it lives in a virtual environment of its own:
``python -m venv V; V/bin/pip install nvidia-pytriton onnxruntime; RECHKA_TRITON=V``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "RECHKA_TRITON"
START_S = 60.0


def environment() -> Path | None:
    """The virtual environment that the variable names, if it holds a server."""
    place = os.environ.get(VARIABLE, "")
    found = list(Path(place).glob("lib/python3*/site-packages/pytriton/tritonserver")) if place else []
    return found[0].parents[1] if found else None


@contextmanager
def triton(repository: Path, work: Path) -> Iterator[str]:
    """A server of a repository; gives the address of its gRPC service.

    Args:
        repository: as ``rechka export --to triton --engine python`` writes.
        work: an empty folder for the server's backend and its log.
    """
    packages = environment()
    assert packages is not None, f"{VARIABLE} names no environment with nvidia-pytriton"
    home = packages / "pytriton" / "tritonserver"
    version = packages.parent.name.removeprefix("python")
    shutil.copytree(home / "backends" / "python", work / "backends" / "python")
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", work / "backends" / "python")
    # The stub needs the libpython of the interpreter that the environment was made of, not the system's.
    libraries = [sysconfig.get_config_var("LIBDIR"), str(packages / "nvidia_pytriton.libs")]
    ports = _free(3)
    command = [
        str(home / "bin" / "tritonserver"), f"--model-repository={repository}",
        f"--backend-directory={work / 'backends'}", "--allow-metrics=true", "--exit-on-error=true",
        f"--grpc-port={ports[0]}", f"--http-port={ports[1]}", f"--metrics-port={ports[2]}",
        "--grpc-address=127.0.0.1", "--http-address=127.0.0.1",
    ]  # fmt: skip
    variables = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries), "RECHKA_SITE_PACKAGES": str(packages)}
    log = work / "triton.log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env=variables)
    try:
        _wait(server, ports[0], log)
        yield f"127.0.0.1:{ports[0]}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import tritonclient.grpc as grpc
    from tritonclient.utils import InferenceServerException

    client = grpc.InferenceServerClient(f"127.0.0.1:{port}")
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            if client.is_server_ready(client_timeout=1):
                return
        except InferenceServerException:  # noqa: PERF203 - it is not up yet
            time.sleep(0.1)
    raise RuntimeError(f"Triton did not start: {log.read_text('utf-8', 'replace')[-4000:]}")


def _free(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
