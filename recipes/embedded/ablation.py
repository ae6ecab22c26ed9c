"""What limits the embedded model: the same start, the same number of steps, one thing different.

    python recipes/embedded/ablation.py train recipes/embedded/ablation.toml --out WORK/curves --features WORK/features
    python recipes/embedded/ablation.py train recipes/embedded/arms.toml --out WORK/arms --features WORK/features
    python recipes/embedded/ablation.py decompose CHECKPOINT ... --set NAME=MANIFEST ... --out WORK/decompose

``train`` starts every variant of the TOML file from the weights of its ``[base]`` (trained first, unless it names a
checkpoint as ``init``) and can be killed and started again. A variant takes a share of a set's speakers or of its
sentences (shares are nested: a smaller one is contained in a larger one), or other options of the run. ``decompose``
scores checkpoints on sets that differ in what was in training: the speaker, the sentence, both; the first checkpoint
is the one that the others are compared with. Letter error rates are greedy (no language model) with 95 % intervals
over speakers; differences are paired: the same speakers are drawn for both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rechka.evaluate.wer import grouped, pair_counts
from rechka.features import bands
from rechka.nn.conformer import SUBSAMPLING, StreamingConformer
from rechka.train import augment
from rechka.train.augment import AugmentOptions
from rechka.train.config import DataSet, Optimisation, Regularisation, TrainConfig
from rechka.train.loop import greedy, load_model, train
from rechka.train.store import Store, build

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef,import-not-found,unused-ignore]

RESAMPLES = 2000


def part(labels: Iterable[str], share: float) -> set[str]:
    """A share of the different labels, chosen by their hashes: a smaller share is contained in a larger one."""
    ordered = sorted(set(labels), key=lambda label: hashlib.sha256(label.encode()).digest())
    return set(ordered[: round(share * len(ordered))])


def subset(entry: dict[str, Any], folder: Path, features: Path) -> tuple[DataSet, dict[str, float]]:
    """A set of the TOML file as the trainer's, its manifest cut down where ``speakers`` or ``sentences`` say so.

    A set without manifests is a feature store that exists already (mosaics).
    """
    if not entry["manifests"]:
        items = Store(features / entry["name"]).items
        facts: dict[str, float] = {
            "hours": round(sum(item.frames for item in items) / 360_000, 2),
            "speakers": len({item.speaker for item in items}),
            "sentences": len({item.text for item in items}),
        }
        return DataSet(entry["name"], (), entry["weight"]), facts
    manifests = [Path(path) for path in entry["manifests"]]
    records = []
    for manifest in manifests:
        for line in manifest.read_text("utf-8").splitlines():
            record = json.loads(line)
            if "audio_filepath" in record:
                record["audio_filepath"] = str((manifest.parent / record["audio_filepath"]).resolve())
            records.append(record)
    name, whole = entry["name"], len(records)
    for key, field in (("speakers", "speaker"), ("sentences", "text")):
        if key in entry:
            chosen = part((record[field] for record in records), entry[key])
            records = [record for record in records if record[field] in chosen]
            name += f"_{key}_{1000 * entry[key]:03.0f}"
    facts = {
        "hours": round(sum(record["duration"] for record in records) / 3600, 2),
        "speakers": len({record["speaker"] for record in records}),
        "sentences": len({record["text"] for record in records}),
    }
    if len(records) < whole:
        manifests = [folder / f"{name}.jsonl"]
        manifests[0].parent.mkdir(parents=True, exist_ok=True)
        manifests[0].write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return DataSet(name, tuple(map(str, manifests)), entry["weight"]), facts


@torch.no_grad()
def letters(model: StreamingConformer, store: Store) -> tuple[np.ndarray[Any, Any], list[str]]:
    """(n, 2) letter edits and reference letters of each recording of a store, and who spoke it."""
    unit, counts = SUBSAMPLING * model.config.chunk, []
    for item in store.items:
        x = store.read(item)
        padded = np.full((1, -(-(len(x) + 64) // unit) * unit, bands.BANDS), np.log(bands.FLOOR), np.float32)
        padded[0, 32 : 32 + len(x)] = np.logaddexp(x, np.log(bands.FLOOR))
        final, _ = model(torch.from_numpy(augment.finish(padded)))
        edits = pair_counts(item.text, greedy(final[0], final.shape[1]))[1]
        counts.append((edits.errors, edits.length))
    return np.array(counts), [item.speaker for item in store.items]


def draws(speakers: list[str], counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bootstrapped error rates in percent. Few speakers: recordings are drawn instead, as in evaluate.py."""
    index, num_groups = grouped(speakers if len(set(speakers)) > 4 else range(len(counts)))
    sums = np.zeros((num_groups, 2))
    np.add.at(sums, index, counts)
    chosen = np.random.default_rng(0).integers(num_groups, size=(RESAMPLES, num_groups))
    drawn = sums[chosen].sum(axis=1)
    rates: np.ndarray[Any, Any] = 100 * drawn[:, 0] / drawn[:, 1]
    return rates


def summary(speakers: list[str], counts: np.ndarray[Any, Any], other: np.ndarray[Any, Any] | None) -> dict[str, Any]:
    """Error rate with its interval, and the difference from another model's counts on the same recordings."""
    mine = draws(speakers, counts)
    total = counts.sum(axis=0)
    result: dict[str, Any] = {"cer": round(100 * total[0] / total[1], 2), "interval": interval(mine)}
    if other is not None:
        theirs = other.sum(axis=0)
        result["more"] = round(100 * (total[0] / total[1] - theirs[0] / theirs[1]), 2)
        result["more_interval"] = interval(mine - draws(speakers, other))
    return result


def interval(values: np.ndarray[Any, Any]) -> list[float]:
    """95 % of the values lie within."""
    return [round(float(x), 2) for x in np.percentile(values, [2.5, 97.5])]


def run_all(options: argparse.Namespace) -> None:
    """Train the base, then every variant from it; write ``results.json`` after each."""
    raw = tomllib.loads(options.toml.read_text("utf-8"))
    sets = {entry["name"]: entry for entry in raw["data"]}
    dev = {name: build([Path(m) for m in paths], options.features / name, keep_held_out=True)
           for name, paths in raw["dev"].items()}  # fmt: skip
    common = TrainConfig(
        data=(), dev=(), model=raw["model"], seed=raw["seed"], workers=1, eval_every=10**9, save_every=100
    )
    base = Path(raw["base"].get("init", options.out / "base" / "last.pt"))
    results: list[dict[str, Any]] = []
    reference: dict[str, np.ndarray[Any, Any]] = {}
    for variant in [*([] if "init" in raw["base"] else [raw["base"]]), *raw["variant"]]:
        name = variant["name"]
        chosen = [
            subset({**sets[key], **change}, options.out / "manifests", options.features)
            for key, change in {**raw.get("sets", {}), **variant["sets"]}.items()
            if change.get("weight", 1)
        ]
        facts = {data.name: fact for data, fact in chosen}
        config = replace(
            common, data=tuple(data for data, _ in chosen),
            model={**raw["model"], **variant.get("model", {})},
            optim=Optimisation(**{**raw["optim"], **variant.get("optim", {})}),
            augment=AugmentOptions(**variant.get("augment", {})),
            regular=Regularisation(**variant.get("regular", {})),
        )  # fmt: skip
        if name != "base":
            config = replace(config, init=str(base))
        out = options.out / name
        if not (out / "done").exists():
            train(config, out, features=options.features)
            (out / "done").touch()
        state = torch.load(out / "last.pt", map_location="cpu", weights_only=True)
        model, scores = load_model(out / "last.pt"), {}
        for key, store in dev.items():
            counts, speakers = letters(model, store)
            scores[key] = summary(speakers, counts, reference.get(key))
            if name == raw["reference"]:
                reference[key] = counts
        results.append({"name": name, "steps": state["step"], "hours_heard": round(state["seconds"] / 3600, 2),
                        "seed": raw["seed"], "sets": facts, "scores": scores})  # fmt: skip
        print(json.dumps(results[-1], ensure_ascii=False), flush=True)
        text = ",\n".join(json.dumps(line, ensure_ascii=False) for line in results)
        (options.out / "results.json").write_text(f"[\n{text}\n]\n", "utf-8")


def decompose(options: argparse.Namespace) -> None:
    """Score checkpoints on sets; "more" is the paired difference from the first checkpoint."""
    results = []
    reference: dict[str, np.ndarray[Any, Any]] = {}
    stores = {}
    for pair in options.set:
        name, _, manifest = pair.partition("=")
        stores[name] = build([Path(manifest)], options.out / "features" / name, keep_held_out=True)
    for path in options.checkpoint:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = load_model(path)
        for name, store in stores.items():
            counts, speakers = letters(model, store)
            scores = summary(speakers, counts, reference.get(name))
            reference.setdefault(name, counts)
            results.append({
                "checkpoint": str(path), "steps": state["step"], "hours": round(state["seconds"] / 3600, 1),
                "set": name, "recordings": len(counts), "speakers": len(set(speakers)), **scores,
            })  # fmt: skip
            print(json.dumps(results[-1], ensure_ascii=False), flush=True)
    text = ",\n".join(json.dumps(line, ensure_ascii=False) for line in results)
    (options.out / "results.json").write_text(f"[\n{text}\n]\n", "utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("train", help="learning curves")
    verb.add_argument("toml", type=Path)
    verb.add_argument("--features", type=Path, required=True)
    verb.set_defaults(go=run_all)
    score = verbs.add_parser("decompose", help="known and unknown speakers and sentences")
    score.add_argument("checkpoint", type=Path, nargs="+")
    score.add_argument("--set", action="append", required=True, metavar="NAME=MANIFEST")
    score.set_defaults(go=decompose)
    for each in (verb, score):
        each.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    options.go(options)


if __name__ == "__main__":
    main()
