"""What verbs share: options, words to the user, loading a model."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from rechka.errors import RechkaError, UsageError

if TYPE_CHECKING:
    from rechka.recognizers import Asr

DEFAULT_BOOST = 5.0
"""Of a hotword without a boost, natural-log units for the whole entry."""


class Device(str):
    """Where the model runs: ``cpu``, ``cuda``, or an inference server."""

    CPU: ClassVar[Device]

    @property
    def value(self) -> str:
        """As ``rechka.load`` takes it."""
        return str(self)

    @classmethod
    def parse(cls, text: str) -> Device:
        """What the option says."""
        if text not in ("cpu", "cuda") and not text.startswith("triton://"):
            raise typer.BadParameter(f"must be cpu, cuda or triton://HOST:PORT, got {text!r}")
        return cls(text)


Device.CPU = Device("cpu")


class Channels(str, Enum):
    """What becomes of several channels."""

    MIX = "mix"
    SPLIT = "split"


ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Name (rechka models list), folder or card. Default: t-one if on disk, else the small built-in model.",
        show_default=False,
    ),
]
RefineOption = Annotated[
    str | None,
    typer.Option(
        "--refine",
        metavar="MODEL",
        help="A second, stronger model that reads every phrase again when it is closed.",
        show_default=False,
    ),
]
HotwordOption = Annotated[
    list[str] | None,
    typer.Option(
        "--hotword",
        metavar="WORD[:BOOST]",
        help=f"Expect this word or phrase; may be given many times. A boost of {DEFAULT_BOOST:g} is the default.",
        show_default=False,
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="CODE",
        help="Spoken language, such as ru, for models of several. Default: it is detected.",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of Whisper, such as task=translate, mode=sequential, beam_size=1; may be given many times.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    Device,
    typer.Option(
        "--device", metavar="DEVICE", parser=Device.parse, help="Where the model runs: cpu, cuda or triton://HOST:PORT."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Threads of the model. Default: as many as there are cores."),
]


def say(text: str) -> None:
    """Tell the user something: stderr, so that stdout holds nothing but results."""
    print(text, file=sys.stderr, flush=True)


def error_line(error: RechkaError, source: str = "") -> str:
    """``rechka: error [code]: message; remedy``, with the input that it is about unless the message names it."""
    where = f"{source}: " if source and source not in error.message else ""
    return f"rechka: error [{error.code}]: {where}{error}"


def hotwords(options: Iterable[str] | None) -> dict[str, float] | None:
    """``WORD[:BOOST]`` options as a mapping, or None if there are none.

    Raises:
        UsageError: an empty word, or a boost that is no number.
    """
    found: dict[str, float] = {}
    for option in options or ():
        word, colon, number = option.rpartition(":") if ":" in option else (option, "", "")
        try:
            boost = float(number) if colon else DEFAULT_BOOST
        except ValueError:
            boost = math.nan
        if not word.strip() or not math.isfinite(boost):
            raise UsageError(
                f"--hotword must be WORD or WORD:BOOST, got {option!r}", remedy="example: --hotword договор:8"
            )
        found[word.strip()] = boost
    return found or None


def adjusted(asr: Asr, language: str | None, settings: Iterable[str] | None) -> Asr:
    """The model with what ``--language`` and ``--set`` say.

    Raises:
        UsageError: no KEY=VALUE, or options that this model does not have.
    """
    options: dict[str, Any] = {}
    for text in settings or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set must be KEY=VALUE, got {text!r}", remedy="example: --set task=translate")
        try:
            options[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            options[key.strip()] = value
    if language is not None:
        options["language"] = language
    if not options:
        return asr
    change = getattr(asr, "with_options", None)
    if change is not None:
        changed: Asr = change(**options)
        return changed
    if set(options) == {"language"} and language == asr.language:
        return asr
    raise UsageError(
        f"the model {asr.name} has no options {', '.join(options)}; it recognises {asr.language!r}",
        remedy="leave them out, or choose a Whisper model",
    )


def load_asr(model: str | None, device: Device, threads: int | None, *, refine: str | None = None) -> Asr:
    """The model that the options name; says once which one was taken for want of another."""
    import rechka

    asr = rechka.load(model, refine=refine, device=device.value, threads=threads)
    if asr.note:
        say(f"rechka: {asr.note}")
    return asr
