"""``rechka models convert``: a training checkpoint to a folder that runs without torch."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.errors import BadModelFile, MissingExtra, OutputError, UsageError

if TYPE_CHECKING:
    from rechka.export.gigaam import Source


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="A GigaAM .ckpt, or a folder with config.json and model.safetensors or .bin.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; it must not exist or be empty.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="SentencePiece model, if it does not lie beside the checkpoint.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Matrix products in 8 bits: a third of the size.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model. Default: that of the checkpoint.")] = None,
) -> None:
    """Turn a checkpoint into ONNX files, the weights as safetensors, and a card. Nothing in the checkpoint is run."""
    for needed in ("torch", "onnx", "safetensors"):
        if find_spec(needed) is None:
            raise MissingExtra(f"converting needs {needed}", remedy='pip install "rechka[train]"')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already and is not empty", remedy="choose another folder, or remove it")
    if tokenizer is not None and not tokenizer.is_file():
        raise UsageError(f"no tokenizer at {tokenizer}")
    source, found = read(checkpoint, tokenizer)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write beside {out}: {error.strerror}") from error
    try:
        _fill(work, source, name or found, "int8" if int8 else "fp32")
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.replace(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error}", remedy="check the space on the disk") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    typer.echo(str(out))


def read(checkpoint: Path, tokenizer: Path | None) -> tuple[Source, str]:
    """The checkpoint, and the name that it gives itself.

    Raises:
        ModelNotFound, BadModelFile: not there, or not to be read.
    """
    from dataclasses import replace

    from rechka.export.gigaam import Source, read_checkpoint, read_folder, tokenizer_beside

    if checkpoint.is_dir():
        source = read_folder(checkpoint)
    else:
        config, weights = read_checkpoint(checkpoint)
        if not config:
            raise BadModelFile(
                f"{checkpoint} has weights but no configuration, so the model's shape is unknown",
                remedy="give a published .ckpt, or a folder with config.json",
            )
        source = Source(config, weights, tokenizer_beside(checkpoint, config))
    if tokenizer is not None:
        source = replace(source, tokens=tokenizer)
    return source, str(source.config.get("model_name") or checkpoint.stem)


def _fill(folder: Path, source: Source, name: str, precision: str) -> None:
    """All files of the model's folder."""
    import numpy as np
    from safetensors.numpy import save_file

    from rechka.export import gigaam
    from rechka.hub.card import Card

    network = gigaam.module(source)
    config = network.config
    window, filters, center = gigaam.front(source)
    files: dict[str, Path] = {"frontend": folder / "frontend.npz"}
    np.savez(files["frontend"], window=window, fb=filters)
    params: dict[str, Any] = {"task": config.task, "n_fft": len(window), "hop": 160, "center": center}
    vocabulary = config.classes
    if config.task in ("ctc", "rnnt"):
        symbols, pieces = gigaam.symbols(source, vocabulary)
        files["tokens"] = folder / "tokens.txt"
        files["tokens"].write_text("".join(f"{text} {i}\n" for i, text in enumerate(symbols)), "utf-8")
        params["words"] = "pieces" if pieces else "chars"
    elif config.task == "emo":
        params["labels"] = _labels(source.config.get("id2name"), config.classes)
    files |= gigaam.write(network, folder, vocabulary, precision)
    save_file({key: np.ascontiguousarray(value) for key, value in source.weights.items()}, folder / "model.safetensors")
    files["weights"] = folder / "model.safetensors"
    card = Card(
        name=_name(name), family="gigaam", language="ru", license="MIT", params=params,
        title={"en": f"GigaAM {name}, converted", "ru": f"GigaAM {name}, преобразована"},
        files={role: _entry(path, optional=role == "weights") for role, path in files.items()},
        decoder={"beam_width": 4} if config.task == "rnnt" else {},
    )  # fmt: skip
    (folder / "card.toml").write_text(card.to_toml(), "utf-8")


def _labels(names: Any, classes: int) -> list[str]:
    """The classes' names from a list or a mapping of numbers to names."""
    if isinstance(names, dict):
        names = [names.get(str(number)) for number in range(classes)]
    if not isinstance(names, list) or len(names) != classes or not all(isinstance(one, str) for one in names):
        raise BadModelFile(f"the configuration names {names!r} for {classes} classes of emotion")
    return names


def _entry(path: Path, *, optional: bool) -> Any:
    from rechka.hub.card import CardFile

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else None
        total = digest.hexdigest() if digest else hashlib.sha256(file.read()).hexdigest()
    return CardFile(path.name, size=path.stat().st_size, sha256=total, optional=optional)


def _name(text: str) -> str:
    """A name as cards have it: lower case, digits, hyphens."""
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower())
    return f"gigaam-{kept.strip('-')}" if not kept.startswith("gigaam") else kept.strip("-")
