"""``rechka synth``: sentences into speech for training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rechka.cli.common import say

Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="TEXT[:SHARE]...", help="Files .txt or .txt.gz, one sentence a line; FILE:0.6 gives a share."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; an unfinished run in it is completed.")]
Voices = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated, see docs/synth.md. Default: those whose licence allows training.", metavar="NAMES"
    ),
]
Hours = Annotated[float | None, typer.Option(min=0, help="About so many hours of audio.")]
Limit = Annotated[int | None, typer.Option(min=0, help="So many recordings.")]
Seed = Annotated[int, typer.Option(help="The same seed, texts and options give the same recordings.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes.")]
SampleRate = Annotated[int, typer.Option(min=8000, help="Of the recordings, Hz.")]
Tempo = Annotated[tuple[float, float], typer.Option(help="Range of the speed of speech.")]
Pitch = Annotated[tuple[float, float], typer.Option(help="Range of the voice's pitch.")]
Factor = Annotated[tuple[float, float], typer.Option(help="Range of resampling, which makes other speakers.")]
Join = Annotated[float, typer.Option(min=0, max=1, help="Share of recordings of two sentences with a pause.")]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder of another run, or text file, whose sentences are left out; many times.", show_default=False
    ),
]
HeldOut = Annotated[bool, typer.Option("--held-out", help="Only sentences reserved for tests, instead of only others.")]
AllowNc = Annotated[bool, typer.Option("--allow-nc", help="Allow CC BY-NC-ND voices, for private test sets only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(synth)


def synth(
    texts: Texts,
    out: Out,
    voices: Voices = None,
    hours: Hours = None,
    limit: Limit = None,
    seed: Seed = 0,
    jobs: Jobs = 1,
    sample_rate: SampleRate = 8000,
    tempo: Tempo = (0.8, 1.35),
    pitch: Pitch = (0.85, 1.2),
    factor: Factor = (0.85, 1.18),
    join: Join = 0.15,
    exclude: Exclude = None,
    held_out: HeldOut = False,
    allow_nc: AllowNc = False,
    as_json: AsJson = False,
) -> None:
    """Turn sentences into speech for training: audio files and a manifest. Killed, it goes on where it was."""
    from rechka.train.synth import PlanOptions, choose_voices, synthesise
    from rechka.train.synth.plan import parse_source

    options = PlanOptions(
        seed=seed, hours=hours, limit=limit, tempo=tempo, pitch=pitch, factor=factor, join=join, held_out=held_out
    )
    with _Progress() as progress:
        summary = synthesise(
            [parse_source(text) for text in texts],
            out,
            choose_voices([name.strip() for name in (voices or "").split(",") if name.strip()], allow_nc=allow_nc),
            options,
            jobs=jobs,
            sample_rate=sample_rate,
            exclude=tuple(exclude or ()),
            progress=progress.update,
        )
    if as_json:
        print(json.dumps(asdict(summary)))
        return
    say(
        f"rechka: {summary.utterances} of {summary.planned} recordings, {summary.hours:.2f} h; "
        f"{summary.made} made now at {summary.speed:.0f} times real time, {summary.failed} failed"
    )
    print(out / "manifest.jsonl")


class _Progress:
    """A bar on stderr if that is a terminal, otherwise nothing."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("synthesis", total=None) if self._bar else None

    def __enter__(self) -> _Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, planned: int, seconds: float) -> None:
        """So many recordings are done; ``seconds`` of audio were made."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=planned, description=f"{seconds / 3600:.2f} h")
