"""How many calls fit: a simulation of live streams on cores, and of calls that come and go (docs/capacity.md).

    python benchmarks/capacity.py [--speed S] [--chunk C] [--cores N ...] [--target SECONDS] [--write FILE.md]

``--speed`` is what ``rechka bench cpu`` prints for a model: seconds of audio per second of one core. Every stream sends
a chunk every ``--chunk`` seconds, at a phase of its own, with jitter; cores take the oldest chunk first, one at a time,
as the engine does with one-thread sessions. The delay is from the chunk's last sample to its result.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from pathlib import Path

MINUTES = 3.0
"""Of simulated time."""
JITTER_S = 0.02
"""Spread of arrivals: packets of 20 ms."""
BLOCKED = 0.001
"""Share of calls that may find no free stream."""
CALL_S = 180.0


def delays(streams: int, cores: int, service_s: float, chunk_s: float, seed: int) -> list[float]:
    """Delays of all chunks of a simulated run, the first seconds left out."""
    rng = random.Random(seed)
    end = 60 * MINUTES
    arrivals: list[float] = []
    for _ in range(streams):
        at = rng.uniform(0, chunk_s)
        while at < end:
            arrivals.append(at + rng.uniform(0, JITTER_S))
            at += chunk_s
    arrivals.sort()
    free = [0.0] * cores
    heapq.heapify(free)
    found = []
    for arrival in arrivals:
        begin = max(arrival, heapq.heappop(free))
        # A step takes now a little less, now a little more: caches, other processes.
        done = begin + service_s * rng.lognormvariate(0, 0.15)
        heapq.heappush(free, done)
        if arrival > 5:
            found.append(done - arrival)
    return found


def percentile(values: list[float], share: float) -> float:
    """By rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def most_streams(cores: int, speed: float, chunk_s: float, target_s: float) -> int:
    """Streams whose 95th percentile of the delay stays below the target, by bisection over simulations."""
    service = chunk_s / speed

    def holds(streams: int) -> bool:
        return percentile(delays(streams, cores, service, chunk_s, streams), 0.95) < target_s

    low, high = 0, int(cores * speed) + 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def erlang_b(load: float, servers: int) -> float:
    """Share of calls that find all servers busy (Erlang 1917), for a mean of ``load`` calls at the same time."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked


def places(load: float, blocked: float = BLOCKED) -> int:
    """Streams to have ready for a mean of ``load`` calls."""
    servers = max(1, math.floor(load))
    while erlang_b(load, servers) > blocked:
        servers += 1
    return servers


def simulated_blocking(load: float, servers: int, calls: int, seed: int) -> float:
    """The same by simulation: calls come at random and last an exponential time."""
    rng = random.Random(seed)
    now, busy, lost = 0.0, [], 0
    for _ in range(calls):
        now += rng.expovariate(load / CALL_S)
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        if len(busy) >= servers:
            lost += 1
        else:
            heapq.heappush(busy, now + rng.expovariate(1 / CALL_S))
    return lost / calls


def table(speed: float, chunk_s: float, cores: list[int], target_s: float) -> str:
    """Both tables as Markdown."""
    lines = [
        f"One core recognises {speed:g} s of audio per second in chunks of {chunk_s:g} s; 95 % of the results within "
        f"{target_s:g} s of their chunk.",
        "",
        "| cores | streams, simulated | share of cores x speed | delay at 70 % of them, p50 / p95 / p99, ms |",
        "|---|---|---|---|",
    ]
    for n in cores:
        most = most_streams(n, speed, chunk_s, target_s)
        found = delays(max(1, int(0.7 * most)), n, chunk_s / speed, chunk_s, 1)
        shown = " / ".join(f"{1000 * percentile(found, share):.0f}" for share in (0.5, 0.95, 0.99))
        lines.append(f"| {n} | {most} | {100 * most / (n * speed):.0f} % | {shown} |")
    lines += [
        "",
        f"| calls at the same time, mean | streams to have for {100 * BLOCKED:g} % refused | refused, simulated |",
        "|---|---|---|",
    ]
    for load in (10, 100, 1000):
        servers = places(load)
        lines.append(f"| {load} | {servers} | {100 * simulated_blocking(load, servers, 200_000, 1):.2f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=20.0)
    parser.add_argument("--chunk", type=float, default=0.3)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--target", type=float, default=0.3)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    text = table(arguments.speed, arguments.chunk, arguments.cores, arguments.target)
    print(text, end="")
    if arguments.write:
        head = "# Capacity, simulated\n\nMade by `benchmarks/capacity.py --write`; not edited by hand.\n\n"
        arguments.write.write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    main()
