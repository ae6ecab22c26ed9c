"""What fine-tuning brings one speaker, shown on all of few recordings: cross-validation by sentence.

Six minutes are too few to be divided for good: a test set of a third of them says little. Here every third is tested
once with a model that was fine-tuned on the other two, and the verdict is over all of them together. No sentence is on
both sides. The dev set, which chooses weights, is the same for all and in no third.

    python recipes/tutorial/folds.py MODEL RECORDINGS.jsonl DEV.jsonl FOLDER [--folds 3]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import rechka
from rechka.cli.main import main as command
from rechka.evaluate import analyse, manifest
from rechka.evaluate.hear import Heard, Run, hear
from rechka.text.normalize import scoring


def split(records: list[manifest.Record], folds: int, seed: int = 3) -> list[list[manifest.Record]]:
    """The recordings in parts that share no sentence."""
    texts = sorted({scoring(record.text or "") for record in records})
    np.random.default_rng(seed).shuffle(texts)
    place = {text: number % folds for number, text in enumerate(texts)}
    return [[record for record in records if place[scoring(record.text or "")] == fold] for fold in range(folds)]


def by_letters(run: Run) -> Run:
    """The same run, compared by letters instead of words."""
    return replace(run, heard=tuple(replace(item, counts=(item.counts[1], item.counts[1])) for item in run.heard))


def main() -> None:
    """Fine-tune once a fold, score each on its part, compare all parts together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("recordings", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    parts = split(list(manifest.read(given.recordings.absolute(), require_text=True)), given.folds)
    before: list[Heard] = []
    after: list[Heard] = []
    for fold, part in enumerate(parts):
        rest = [record for other in parts if other is not part for record in other]
        train = manifest.write(given.folder / f"train{fold}.jsonl", rest)
        out = given.folder / f"fold{fold}"
        words = ["finetune", given.model, "--train", str(train), "--dev", str(given.dev), "--out", str(out)]
        if code := command(words):
            raise SystemExit(code)
        before += hear(rechka.load(given.model, threads=1), part).heard
        after += hear(rechka.load(out, threads=1), part).heard
    runs = Run("before", tuple(before), 0.0), Run("after", tuple(after), 0.0)
    for run in runs:
        print(f"{run.model}: {analyse.overall(run.heard)}")
    print(f"words: {analyse.compare(*runs).verdict}")
    print(f"letters: {analyse.compare(*map(by_letters, runs)).verdict}")


if __name__ == "__main__":
    main()
