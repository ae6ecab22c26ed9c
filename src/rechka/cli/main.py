"""``rechka``: finds the verb, runs it, turns errors into one line and an exit code.

Exit codes: 0 done, 1 some inputs failed, 2 wrong usage, 3 model or file missing, 4 internal, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from rechka import __version__
from rechka.cli.common import error_line, say
from rechka.errors import RechkaError

VERBS = (
    "transcribe",
    "listen",
    "serve",
    "stream",
    "models",
    "evaluate",
    "data",
    "lm",
    "bench",
    "synth",
    "train",
    "finetune",
    "publish",
    "export",
    "batch",
    "doctor",
)
"""Each is a module of this package with ``register(app)``; one that is not there is left out."""

INTERNAL_EXIT = 4
INTERRUPTED_EXIT = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE_EXIT = 141  # 128 + SIGPIPE
CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
"""ClickException, which newer versions of typer carry inside and do not export."""


def run() -> None:
    """The entry of the ``rechka`` command."""
    sys.exit(main(sys.argv[1:]))


def main(args: Sequence[str]) -> int:
    """Run the command line ``args``, without the program's name.

    Returns:
        The exit code. Every error has been told on stderr; with RECHKA_DEBUG=1 with a traceback.
    """
    _tolerant_output()
    try:
        code = _invoke(args)
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, typer.Abort):
        say("")
        return INTERRUPTED_EXIT
    except BrokenPipeError:
        # The reader left (| head). Python would complain again when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_EXIT
    except Exception as error:  # noqa: BLE001 - the last handler: nothing may reach the user as a traceback
        return _report(error)


def _invoke(args: Sequence[str]) -> int:
    command = typer.main.get_command(build(args))
    try:
        with command.make_context("rechka", list(args)) as context:
            command.invoke(context)
    except typer.Exit as exit_:
        return exit_.exit_code
    return 0


def build(args: Sequence[str] = ()) -> typer.Typer:
    """The application with the verb that ``args`` name; with all of them if they name none (help, a typing error)."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_top)
    named = next((arg for arg in args if not arg.startswith("-")), None)
    for verb in (named,) if named in VERBS else VERBS:
        if find_spec(f"rechka.cli.{verb}") is not None:
            import_module(f"rechka.cli.{verb}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rechka {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Russian speech recognition, live and from files.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 some inputs failed, 2 wrong usage, 3 model or
    file missing, 4 internal error.
    """


def _report(error: Exception) -> int:
    """Tell the error in one line, or show the help that was asked for; the exit code."""
    if os.environ.get("RECHKA_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, RechkaError):
        say(error_line(error))
        return error.exit_code
    if isinstance(error, CLICK_ERROR):
        message: str = error.format_message().replace("Value error, ", "")  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        if context is not None and message == context.get_help():  # a command without arguments
            say(message)
        else:
            path = "rechka" if context is None else context.command_path
            say(f"rechka: error [usage]: {message.rstrip('.')}; see: {path} --help")
        return 2
    say(
        f"rechka: error [internal]: {type(error).__name__}: {error}; this is a fault of rechka: please report it with "
        "the command and what `rechka doctor` prints; RECHKA_DEBUG=1 shows where it happened"
    )
    return INTERNAL_EXIT


def _tolerant_output() -> None:
    """Escape a letter that the terminal's encoding lacks, or a file name that is no text, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
