"""``rechka bench cpu``: the table, the peaks, and a contestant on the small model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs rechka[export]")

from rechka.benchmark import cpu as bench
from rechka.benchmark import roofline
from rechka.cli.bench_cpu import table
from rechka.export import tone as writer
from rechka.export.onnx import read_config
from rechka.nn.weights import read_weights

DATA = Path(__file__).parent.parent / "data/tone"


def test_peaks_are_measured_for_what_the_cpu_has() -> None:
    found = roofline.peaks(rounds=1)
    assert {"fp32", "int8"} <= set(found) <= {"fp32", "int8", "bf16"}
    assert all(value > 0.1 for value in found.values())


def test_two_contestants_on_the_small_model(tmp_path: Path) -> None:
    weights, config = read_weights(DATA / "mini.safetensors"), read_config(DATA / "mini_config.json")
    contestants = []
    for variant in bench.variants()[:2]:
        form, precision = variant.file.split("-")
        path = tmp_path / f"{variant.file}.onnx"
        state = "float16" if form == "published" else "float32"
        path.write_bytes(writer.build(weights, config, form=form, precision=precision, state=state).SerializeToString())
        contestants.append(bench.Contestant(variant, path, cores=2))
    reference = np.log(np.full((1, bench.PROBE * 10, 35), 1 / 35, np.float32))
    peaks = iter([{"fp32": 100.0, "int8": 300.0}, {"fp32": 80.0, "int8": 400.0}])
    told: list[str] = []
    results, peak = bench.measure(
        contestants, reference, lambda: next(peaks), rounds=2, streams=3, seconds=0.5, tell=told.append
    )
    first, second = results
    assert peak == {"fp32": 100.0, "int8": 400.0}  # the higher of before and after
    assert first.file_ratio == first.live_ratio == (1.0, 1.0, 1.0)
    assert second.roofline == pytest.approx(second.file_cpu_s * roofline.TONE_GFLOP / 100)
    assert second.file_ratio[1] <= second.file_ratio[0] <= second.file_ratio[2]
    assert all(0 < result.p50_ms <= result.p95_ms for result in results)
    assert all(result.drift["kl"] > 0 for result in results)
    assert told[-1] == f"latency: {second.name}"


def test_a_failure_in_a_worker_is_not_lost(tmp_path: Path) -> None:
    weights, config = read_weights(DATA / "mini.safetensors"), read_config(DATA / "mini_config.json")
    path = tmp_path / "block-fp32.onnx"
    path.write_bytes(writer.build(weights, config, form="block").SerializeToString())
    contestant = bench.Contestant(bench.variants()[1], path, cores=2)

    def fail(worker: int) -> None:
        raise OverflowError(str(worker))

    with pytest.raises(OverflowError):
        contestant._timed(fail, 1)


def test_the_table_tells_ratios_with_their_spread_and_the_drift() -> None:
    row = {
        "name": "some engine", "file_s": 61.25, "file_cpu_s": 30.5, "roofline": 0.31, "file_ratio": [6.0, 5.5, 6.5],
        "live_s": 40.0, "live_ratio": [4.0, 3.5, 4.5], "load": 28, "p50_ms": 100.4, "p95_ms": 250.6,
        "drift": {"max_logprob": 0.5, "kl": 0.01, "agreement": 0.905},
    }  # fmt: skip
    report = {
        "weights": "random", "cores": 2, "rounds": 3, "streams": 32, "gflop_per_second_of_audio": 4.29,
        "peak_gops_per_core": {"int8": 429.0}, "limit_per_core": {"int8": 100.0}, "results": [row],
    }  # fmt: skip
    text = table(report)
    assert "int8 429 GOPS = 100 s of audio per s" in text
    assert "| some engine | 61.2 | 30.5 | 31 % | 6.00 (5.50 to 6.50) | 40.0 | 4.00 (3.50 to 4.50) | 28 " in text
    assert "| 100 / 251 | 5.0e-01 / 1.0e-02 / 90.5 % |" in text
