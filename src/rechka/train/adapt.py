"""Fine-tuning as users call it, ``rechka finetune`` and ``rechka.finetune``: the few options of the day, any family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rechka.errors import MissingExtra, UsageError
from rechka.hub import toml

if TYPE_CHECKING:
    from rechka.hub.card import Card
    from rechka.train.finetune import FinetuneConfig, Progress
    from rechka.train.whisper import WhisperConfig

Sources = str | Path | Sequence[str | Path]

HOMES: Mapping[str, tuple[str, str]] = {
    "name": ("", "name"),
    "tokenizer": ("", "tokenizer"),
    "device": ("", "device"),
    "seed": ("", "seed"),
    "int8": ("", "int8"),
    "epochs": ("optim", "epochs"),
    "steps": ("optim", "steps"),
    "rate": ("optim", "rate"),
    "batch_seconds": ("optim", "batch_seconds"),
    "freeze_layers": ("optim", "freeze_layers"),
    "patience": ("optim", "patience"),
    "telephone": ("wave", "telephone"),
    "noise": ("wave", "noise_files"),
    "lora": ("whisper", "lora"),
    "language": ("whisper", "language"),
}
"""Where each option stands in the run's file: table (the first is the top) and key."""

ONLY_WHISPER = ("lora", "language")


def finetune(
    model: str | Path | None = None,
    *,
    out: str | Path,
    train: Sources = (),
    dev: Sources = (),
    replay: Sources = (),
    config: str | Path | None = None,
    threads: int | None = None,
    tell: Callable[[str], None] | None = None,
    tick: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Card:
    """Adapt a T-one, GigaAM, embedded or Whisper model to recordings with texts. Needs ``rechka[train]``.

    Args:
        model: what to start from: a checkpoint, a folder with one, or a name with weights on disk.
        out: folder of the new model, which ``rechka.load`` takes; a run that was stopped there is resumed.
        train, dev, replay: manifests, tables, folders or URLs, one or several (docs/data.md).
        config: TOML file with all settings; what is given here overrides it.
        threads: of torch; by default torch decides.
        tell, tick: get lines for the user, and the progress after every step.
        options: ``epochs=3``, ``seed=7`` and so on: the names of ``HOMES``, told by ``rechka finetune --help``.

    Returns:
        The card of the new model, with its error rates before and after.

    Raises:
        MissingExtra: torch or another part of the extra is not installed.
        UsageError: options that make no sense; DataError, ModelNotFound, BadModelFile, OutputError: data, checkpoint or
            folder that cannot be used.
    """
    for module in ("torch", "scipy", "safetensors", "onnx"):
        if find_spec(module) is None:
            raise MissingExtra(f"fine-tuning needs {module}", remedy='pip install "rechka[train]"')
    if unknown := sorted(set(options) - set(HOMES)):
        raise UsageError(f"fine-tuning has no option {unknown[0]!r}", remedy=f"known: {', '.join(HOMES)}")
    chosen = {name: value for name, value in options.items() if value is not None}
    file = None if config is None else Path(config)
    named = None if model is None else str(model)
    run, kind = _family(named, file)
    if kind is None and any(name in chosen for name in ONLY_WHISPER):
        raise UsageError(
            "lora and language (--lora and --language) are for Whisper",
            remedy="leave them out, or name a Whisper checkpoint",
        )
    given: dict[str, dict[str, Any]] = {"": {}, "data": {}, "optim": {}}
    for name, value in chosen.items():
        table, key = HOMES[name]
        given.setdefault(table, {})[key] = _list(value) if name == "noise" else _plain(value)
    if named is not None:
        given[""]["model"] = named
    for key, sources in (("train", train), ("replay", replay)):
        if listed := _list(sources):
            given["data"][key] = listed
    if file is None and not _list(dev):
        given["optim"]["patience"] = 0  # nothing tells when it gets no better
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    hooks = {name: hook for name, hook in (("tell", tell), ("tick", tick)) if hook is not None}
    return run(_settings(file, given, _list(dev), kind), Path(out), **hooks)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _list(sources: Sources) -> list[str]:
    return [str(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]


def _family(model: str | None, config: Path | None) -> tuple[Callable[..., Card], type[WhisperConfig] | None]:
    """What trains the model that is named, here or in the file, and the configuration of its own that it has."""
    from rechka.train.finetune import finetune as run
    from rechka.train.whisper import WhisperConfig, find_checkpoint, finetune_whisper

    named = model
    if named is None and config is not None:
        try:
            named = str(toml.loads(config.read_text("utf-8")).get("model", ""))
        except (OSError, ValueError):
            return run, None  # what is wrong with it is told when it is read
        here = config.absolute().parent / named
        named = str(here) if named and here.exists() else named
    return (finetune_whisper, WhisperConfig) if named and find_checkpoint(named) else (run, None)


def _settings(
    config: Path | None,
    given: dict[str, dict[str, Any]],
    dev: list[str],
    kind: type[FinetuneConfig] | None,
) -> FinetuneConfig:
    """The configuration of a file, with what was given in its place; of a family's own kind."""
    from rechka.train.finetune import FinetuneConfig

    kind = kind or FinetuneConfig
    sets = [{"name": title, "sources": [source]} for title, source in zip(_titles(dev), dev, strict=True)]
    if config is None:
        needed = (("the model (MODEL)", "model" in given[""]), ("train (--train)", "train" in given["data"]))
        if missing := [name for name, there in needed if not there]:
            raise UsageError(
                f"{' and '.join(missing)} missing",
                remedy='rechka finetune MODEL --train A.jsonl --out FOLDER, rechka.finetune(MODEL, train="A.jsonl", '
                'out="FOLDER"), or name a config (--config)',
            )
        plain = given.pop("")
        return kind.from_dict({**plain, **given, "dev": sets}, where="the options")
    merged = kind.load(config).to_dict()
    for section, values in given.items():
        (merged[section] if section else merged).update(values)
    if dev:
        merged["dev"] = sets
    return kind.from_dict(merged, where=f"{config} with the options")


def _titles(sources: list[str]) -> list[str]:
    """A short name of its own for every source."""
    titles: list[str] = []
    for source in sources:
        stem = source.partition("?")[0].rstrip("/").rpartition("/")[2].partition(".")[0] or "dev"
        titles.append(stem if stem not in titles else f"{stem}-{len(titles) + 1}")
    return titles
