"""``rechka publish``: a model's folder to the Hugging Face Hub, if that is said twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rechka.cli.common import say


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("publish")(publish)


def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a model with its card.toml.")],
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="Repository of the Hugging Face Hub.")],
    send: Annotated[bool, typer.Option("--send", help="Send it. Without this, only show what would be sent.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A repository that is made is not for everyone.")] = False,
    license: Annotated[str, typer.Option("--license", help="SPDX name, if the card does not know the licence.")] = "",
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Also send the weights for further training (transformers/).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The list as JSON.")] = False,
) -> None:
    """Show what publishing a model on the Hugging Face Hub would send; with --send, send it.

    The files that the card names, the card, and the page of the model (MODEL_CARD.md) go; checkpoints of the training,
    logs and finetune.toml stay. HF_TOKEN holds a token that may write, HF_ENDPOINT names another Hub.
    Needs pip install "rechka[publish]".
    """
    from rechka.hub import publish as hub

    what = hub.plan(folder, to, license=license, checkpoint=checkpoint)
    address = hub.send(what, private=private) if send else ""
    if as_json:
        rows = [{"path": file.path, "size": file.size} for file in what.files]
        print(json.dumps({"to": to, "sent": send, "address": address, "files": rows, "left_out": list(what.left_out)}))
    else:
        for file in what.files:
            print(f"{file.path}\t{file.size}")
    say(f"{'sent' if send else 'would send'} {len(what.files)} files, {what.size / 1e6:.1f} MB, to {to}")
    if what.left_out:
        say(f"stays here: {', '.join(what.left_out)}")
    if what.card.license == "unknown":
        say("the card says no licence; sending needs --license")
    if send:
        say(address)
    else:
        say("nothing was sent; add --send to do it")
