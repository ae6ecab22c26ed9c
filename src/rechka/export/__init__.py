"""From weights to graphs that ONNX Runtime runs. Needs ``rechka[export]``; recognition never imports this package.

The package itself can be called: ``rechka.export("t-one", to="triton", out="repository")``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from rechka.errors import MissingExtra, UsageError

TARGETS = ("triton", "tensorrt")


def export(model: str | Path, *, to: str, out: str | Path, **options: Any) -> list[str]:
    """Write a repository that Triton serves.

    Args:
        model: name, folder or card: T-one or GigaAM.
        to: ``"triton"``, or ``"tensorrt"`` for one whose engines are built on the GPU that will run them.
        out: folder to make.
        options: fields of ``rechka.export.triton.TritonOptions``: ``engine``, ``sequences``, ``max_batch``,
            ``instances``, ``device``.

    Returns:
        Names of the models in the repository.

    Raises:
        UsageError: an unknown target or option, or ``out`` is there already. IncompatibleParts: another family.
        MissingExtra: onnx is not installed.
        ModelNotFound: not on disk. OutputError: the folder cannot be made.
    """
    from dataclasses import fields

    from rechka.hub.load import not_on_disk
    from rechka.hub.registry import find

    if to not in TARGETS:
        raise UsageError(f"export has no target {to!r}", remedy=f"known: {', '.join(TARGETS)}")
    entry = find(str(model))
    if entry.missing():
        raise not_on_disk(entry)
    try:
        from rechka.export.triton import TritonOptions, write_repository
    except ModuleNotFoundError:
        raise MissingExtra("export needs onnx", remedy='pip install "rechka[export]"') from None
    names = [item.name for item in fields(TritonOptions)]
    if unknown := sorted(set(options) - set(names)):
        raise UsageError(f"export has no option {unknown[0]!r}", remedy=f"known: {', '.join(names)}")
    if to == "tensorrt":
        options["engine"] = "tensorrt"
    return list(write_repository(entry.card, entry.on_disk(), Path(out), TritonOptions(**options)))


class _Callable(ModuleType):
    """``rechka.export`` is a folder of modules and, in the contract, a function; this makes it both."""

    def __call__(self, model: str | Path, *, to: str, out: str | Path, **options: Any) -> list[str]:
        return export(model, to=to, out=out, **options)


sys.modules[__name__].__class__ = _Callable
