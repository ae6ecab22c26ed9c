"""``rechka data``: recordings with texts checked before they are learnt from, and written in other formats."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rechka.cli import common

if TYPE_CHECKING:
    from rechka.data.check import Report, Target


def register(app: typer.Typer) -> None:
    """Add the verb with its parts."""
    group = typer.Typer(no_args_is_help=True, help="Recordings with texts: check them, convert them.")
    group.command("check")(check)
    group.command("convert")(convert)
    app.add_typer(group, name="data")


SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Manifests (jsonl, tsv, csv), parquet, tar, Kaldi folders, URLs, hf://owner/name?split=train.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads that decode.")]


def check(
    sources: SourcesArgument,
    test: Annotated[
        list[str] | None, typer.Option(help="Test data, to be kept apart from the sources. Many times.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Judge letters and lengths by what this model writes.")
    ] = None,
    threads: ThreadsOption = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Look for what would spoil training: bad audio, wrong texts, leaks between training and test data.

    Every recording is decoded. Exit code 1 if there are errors; warnings alone give 0.
    """
    from rechka.data.check import check as run

    target = None if model is None else _target(model)
    report = run(sources, test or (), target=target, threads=threads, progress=_progress("checked"))
    if as_json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        _show(report)
    if report.num_errors:
        raise typer.Exit(1)


def convert(
    sources: SourcesArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File, or folder for Kaldi; must not be there yet.")],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="nemo, kaldi, common-voice, csv, parquet, tar or gigaam. Default: what the name of OUT tells.",
        ),
    ] = None,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of damaged records above which nothing is written.")
    ] = 0.05,
    threads: ThreadsOption = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Write recordings with texts in another format, whole or not at all.

    Damaged records are left out and counted. Exit code 1 if there were any.
    """
    from rechka.data.convert import convert as run

    done = run(sources, out, format=format_, max_bad=max_bad, threads=threads, progress=_progress("read"))
    if as_json:
        value = {"out": str(out), "written": done.written, "seconds": round(done.seconds, 3), "skipped": done.skipped,
                 "reasons": list(done.reasons)}  # fmt: skip
        print(json.dumps(value, ensure_ascii=False))
    else:
        print(out)
        for reason in done.reasons:
            common.say(f"left out: {reason}")
        common.say(f"{done.written} records, {done.seconds / 3600:.2f} h written, {done.skipped} left out")
    if done.skipped:
        raise typer.Exit(1)


def _target(model: str) -> Target:
    """What a model writes: its letters and the length of its frames."""
    from rechka.data.check import Target

    spec = common.load_asr(model, common.Device.CPU, None).spec
    frame_s = spec.hop / spec.sample_rate
    if spec.tokens is None or spec.tokens.pieces:  # pieces hold several letters: how many labels there will be is open
        return Target(letters=None, frame_s=0.0)
    return Target(letters=frozenset("".join(spec.tokens.symbols)) | {" "}, frame_s=frame_s)


def _progress(done: str) -> Callable[[int], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(number: int) -> None:
        if number % 50 == 0:
            print(f"{number} records {done}", end="\r", file=sys.stderr, flush=True)

    return show


def _show(report: Report) -> None:
    from rechka.data.check import KINDS

    for side, count in report.rows.items():
        print(f"{side}: {count} records, {report.seconds[side] / 3600:.2f} h")
    for kind, (severity, meaning) in KINDS.items():
        if report.counts[kind]:
            print(f"{severity}: {meaning} [{kind}]: {report.counts[kind]}")
            for name, detail in report.examples[kind]:
                print(f"    {name}: {detail}")
    if not report.counts:
        print("nothing to complain of")
