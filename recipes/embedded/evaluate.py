"""Score a model folder on test manifests: letters and words wrong, with 95 % intervals.

    python recipes/embedded/evaluate.py MODEL --set NAME=MANIFEST ... [--limit N] [--greedy] [--alpha A --beta B]
                                              [--whole] [--same A=B] [--json FILE] [--show N]

A recording goes through ``rechka.load(MODEL).transcribe`` as a user's would. VoxForge has features and no sound: those
are set to a usual level and enter behind the front end, the whole utterance as one phrase (``--whole`` does that for
recordings too, to compare settings of the search quickly: log-probabilities are computed once).
``--same "что бы=чтобы"`` takes two spellings as one, in texts and answers alike.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rechka.audio import open_source
from rechka.decoding import build_decoder, load_lm
from rechka.evaluate.wer import score
from rechka.features import bands
from rechka.hub.load import load
from rechka.hub.registry import find
from rechka.models.conformer import ConformerModel, ConformerState
from rechka.options import DecoderOptions
from rechka.text.normalize import scoring
from rechka.train.augment import level
from rechka.train.store import cepstra_to_bands
from rechka.types import LogProbs

USUAL_LEVEL = 16.0
"""Mean log energy of loud speech that features without a recording are set to (see ``augment.level``)."""


def records(manifest: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    """The records of a manifest."""
    for number, line in enumerate(manifest.read_text("utf-8").splitlines()):
        if limit is not None and number >= limit:
            return
        yield json.loads(line)


def features_log_probs(model: ConformerModel, record: dict[str, Any]) -> LogProbs:
    """Log-probabilities of an utterance that is stored as cepstra, a chunk of silence on both sides."""
    with np.load(record["feat_file"]) as arrays:
        part = slice(record["offset"], record["offset"] + record["frames"])
        x = cepstra_to_bands(arrays["cep"][part].astype(np.float32) * arrays["step"] + arrays["mid"])
    x = x - level(x) + USUAL_LEVEL
    unit = model.spec.chunk // bands.STEP  # type: ignore[operator]
    whole = -(-(len(x) + 2 * unit) // unit) * unit
    quiet = np.full((whole, bands.BANDS), np.percentile(x, 2), np.float32)
    quiet[unit : unit + len(x)] = x
    start = bands.BandState.initial()
    features, _, _ = bands.remove_mean(
        np.logaddexp(quiet, np.log(bands.FLOOR)).astype(np.float32), start.total, start.weight
    )
    state = model.initial_state()
    out = model._backend.run({"features": features[None], "state": state.network[None]})
    return LogProbs(out["logprobs"][0])


def audio_log_probs(model: ConformerModel, path: Path) -> LogProbs:
    """Log-probabilities of a recording, padded as a stream pads it, in one block."""
    source = open_source(path, sample_rate=model.spec.sample_rate)
    samples = np.concatenate([chunks[0].samples for chunks in source])
    chunk = model.spec.chunk or 0
    padded = np.zeros(-(-(len(samples) + 2 * chunk) // chunk) * chunk, np.float32)
    padded[chunk : chunk + len(samples)] = samples
    state: ConformerState = model.initial_state()
    (frames,), _ = model.step([padded], [state])
    assert isinstance(frames, LogProbs)
    return frames


def spelt(text: str, same: list[str]) -> str:
    """A text as it is scored, with the second spelling of every ``A=B`` in place of the first."""
    padded = f" {scoring(text)} "
    for pair in same:
        one, _, other = pair.partition("=")
        padded = padded.replace(f" {one} ", f" {other} ")
    return padded.strip()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--set", action="append", required=True, metavar="NAME=MANIFEST")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--alpha", type=float, action="append")
    parser.add_argument("--beta", type=float, action="append")
    parser.add_argument("--same", action="append", default=[], metavar="A=B")
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    entry = find(args.model)
    options = DecoderOptions(**entry.card.decoder)
    if args.greedy:
        options = replace(options, kind="greedy")
    asr = load(args.model, decoder=options, threads=1)
    model: ConformerModel = asr.recognizer.model  # type: ignore[assignment]
    lm = load_lm(entry.path("lm")) if "lm" in entry.card.files and not args.greedy else None
    results: dict[str, Any] = {}
    for pair in args.set:
        name, _, manifest = pair.partition("=")
        path = Path(manifest)
        chosen = list(records(path, args.limit))
        refs = [spelt(record["text"], args.same) for record in chosen]
        speakers = [str(record.get("speaker", "")) for record in chosen]
        clusters = speakers if len(set(speakers)) > 4 else None
        if args.whole or "feat_file" in chosen[0]:
            frames = [
                features_log_probs(model, record)
                if "feat_file" in record
                else audio_log_probs(model, path.parent / record["audio_filepath"])
                for record in chosen
            ]
            for alpha in args.alpha or [options.alpha]:
                for beta in args.beta or [options.beta]:
                    decoder = build_decoder(model.spec.tokens, replace(options, alpha=alpha, beta=beta), lm=lm)  # type: ignore[arg-type]
                    hyps = []
                    for item in frames:
                        (beam,) = decoder.advance([decoder.begin()], [item])
                        text = model.spec.tokens.text(decoder.best(beam).tokens)  # type: ignore[union-attr]
                        hyps.append(spelt(text, args.same))
                    label = name if args.alpha is None and args.beta is None else f"{name} a={alpha} b={beta}"
                    report(label, refs, hyps, clusters, results, args.show)
        else:
            hyps = [spelt(asr.transcribe(path.parent / record["audio_filepath"]).text, args.same) for record in chosen]
            report(name, refs, hyps, clusters, results, args.show)
    if args.json:
        args.json.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", "utf-8")


def report(
    name: str, refs: list[str], hyps: list[str], clusters: list[str] | None, results: dict[str, Any], show: int
) -> None:
    """One line on stdout, the same for --json, and the first ``show`` pairs on stderr."""
    result = score(refs, hyps, clusters=clusters)
    results[name] = result.to_dict()
    print(f"{name:28} {result}", flush=True)
    for ref, hyp in list(zip(refs, hyps, strict=True))[:show]:
        print(f"   {ref}\n   {hyp}\n", file=sys.stderr)


if __name__ == "__main__":
    main()
