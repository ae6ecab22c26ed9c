"""``rechka serve``: recognition for other programs, live and from files."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.cli import common
from rechka.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from rechka.server.settings import Resolved


def register(app: typer.Typer) -> None:
    """Add the verb to the command line, with a flag for every setting."""
    from rechka.server.settings import FIELDS

    shown = inspect.signature(serve, eval_str=True)
    own = [parameter for parameter in shown.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    "--" + name.replace("_", "-"),
                    metavar=_metavar(name),
                    help=item.metadata["help"],
                    show_default=False,
                ),
            ],
        )
        for name, item in FIELDS.items()
    ]

    def command(**values: Any) -> None:
        serve(**values)

    command.__doc__ = serve.__doc__
    command.__name__ = "serve"
    command.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)}
    app.command("serve")(command)


def serve(
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings, TOML.", show_default=False)
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings with where each came from, and exit.")
    ] = False,
    new_key: Annotated[
        str | None,
        typer.Option(
            "--new-key",
            metavar="NAME",
            help="Make an API key: print it, append its hash to the file of --keys-file, and exit.",
            show_default=False,
        ),
    ] = None,
    original_env: Annotated[
        bool,
        typer.Option("--original-env", help="Also read HOST, PORT, MODEL_NAME, ... as ASR_FastAPI_WS_RU does."),
    ] = False,
    **flags: Any,
) -> None:
    """Serve recognition to other programs: live streams and recordings, in the protocols of many clients.

    Every option is also a setting of the TOML file and a variable: --max-streams, max_streams, RECHKA_MAX_STREAMS.
    A list is written with commas. docs/server.md tells which clients connect where.
    """
    resolved = _resolve(config, original_env, flags)
    settings = resolved.settings
    if show_config:
        print(resolved.show(), end="")
        return
    if new_key is not None:
        from rechka.server.keys import new_key as make

        if settings.keys_file is None:
            raise UsageError("--new-key needs --keys-file", remedy="name the file that shall hold the key's hash")
        print(make(new_key, settings.keys_file))
        common.say(f"rechka: the key is shown this once; its hash is in {settings.keys_file}")
        return
    try:
        from rechka.server.run import load_models, serve
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"rechka serve needs {error.name}, which is not installed", remedy='pip install "rechka[server]"'
        ) from None
    from rechka.server.logs import set_up

    set_up(settings.log_level, settings.log_format)
    scheme = "https" if settings.tls_cert else "http"

    def started(port: int) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        common.say(f"rechka: {', '.join(models)} on {scheme}://{host}:{port}; Ctrl-C ends")

    models = load_models(settings)
    serve(settings, models, started=started)


def _resolve(config: Path | None, original_env: bool, flags: dict[str, Any]) -> Resolved:
    from rechka.server.original import settings_of
    from rechka.server.settings import resolve

    if original_env:
        found, ignored = settings_of(os.environ)
        if ignored:
            common.say(f"rechka: without meaning here: {', '.join(ignored)}")
        flags = {**found, **{name: value for name, value in flags.items() if value is not None}}
    return resolve(flags, file=config)


def _metavar(name: str) -> str:
    from rechka.server.settings import TYPES

    hint = str(TYPES[name])
    if "Path" in hint:
        return "FILE"
    if "tuple" in hint:
        return "A,B,..."
    return {"bool": "true|false", "int": "N", "float": "X"}.get(getattr(TYPES[name], "__name__", ""), "TEXT")
