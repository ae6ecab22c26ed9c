"""``rechka finetune``: T-one, GigaAM and Whisper models adapted to one's own recordings."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rechka.cli.common import say
from rechka.errors import UsageError

if TYPE_CHECKING:
    from rechka.train.finetune import Progress

LINE_EVERY_S = 60.0


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("finetune")(finetune)


def finetune(
    model: Annotated[
        str | None,
        typer.Argument(help="What to start from: a checkpoint, a folder with one, or a name with weights on disk."),
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(help="Recordings with texts: jsonl, tsv, csv, parquet, tar, Kaldi folder, URL. Many times."),
    ] = None,
    dev: Annotated[
        list[str] | None,
        typer.Option(help="Recordings to score on. Many times; the first decides which weights are best."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the new model; a run there is resumed.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with all settings (docs/finetune.md); options override it.")
    ] = None,
    replay: Annotated[
        list[str] | None, typer.Option(help="General recordings to mix in, against forgetting. Many times.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the recordings. Default: 5; embedded model: 10.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps instead of passes.")] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate. Default: 5e-5; embedded model: 1e-3.")] = None,
    batch_seconds: Annotated[
        float | None, typer.Option(help="Audio in a batch. Default: 60; embedded model: 20.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=0, help="Looks without a better error rate that end the run. Default: 4.")
    ] = None,
    freeze_layers: Annotated[int | None, typer.Option(help="Lower encoder layers that stay as they are.")] = None,
    telephone: Annotated[
        float | None, typer.Option(help="Share of recordings sent through a telephone line. Default: 0.1.")
    ] = None,
    noise: Annotated[list[str] | None, typer.Option(help="Recordings of noise to mix in. Many times.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new model. Default: the folder's.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="SentencePiece model, if it does not lie beside the checkpoint.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also write the model in 8 bits, and use it.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the training. Default: torch decides.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of order, augmentation and dropout. Default: 1.")] = None,
    lora: Annotated[
        int | None, typer.Option(min=0, help="Whisper: train adapters of this rank, such as 32, not all weights.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Whisper: what is spoken, such as uk. Default: ru.")] = None,
) -> None:
    """Adapt a T-one, GigaAM, embedded or Whisper model to your recordings.

    rechka finetune MODEL --train A.jsonl --dev B.jsonl --out FOLDER

    The folder gets the model, ready for rechka transcribe --model FOLDER, its card with the word error rates before and
    after, and finetune.toml, which makes the same run again. Stop it whenever you like: the same command goes on.
    Needs pip install "rechka[train]", for Whisper "rechka[whisper-train]".
    """
    from rechka.train.adapt import finetune as run

    if out is None:
        raise UsageError("--out is missing", remedy="name the folder of the new model: --out FOLDER")
    with _Line() as line:
        card = run(
            model, out=out, train=train or (), dev=dev or (), replay=replay or (), config=config, threads=threads,
            tell=line.say, tick=line.tick, epochs=epochs, steps=steps, rate=rate, batch_seconds=batch_seconds,
            patience=patience, freeze_layers=freeze_layers, telephone=telephone, noise=noise, name=name,
            tokenizer=tokenizer, int8=int8 or None, device=device, seed=seed, lora=lora, language=language,
        )  # fmt: skip
    place = out if out.is_absolute() or len(out.parts) > 1 else f"./{out}"  # a bare word would be a model's name
    say(f"{card.name}: done; use it with: --model {place}")
    typer.echo(str(out))


class _Line:
    """Progress on one line of a terminal, or a line a minute elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._told = time.monotonic()
        self._width = 0

    def tick(self, progress: Progress) -> None:
        """Show where the run stands."""
        now = time.monotonic()
        if now - self._told < (0.2 if self._live else LINE_EVERY_S):
            return
        self._told = now
        text = told(progress)
        if self._live:
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()
            self._width = len(text)
        else:
            say(text)

    def say(self, text: str) -> None:
        """A line for the user, out of the way of the other one."""
        self._clear()
        say(text)

    def _clear(self) -> None:
        if self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()


def told(progress: Progress) -> str:
    """Progress in one line."""
    left = "" if progress.left_s is None else f", {_clock(progress.left_s)} left"
    wer = "" if progress.wer is None else f", WER {100 * progress.wer:.1f} %"
    return (
        f"{100 * progress.share:5.1f} %, step {progress.step}, loss {progress.loss:.3f}{wer}, "
        f"{progress.speed:.0f} x real time{left}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
