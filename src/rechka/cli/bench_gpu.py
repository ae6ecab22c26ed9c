"""``rechka bench gpu``: T-one on a CUDA device by size of the batch, beside what the device can do at best."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from rechka.cli import common
from rechka.errors import MissingExtra, ModelNotFound

RANDOM = "random"


class Kernels(str, Enum):
    """What computes between the products."""

    FUSED = "fused"
    TILED = "tiled"
    EAGER = "eager"
    COMPILED = "compiled"


class Precision(str, Enum):
    """Of weights and frames."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    FP32 = "fp32"


def register(group: typer.Typer) -> None:
    """Add the verb to ``rechka bench``."""
    group.command("gpu")(gpu)


def gpu(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="A checkpoint of T-one, a model with its weights (t-one), or random: its full size, random weights.",
        ),
    ] = RANDOM,
    streams: Annotated[
        list[int] | None,
        typer.Option(
            "--streams", "-n", min=1, max=16384, metavar="N", show_default=False,
            help="Streams of one run; may be given many times. Default: 1, 4, 16, 64, 256, 512, 1024, 2048, 4096.",
        ),
    ] = None,
    kernels: Annotated[
        list[Kernels] | None,
        typer.Option("--kernels", show_default=False, help="May be given many times. Default: all of them."),
    ] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option("--precision", show_default=False, help="May be given many times. Default: bf16, and fp8."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=60, help="Length of each measurement.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:  # fmt: skip
    """Speed of T-one on a CUDA device: live streams and files by size of the batch, latency, share of the roofline.

    Copies of samples and results are included. Takes five to ten minutes with all kernels.
    """
    try:
        from rechka.backends.torch import find_device
        from rechka.benchmark import gpu as bench
        from rechka.nn.tone_config import ToneConfig
    except ModuleNotFoundError as error:
        raise MissingExtra(f"rechka bench gpu needs {error.name}", remedy='pip install "rechka[train]"') from None
    device = find_device("cuda")
    config = ToneConfig()
    arrays = bench.random_weights(config) if weights == RANDOM else _weights(weights)
    common.say("rechka: measuring what the device can do")
    limit = bench.limits(device)
    chosen = bench.contestants(
        device, [k.value for k in kernels or Kernels], [p.value for p in precision or (Precision.BF16, Precision.FP8)]
    )
    results = bench.measure(
        arrays, config, "cuda", chosen, limit, streams=streams or bench.STREAMS, seconds=seconds,
        tell=lambda text: common.say(f"rechka: {text}"),
    )  # fmt: skip
    report = {
        "machine": bench.machine(device),
        "weights": weights,
        "limits": asdict(limit),
        "published_audio_s": bench.PUBLISHED,
        "results": [asdict(result) for result in results],
    }
    print(json.dumps(report, ensure_ascii=False, indent=2) if as_json else table(report))


def _weights(name: str) -> dict[str, Any]:
    """Of a checkpoint, or of a model of that name.

    Raises:
        ModelNotFound: neither, or a model without its weights on disk.
    """
    from rechka.hub.load import with_weights
    from rechka.hub.registry import find
    from rechka.nn.weights import read_weights

    if Path(name).is_file():
        return read_weights(name)
    entry = find(name)
    if "weights" not in entry.on_disk():
        command = with_weights(entry)
        remedy = f"get them with: {command}" if command else "name a checkpoint (.safetensors, .ckpt)"
        raise ModelNotFound(f"the weights of {entry.card.name} are not on disk", remedy=remedy)
    return read_weights(entry.path("weights"))


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    limit, machine = report["limits"], report["machine"]
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in limit["tflops"].items())
    lines = [
        f"{machine.get('name', machine['device'])}, torch {machine['torch']}; weights: {report['weights']}. "
        f"TFLOP/s of large products: {peaks}; memory {limit['memory_gb_s']:.0f} GB/s, "
        f"to the device {limit['to_device_gb_s']:.1f}, back {limit['from_device_gb_s']:.1f} GB/s.",
        "",
        "| kernels | precision | mode | streams x chunks | s of audio per s | to the published figure "
        "| of products | of memory | p50 / p95 ms | drift: log-prob / KL / same best |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        drift = result["drift"]
        told = f"{drift['max_logprob']:.1e} / {drift['kl']:.1e} / {100 * drift['agreement']:.1f} %" if drift else ""
        lines += [
            f"| {result['kernels']} | {result['precision']} | {p['mode']} | {p['streams']} x {p['chunks']} "
            f"| {p['audio_s']:,.0f} | {p['ratio']:.2f} | {100 * p['of_products']:.0f} % | {100 * p['of_memory']:.0f} % "
            f"| {p['p50_ms']:.2f} / {p['p95_ms']:.2f} | {told} |"
            for p in result["points"]
        ]
        if result["error"]:
            lines.append(f"| {result['kernels']} | {result['precision']} | failed: {result['error']} |||||||")
    return "\n".join(lines)
