"""Memory of the engine over a million chunks: it should not grow.

    python benchmarks/engine_memory.py [--chunks 1000000] [--model toy] [--streams 16]

Half of the streams are one session all the time, the others begin and end. The slope is of the straight line through
the readings after the first fifth, in which the allocator takes what it needs.
"""

from __future__ import annotations

import argparse
import sys
import time

from rechka.hub.load import load
from rechka.server.load.watch import slope
from rechka.testing import toy_asr
from rechka.testing.soak import soak_engine


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--model", default="toy")
    parser.add_argument("--streams", type=int, default=16)
    args = parser.parse_args()

    def told(done: int, size: int) -> None:
        print(f"\r{done} chunks, {size / 2**20:.1f} MB ", end="", file=sys.stderr, flush=True)

    asr = toy_asr() if args.model == "toy" else load(args.model, threads=1)
    began, cpu = time.monotonic(), time.process_time()
    found = soak_engine(args.chunks, asr=asr, streams=args.streams, told=told)
    print(file=sys.stderr)
    late = [reading for reading in found if reading[0] >= args.chunks / 5]
    sizes = [size / 2**20 for _, size in late]
    grown = slope([done for done, _ in late], [size for _, size in late])
    print(f"{found[-1][0]} chunks of {args.streams} streams, {args.model}; {time.monotonic() - began:.0f} s, ", end="")
    print(f"{time.process_time() - cpu:.0f} s of processor time")
    print(f"memory: {found[0][1] / 2**20:.1f} MB at first, then {min(sizes):.1f} to {max(sizes):.1f} MB")
    print(f"slope: {grown:+.3f} bytes per chunk")


if __name__ == "__main__":
    main()
