"""``rechka doctor``: a true report, and a failure that is told instead of thrown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import rechka.hub.load
from rechka.cli import doctor


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path))


def run(*arguments: str) -> Result:
    app = typer.Typer()
    doctor.register(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_a_sound_installation() -> None:
    result = run("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"], report["problems"]) == (0, True, [])
    assert report["inference"]["ok"]
    assert report["inference"]["text"] is not None
    assert report["rechka"] == rechka.__version__
    assert all(package["version"] for package in report["packages"])
    assert "CPUExecutionProvider" in report["onnxruntime"]["providers"]
    assert report["cores"] > 0
    assert report["memory_bytes"] is None or report["memory_bytes"] > 2**26
    t_one = next(model for model in report["models"] if model["name"] == "t-one")
    assert t_one["install"] == "rechka models pull t-one"
    for extra in report["extras"]:
        assert (extra["install"] is None) == all(package["version"] for package in extra["packages"])


def test_the_report_for_people() -> None:
    result = run()
    assert result.exit_code == 0
    assert "test inference with" in result.stdout
    assert "works" in result.stdout
    assert "rechka models pull t-one" in result.stdout
    assert result.stderr == ""


def test_a_missing_extra_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "mic", (("no_such_module",), "rechka listen"))
    result = run()
    assert result.exit_code == 0
    assert "extra mic (rechka listen): pip install 'rechka[mic]'" in result.stdout


def broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("the graph is upside down")


def test_an_inference_that_fails_is_told_and_exits_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rechka.hub.load, "put_together", broken)
    result = run("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (4, False)
    assert "upside down" in report["problems"][0]
    text = run()
    assert text.exit_code == 4
    assert "FAILS" in text.stdout
    assert "problem: the test inference failed: RuntimeError: the graph is upside down" in text.stderr


def test_a_missing_package_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "REQUIRED", (*doctor.REQUIRED, "no_such_module"))
    result = run("--json")
    assert result.exit_code == 4
    assert "no_such_module is not installed" in " ".join(json.loads(result.stdout)["problems"])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"/sys/fs/cgroup/cpu.max": ["50000", "100000"]}, 0.5),
        ({"/sys/fs/cgroup/cpu.max": ["max", "100000"]}, None),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": ["25000"],
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": ["100000"],
            },
            0.25,
        ),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": ["-1"], "/sys/fs/cgroup/cpu/cpu.cfs_period_us": ["100000"]}, None),
        ({}, None),
    ],
)
def test_cores_of_a_container(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, list[str]], expected: float | None
) -> None:
    monkeypatch.setattr(doctor, "_words", lambda path: files.get(path, []))
    bare = doctor.cores()
    assert bare == expected if expected is not None else bare >= 1


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_words", lambda path: ["1000000"] if path.endswith("memory.max") else [])
    assert doctor.memory_bytes() == 1_000_000
    monkeypatch.setattr(doctor, "_words", lambda path: ["max"] if path.endswith("memory.max") else [])
    whole = doctor.memory_bytes()
    assert whole is None or whole > 1_000_000


def test_the_verbs_cost_nothing_to_import() -> None:
    heavy = ("numpy", "onnxruntime", "soundfile", "rich.progress", "urllib.request")
    code = (
        "import sys, rechka.cli.models, rechka.cli.doctor; "
        f"print([m for m in {heavy!r} if m in sys.modules and m not in before])"
    )
    code = f"import sys, typer; before = set(sys.modules); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
