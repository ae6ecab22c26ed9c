"""When each letter of a store's recordings is spoken: a CTC model's best path through the known text.

    python recipes/embedded/align.py run/last.pt features/voxforge voxforge_letters.npz

A streaming model's letters jump with the borders of its chunks, so it listens twice, half a chunk apart, and the two
opinions are averaged. Stopped and started again it goes on where it was; ``--part 0/2`` and ``1/2`` share the work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from cut import LEAD, align
from numpy.typing import NDArray

from rechka.features import bands
from rechka.nn.conformer import SUBSAMPLING, StreamingConformer
from rechka.train import augment
from rechka.train.loop import encode, load_model
from rechka.train.store import Store
from rechka.types import F32

SAVE_EVERY = 200


@torch.no_grad()
def opinions(model: StreamingConformer, x: F32) -> F32:
    """(T, V) log-probabilities of (n, 15) log energies, ``LEAD`` frames before it: the mean of two chunk phases."""
    chunk = model.config.chunk
    late = SUBSAMPLING * (chunk // 2)
    unit = SUBSAMPLING * chunk
    length = -(-(len(x) + 2 * LEAD + late) // unit) * unit
    both = np.full((2, length, bands.BANDS), np.log(bands.FLOOR), np.float32)
    floored = np.logaddexp(x, np.log(bands.FLOOR))
    both[0, LEAD : LEAD + len(x)] = floored
    both[1, LEAD + late : LEAD + late + len(x)] = floored
    values = model(torch.from_numpy(augment.finish(both)))[0].numpy()
    mean: F32 = np.logaddexp(values[0, : -(chunk // 2)], values[1, chunk // 2 :]) - np.float32(np.log(2))
    return mean


def letters(model: StreamingConformer, x: F32, text: str, lag: int) -> tuple[NDArray[np.int32], float]:
    """Frame of ``x`` (10 ms) in the middle of each letter, and the path's mean log-probability a frame."""
    first, quality = align(opinions(model, x), encode(text))
    frames = first * SUBSAMPLING + SUBSAMPLING // 2 - LEAD - lag
    return np.clip(frames, 0, len(x) - 1).astype(np.int32), quality


def main() -> None:
    """Align a whole store, or one part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", default="0/1", help="which of how many parts")
    parser.add_argument("--lag", type=int, default=5, help="frames of 10 ms by which the model's letters come late")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, store = load_model(options.checkpoint), Store(options.store)
    number, parts = map(int, options.part.split("/"))
    found: dict[str, NDArray[np.int32]] = {}
    quality: dict[str, float] = {}
    if options.out.exists():
        with np.load(options.out) as old:
            quality = dict(zip(old["keys"].tolist(), old["quality"].tolist(), strict=True))
            found = dict(zip(quality, np.split(old["frames"], np.cumsum(old["counts"])[:-1]), strict=True))
    mine = store.items[number::parts]
    for position, item in enumerate(mine, 1):
        if item.key not in found:
            found[item.key], quality[item.key] = letters(model, store.read(item), item.text, options.lag)
        if position % SAVE_EVERY == 0 or position == len(mine):
            part = options.out.with_suffix(".part.npz")
            np.savez_compressed(
                part, keys=np.array(list(found)), quality=np.array([quality[key] for key in found], np.float32),
                counts=np.array([len(found[key]) for key in found]), frames=np.concatenate(list(found.values())),
            )  # fmt: skip
            part.replace(options.out)
    print(f"{len(found)} recordings, mean quality {np.mean(list(quality.values())):.3f}")


if __name__ == "__main__":
    main()
