"""One HTML page about one or several runs: scores, tables, charts, and every recording with its errors in colour.

The page is one file without scripts or outside resources. Recordings are named by their path relative to the page, so
that a browser plays them where they lie; every text is escaped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from rechka.evaluate import analyse, plots
from rechka.evaluate.analyse import Comparison
from rechka.evaluate.hear import Heard, Run
from rechka.evaluate.wer import Score, align
from rechka.text.normalize import scoring

SHOWN = 200
"""Recordings on the page: those with most word errors first."""

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--pale:#667;--line:#d9dde3;--bad:#b3261e;--good:#1a7f37;--new:#8a5a00;
--back:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--pale:#9aa3ad;--line:#343a42;--bad:#ff8a80;--good:#7ee787;
--new:#e3b341;--back:#14171a}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:70rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}table{display:block;overflow-x:auto}
.pale{color:var(--pale)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(24rem,1fr));gap:1rem}
.plot{width:100%;height:auto;font:11px system-ui,sans-serif}.plot text{fill:var(--pale)}
.plot .title{font-size:13px;fill:var(--ink)}
.axis{fill:none;stroke:var(--pale)}.grid{fill:none;stroke:var(--line);stroke-dasharray:3 3}
.item{border-bottom:1px solid var(--line);padding:.7rem 0}.item audio{height:2rem;width:16rem;vertical-align:middle}
.item div{margin:.2rem 0}.item div .pale{font-size:.85rem}
.tables{display:flex;flex-wrap:wrap;gap:0 3rem}
.sub{color:var(--bad)}.sub del,.del{color:var(--pale);text-decoration:line-through}
.ins{color:var(--new);text-decoration:underline}
.verdict{border-left:4px solid var(--good);padding-left:.8rem}
"""


def write_report(path: Path, runs: Sequence[Run], comparisons: Sequence[Comparison], title: str) -> None:
    """Write the page.

    Args:
        path: the HTML file; its folder exists.
        runs: all over the same recordings.
        comparisons: of pairs of them.
        title: heading.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _scores(runs),
        *(f'<p class="verdict">{escape(item.verdict)}.</p>' for item in comparisons),
        _charts(runs),
        _tables(runs),
        *(_errors(run) for run in runs),
        _recordings(runs, path.parent),
        "</body></html>\n",
    ]
    # A name that is no text, or half a letter in a manifest's JSON, is escaped as on the terminal.
    path.write_text("\n".join(part for part in parts if part), "utf-8", errors="backslashreplace")


def percent(value: float | None) -> str:
    """A fraction as the page writes it."""
    return "" if value is None else f"{100 * value:.1f} %"


def interval(score: Score) -> str:
    """WER with its interval."""
    low, high = score.wer_interval
    return f"{percent(score.wer)} [{100 * low:.1f}, {100 * high:.1f}]"


def _row(cells: Sequence[str], tag: str = "td", first_text: int = 1) -> str:
    made = [f"<{tag}{'' if i < first_text else ' class=n'}>{cell}</{tag}>" for i, cell in enumerate(cells)]
    return "<tr>" + "".join(made) + "</tr>"


def _scores(runs: Sequence[Run]) -> str:
    head = (
        "model",
        "WER",
        "CER",
        "sub",
        "del",
        "ins",
        "words",
        "as written: WER / CER",
        "RTF",
        "delay, median / p95",
    )
    rows = [_row(head, "th")]
    for run in runs:
        made, late = analyse.overall(run.heard), analyse.delays(run.heard)
        counts = (
            [made.words.substitutions, made.words.deletions, made.words.insertions, made.words.length] if made else []
        )
        rows.append(
            _row(
                [
                    escape(run.model),
                    interval(made) if made else "",
                    percent(made.cer) if made else "",
                    *([str(count) for count in counts] or [""] * 4),
                    f"{percent(analyse.raw_wer(run.heard))} / {percent(analyse.raw_cer(run.heard))}",
                    "" if run.rtf is None else f"{run.rtf:.3f}",
                    f"{late['median_s']:.2f} / {late['p95_s']:.2f} s" if late else "",
                ]
            )
        )
    failed = sum(item.error is not None for item in runs[0].heard)
    note = f"{len(runs[0].heard)} recordings, {runs[0].audio_s / 60:.1f} minutes"
    if failed:
        note += f"; {failed} could not be read and count as if nothing had been recognised"
    quiet = [
        f"{escape(run.model)} hears words in {percent(found['with_words'])} of {found['recordings']:.0f} recordings "
        f"without speech ({found['words_per_minute']:.1f} words a minute)"
        for run in runs
        if (found := analyse.silence(run.heard))
    ]
    lines = "".join(f'<p class="pale">{line}.</p>' for line in [note, *quiet])
    return f"<table>{''.join(rows)}</table>{lines}"


def _charts(runs: Sequence[Run]) -> str:
    made = []
    late = {run.model: sorted(delay for item in run.heard for delay in item.delays) for run in runs}
    longest = max((plots.percentile_99(values) for values in late.values() if values), default=None)
    all_tables = {run.model: analyse.tables(run.heard) for run in runs}
    for kind in ("SNR (estimated)", "duration"):
        names = list(dict.fromkeys(name for found in all_tables.values() for name in found.get(kind, {})))
        if names:
            series = {
                model: [_point(found.get(kind, {}).get(name)) for name in names] for model, found in all_tables.items()
            }
            made.append(plots.points(f"WER by {kind}", "", names, series))
    for run in runs:
        trust = analyse.confidences(run.heard)
        if trust:
            made.append(
                plots.reliability(f"Confidence of {run.model}: calibration error {trust['ece']:.3f}", trust["bins"])
            )
        if late[run.model]:  # all on one scale, so that they can be compared
            name = f"Delay of words, {run.model}"
            made.append(plots.histogram(name, "seconds of audio after the word's end", late[run.model], longest))
    return f'<div class="plots">{"".join(made)}</div>' if made else ""


def _point(score: Score | None) -> tuple[float, float, float] | None:
    return None if score is None else (score.wer, *score.wer_interval)


def _tables(runs: Sequence[Run]) -> str:
    found = {run.model: analyse.tables(run.heard) for run in runs}
    parts = []
    for kind in analyse.GROUPS:
        names = list(dict.fromkeys(name for tables in found.values() for name in tables.get(kind, {})))
        if not names:
            continue
        rows = [_row([kind, "words", *(escape(model) for model in found)], "th")]
        for name in names:
            scores = [tables.get(kind, {}).get(name) for tables in found.values()]
            words = next(str(score.words.length) for score in scores if score)
            rows.append(_row([escape(name), words, *(interval(score) if score else "" for score in scores)]))
        parts.append(f"<div><h2>By {escape(kind)}</h2><table>{''.join(rows)}</table></div>")
    return f'<div class="tables">{"".join(parts)}</div>' if parts else ""


def _errors(run: Run) -> str:
    found = analyse.frequent_errors(run.heard)
    columns = []
    for kind, pairs in found.items():
        if pairs:
            rows = "".join(_row([escape(what), str(times)]) for what, times in pairs)
            columns.append(f"<div><table>{_row([_ERRORS[kind], 'times'], 'th')}{rows}</table></div>")
    if not columns:
        return ""
    return f'<h2>Frequent errors, {escape(run.model)}</h2><div class="tables">{"".join(columns)}</div>'


_ERRORS = {"substitute": "said -> heard", "delete": "missing", "insert": "never said"}


def _recordings(runs: Sequence[Run], folder: Path) -> str:
    """Every recording once, with what each model made of it; most errors of all models together first."""
    together = list(zip(*(run.heard for run in runs), strict=True))
    worst = sorted(together, key=lambda items: -sum(item.counts[0].errors for item in items))[:SHOWN]
    note = "" if len(worst) == len(together) else f" (the {SHOWN} with most errors of {len(together)})"
    names = [run.model for run in runs]
    return f"<h2>Recordings{note}</h2>" + _KEY + "".join(_recording(names, items, folder) for items in worst)


_KEY = (
    '<p class="pale">Wrong words are <span class="sub">written so <del>instead of so</del></span>, '
    '<span class="del">these</span> are missing, <span class="ins">these</span> were never said.</p>'
)


def _recording(names: Sequence[str], items: Sequence[Heard], folder: Path) -> str:
    item = items[0]
    try:
        place = os.path.relpath(item.record.audio, folder)
    except ValueError:  # another drive
        place = str(item.record.audio)
    facts = [f"{item.seconds:.1f} s"]
    if item.snr_db is not None:
        facts.append(f"SNR about {item.snr_db:.0f} dB")
    if item.record.speaker:
        facts.append(escape(item.record.speaker))
    lines = []
    for name, one in zip(names, items, strict=True):
        words = one.counts[0]
        body = f'<span class="sub">{escape(str(one.error))}</span>' if one.error else aligned(one)
        told = f"{escape(name)}: " if len(names) > 1 else ""
        lines.append(f'<div>{body} <span class="pale">{told}{words.errors} of {words.length} words</span></div>')
    source = escape(quote(Path(place).as_posix(), errors="backslashreplace"), quote=True)
    return (
        f'<div class="item"><audio controls preload="none" src="{source}"></audio> '
        f'<span class="pale">{escape(str(item.record.audio.name))} · {" · ".join(facts)}</span>{"".join(lines)}</div>'
    )


def aligned(item: Heard) -> str:
    """The two texts in one line: wrong words beside what was said, missing ones struck, added ones underlined."""
    ref, hyp = scoring(item.record.text or "").split(), scoring(item.text).split()
    parts = []
    for operation, i, j in align(ref, hyp):
        said = escape(ref[i]) if i is not None else ""
        got = escape(hyp[j]) if j is not None else ""
        if operation == "equal":
            parts.append(said)
        elif operation == "substitute":
            parts.append(f'<span class="sub">{got} <del>{said}</del></span>')
        elif operation == "delete":
            parts.append(f'<span class="del">{said}</span>')
        else:
            parts.append(f'<span class="ins">{got}</span>')
    return " ".join(parts) or '<span class="pale">silence</span>'
