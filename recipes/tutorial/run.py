"""Fine-tuning from end to end in some minutes on a CPU: train, evaluate, export, serve.

    python recipes/tutorial/run.py [HALF ...]

Each half is a file beside this one whose ``run(folder)`` fine-tunes a tiny model on recordings that it makes itself and
returns ``before`` and ``after``, word error rates on recordings that training never saw, and ``model``, the folder of
what came out. With ``recording`` and ``text`` in the answer the model is served too, and asked over HTTP. ``make
tutorial`` runs all of it, the tests one half each.
"""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

HALVES = ("tone", "whisper")
WAIT_S = 120.0


def half(name: str) -> Any:
    """The module of a half."""
    spec = importlib.util.spec_from_file_location(f"tutorial_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def served(model: str, recording: str) -> str:
    """What a server around a model's folder writes for a recording."""
    command = [sys.executable, "-m", "rechka", "serve", "--model", model, "--port", "0", "--workers", "1"]
    print("$ rechka", *command[3:], flush=True)
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            deadline = time.monotonic() + WAIT_S
            told = ""
            while "is ready" not in told and server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
                log.seek(0)
                told = log.read()
            found = re.search(r"http://[^ ;]+", told)
            if found is None or "is ready" not in told:
                raise SystemExit(f"the server did not start: {told}")
            return transcribed(found[0], Path(recording))
        finally:
            server.send_signal(signal.SIGTERM)


def transcribed(address: str, recording: Path) -> str:
    """Send a recording to the server as OpenAI's clients do."""
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{recording.name}"\r\n\r\n'
    body = head.encode() + recording.read_bytes() + f"\r\n--{mark}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    request = urllib.request.Request(f"{address}/v1/audio/transcriptions", body, kind)
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        text: str = json.load(answer)["text"]
    return text


def tutorial(name: str, folder: Path) -> dict[str, Any]:
    """One half, its model served too if it says what to ask; what it reports, with ``served``."""
    report: dict[str, Any] = half(name).run(folder)
    if "recording" in report:
        report["served"] = served(report["model"], report["recording"])
    return report


def main(names: list[str]) -> None:
    """Run halves and say what came of them."""
    for name in names or HALVES:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            report = tutorial(name, Path(place) / name)
        line = f"{name}: WER {100 * report['before']:.1f} % before, {100 * report['after']:.1f} % after"
        if "served" in report:
            line += f"; said {report['text']!r}, the server heard {report['served']!r}"
        print(f"{line}; {time.monotonic() - began:.0f} s", flush=True)
        if not report["after"] < report["before"] or report.get("served") != report.get("text"):
            raise SystemExit(f"{name}: that is not what was to be shown")


if __name__ == "__main__":
    main(sys.argv[1:])
