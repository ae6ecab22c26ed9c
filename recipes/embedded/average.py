"""The mean of several checkpoints' weights: runs from one start often do better together than each alone.

python recipes/embedded/average.py WORK/run_long/last.pt WORK/run_mosaics/last.pt --out WORK/mean.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from rechka.errors import UsageError
from rechka.train.loop import load_weights


def main() -> None:
    """Read checkpoints of one architecture, write one that export and evaluation take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    loaded = [load_weights(path) for path in options.checkpoint]
    config = loaded[0][0]
    if any(other != config for other, _ in loaded):
        raise UsageError("the checkpoints differ in architecture", remedy="average runs that began with one another")
    mean = {name: sum(weights[name] for _, weights in loaded) / len(loaded) for name in loaded[0][1]}
    torch.save({"config": config.to_dict(), "average": mean, "step": 0, "seconds": 0.0}, options.out)


if __name__ == "__main__":
    main()
