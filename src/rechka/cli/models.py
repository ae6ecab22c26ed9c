"""``rechka models``: what there is, what it is, getting it, checking it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.cli.common import say
from rechka.errors import UsageError

if TYPE_CHECKING:
    from rechka.hub.download import Progress
    from rechka.hub.map import Line
    from rechka.hub.registry import Entry

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
FAULT_EXIT = 3
"""A model or file is missing or damaged."""
WIDE = 105
"""Columns of a terminal that has room for titles."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    from rechka.cli.convert import convert

    verb = typer.Typer(no_args_is_help=True, help="List, show, pull, verify and convert models.")
    for command in (list_, show, pull, verify, convert):
        verb.command(command.__name__.rstrip("_"))(command)
    app.add_typer(verb, name="models")


def list_(
    family: Annotated[
        str | None, typer.Option("--family", metavar="NAME", help="Only this family: tone, gigaam, whisper ...")
    ] = None,
    test: Annotated[
        str, typer.Option("--test", metavar="NAME", help="Test whose published error rate is shown.")
    ] = "Russian LibriSpeech",
    as_json: AsJson = False,
) -> None:
    """List the models that can be named with --model: size, licence, published error rate, whether they are on disk."""
    from rechka.hub.card import FAMILIES
    from rechka.hub.load import choose
    from rechka.hub.map import TESTS, Line, ordered
    from rechka.hub.registry import PREFERRED, entries

    if family is not None and family not in FAMILIES:
        raise UsageError(f"there is no family {family!r}", remedy=f"known families: {', '.join(FAMILIES)}")
    everything, broken = entries()
    known = [entry for entry in everything if family in (None, entry.card.family)]
    default = choose()[0].card.name
    lines = ordered((Line.of(entry, test) for entry in known), first=default)
    if as_json:
        found = {entry.card.name: entry for entry in known}
        _print_json(
            [
                {**_brief(found[line.name]), "default": line.name == default, "wer": line.wer, "wer_test": test}
                for line in lines
            ]
        )
    else:
        _print_lines(lines, default, test)
        if not any(line.wer is not None for line in lines):
            say(f"no error rate on {test!r} was published; tests with figures include {', '.join(TESTS)}")
        if not next(entry.ready for entry in everything if entry.card.name == PREFERRED):
            say(f"the production model is not on disk; get it with: rechka models pull {PREFERRED}")
    for error in broken.values():
        say(f"skipped: {error}")


def show(
    model: Annotated[str, typer.Argument(help="A name, a folder, or the path of a card.")], as_json: AsJson = False
) -> None:
    """Show what is known of a model: its card, its files, its measured figures."""
    from rechka.hub.registry import find

    entry = find(model)
    card, lock = entry.card, entry.lock()
    files = [_file(entry, role) for role in card.files]
    if as_json:
        state = {**_brief(entry), "files_on_disk": files, "revision_on_disk": lock.revision if lock else None}
        _print_json({**state, "card": card.to_dict()})
        return
    rows = [("name", card.name), ("title", _brief(entry)["title"]), ("about", card.describe("en"))]
    rows += [("family", card.family), ("language", card.language), ("licence", card.license), ("source", card.source)]
    rows += [("repository", card.repo), ("revision", (lock.revision if lock else "") or card.revision)]
    rows += [("origin", entry.origin), ("folder", str(entry.folder))]
    _print_table(None, [row for row in rows if row[1]])
    if files:
        print()
        _print_table(
            ("file", "path", "size", "state"),
            [(file["role"], file["path"], _size(file["size"]), _file_state(file)) for file in files],
        )
    if card.results:
        print()
        _print_table(
            ("test", "metric", "value", "95 % interval", "by"),
            [
                (
                    result.test,
                    result.metric,
                    f"{result.value:g}",
                    f"{result.interval[0]:g} to {result.interval[1]:g}" if result.interval else "",
                    f"measured: {result.command}"
                    if result.measured
                    else f"published, not measured by us: {result.source}",
                )
                for result in card.results
            ],
        )


def pull(
    models: Annotated[list[str], typer.Argument(help="Names of models; see: rechka models list.")],
    with_: Annotated[
        list[str] | None, typer.Option("--with", metavar="FILE", help="Also this optional file, such as lm.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also all optional files; they may be large.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Ask the Hub again for a newer version.")] = False,
    as_json: AsJson = False,
) -> None:
    """Get models from the Hugging Face Hub. A broken download goes on where it stopped when it is run again.

    Of a model that only has a checkpoint, that is fetched; "rechka models convert" then makes it runnable.

    HF_ENDPOINT names a mirror, HF_TOKEN a token, RECHKA_HOME the folder, RECHKA_OFFLINE=1 forbids the network.
    """
    from rechka.hub import download
    from rechka.hub.registry import find

    done = []
    for entry in [find(model) for model in models]:
        if entry.missing() and not entry.card.repo and entry.card.originals:
            done.append(_pull_originals(entry))
            continue
        optional = [role for role, file in entry.card.files.items() if file.optional]
        with _progress(entry) as progress:
            pulled = download.pull(
                entry,
                extra=[*(with_ or []), *(optional if everything else [])],
                update=update,
                progress=progress,
                waiting=lambda name=entry.card.name: say(f"{name}: another pull is under way, waiting for it"),  # type: ignore[misc]
            )
        left = [role for role in optional if role not in (*pulled.fetched, *pulled.kept)]
        came = f"got {', '.join(pulled.fetched)}" if pulled.fetched else "everything is there already"
        say(f"{entry.card.name}: {came}")
        for role in left:
            size = _size(entry.card.files[role].size or entry.card.files[role].approx_size)
            say(f"{entry.card.name}: {role} ({size}) is optional: rechka models pull {entry.card.name} --with {role}")
        done.append({**_brief(entry), "revision": pulled.revision, "fetched": pulled.fetched, "kept": pulled.kept})
    if as_json:
        _print_json(done)
    else:
        for item in done:
            print(item["folder"])


def _pull_originals(entry: Entry) -> dict[str, Any]:
    """Fetch the checkpoint of a model that has to be converted, and say how."""
    import shlex

    from rechka.hub.originals import folder_of, pull_originals

    with _progress(entry) as progress:
        paths = pull_originals(entry, progress=progress)
    command = shlex.join(
        ["rechka", "models", "convert", str(paths["checkpoint"]), "--out", str(entry.folder), "--name", entry.card.name]
    )
    say(f"{entry.card.name}: its checkpoint is here; to make it runnable: {command}")
    return {**_brief(entry), "folder": str(folder_of(entry)), "originals": {k: str(v) for k, v in paths.items()}}


def verify(
    models: Annotated[
        list[str] | None, typer.Argument(help="Names, folders or cards; default: all that are on disk.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the files on disk with the sizes and sha256 of the card, or of what the pull recorded.

    Exit code 3 if a file is missing or wrong.
    """
    from rechka.hub import verify as check
    from rechka.hub.registry import entries, find

    chosen = [find(model) for model in models] if models else [entry for entry in entries()[0] if entry.on_disk()]
    found = [(entry, file) for entry in chosen for file in check.verify(entry)]
    if as_json:
        _print_json(
            [
                {
                    "name": entry.card.name,
                    "role": file.role,
                    "path": str(file.path),
                    "state": file.state,
                    "good": file.good,
                    "size": file.size,
                    "sha256": file.sha256,
                    "expected_size": file.expected_size,
                    "expected_sha256": file.expected_sha256,
                }
                for entry, file in found
            ]
        )
    else:
        _print_table(
            ("name", "file", "state", "path"),
            [(entry.card.name, file.role, file.state, str(file.path)) for entry, file in found],
        )
    faults = sorted({entry.card.name for entry, file in found if not file.good})
    for name in faults:
        say(f"{name}: get it again with: rechka models pull {name} --update")
    if faults:
        raise typer.Exit(FAULT_EXIT)
    if not chosen:
        say("no model is on disk; get one with: rechka models pull t-one")


def _brief(entry: Entry) -> dict[str, Any]:
    """What ``list`` says of a model, for ``--json``."""
    from rechka.hub.map import size_of

    card = entry.card
    return {
        "name": card.name,
        "title": card.title.get("en", ""),
        "language": card.language,
        "license": card.license,
        "family": card.family,
        "origin": entry.origin,
        "folder": str(entry.folder),
        "on_disk": entry.ready,
        "size": size_of(entry),
    }


def _file(entry: Entry, role: str) -> dict[str, Any]:
    file, path = entry.expected(role, entry.lock()), entry.path(role)
    there = path.is_file()
    return {
        "role": role,
        "path": str(path),
        "on_disk": there,
        "optional": file.optional,
        "size": path.stat().st_size if there else file.size or entry.card.files[role].approx_size,
        "sha256": file.sha256,
    }


def _file_state(file: dict[str, Any]) -> str:
    return "on disk" if file["on_disk"] else "not on disk, optional" if file["optional"] else "not on disk"


def _size(num_bytes: int | None) -> str:
    """Bytes in powers of ten, as disks and the Hub count them."""
    if num_bytes is None:
        return "?"
    size = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


@contextmanager
def _progress(entry: Entry) -> Iterator[Progress | None]:
    """A bar per file on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def progress(role: str, done: int, total: int | None) -> None:
            if role not in tasks:
                tasks[role] = bars.add_task(f"{entry.card.name} {role}", total=total)
            bars.update(tasks[role], completed=done, total=total)

        yield progress


def _print_table(header: tuple[str, ...] | None, rows: Sequence[tuple[str, ...]]) -> None:
    """A table on a terminal, lines with tabs elsewhere."""
    if not sys.stdout.isatty():
        for row in [*([header] if header else []), *rows]:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*(header or ("", "")), box=None, show_header=header is not None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


def _print_lines(lines: Sequence[Line], default: str, test: str) -> None:
    """The table of ``list``: as wide as the terminal allows, titles only where there is room for them."""
    states = {"ready": "on disk", "pull": "not on disk", "convert": "not on disk, to convert"}
    if not sys.stdout.isatty():
        header = ("name", "", "family", "language", "state", "size", "licence", f"WER % on {test}", "title")
        rows = [
            (line.name, "default" if line.name == default else "", line.family, line.language, states[line.state],
             _size(line.size), line.license, _rate(line.wer), line.title)
            for line in lines
        ]  # fmt: skip
        _print_table(header, rows)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    wide = console.width >= WIDE
    marks = {"ready": "[green]yes[/]", "pull": "", "convert": "convert"}
    headings = ("name", "family", "size", "licence", "WER %", "on disk")
    plain = [
        (line.name, line.family, _size(line.size) if line.size else "", _cut(line.license, 16 if wide else 12),
         _rate(line.wer))
        for line in lines
    ]  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="bold")
    room = console.width - 2 - len(headings[-1])
    for heading, *cells in zip(headings[:-1], *plain, strict=True):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("size", "WER %") else "left")
        room -= 2 + max(len(cell) for cell in (heading, *cells))
    table.add_column(headings[-1], no_wrap=True)
    if wide:
        table.add_column("what it is", no_wrap=True)
    for row, line in zip(plain, lines, strict=True):
        title = [Text(_cut(line.title.removesuffix(" parameters"), room))] if wide else []
        style = "bold" if line.name == default else ""
        table.add_row(*map(Text, row), Text.from_markup(marks[line.state]), *title, style=style)
    console.print(table)
    say(f"WER %: {test}, as published; sources: rechka models show NAME; another test: --test NAME")
    if any(line.state == "convert" for line in lines):
        say("convert: only a checkpoint is published; rechka models pull NAME gets it and says how to convert it")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "\u2026"


def _rate(value: float | None) -> str:
    return "" if value is None else str(value)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
