"""Cut recorded sentences into pieces of a few words, so that a model cannot learn whole sentences by heart.

Few sentences, read by many people, teach the sentences, not the sounds. A first model aligns text and sound; cuts
fall between words, where the sound is quietest. Pieces name the same feature file with their own offset and length.

    python cut.py run/last.pt features/voxforge voxforge/train.jsonl voxforge/pieces.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rechka.features import bands
from rechka.nn.conformer import SUBSAMPLING, StreamingConformer
from rechka.train import augment
from rechka.train.loop import BLANK, encode, load_model
from rechka.train.store import Store
from rechka.train.text import training
from rechka.types import F32

log = logging.getLogger("cut")

LEAD = 32
"""Frames of silence before the recording, as the trainer's own evaluation has them."""


@torch.no_grad()
def log_probs(model: StreamingConformer, x: F32) -> F32:
    """(T, V) of one recording of (n, 15) log band energies, with ``LEAD`` frames of silence before it."""
    unit = SUBSAMPLING * model.config.chunk
    padded = np.full((1, -(-(len(x) + 2 * LEAD) // unit) * unit, bands.BANDS), np.log(bands.FLOOR), np.float32)
    padded[0, LEAD : LEAD + len(x)] = np.logaddexp(x, np.log(bands.FLOOR))
    return model(torch.from_numpy(augment.finish(padded)))[0][0].numpy()


def align(values: F32, tokens: list[int]) -> tuple[NDArray[np.int64], float]:
    """Frame of the first emission of each token on the best CTC path, and the path's mean log-probability a frame."""
    states = np.full(2 * len(tokens) + 1, BLANK)
    states[1::2] = tokens
    skip = np.zeros(len(states), bool)
    skip[2:] = (states[2:] != BLANK) & (states[2:] != states[:-2])
    score = np.full(len(states), -np.inf, np.float32)
    score[:2] = values[0, states[:2]]
    back = np.zeros((len(values), len(states)), np.int8)
    for t in range(1, len(values)):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(skip, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        choices = np.stack([score, one, two])
        back[t] = choices.argmax(axis=0)
        score = choices.max(axis=0) + values[t, states]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    total, first = float(score[state]), np.zeros(len(tokens), np.int64)
    for t in range(len(values) - 1, -1, -1):
        if state % 2:
            first[state // 2] = t
        state -= int(back[t, state])
    return first, total / len(values)


def boundaries(x: F32, text: str, first: NDArray[np.int64], lag: int) -> list[int]:
    """Frame of ``x`` between each word and the next: the quietest between the spikes of their letters."""
    energy = np.convolve(x.mean(axis=1), np.ones(3) / 3, mode="same")
    cuts = []
    for position, letter in enumerate(text):
        if letter == " ":
            low = int(first[position - 1]) * SUBSAMPLING - LEAD - lag
            high = max(low + 1, int(first[position + 1]) * SUBSAMPLING - LEAD - lag)
            low, high = np.clip([low, high], 0, len(x) - 1)
            cuts.append(int(low + energy[low : high + 1].argmin()))
    return cuts


def main() -> None:
    """Read a manifest of cepstra, write the manifest of pieces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("store", type=Path, help="feature store of the manifest (rechka train makes it)")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--words", type=int, nargs=2, default=(2, 6), help="fewest and most words of a piece")
    parser.add_argument("--worst", type=float, default=-1.2, help="recordings aligned worse are left out")
    parser.add_argument("--lag", type=int, default=5, help="frames of 10 ms by which the model's letters come late")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, rng = load_model(args.checkpoint), np.random.default_rng(1)
    store = Store(args.store)
    items = {item.key: item for item in store.items}
    num_pieces = num_bad = 0
    temporary = args.out.with_suffix(".part")
    with open(temporary, "w", encoding="utf-8") as out:
        for line in args.manifest.read_text("utf-8").splitlines():
            record = json.loads(line)
            text = training(record["text"])
            item = items.get(f"{Path(record['feat_file']).name}:{record['offset']}")
            if item is None:
                continue  # a held-out text, or one that the store refused
            x = store.read(item)
            first, quality = align(log_probs(model, x), encode(text))
            if quality < args.worst:
                num_bad += 1
                continue
            words, cuts = text.split(), [0, *boundaries(x, text, first, args.lag), len(x)]
            at = 0
            while at < len(words):
                end = min(len(words), at + int(rng.integers(args.words[0], args.words[1] + 1)))
                if len(words) - end < args.words[0]:
                    end = len(words)
                piece = {
                    **record, "offset": record["offset"] + cuts[at], "frames": cuts[end] - cuts[at],
                    "duration": (cuts[end] - cuts[at]) / 100, "text": " ".join(words[at:end]),
                }  # fmt: skip
                at = end
                if piece["frames"] > 20:
                    out.write(json.dumps(piece, ensure_ascii=False) + "\n")
                    num_pieces += 1
    temporary.replace(args.out)
    log.warning("%d pieces; %d recordings left out for their alignment", num_pieces, num_bad)


if __name__ == "__main__":
    main()
