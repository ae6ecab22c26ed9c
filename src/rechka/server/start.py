"""A server from Python: ``rechka.serve("t-one", port=8001)``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rechka.errors import MissingExtra, UsageError
from rechka.server.settings import FIELDS, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from rechka.recognizers import Asr


def serve(
    *models: str | Path | Asr,
    config: str | Path | None = None,
    started: Callable[[int], None] | None = None,
    **settings: Any,
) -> None:
    """Serve recognition to other programs until SIGINT or SIGTERM. Needs ``rechka[server]``.

    Args:
        models: names, folders, or what ``rechka.load`` gave; the first is the default. Without any, those of the
            settings, else the usual one.
        config: TOML file of settings.
        started: told the port when clients can connect; ``port=0`` takes a free one.
        settings: ``port=8001, max_streams=50``: the names of docs/settings.md. Variables (``RECHKA_PORT``) and the file
            hold where nothing is given here.

    Raises:
        UsageError: an unknown setting, or a value of the wrong type or out of its range.
        OutputError: the port is taken. MissingExtra: the server's libraries are not installed.
        ModelNotFound, BadModelFile: a model that is not on disk or not usable.
    """
    if unknown := sorted(set(settings) - set(FIELDS)):
        raise UsageError(f"the server has no setting {unknown[0]!r}", remedy=f"known: {', '.join(FIELDS)}")
    try:
        from rechka.server.run import load_models, serve
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"rechka.serve needs {error.name}, which is not installed", remedy='pip install "rechka[server]"'
        ) from None
    from rechka.recognizers import Asr

    loaded = {asr.name: asr for asr in models if isinstance(asr, Asr)}
    if loaded and len(loaded) < len(models):
        raise UsageError("models are given by name or loaded, not some of each", remedy="load all, or name all")
    if models and not loaded:
        settings["model"] = tuple(str(model) for model in models)
    chosen = resolve(settings, file=None if config is None else Path(config)).settings
    serve(chosen, loaded or load_models(chosen), started=started)
