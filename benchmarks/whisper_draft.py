"""What verifying a draft costs beside decoding: CPU time of Whisper's calls on random weights in published shapes.

    python benchmarks/whisper_draft.py [--size tiny] [--tokens 60] [--rounds 5]

Random weights say what calls cost and nothing of how often a draft is believed, which is what decides: measure that on
your own recordings with ``rechka.recognizers.draft.scored``. The vocabulary is the toy's two thousand tokens, so a step
of the decoder is cheaper here than with Whisper's 52 thousand, which favours decoding.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rechka.decoding.whisper import Search
from rechka.hub.layouts import recognise
from rechka.models.whisper import load
from rechka.testing.whisper import write_whisper

SIZES = {"tiny": (384, 4, 6), "base": (512, 6, 8), "small": (768, 12, 12)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--tokens", type=int, default=60, help="of a phrase's text; Russian has two or three a word")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    width, layers, heads = SIZES[args.size]
    with tempfile.TemporaryDirectory() as work:
        folder = write_whisper(Path(work) / "model", quantization="int8", width=width, layers=layers, heads=heads)
        card = recognise(folder)
        assert card is not None
        model = load({role: folder / file.path for role, file in card.files.items()}, {}, threads=1)
    kernel, special = model.kernel, model.codec.special
    audio = (0.1 * np.random.default_rng(0).standard_normal(10 * 16000)).astype(np.float32)
    head = [special.start, special.languages["ru"], special.transcribe]
    text = list(np.random.default_rng(1).integers(5, special.end - 1, args.tokens).tolist())
    [encoded] = kernel.encode([audio])

    def generate(beam: int) -> Callable[[], Any]:
        search = Search(beam_size=beam, max_new=args.tokens)
        return lambda: kernel.generate([encoded], [[*head, special.no_stamps]], search)

    calls: dict[str, Callable[[], Any]] = {
        "encode": lambda: kernel.encode([audio]),
        "align (verifies, gives word times)": lambda: kernel.align([encoded], head, [text], [1000]),
        "generate, greedy": generate(1),
        "generate, beam 5": generate(5),
    }
    costs: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(args.rounds + 1):
        for name, call in calls.items():
            begin = time.process_time()
            call()
            if run:  # the first warms up
                costs[name].append(time.process_time() - begin)
    found = {name: median(values) for name, values in costs.items()}
    print(f"{args.size}, int8, one thread, 10 s of audio, {args.tokens} tokens, CPU milliseconds, median:")
    for name, seconds in found.items():
        print(f"  {name:36} {1000 * seconds:8.1f}")
    encode, align, greedy, beam = found.values()
    for name, cost in (("greedy", greedy), ("beam 5", beam)):
        # Word times take an alignment after decoding too.
        best, worst = (encode + cost + align) / (encode + align), (encode + cost + align) / (encode + cost + 2 * align)
        print(f"  against {name}: a believed draft is {best:.2f} times as fast, a rejected one {worst:.2f} times")


if __name__ == "__main__":
    main()
