"""``rechka train``: a streaming CTC model from manifests and one TOML file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rechka.errors import MissingExtra


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train")(train)


def train(
    config: Annotated[Path, typer.Argument(help="TOML file of the run; see docs/training.md.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoint and log; a run there is resumed.")],
    features: Annotated[
        Path | None, typer.Option(help="Folder of the feature stores, to share them between runs.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the averaged weights as ONNX to this file at the end.")
    ] = None,
) -> None:
    """Train a streaming CTC model; resumes after a kill as if nothing had happened."""
    for module in ("torch", "scipy"):
        if find_spec(module) is None:
            raise MissingExtra(f"training needs {module}", remedy='pip install "rechka[train]"')
    from rechka.train.config import TrainConfig
    from rechka.train.loop import load_model
    from rechka.train.loop import train as run

    checkpoint = run(TrainConfig.load(config), out, features=features)
    typer.echo(str(checkpoint))
    if export is not None:
        from rechka.export.conformer import export as write

        difference = write(load_model(checkpoint), export)
        typer.echo(f"wrote {export}; it differs from torch by at most {difference:.1e}", err=True)
