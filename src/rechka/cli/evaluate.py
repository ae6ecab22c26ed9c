"""``rechka evaluate``: how good models are on recordings whose texts are known, and which of them is better."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rechka.cli import common
from rechka.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rechka.evaluate.analyse import Comparison
    from rechka.evaluate.hear import Run
    from rechka.evaluate.manifest import Record

MANIFEST_SUFFIX = ".jsonl"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(evaluate)


def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... MANIFEST...",
            help="Models (names, folders or cards; none: the default one), then manifests (.jsonl).",
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

    A manifest has one JSON object a line: audio_filepath, text, and if known speaker and domain. Records with an empty
    text are silence: words heard there are counted apart.
    """
    from rechka.evaluate import analyse
    from rechka.evaluate.hear import hear

    manifests = [Path(argument) for argument in arguments if argument.endswith(MANIFEST_SUFFIX)]
    models: list[str | None] = [name for name in arguments if not name.endswith(MANIFEST_SUFFIX)]
    if not manifests:
        raise UsageError(
            f"at least one manifest (a file that ends in {MANIFEST_SUFFIX}) is needed, got {' '.join(arguments)}",
            remedy='write lines like {"audio_filepath": "a.wav", "text": "..."}',
        )
    if report is not None and not report.parent.is_dir():
        raise OutputError(f"the folder of {report} does not exist", remedy="make it, or write the report elsewhere")
    records = _records(manifests)
    runs: list[Run] = []
    for model in models or [None]:
        asr = common.load_asr(model, device, threads)
        runs.append(hear(asr, records, live=live, progress=_progress(asr.name, len(records))))
    comparisons = [analyse.compare(a, b) for i, a in enumerate(runs) for b in runs[i + 1 :]]
    if as_json:
        value = {"runs": [analyse.summary(run) for run in runs], "comparisons": [_plain(item) for item in comparisons]}
        print(json.dumps(value, ensure_ascii=False))
    else:
        _show(runs, comparisons)
    if report is not None:
        from rechka.evaluate.report import write_report

        title = ", ".join(manifest.stem for manifest in manifests)
        try:
            write_report(report, runs, comparisons, title)
        except OSError as error:
            raise OutputError(f"cannot write {report}: {error.strerror}") from error
        common.say(f"report: {report}")
    if any(item.error is not None for item in runs[0].heard):
        raise typer.Exit(1)


def _records(manifests: list[Path]) -> list[Record]:
    from rechka.errors import DataError
    from rechka.evaluate import manifest as reader

    records = []
    for path in manifests:
        for record in reader.read(path, require_text=True):
            if len(manifests) > 1 and "domain" not in record.extra:
                record.extra["domain"] = path.stem  # several manifests are several domains
            records.append(record)
    if not records:
        raise DataError(f"{manifests[0]} holds no records", remedy="give a manifest with recordings and texts")
    return records


def _progress(name: str, total: int) -> Callable[[int, float], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int, seconds: float) -> None:
        end = "\n" if done == total else "\r"
        print(f"{name}: {done} of {total} recordings, {seconds / 60:.1f} minutes", end=end, file=sys.stderr, flush=True)

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
        whole, late, quiet = analyse.raw_wer(run.heard), analyse.delays(run.heard), analyse.silence(run.heard)
        trust = analyse.confidences(run.heard)
        if whole is not None:
            print(f"  as written, case and punctuation included: WER {100 * whole:.1f} %")
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
