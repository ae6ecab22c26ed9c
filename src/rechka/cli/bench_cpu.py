"""``rechka bench cpu``: T-one on this machine's cores, every engine and precision beside plain ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rechka.cli import common
from rechka.errors import MissingExtra

RANDOM = "random"


def register(group: typer.Typer) -> None:
    """Add the verb to ``rechka bench``."""
    group.command("cpu")(cpu)


def cpu(
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="A checkpoint of T-one, or random: its full size, random weights.")
    ] = RANDOM,
    streams: Annotated[int, typer.Option("--streams", min=1, max=1024, help="Live streams.")] = 32,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=100, help="Turns of every contestant.")] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=600, help="How long latency is measured, each.")
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Speed of T-one: files, live streams, latency at 70 % load, share of what the CPU could do, drift.

    Everything is measured in one run, in turns, on all cores that this process may use. Takes some minutes and 3 GB.
    """
    try:
        import torch

        from rechka.benchmark import cpu as bench
        from rechka.benchmark import roofline
        from rechka.nn.weights import read_weights
    except ModuleNotFoundError:
        raise MissingExtra("rechka bench cpu needs torch and onnx", remedy='pip install "rechka[train]"') from None
    from rechka.backends.cores import cores

    torch.set_num_threads(1)
    arrays = None if weights == RANDOM else read_weights(Path(weights))
    chosen = bench.variants()
    with tempfile.TemporaryDirectory() as folder:
        common.say("rechka: writing the graphs")
        reference = bench.write_models(Path(folder), [variant.file for variant in chosen], arrays)
        contestants = [bench.Contestant(v, Path(folder) / f"{v.file}.onnx", cores()) for v in chosen]
        results, peak = bench.measure(
            contestants, reference, roofline.peaks, rounds=rounds, streams=streams, seconds=seconds,
            tell=lambda text: common.say(f"rechka: {text}"),
        )  # fmt: skip
    report = {
        "weights": weights,
        "cores": cores(),
        "streams": streams,
        "rounds": rounds,
        "gflop_per_second_of_audio": roofline.TONE_GFLOP,
        "peak_gops_per_core": peak,
        "limit_per_core": {name: value / roofline.TONE_GFLOP for name, value in peak.items()},
        "results": [asdict(result) for result in results],
    }
    print(json.dumps(report, ensure_ascii=False, indent=2) if as_json else table(report))


def table(report: dict[str, Any]) -> str:
    """The report as Markdown; seconds of audio per second, on all cores unless said otherwise."""
    limits = ", ".join(
        f"{name} {peak:.0f} GOPS = {report['limit_per_core'][name]:.0f} s of audio per s"
        for name, peak in report["peak_gops_per_core"].items()
    )
    lines = [
        f"T-one, weights: {report['weights']}; {report['cores']} cores, {report['rounds']} rounds. At "
        f"{report['gflop_per_second_of_audio']} GFLOP per second of audio one core could do: {limits}.",
        "",
        f"| variant | files | per CPU s | of the roofline | ratio | {report['streams']} live | ratio "
        "| streams at 70 % | p50 / p95 ms | drift: log-prob / KL / same best |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["results"]:
        drift = row["drift"]
        lines.append(
            f"| {row['name']} | {row['file_s']:.1f} | {row['file_cpu_s']:.1f} | {100 * row['roofline']:.0f} % "
            f"| {_spread(row['file_ratio'])} | {row['live_s']:.1f} | {_spread(row['live_ratio'])} | {row['load']} "
            f"| {row['p50_ms']:.0f} / {row['p95_ms']:.0f} "
            f"| {drift['max_logprob']:.1e} / {drift['kl']:.1e} / {100 * drift['agreement']:.1f} % |"
        )
    return "\n".join(lines)


def _spread(ratio: list[float] | tuple[float, ...]) -> str:
    return f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
