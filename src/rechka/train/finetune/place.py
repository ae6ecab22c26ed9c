"""The folder of a run: one run at a time in it, and one configuration for all of its life."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rechka.errors import OutputError, UsageError
from rechka.hub.locking import exclusive
from rechka.train.finetune.config import FinetuneConfig

WORK = "training"
"""Folder of checkpoints and log in that of the run."""
CONFIG = "finetune.toml"


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Keep the folder to one run at a time."""

    def taken() -> None:
        raise UsageError(f"another run is under way in {out}", remedy="wait for it, stop it, or name another folder")

    try:
        (out / WORK).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror or error}", remedy="check the folder") from None
    with exclusive(out / WORK / "lock", waiting=taken):
        yield


def settle(config: FinetuneConfig, out: Path) -> None:
    """Write the run's TOML file, with all that was left open said, or see that the one there says the same."""
    path = out / CONFIG
    if not path.exists():
        if others := [item.name for item in out.iterdir() if item.name != WORK]:
            raise UsageError(f"{out} holds other things: {', '.join(others[:3])}", remedy="name a new folder")
        part = out / WORK / CONFIG  # a kill leaves all of it in its place, or nothing
        part.write_text(config.to_toml(), encoding="utf-8")
        part.replace(path)
        return
    before = type(config).load(path)
    if _same(before) != _same(config):
        changed = [key for key, value in _same(config).items() if _same(before)[key] != value]
        raise UsageError(
            f"{out} holds a run with other settings: {', '.join(changed)} differ",
            remedy=f"resume it with {path} as config (--config), or name another folder",
        )


def _same(config: FinetuneConfig) -> dict[str, Any]:
    """What must not change between a run and its resumption."""
    return replace(config, device="auto", save_every_s=0.0, data=replace(config.data, threads=1)).to_dict()
