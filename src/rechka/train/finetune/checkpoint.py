"""Files of a run's state: there whole or not at all, and never code when they are read."""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from rechka.errors import BadModelFile, OutputError


def store(state: dict[str, Any], path: Path) -> None:
    """Write a file that is there whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", remedy="check the free space") from None


def load(path: Path) -> dict[str, Any]:
    """What ``store`` wrote.

    Raises:
        BadModelFile: it is no such file.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
        raise BadModelFile(
            f"{path} is no checkpoint of rechka finetune: {str(error).splitlines()[:1]}",
            remedy="remove it to begin anew",
        ) from None
