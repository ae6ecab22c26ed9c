"""``rechka evaluate``: how good models are on recordings whose texts are known, and which of them is better."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rechka.cli import common
from rechka.errors import DataError, OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rechka.evaluate.analyse import Comparison
    from rechka.evaluate.hear import Run


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(evaluate)


def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... SOURCE...",
            help="Models (names, folders or cards; none: the default one), then manifests (.jsonl) or other data.",
            show_default=False,
        ),
    ],
    live: Annotated[
        bool, typer.Option("--live", help="Stream the recordings as calls, to measure how late words come.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page with charts and alignments.")
    ] = None,
    device: common.DeviceOption = common.Device.CPU,
    threads: common.ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Word and letter error rates with 95 % intervals; with several models a paired comparison.

    A manifest has one JSON object a line: audio_filepath, text, and if known speaker and domain. Tables, parquet, tar
    archives, Kaldi folders, URLs and hf://owner/name?split=test are read as a stream. Records with an empty text are
    silence: words heard there are counted apart.
    """
    from rechka.data.sources import is_source
    from rechka.evaluate import analyse
    from rechka.evaluate.hear import hear
    from rechka.evaluate.records import Records

    sources = [argument for argument in arguments if is_source(argument)]
    models: list[str | None] = [name for name in arguments if not is_source(name)]
    if not sources:
        raise UsageError(
            f"at least one manifest (a file that ends in .jsonl) is needed, got {' '.join(arguments)}",
            remedy='write lines like {"audio_filepath": "a.wav", "text": "..."}',
        )
    if report is not None and not os.path.isdir(report.parent):
        raise OutputError(f"the folder of {report} does not exist", remedy="make it, or write the report elsewhere")
    records = Records(sources)
    runs: list[Run] = []
    for model in models or [None]:
        asr = common.load_asr(model, device, threads)
        runs.append(hear(asr, records, live=live, progress=_progress(asr.name, records.total)))
        if not runs[-1].heard:
            raise DataError(f"{', '.join(sources)}: no records", remedy="give data with recordings and texts")
    comparisons = [analyse.compare(a, b) for i, a in enumerate(runs) for b in runs[i + 1 :]]
    if as_json:
        value = {"runs": [analyse.summary(run) for run in runs], "comparisons": [_plain(item) for item in comparisons]}
        print(json.dumps(value, ensure_ascii=False))
    else:
        _show(runs, comparisons)
    if report is not None:
        from rechka.evaluate.report import write_report

        title = ", ".join(Path(source.partition("?")[0]).stem for source in sources)
        try:
            write_report(report, runs, comparisons, title)
        except OSError as error:
            raise OutputError(f"cannot write {report}: {error.strerror}") from error
        common.say(f"report: {report}")
    if records.bad:
        common.say(f"{records.bad} records could not be read and are not counted; see: rechka data check")
    if records.bad or any(item.error is not None for item in runs[0].heard):
        raise typer.Exit(1)


def _progress(name: str, total: int | None) -> Callable[[int, float], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int, seconds: float) -> None:
        end = "\n" if done == total else "\r"
        of = "" if total is None else f" of {total}"
        print(f"{name}: {done}{of} recordings, {seconds / 60:.1f} minutes", end=end, file=sys.stderr, flush=True)

    return show


def _plain(item: Comparison) -> dict[str, object]:
    return {
        "first": item.first, "second": item.second, "difference": round(item.difference, 5),
        "low": round(item.interval[0], 5), "high": round(item.interval[1], 5),
        "second_better": round(item.probability, 4), "verdict": item.verdict,
    }  # fmt: skip


def _show(runs: list[Run], comparisons: list[Comparison]) -> None:
    from rechka.evaluate import analyse

    for run in runs:
        made = analyse.overall(run.heard)
        print(f"{run.model}: {made if made is not None else 'no reference has a word'}")
        late, quiet = analyse.delays(run.heard), analyse.silence(run.heard)
        whole, letters = analyse.raw_wer(run.heard), analyse.raw_cer(run.heard)
        trust = analyse.confidences(run.heard)
        if whole is not None and letters is not None:
            print(f"  as written, case and punctuation included: WER {100 * whole:.1f} %  CER {100 * letters:.1f} %")
        if run.rtf is not None:
            print(f"  {run.audio_s / 60:.1f} minutes in {run.wall_s:.1f} s: real-time factor {run.rtf:.3f}")
        if late:
            print(f"  words show {late['median_s']:.2f} s after they end (median), {late['p95_s']:.2f} s (p95)")
        if trust:
            print(f"  confidence: calibration error {trust['ece']:.3f} over {trust['num_words']} words")
        if quiet:
            print(f"  silence: words in {100 * quiet['with_words']:.1f} % of {quiet['recordings']:.0f} recordings")
        for kind, rows in analyse.tables(run.heard).items():
            if len(rows) <= 12:
                print(f"  by {kind}:")
                for name, score in rows.items():
                    low, high = score.wer_interval
                    print(f"    {name:20} WER {100 * score.wer:5.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
                          f"  {score.words.length} words")  # fmt: skip
    for item in comparisons:
        print(item.verdict)
