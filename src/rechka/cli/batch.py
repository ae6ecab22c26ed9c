"""``rechka batch``: an archive to texts, on all cores or on a cluster; killed and called again, it goes on."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.cli import common, inputs
from rechka.errors import UsageError

if TYPE_CHECKING:
    from rechka.scale.archive import Archive
    from rechka.scale.items import Item
    from rechka.scale.work import Part


class PartFormat(str, Enum):
    """Forms of the parts."""

    JSONL = "jsonl"
    PARQUET = "parquet"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(batch)


def batch(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Audio files, folders, patterns, URLs (s3://bucket/*.wav), data (jsonl, csv, tsv, parquet, tar, "
            "hf://owner/name, a Kaldi folder), or @FILE with one of these a line.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder or URL of the results.", show_default=False)
    ],
    model: common.ModelOption = None,
    refine: common.RefineOption = None,
    format_: Annotated[PartFormat, typer.Option("--format", "-f", help="Form of the results.")] = PartFormat.JSONL,
    channels: Annotated[
        common.Channels, typer.Option("--channels", help="Stereo: one text of both, or one speaker per channel.")
    ] = common.Channels.MIX,
    hotword: common.HotwordOption = None,
    digits: Annotated[bool, typer.Option("--digits", help="Write numbers as digits: 25 мая, 15:30, 5%.")] = False,
    punctuate: Annotated[bool, typer.Option("--punctuate", help="Full stops and capitals.")] = False,
    device: common.DeviceOption = common.Device.CPU,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes, each with a model. Default: one a core, or a GPU."),
    ] = None,
    part_size: Annotated[
        int, typer.Option("--part-size", min=1, help="Recordings of one part: what is done again after a kill.")
    ] = 64,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="ADDRESS", help="Use a Ray cluster: auto, local or its address.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one line of JSON.")] = False,
) -> None:
    """Turn an archive into texts.

    Results lie in DIR/parts, what failed in DIR/report.json. Called again with the same --out it does what is left:
    every recording stands in the results exactly once. Exit code 1 if some failed.
    """
    from rechka.backends.cores import cores
    from rechka.scale import Archive, BatchOptions

    options = BatchOptions(
        model, refine, device.value, channels.value, common.hotwords(hotword) or {}, digits, punctuate, format_.value,
        part_size,
    )  # fmt: skip
    archive = Archive(out, options)
    if not archive.begun:
        archive.write_plan(_items(arguments, part_size))
    done = len(archive.done())
    if done:
        common.say(f"rechka: {done} of {archive.num_parts} parts are done already")
    try:
        _run(archive, workers or cores(), _ray(archive, ray, workers) if ray else None)
    except KeyboardInterrupt:
        common.say("rechka: stopped; the same command goes on where it was")
        raise typer.Exit(130) from None
    report = archive.report()
    if as_json:
        print(json.dumps({**report.to_dict(), "out": out}, ensure_ascii=False))
    else:
        for failure in report.failures[:20]:
            common.say(f"rechka: {failure['input']}: [{failure['error']['code']}] {failure['error']['message']}")
        if report.failed > 20:
            common.say(f"rechka: and {report.failed - 20} more; all are in {out}/report.json")
        hours = report.audio_s / 3600
        print(f"{report.recordings} recordings, {hours:.2f} h of audio, {report.failed} failed: {out}/parts")
    if report.failed:
        raise typer.Exit(1)


def _ray(archive: Archive, address: str, workers: int | None) -> Callable[[list[Part]], Iterator[dict[str, Any]]]:
    from rechka.scale import ray_data

    options, place = archive.options, archive.store.place
    return lambda parts: ray_data.run(parts, options, place, address=address, workers=workers)


def _run(archive: Archive, workers: int, engine: Callable[[list[Part]], Iterator[dict[str, Any]]] | None) -> None:
    """Do what is left, telling how far it is."""
    began, audio_s, recordings = time.monotonic(), 0.0, 0
    left = archive.num_parts - len(archive.done())
    for number, said in enumerate(archive.run(engine, workers=workers), 1):
        audio_s += said["audio_s"]
        recordings += said["recordings"]
        if sys.stderr.isatty():
            wall_s = time.monotonic() - began
            rest_s = wall_s / number * (left - number)
            line = f"{number} of {left} parts, {recordings} recordings, {audio_s / wall_s:.1f} x real time"
            print(f"\r{line}, {rest_s / 60:.0f} min left   ", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and recordings:
        print(file=sys.stderr)


def _items(arguments: Sequence[str], size: int) -> Iterator[Item]:
    """Absolute paths and URLs of recordings, and ranges of at most ``size`` rows of datasets; each once, in order.

    Raises:
        UsageError: stdin, of which nothing could be read twice.
        AudioNotFound: a URL that cannot be listed.
        DataError: a dataset of which nothing can be read.
    """
    from rechka.data.sources import is_source
    from rechka.scale.items import of_source

    seen: set[str] = set()
    for argument in _listed(arguments):
        if not is_source(argument):
            for name in _recordings(argument):
                if name not in seen:
                    seen.add(name)
                    yield name
        elif argument not in seen:
            seen.add(argument)
            yield from of_source(argument, size)


def _recordings(argument: str) -> list[str]:
    """Absolute paths and URLs of recordings; what is not there becomes a failure in the results."""
    if "://" in argument:
        return _urls(argument)
    found = inputs.expand([argument])
    names = [os.path.abspath(item.path) for item in found if item.path is not None]
    if len(names) < len(found):
        raise UsageError("rechka batch cannot read stdin", remedy="name files, or use rechka transcribe -")
    return names


def _listed(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        if argument.startswith("@"):
            try:
                with open(argument[1:], encoding="utf-8") as file:
                    yield from (line.strip() for line in file if line.strip())
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"cannot read the list {argument[1:]}: {error}", remedy="a text file, UTF-8") from None
        else:
            yield argument


def _urls(pattern: str) -> list[str]:
    """The files that a URL names, with audio suffixes if it names a folder or a pattern."""
    from rechka.errors import AudioNotFound, MissingExtra

    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError:
        raise MissingExtra(f"{pattern} needs fsspec", remedy='pip install "rechka[data]"') from None
    try:
        system, path = url_to_fs(pattern)
        if any(mark in path for mark in "*?["):
            found = sorted(system.glob(path))
        elif system.isdir(path):
            found = sorted(system.find(path))
        else:
            return [pattern]  # whether it is there is told when it is read
    except (OSError, ImportError, ValueError) as error:
        raise AudioNotFound(f"cannot list {pattern}: {error}", remedy="check the address and the rights") from None
    names = [system.unstrip_protocol(n) for n in found if os.path.splitext(n)[1].lower() in inputs.AUDIO_SUFFIXES]
    if not names:
        raise AudioNotFound(f"no recordings at {pattern}", remedy="name files, a folder or a pattern")
    return names
