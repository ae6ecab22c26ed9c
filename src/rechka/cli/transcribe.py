"""``rechka transcribe``: recordings to text."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.cli import common, inputs
from rechka.cli.progress import Meter
from rechka.errors import AudioNotFound, RechkaError, UsageError

if TYPE_CHECKING:
    from rechka.audio.pcm import Encoding as RawEncoding
    from rechka.types import Transcript

ONE_EACH = frozenset({"srt", "vtt", "tsv"})
"""Formats of which only one may stand in a file."""


class Encoding(str, Enum):
    """Codings of raw audio."""

    ALAW = "alaw"
    MULAW = "mulaw"
    S16LE = "s16le"


class Format(str, Enum):
    """The formats of ``rechka.formats.FORMATS``, named here so that the help needs no imports; a test compares them."""

    TXT = "txt"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"
    CTM = "ctm"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(transcribe)


def transcribe(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Audio files, folders, glob patterns, URLs, - for stdin, or data: jsonl, parquet, tar, hf://owner/name.",
            show_default=False,
        ),
    ],
    model: common.ModelOption = None,
    refine: common.RefineOption = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format", "-f", help="Format of the result. Default: phrases with their times; with --output: txt."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Write one file per input into this folder."),
    ] = None,
    channels: Annotated[
        common.Channels, typer.Option("--channels", help="Stereo: one text of both, or one speaker per channel.")
    ] = common.Channels.MIX,
    encoding: Annotated[
        Encoding | None,
        typer.Option("--encoding", help="The inputs are raw telephone audio: mono, 8000 Hz, no header."),
    ] = None,
    hotword: common.HotwordOption = None,
    language: common.LanguageOption = None,
    settings: common.SetOption = None,
    device: common.DeviceOption = common.Device.CPU,
    threads: common.ThreadsOption = None,
    digits: Annotated[bool, typer.Option("--digits", help="Write numbers as digits: 25 мая, 15:30, 5%.")] = False,
    punctuate: Annotated[
        bool, typer.Option("--punctuate", help="Put marks and capitals into the bare words that most models write.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON per input, errors included, for programs.")
    ] = False,
) -> None:
    """Turn recordings into text.

    Results go to stdout in the order of the inputs, or into the folder --output, whose file names are then printed. An
    input that fails does not stop the others: exit code 1, or 3 if nothing that was named exists.
    """
    data = any(map(inputs.is_data, arguments))
    items = inputs.streamed(arguments) if data else inputs.expand(arguments)
    job = Job(items, None if format_ is None else format_.value, output, as_json)
    words = common.hotwords(hotword)
    errors = [item.error for item in items if item.error is not None] if isinstance(items, list) else []
    if errors and len(errors) == job.total:  # nothing to do: tell it without loading a model
        code = job.run(job.sources(lambda item: item.error), Meter(job.total, visible=False))
    else:
        asr = common.adjusted(common.load_asr(model, device, threads, refine=refine), language, settings)
        raw: RawEncoding | None = None if encoding is None else encoding.value
        with Meter(job.total, visible=sys.stderr.isatty()) as meter:
            heard = asr.transcribe_many(
                job.sources(lambda item: _source(item, raw)),
                progress=meter.update,
                channels=channels.value,
                hotwords=words,
            )
            code = job.run(_finished(heard, digits=digits, punctuate=punctuate), meter)
    if code:
        raise typer.Exit(code)


def _finished(
    results: Iterator[Transcript | RechkaError], *, digits: bool, punctuate: bool
) -> Iterator[Transcript | RechkaError]:
    """The transcripts as a reader wants them."""
    from rechka.recognizers.finish import finish

    for result in results:
        yield result if isinstance(result, RechkaError) else finish(result, digits=digits, punctuate=punctuate)


def _source(item: inputs.Input, encoding: RawEncoding | None) -> Any:
    """What to recognise for an item, opened here only if it needs that; or the error that keeps it from being heard."""
    import rechka
    from rechka.data.decode import source_of

    if item.error is not None:
        return item.error
    try:
        source = source_of(item.row) if item.row is not None else item.path or _stdin()
        return source if encoding is None else rechka.open_source(source, encoding=encoding, channels="split")
    except UsageError:
        raise
    except RechkaError as error:
        return error


def _stdin() -> Any:
    if sys.stdin.isatty():
        raise UsageError("nothing is piped into -", remedy="example: cat call.wav | rechka transcribe -")
    return sys.stdin.buffer


@dataclass
class Job:
    """What to do with which inputs.

    Raises:
        UsageError: options that do not go together.
    """

    items: Iterable[inputs.Input]
    format: str | None
    output: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        from rechka.formats import FORMATS

        self.total = len(self.items) if isinstance(self.items, list) else None
        """How many inputs there are, if that is known."""
        self.several = several = self.total is None or self.total > 1
        self.waiting: deque[inputs.Input] = deque()
        """Inputs that were given to the recogniser and are not delivered yet."""
        self.paths: list[Path] = []
        if self.output is not None:
            suffix = self.output.suffix[1:]
            if suffix in FORMATS and not os.path.isdir(self.output):
                remedy = f"for one file write: rechka transcribe INPUT --format {suffix} > {self.output}"
                raise UsageError(f"--output names a folder, got {self.output}", remedy=remedy)
            if isinstance(self.items, list):
                self.paths = inputs.output_paths(self.items, self.output, self.format or "txt")
        elif self.as_json and self.format:
            raise UsageError(
                "--json prints JSON; --format says what --output writes", remedy="add --output or drop one"
            )
        elif several and self.format in ONE_EACH:
            raise UsageError(f"several inputs do not fit into one {self.format}", remedy="name a folder with --output")

    def sources(self, opened: Callable[[inputs.Input], Any]) -> Iterator[Any]:
        """What ``opened`` makes of every input, when asked for; a little ahead where inputs are found on the way."""
        if isinstance(self.items, list):
            for item in self.items:
                self.waiting.append(item)
                yield opened(item)
            return
        from rechka.data.listen import ahead

        for item, source in ahead(self.items, opened):
            self.waiting.append(item)
            yield source

    def run(self, results: Iterable[Transcript | RechkaError], meter: Meter) -> int:
        """Deal with every input in order.

        Args:
            results: of what ``sources`` gave, in order.
            meter: shows how far we are.

        Returns:
            The exit code.
        """
        errors: list[RechkaError] = []
        index = -1
        for index, result in enumerate(results):
            item = self.waiting.popleft()
            if isinstance(result, UsageError):  # the same for all inputs
                raise result
            meter.finish(index)
            if not isinstance(result, RechkaError):
                try:
                    self._deliver(index, item, result, meter)
                    continue
                except RechkaError as error:
                    failure: RechkaError = error
            else:
                failure = result
            errors.append(failure)
            meter.say(common.error_line(failure, item.name))
            if self.as_json:
                meter.print(_json_line({"input": item.name, "error": failure.to_dict()}))
        total = index + 1
        if errors and total > 1:
            meter.say(f"rechka: {total - len(errors)} of {total} inputs done, {len(errors)} failed")
        elif meter.audio_s and sys.stderr.isatty():
            meter.say(f"{meter.audio_s:.1f} s of audio in {meter.wall_s:.1f} s, {meter.speed:.1f} x real time")
        if not errors:
            return 0
        nothing_there = len(errors) == total and all(isinstance(error, AudioNotFound) for error in errors)
        return 3 if nothing_there else 1

    def _deliver(self, index: int, item: inputs.Input, transcript: Transcript, meter: Meter) -> None:
        """Print or save one transcript."""
        from rechka.formats import render
        from rechka.formats.txt import timed_line

        if transcript.truncated:
            meter.say(f"rechka: warning: {item.name} breaks off before its end; the text until there is given")
        if self.output is not None:
            path = self._save(self._path(index, item), transcript)
            meter.print(_json_line({"input": item.name, "output": str(path)}) if self.as_json else f"{path}\n")
            return
        if self.as_json:
            meter.print(_json_line({"input": item.name, "transcript": transcript.to_dict()}))
            return
        heading = f"==> {item.name} <==\n" if self.several and self.format in (None, "txt") else ""
        if self.format is None:
            text = "".join(timed_line(segment) + "\n" for segment in transcript.segments)
        else:
            text = render(transcript, self.format, recording=item.base.stem)
        meter.print(heading + text)

    def _path(self, index: int, item: inputs.Input) -> Path:
        assert self.output is not None
        if self.paths:
            return self.paths[index]
        return self.output / item.base.with_suffix(f".{self.format or 'txt'}")

    def _save(self, path: Path, transcript: Transcript) -> Path:
        from rechka.errors import OutputError

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {path.parent}: {error.strerror}", remedy="choose another folder for --output"
            ) from error
        return transcript.save(path)


def _json_line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
