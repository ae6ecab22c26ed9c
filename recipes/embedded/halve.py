"""Finish a card folder: weights stored in half, another language model, search and confidence; the card's sums renewed.

    python recipes/embedded/halve.py MODEL_DIR OUT_DIR [--lm FILE.rlm] [--confidence SLOPE OFFSET]
                                     [--search NAME=VALUE ...]

``NAME=VALUE`` are settings of the search (``rechka.options.DecoderOptions``), as in the card. Results that the card
lists belong to the old files and are left out. Model and language model together may take 40 MB.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from build import file_entry

from rechka.export.half import halve
from rechka.hub.registry import find

BUDGET = 40_000_000


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lm", type=Path)
    parser.add_argument("--confidence", type=float, nargs=2, help="slope and offset that calibrate.py printed")
    parser.add_argument("--search", nargs="*", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    entry = find(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    graph, lm = args.out / "model.onnx", args.out / "lm.rlm"
    count = halve(entry.path("model"), graph)
    source = args.lm or entry.path("lm")
    if source.resolve() != lm.resolve():
        shutil.copyfile(source, lm)
    search = dict(entry.card.decoder)
    for pair in args.search:
        name, _, value = pair.partition("=")
        search[name] = int(value) if name == "beam_width" else float(value)
    card = replace(
        entry.card, files={"model": file_entry(graph), "lm": file_entry(lm)}, decoder=search,
        confidence=tuple(args.confidence) if args.confidence else None, results=(),
    )  # fmt: skip
    (args.out / "card.toml").write_text(card.to_toml(), "utf-8")
    for name in ("LICENSE", "MODEL_CARD.md"):
        if (entry.folder / name).is_file() and entry.folder.resolve() != args.out.resolve():
            shutil.copyfile(entry.folder / name, args.out / name)
    total = graph.stat().st_size + lm.stat().st_size
    print(f"{args.out}: {count} weights in half, {total} bytes together")
    if total > BUDGET:
        raise SystemExit(f"model and language model may take {BUDGET} bytes together, got {total}")


if __name__ == "__main__":
    main()
