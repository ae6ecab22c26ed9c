"""A PostgreSQL server of its own for tests, in a temporary folder, on a socket file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "nobody"
"""PostgreSQL refuses to run as root, so that root runs it as somebody else."""
START_S = 60


def postgres_folder() -> Path | None:
    """Where PostgreSQL's programs are; None if it is not installed."""
    places = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]  # Debian's, not in the PATH
    places.sort(key=lambda path: float(path.parent.name), reverse=True)
    if found := shutil.which("initdb"):
        places.append(Path(found).resolve().parent)
    return next((path for path in places if (path / "postgres").exists() and (path / "pg_isready").exists()), None)


@contextmanager
def postgres() -> Iterator[str]:
    """A running server; its address, ``postgresql://...``.

    Raises:
        FileNotFoundError: it is not installed.
        RuntimeError: it does not start; the message has its log.
    """
    programs = postgres_folder()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is not installed")
    user = USER if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="rechka-pg-"))
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"
    server: subprocess.Popen[bytes] | None = None
    try:
        made = subprocess.run(
            [programs / "initdb", "-D", data, "-U", "rechka", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
            capture_output=True, user=user, cwd=folder,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(made.stderr.decode(errors="replace"))
        settings = ["listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=20"]
        options = [part for setting in settings for part in ("-c", setting)]
        with log.open("wb") as file:
            command: list[str | Path] = [programs / "postgres", "-D", data, *options]
            server = subprocess.Popen(command, stdout=file, stderr=file, user=user, cwd=folder)
        until = time.monotonic() + START_S
        while subprocess.run([programs / "pg_isready", "-q", "-h", folder], check=False).returncode:
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(log.read_text(errors="replace"))
            time.sleep(0.05)
        yield f"postgresql://rechka@/postgres?host={folder}"
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # open connections do not hold it up
            server.wait(START_S)
        shutil.rmtree(folder, ignore_errors=True)
