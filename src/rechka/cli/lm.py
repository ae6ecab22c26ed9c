"""``rechka lm``: n-gram language models from text, and the weights with which they serve a model best."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rechka.cli import common
from rechka.errors import DataError, UsageError

if TYPE_CHECKING:
    from rechka.train.lm import LanguageModel

DEFAULT_ALPHAS = (0.0, 0.2, 0.35, 0.5, 0.7, 0.9)
DEFAULT_BETAS = (0.0, 0.5, 1.0, 2.0)
FORMATS = (".rlm", ".arpa", ".arpa.gz")
MAX_DIGITS = 5
"""Of how often a text counts."""


def register(app: typer.Typer) -> None:
    """Add the verb with its parts."""
    group = typer.Typer(no_args_is_help=True, help="Language models: build from text, tune on recordings.")
    group.command("build")(build)
    group.command("tune")(tune)
    app.add_typer(group, name="lm")


def build(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT[:TIMES]...",
            help="Sentences, one a line (.txt, .txt.gz), or manifests (.jsonl). With :TIMES a file counts so often.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The model: .rlm, .arpa or .arpa.gz.")],
    words: Annotated[int, typer.Option(min=1, help="Size of the word list, most useful words first.")] = 200_000,
    order: Annotated[int, typer.Option(min=1, max=4, help="Longest n-gram.")] = 3,
    max_mb: Annotated[
        float | None, typer.Option(min=0.1, help="Prune until the .rlm file is no larger.", show_default="no limit")
    ] = None,
    test: Annotated[
        list[Path] | None, typer.Option(help="Print the perplexity of this text; its sentences are not trained on.")
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="Leave out sentences that repeat one of this file, whole or by six words in a row."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Count n-grams of texts and smooth them (interpolated modified Kneser-Ney).

    Sentences with digits or foreign letters cannot be spelled by a model of Russian letters: they are counted and left
    out. Words are those of the scoring form: lower case, ё as е.
    """
    from rechka.train import lm
    from rechka.train.text import Overlap, read_texts

    if not out.name.endswith(FORMATS):
        raise UsageError(f"--out ends in {', '.join(FORMATS)}, got {out.name}")
    if max_mb is not None and not math.isfinite(max_mb):
        raise UsageError(f"--max-mb must be a size, got {max_mb}", remedy="leave it out for no limit")
    sources = [_weighted(text) for text in texts]
    forbidden = Overlap(text for path in [*(test or ()), *(exclude or ())] for text in read_texts(path))
    left_out = {"unspellable": 0, "excluded": 0}

    def sentences(count: bool = False) -> Iterator[str]:
        for path, times in sources:
            for text in _spelled(read_texts(path), left_out if count else None):
                if forbidden(text):
                    left_out["excluded"] += count
                else:
                    yield from [text] * times

    frequency = lm.word_counts(sentences(count=True))
    if not frequency:
        raise DataError("no sentence is left to count", remedy="write numbers out in letters; check --exclude")
    whole = lm.build(sentences(), lm.vocabulary(frequency, words), order=order)
    model = whole if max_mb is None else lm.prune(whole, max_bytes=int(max_mb * 1_000_000))
    (lm.write_rlm if out.suffix == ".rlm" else lm.write_arpa)(model, out)
    _report(out, model, left_out, test or [], as_json)


def _weighted(argument: str) -> tuple[Path, int]:
    path, _, times = argument.rpartition(":")
    if path and times.isascii() and times.isdigit() and not os.path.exists(argument):
        if len(times) > MAX_DIGITS or not int(times):
            raise UsageError(f"a text counts at least once and at most {10**MAX_DIGITS - 1} times, got {argument:.80}")
        return Path(path), int(times)
    return Path(argument), 1


def _spelled(texts: Iterable[str], left_out: dict[str, int] | None) -> Iterator[str]:
    """Texts as training targets; those that cannot be spelled are counted."""
    from rechka.train.text import training

    for text in texts:
        try:
            target = training(text)
        except DataError:
            if left_out is not None:
                left_out["unspellable"] += 1
            continue
        if target:
            yield target


def _report(out: Path, model: LanguageModel, left_out: dict[str, int], test: list[Path], as_json: bool) -> None:
    from rechka.train import lm
    from rechka.train.text import read_texts

    found = {path: lm.perplexity(model, _spelled(read_texts(path), None)) for path in test}
    if as_json:
        tests = {
            str(path): {"perplexity": round(p.perplexity, 2), "unknown_rate": round(p.unknown_rate, 5)}
            for path, p in found.items()
        }
        value = {"out": str(out), "bytes": out.stat().st_size, "ngrams": model.model.sizes, **left_out, "test": tests}
        print(json.dumps(value, ensure_ascii=False))
        return
    sizes = ", ".join(f"{number} of order {n}" for n, number in enumerate(model.model.sizes, 1))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, n-grams: {sizes}")
    if any(left_out.values()):
        print(f"left out: {left_out['unspellable']} sentences with digits or foreign letters, "
              f"{left_out['excluded']} that repeat a test or excluded text")  # fmt: skip
    for path, perplexity in found.items():
        print(f"{path}: {perplexity}")


def tune(
    manifest: Annotated[Path, typer.Argument(help="Recordings with texts (.jsonl) that no test uses.")],
    model: common.ModelOption = None,
    lm: Annotated[Path | None, typer.Option(help="Language model if not the card's own.")] = None,
    alpha: Annotated[list[float] | None, typer.Option(help="Weights to try.", show_default=str(DEFAULT_ALPHAS))] = None,
    beta: Annotated[
        list[float] | None, typer.Option(help="Word bonuses to try.", show_default=str(DEFAULT_BETAS))
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Recordings to use.")] = 200,
    device: common.DeviceOption = common.Device.CPU,
    threads: common.ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Find the weight of the language model (alpha) and the bonus per word (beta) with the fewest word errors.

    The acoustic model runs once; the search runs for every pair. Prints the table and the lines for the card.
    """
    from rechka.evaluate.tune import grid
    from rechka.hub.load import choose
    from rechka.hub.registry import find

    asr = common.load_asr(model, device, threads)
    entry = choose()[0] if model is None else find(model)
    tried = grid(asr, entry, manifest, lm=lm, alphas=alpha or DEFAULT_ALPHAS, betas=beta or DEFAULT_BETAS, limit=limit)
    best = min(tried, key=lambda item: item.score.wer)
    if as_json:
        rows = [{"alpha": item.alpha, "beta": item.beta, **item.score.to_dict()} for item in tried]
        print(json.dumps({"best": {"alpha": best.alpha, "beta": best.beta}, "tried": rows}))
        return
    for item in tried:
        mark = "  <- best" if item is best else ""
        print(f"alpha {item.alpha:4.2f}  beta {item.beta:4.2f}  {item.score}{mark}")
    print(f"\n[decoder]\nalpha = {best.alpha:g}\nbeta = {best.beta:g}")
