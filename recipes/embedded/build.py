"""Put the embedded model's folder together: graph, language model, card.

    python recipes/embedded/build.py CHECKPOINT --lm FILE.rlm --out src/rechka/hub/embedded [--results FILE.json]

The graph is written from the averaged weights and checked against torch. The lag (how late letters come after they
were spoken) is measured on recordings with a sharp beginning: the first letter's time minus that of the first sound.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from rechka.audio import open_source
from rechka.backends.ort import OrtBackend
from rechka.export.conformer import export
from rechka.hub.card import Card, CardFile, Result
from rechka.models.conformer import FRAME, ConformerModel
from rechka.train.loop import load_model
from rechka.types import LogProbs

TITLE = {
    "en": "The embedded model: small, streaming, telephone band, made for trying things out",
    "ru": "Встроенная модель: маленькая, потоковая, телефонная полоса, для знакомства и проверок",
}
SUMMARY = {
    "en": "Trained mostly on synthetic speech and novels read aloud. Not a production model: `rechka models pull "
    "t-one` gets one. See MODEL_CARD.md for what it can and cannot do.",
    "ru": "Обучена в основном на синтезированной речи и чтении вслух. Не рабочая модель: рабочую скачивает "
    "`rechka models pull t-one`. Что она умеет и чего нет: MODEL_CARD.md.",
}


def measure_lag(graph: Path, manifest: Path, limit: int = 60) -> int:
    """Median delay of the first letter against the first loud sound, in milliseconds."""
    model = ConformerModel(OrtBackend(graph, threads=1))
    chunk = model.spec.chunk or 0
    delays = []
    for line in manifest.read_text("utf-8").splitlines()[:limit]:
        path = manifest.parent / json.loads(line)["audio_filepath"]
        samples = np.concatenate([c[0].samples for c in open_source(path, sample_rate=model.spec.sample_rate)])
        loud = np.abs(samples) > 0.05 * np.abs(samples).max()
        padded = np.zeros(-(-(len(samples) + 2 * chunk) // chunk) * chunk, np.float32)
        padded[chunk : chunk + len(samples)] = samples
        (frames,), _ = model.step([padded], [model.initial_state()])
        assert isinstance(frames, LogProbs)
        letters = np.flatnonzero(frames.values.argmax(1) < 32)
        if len(letters):
            delays.append(int(letters[0]) * FRAME - chunk - int(loud.argmax()))
    return round(float(np.median(delays)) * 1000 / model.spec.sample_rate)


def file_entry(path: Path) -> CardFile:
    """Path, size and sum of a file in the card's folder."""
    data = path.read_bytes()
    return CardFile(path.name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--lm", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lag-set", type=Path, required=True, help="manifest of recordings with sharp beginnings")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--unk-logp", type=float, default=-15.0)
    parser.add_argument("--beam-width", type=int, default=48)
    parser.add_argument("--beam-prune-logp", type=float, default=-10.0)
    parser.add_argument("--token-min-logp", type=float, default=-5.0)
    parser.add_argument("--confidence", type=float, nargs=2, help="slope and offset that calibrate.py printed")
    parser.add_argument("--results", type=Path, help="JSON list of [test, metric, value, low, high]")
    parser.add_argument("--command", default="see MODEL_CARD.md", help="the command that made the results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    graph = args.out / "model.onnx"
    difference = export(load_model(args.checkpoint), graph)
    lm = args.out / "lm.rlm"
    if args.lm.resolve() != lm.resolve():
        shutil.copyfile(args.lm, lm)
    lag = measure_lag(graph, args.lag_set)
    results = [
        Result(test, metric, value, (low, high), command=args.command)
        for test, metric, value, low, high in (json.loads(args.results.read_text("utf-8")) if args.results else [])
    ]
    search = {
        "alpha": args.alpha, "beta": args.beta, "unk_logp": args.unk_logp, "beam_width": args.beam_width,
        "beam_prune_logp": args.beam_prune_logp, "token_min_logp": args.token_min_logp,
    }  # fmt: skip
    card = Card(
        name="rechka-mini", family="conformer", language="ru", license="GPL-3.0-or-later", title=TITLE, summary=SUMMARY,
        files={"model": file_entry(graph), "lm": file_entry(lm)}, params={"chunk_ms": 320, "lag_ms": lag},
        decoder=search, segmenter={},
        confidence=tuple(args.confidence) if args.confidence else None, results=tuple(results),
    )  # fmt: skip
    (args.out / "card.toml").write_text(card.to_toml(), "utf-8")
    print(f"wrote {args.out}: differs from torch by {difference:.1e}, lag {lag} ms")


if __name__ == "__main__":
    main()
