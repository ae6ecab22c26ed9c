"""``rechka export``: a model for another program's server."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from rechka.cli import common


class Target(str, Enum):
    """For what."""

    TRITON = "triton"
    TENSORRT = "tensorrt"


class Engine(str, Enum):
    """What runs a graph on the server, for ``--to triton``."""

    ONNXRUNTIME = "onnxruntime"
    PYTHON = "python"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(export)


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name, folder or card: T-one or GigaAM.")],
    to: Annotated[
        Target, typer.Option("--to", help="triton: a model repository; tensorrt: one whose engines you build.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to make.")],
    engine: Annotated[
        Engine, typer.Option("--engine", help="python: for Triton servers without the ONNX Runtime backend.")
    ] = Engine.ONNXRUNTIME,
    sequences: Annotated[
        bool,
        typer.Option("--sequences", help="T-one: the server keeps the streams' states, clients send samples only."),
    ] = False,
    max_batch: Annotated[int, typer.Option("--max-batch", min=1, help="Requests of one run at most.")] = 16,
    instances: Annotated[int, typer.Option("--instances", min=1, help="Copies of each graph.")] = 1,
    device: common.DeviceOption = common.Device.CPU,
) -> None:
    """Write a repository that Triton serves; with --device triton://HOST:8001/NAME rechka runs on it.

    Prints the names of the models in it.
    """
    from rechka.export import export as write

    options = {"sequences": sequences, "max_batch": max_batch, "instances": instances, "device": device.value}
    for name in write(model, to=to.value, out=out, engine=engine.value, **options):
        print(name)
    if to is Target.TENSORRT:
        common.say(f"rechka: on the GPU that will serve it run {out}/*/build_engine.sh")
