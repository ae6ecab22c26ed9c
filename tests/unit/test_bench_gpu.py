"""``rechka bench gpu`` without a GPU: its error, its table, and its measurements on the CPU with the small model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs rechka[train]")

from rechka.benchmark import gpu as bench  # noqa: E402
from rechka.cli.bench_gpu import _weights, table  # noqa: E402
from rechka.cli.main import main  # noqa: E402
from rechka.errors import ModelNotFound  # noqa: E402
from rechka.export.onnx import read_config  # noqa: E402
from rechka.hub.registry import find  # noqa: E402
from rechka.nn.tone_config import ToneConfig  # noqa: E402
from rechka.nn.tone_net import arithmetic  # noqa: E402
from rechka.nn.weights import read_weights  # noqa: E402

DATA = Path(__file__).parents[1] / "data/tone"
CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu"]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "[usage]" in said.err
    assert "sees 0 CUDA devices" in said.err


def test_weights_of_a_model_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path))
    with pytest.raises(ModelNotFound, match="not on disk") as caught:
        _weights("t-one")
    assert "rechka models pull t-one --with weights" in caught.value.remedy
    with pytest.raises(ModelNotFound, match="not on disk") as caught:
        _weights("toy")
    assert "name a checkpoint" in caught.value.remedy
    place = find("t-one").path("weights")
    place.parent.mkdir(parents=True)
    place.write_bytes((DATA / "mini.safetensors").read_bytes())
    wanted = read_weights(DATA / "mini.safetensors")
    assert _weights("t-one").keys() == wanted.keys()
    assert _weights(str(DATA / "mini.safetensors")).keys() == wanted.keys()


def test_limits_are_measured() -> None:
    found = bench.limits(CPU, size=64, megabytes=1)
    assert {"fp32", "bf16", "fp16"} <= found.tflops.keys()
    assert all(value > 0 for value in (*found.tflops.values(), found.memory_gb_s, found.to_device_gb_s))


def test_contestants_on_the_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "LATENCY_RUNS", 6)
    config, weights = read_config(DATA / "mini_config.json"), read_weights(DATA / "mini.safetensors")
    limit = bench.Limits({"fp32": 0.1, "bf16": 0.2}, 10.0, 5.0, 5.0)
    chosen = [bench.Contestant("eager", "fp32"), bench.Contestant("magic", "bf16"), bench.Contestant("eager", "fp8")]
    told: list[str] = []
    results = bench.measure(
        weights, config, "cpu", chosen, limit, streams=(1, 5), seconds=0.01, tell=told.append
    )  # fmt: skip
    first, second, third = results
    assert first.drift["max_logprob"] < 1e-3 < third.drift["max_logprob"]
    assert [(p.mode, p.streams, p.chunks) for p in first.points] == [
        ("live", 1, 1), ("live", 4, 1), ("live", 5, 1), ("files", 1, 16)
    ]  # fmt: skip
    for point in first.points:
        assert point.ratio == pytest.approx(point.audio_s / 17203)
        assert 0 < point.p50_ms <= point.p95_ms
        assert point.of_products == pytest.approx(point.audio_s / 0.3 * 2 * arithmetic(config) / 0.1e12)
    assert not second.points
    assert "magic" in second.error
    report: dict[str, Any] = {
        "machine": bench.machine(CPU), "weights": "random", "limits": bench.asdict(limit),
        "results": [bench.asdict(result) for result in results],
    }  # fmt: skip
    text = table(json.loads(json.dumps(report)))
    assert "| eager | fp32 | live | 5 x 1 |" in text
    assert "failed: UsageError" in text


def test_arithmetic_is_that_of_the_description_and_a_little_more() -> None:
    """643.9 M multiply-adds per chunk, counted over the original; the first convolution is a product here."""
    assert 643.9e6 < arithmetic(ToneConfig()) < 1.05 * 643.9e6
