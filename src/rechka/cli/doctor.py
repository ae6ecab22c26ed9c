"""``rechka doctor``: what is installed, what is missing and how to get it, and one real test inference."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer

BROKEN_EXIT = 4

REQUIRED = ("numpy", "onnxruntime", "soundfile", "soxr", "typer", "rich")
"""Modules of the base installation."""

EXTRAS = {
    "av": (("av",), "m4a, aac, webm, mkv, wma and amr files"),
    "mic": (("sounddevice",), "rechka listen"),
    "lm": (("kenlm",), "KenLM binary language models, such as T-one's"),
    "export": (("onnx", "onnxscript"), "writing ONNX files"),
    "openvino": (("openvino",), "T-one several times as fast on a CPU"),
    "whisper": (("ctranslate2", "tokenizers"), "Whisper models"),
    "train": (("torch", "safetensors", "scipy"), "rechka train"),
}
"""Extra -> the modules it brings and what they are for."""

TEST_TEXT = "проверка связи"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Check the installation: what is there, what is missing, and whether recognition runs.

    Exit code 4 if it does not run.
    """
    report = examine()
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        _print(report)
    if not report["ok"]:
        raise typer.Exit(BROKEN_EXIT)


def examine() -> dict[str, Any]:
    """Everything that the report says, as plain values."""
    from rechka import __version__
    from rechka.hub.registry import home
    from rechka.hub.remote import is_offline

    packages = [_package(name, "rechka") for name in REQUIRED]
    extras = [_extra(name) for name in EXTRAS]
    runtime = _onnxruntime()
    models, problems = _models()
    inference = infer()
    problems += [f"{item['name']} is not installed; install rechka again" for item in packages if not item["version"]]
    problems += [text for text in (runtime.get("error"), inference["error"]) if text]
    return {
        "ok": inference["ok"] and "error" not in runtime and all(item["version"] for item in packages),
        "rechka": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
        "packages": packages,
        "onnxruntime": runtime,
        "tone_engine": _tone_engine(),
        "extras": extras,
        "home": str(home()),
        "offline": is_offline(),
        "models": models,
        "inference": inference,
        "problems": problems,
    }


def infer() -> dict[str, Any]:
    """One recognition from samples to text, with the embedded model, or with the toy where there is none.

    The audio is tone speech, which only the toy understands: its text is compared; the embedded model need only run.
    """
    started = time.perf_counter()
    result: dict[str, Any] = {
        "ok": False,
        "model": None,
        "expected": None,
        "text": None,
        "seconds": None,
        "error": None,
    }
    try:
        from rechka.errors import ModelNotFound
        from rechka.hub.load import load
        from rechka.hub.registry import EMBEDDED
        from rechka.testing import say

        try:
            asr = load(EMBEDDED)
        except ModelNotFound:
            asr = load("toy")
            result["expected"] = TEST_TEXT
        result["model"] = asr.name
        result["text"] = asr.transcribe((say(TEST_TEXT, after_s=1.0), 8000)).text
        result["ok"] = result["expected"] in (None, result["text"])
        if not result["ok"]:
            result["error"] = f"{asr.name} heard {result['text']!r} instead of {TEST_TEXT!r}"
    except Exception as error:  # noqa: BLE001 - whatever is broken is what the doctor is asked about
        result["error"] = f"the test inference failed: {type(error).__name__}: {error}"
    result["seconds"] = round(time.perf_counter() - started, 3)
    return result


def cores() -> float:
    """Cores this process may use: its affinity, less what a container's quota leaves."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = float(len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
    quota = _words("/sys/fs/cgroup/cpu.max")  # version 2: "quota period" or "max period"
    if not quota:
        quota = _words("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + _words("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if len(quota) == 2 and all(word.isdigit() for word in quota) and int(quota[1]) > 0:
        count = min(count, int(quota[0]) / int(quota[1]))
    return round(count, 2)


def memory_bytes() -> int | None:
    """Memory this process may use: the machine's, or a container's limit if that is lower; None if unknown."""
    sizes = []
    if hasattr(os, "sysconf") and {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        sizes += [int(word) for word in _words(path) if word.isdigit()]
    return min(sizes, default=None)


def _words(path: str) -> list[str]:
    """The words of a small system file; none if it is not there, which is so on most systems."""
    file = Path(path)
    return file.read_text("ascii").split() if file.is_file() and os.access(file, os.R_OK) else []


def _package(name: str, extra: str) -> dict[str, Any]:
    """Name and version of a module without importing it; version None if it is absent."""
    if util.find_spec(name) is None:
        return {"name": name, "version": None, "for": extra}
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = "unknown"  # there, but under another distribution's name
    return {"name": name, "version": version, "for": extra}


def _extra(name: str) -> dict[str, Any]:
    modules, purpose = EXTRAS[name]
    packages = [_package(module, name) for module in modules]
    missing = [package["name"] for package in packages if not package["version"]]
    return {
        "name": name,
        "purpose": purpose,
        "installed": not missing,
        "packages": packages,
        "install": f"pip install 'rechka[{name}]'" if missing else None,
    }


def _onnxruntime() -> dict[str, Any]:
    try:
        import onnxruntime
    except ImportError as error:  # also when its library does not fit the system
        return {"version": None, "providers": [], "error": f"onnxruntime cannot be imported: {error}"}
    return {"version": onnxruntime.__version__, "providers": list(onnxruntime.get_available_providers())}


def _tone_engine() -> str:
    """What runs T-one's portable form on the CPU."""
    from rechka.backends import cpu_engine
    from rechka.errors import UsageError
    from rechka.models.tone import PORTABLE_ENGINES

    try:
        return cpu_engine(PORTABLE_ENGINES)
    except UsageError as error:
        return str(error)


def _models() -> tuple[list[dict[str, Any]], list[str]]:
    """The models, which is the default, and the cards that cannot be read."""
    from rechka.hub.load import choose
    from rechka.hub.registry import entries

    known, broken = entries()
    default = choose()[0].card.name
    models = [
        {
            "name": entry.card.name,
            "on_disk": entry.ready,
            "default": entry.card.name == default,
            "install": None if entry.ready or not entry.card.repo else f"rechka models pull {entry.card.name}",
        }
        for entry in known
    ]
    return models, [str(error) for error in broken.values()]


def _print(report: dict[str, Any]) -> None:
    memory = report["memory_bytes"]
    print(f"rechka {report['rechka']}, Python {report['python']}, {report['platform']}")
    print(f"cores {report['cores']:g}, memory {f'{memory / 1e9:.1f} GB' if memory else 'unknown'}")
    print("packages: " + ", ".join(f"{item['name']} {item['version'] or 'MISSING'}" for item in report["packages"]))
    print("onnxruntime providers: " + (", ".join(report["onnxruntime"]["providers"]) or "none"))
    print(f"T-one in the portable form runs on: {report['tone_engine']}")
    for extra in report["extras"]:
        print(f"extra {extra['name']} ({extra['purpose']}): {extra['install'] or 'installed'}")
    print(f"models in {report['home']}{', network switched off' if report['offline'] else ''}")
    for model in report["models"]:
        state = "on disk" if model["on_disk"] else model["install"] or "not on disk"
        print(f"model {model['name']}{' (default)' if model['default'] else ''}: {state}")
    inference = report["inference"]
    outcome = f"works, {inference['seconds']:.2f} s" if inference["ok"] else "FAILS"
    print(f"test inference with {inference['model'] or 'no model'}: {outcome}")
    for problem in report["problems"]:
        print(f"problem: {problem}", file=sys.stderr)
