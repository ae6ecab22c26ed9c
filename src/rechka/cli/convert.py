"""``rechka models convert``: a checkpoint to a folder that runs without torch."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rechka.cli.common import say
from rechka.errors import MissingExtra

MAX_CONFIG = 1 << 24
"""Bytes; a larger configuration is none."""


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="GigaAM or T-one: .ckpt, .bin or .safetensors, or a folder with config.json and one of them. "
            "Whisper: a folder as transformers writes it."
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
    """Turn a checkpoint into a folder that runs without torch. Nothing in the checkpoint is run.

    GigaAM and T-one become ONNX, safetensors, tokens and a card; every graph is compared with torch before it counts,
    for which pip install "rechka[train]" is needed. Whisper becomes a CTranslate2 model, in float16 unless in 8 bits.
    """
    if _is_whisper(checkpoint):
        from rechka.export.whisper import convert as run_whisper

        typer.echo(str(run_whisper(checkpoint, out, "int8" if int8 else "float16", name=name)))
        return
    for module in ("torch", "onnx", "safetensors"):
        if find_spec(module) is None:
            raise MissingExtra(f"converting needs {module}", remedy='pip install "rechka[train]"')
    from rechka.export.convert import convert as run
    from rechka.export.source import read_source

    card = run(read_source(checkpoint, tokenizer=tokenizer), out, int8=int8, name=name, tell=say)
    say(f"{card.name}: done; name it to other commands with: --model {out}")
    typer.echo(str(out))


def _is_whisper(checkpoint: Path) -> bool:
    """Whether a folder says that it is a Whisper model of transformers."""
    config = checkpoint / "config.json"
    try:
        if not config.is_file() or config.stat().st_size > MAX_CONFIG:
            return False
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # what is wrong with it is told when it is read
    return isinstance(values, dict) and values.get("model_type") == "whisper"
