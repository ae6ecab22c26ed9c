"""``rechka bench serve``: how many live streams a server carries, and how late its words are."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.cli import common
from rechka.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from rechka.server.load import Level, Load

PROMPT = Path(__file__).parents[3] / "examples" / "prompt.wav"
"""In a checkout; the package itself carries no recordings."""
NUM_SCRIPTS = 8
SCRIPT_S = 8.0


def serve(
    recordings: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECORDING]...",
            help="Speech to send, of any length and format. Default: the prompt of rechka's repository.",
            show_default=False,
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            "-s",
            metavar="URL",
            help="Server to measure. Default: one of its own on this machine; RECHKA_* variables are its settings.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="API key. Default: the variable RECHKA_API_KEY.", show_default=False),
    ] = None,
    model: common.ModelOption = None,
    streams: Annotated[
        list[int] | None,
        typer.Option(
            "--streams",
            "-n",
            min=1,
            metavar="N",
            help="So many live streams; may be given many times. Default: search for the largest number that holds.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each level, beginning and end apart.")] = 20.0,
    limit: Annotated[
        float, typer.Option(min=0.01, metavar="S", help="A level holds if 95 of 100 finals come within this time.")
    ] = 1.0,
    pause: Annotated[
        float, typer.Option(min=0.01, metavar="S", help="Silence that ends a phrase: a part of every final's latency.")
    ] = 0.3,
    packet_ms: Annotated[float, typer.Option(min=1, max=2000, metavar="MS", help="Audio of one packet.")] = 100.0,
    jitter_ms: Annotated[
        float, typer.Option(min=0, max=10_000, metavar="MS", help="How long the network holds up a packet at most.")
    ] = 20.0,
    sample_rate: Annotated[int, typer.Option(min=1000, max=192_000, metavar="HZ", help="Of the audio sent.")] = 8000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same calls.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Measure a server under live streams: latency, refusals, memory, and how many streams it carries.

    Clients speak at the pace of speech, whatever the server does, and every latency is counted from the plan of what
    was to be spoken when. A level holds if 95 of 100 finals come within --limit after the last word, no call is refused
    or broken off, and calls with the same audio get the same text.
    """
    try:
        from rechka.server.load import Load, make_scripts, read_clips
        from rechka.server.load.own import own_server
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"rechka bench serve needs {error.name}, which is not installed", remedy='pip install "rechka[server]"'
        ) from None
    paths = recordings or ([PROMPT] if PROMPT.exists() else [])
    scripts = make_scripts(read_clips(paths, sample_rate), sample_rate, count=NUM_SCRIPTS, seconds=SCRIPT_S, seed=seed)
    options: dict[str, Any] = {"pause": pause}
    if server is not None and model is not None:
        options["model"] = model
    with contextlib.ExitStack() as stack:
        url = server or stack.enter_context(own_server([] if model is None else ["--model", model]))
        load = Load(
            url,
            scripts,
            seconds=seconds,
            key=key or os.environ.get("RECHKA_API_KEY"),
            options=options,
            packet_s=packet_ms / 1000,
            jitter_s=jitter_ms / 1000,
            limit_s=limit,
            seed=seed,
        )
        most, levels = _measure(load, streams)
    if not any(level.latency["final"]["count"] for level in levels):
        why = next((why for level in levels for why in level.why), "no speech was recognised")
        raise UsageError(f"{url}: no call got a final: {why}", remedy="check the address, the key and the recordings")
    if as_json:
        print(json.dumps(_report(load, most, levels), ensure_ascii=False))
    else:
        _print(load, most, levels)


def _measure(load: Load, streams: list[int] | None) -> tuple[int | None, list[Level]]:
    """The largest number that holds, if it was searched for, and all levels."""
    import asyncio

    from rechka.server.load import find_most, run_level

    def run(number: int) -> Level:
        level = asyncio.run(run_level(load, number))
        common.say(f"rechka: {number} streams {'hold' if level.holds else 'do not hold'}: {_brief(level)}")
        return level

    if streams:
        return None, [run(number) for number in streams]
    return find_most(run, lambda level: level.holds)


def _brief(level: Level) -> str:
    p95 = level.final_p95
    parts = ["no finals" if p95 is None else f"p95 of finals {p95:.2f} s"]
    parts += [f"{count} {outcome}" for outcome, count in level.calls.items() if outcome != "done"]
    parts += [f"{level.differing} calls differ"] if level.differing else []
    parts += ["this machine is too slow to make so many calls"] if level.too_slow else []
    return ", ".join(parts)


def _report(load: Load, most: int | None, levels: list[Level]) -> dict[str, Any]:
    return {
        "machine": machine(),
        "server": load.url,
        "seconds": load.seconds,
        "limit_s": load.limit_s,
        "packet_s": load.packet_s,
        "jitter_s": load.jitter_s,
        "options": load.options,
        "most_streams": most,
        "levels": [level.to_dict() for level in levels],
    }


def machine() -> dict[str, Any]:
    """Processor and cores, for figures that go somewhere else."""
    import platform

    from rechka.backends.cores import cores

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    busy = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {"processor": name, "cores": cores(), "load_average": busy}


def _print(load: Load, most: int | None, levels: list[Level]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("streams", "holds", *(f"{what} {q}" for what in ("partial", "word", "final") for q in QUANTILES)):
        table.add_column(name, justify="right")
    for name in ("refused", "lost", "differ", "RTF", "busy", "lag p50", "p99", "max ms", "MB", "MB/min"):
        table.add_column(name, justify="right")
    for level in sorted(levels, key=lambda level: level.streams):
        table.add_row(*_row(level))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(table)
    here = machine()
    print(f"{here['processor']}, {here['cores']} cores, load average {here['load_average']}; {load.url}")
    if most is not None:
        print(f"largest number of streams with 95 of 100 finals within {load.limit_s:g} s: {most}")
        if most == 0:
            common.say("rechka: the pause that ends a phrase is a part of every final's latency: --pause, --limit")
    if any(level.too_slow for level in levels):
        common.say("rechka: packets left late: make the calls from another machine, with --server")


QUANTILES = ("p50", "p95", "p99")


def _row(level: Level) -> list[str]:
    def shown(value: float | None, digits: int = 2, scale: float = 1.0) -> str:
        return "-" if value is None else f"{value * scale:.{digits}f}"

    server, lag = level.server, level.server.get("loop_lag_s", {})
    return [
        str(level.streams),
        "yes" if level.holds else "no",
        *(shown(level.latency[what][q]) for what in ("first_partial", "word", "final") for q in QUANTILES),
        str(level.calls.get("refused", 0)),
        str(level.calls.get("lost", 0) + level.calls.get("failed", 0)),
        str(level.differing),
        shown(server.get("rtf"), 4),
        shown(server.get("busy")),
        *(shown(lag.get(q), 0, 1000) for q in ("p50", "p99", "max")),
        shown(server.get("memory_mb"), 0),
        shown(server.get("memory_slope_mb_per_min"), 1),
    ]
