"""``rechka bench``: measures on this machine, with the models that are used on it."""

from __future__ import annotations

import typer

from rechka.cli import bench_cpu, bench_gpu, bench_serve


def register(app: typer.Typer) -> None:
    """Add the verb with its parts."""
    group = typer.Typer(no_args_is_help=True, help="Measure: how fast, how many streams, how late.")
    group.callback()(_top)
    group.command("serve")(bench_serve.serve)
    bench_cpu.register(group)
    bench_gpu.register(group)
    app.add_typer(group, name="bench")


def _top() -> None:
    """Measure: how fast, how many streams, how late."""
