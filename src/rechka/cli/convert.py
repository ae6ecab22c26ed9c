"""``rechka models convert``: a checkpoint to a folder that runs without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rechka.cli.common import say
from rechka.errors import MissingExtra


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="GigaAM or T-one: .ckpt, .bin or .safetensors, or a folder with config.json and one of them."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; it must not exist yet, or be empty.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also write the graph in 8 bits, and use it.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the model. Default: what the checkpoint calls itself.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="SentencePiece model, if it does not lie beside the checkpoint.")
    ] = None,
) -> None:
    """Turn a checkpoint into ONNX, safetensors, tokens and a card. Nothing in the checkpoint is run.

    Every graph is compared with torch before it counts; the folder appears when all of it is right. Needs
    pip install "rechka[train]".
    """
    for module in ("torch", "onnx", "safetensors"):
        if find_spec(module) is None:
            raise MissingExtra(f"converting needs {module}", remedy='pip install "rechka[train]"')
    from rechka.export.convert import convert as run
    from rechka.export.source import read_source

    card = run(read_source(checkpoint, tokenizer=tokenizer), out, int8=int8, name=name, tell=say)
    say(f"{card.name}: done; name it to other commands with: --model {out}")
    typer.echo(str(out))
