"""How many calls fit: a simulation of live streams on cores, and of calls that come and go; what they cost.

    python benchmarks/capacity.py --speed S [--chunk C] [--cores N ...] [--target SECONDS] [--holds STREAMS]
                                  [--server-cores N] [--price P] [--write docs/capacity.md]

``--speed`` is one divided by the RTF that ``rechka bench serve`` prints for a model: seconds of audio per second of one
core. Every stream sends a chunk every ``--chunk`` seconds, at a phase of its own, with jitter; cores take the oldest
chunk first, one at a time, as the engine does with one-thread sessions. The delay is from the chunk's last sample to
its result. ``--holds`` is what ``rechka bench serve`` found on a server of ``--server-cores``: plans start from it,
else from the simulation. ``--price`` is of a core for an hour, in any currency. ``--write`` puts the output, under its
command, between the two marks in the page.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from pathlib import Path

MINUTES = 3.0
"""Of simulated time."""
JITTER_S = 0.02
"""Spread of arrivals: packets of 20 ms."""
BLOCKED = 0.001
"""Share of calls that may find no free stream."""
CALL_S = 180.0
LOADED = 0.7
"""Share of the most streams that a server is planned for."""
BUSY = 0.5
"""Mean number of calls in the simulated example of costs, as a share of the streams that stand ready."""
LOADS = (10, 1000, 100_000)
BEGIN, END = "<!-- begin: written by benchmarks/capacity.py -->\n", "<!-- end -->\n"


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


def places(load: float, refused: float = BLOCKED) -> int:
    """Streams to have ready for a mean of ``load`` calls, so that few find all busy (Erlang's first formula, 1917)."""
    blocked, servers = 1.0, 0
    while blocked > refused:
        servers += 1
        blocked = load * blocked / (servers + load * blocked)
    return servers


def simulated_blocking(load: float, servers: int, calls: int, seed: int) -> float:
    """The share of calls refused by simulation: calls come at random and last an exponential time."""
    rng = random.Random(seed)
    # As many calls as on average are already there, so that the beginning is like the rest.
    busy = [rng.expovariate(1 / CALL_S) for _ in range(min(servers, round(load)))]
    heapq.heapify(busy)
    now, lost = 0.0, 0
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
    return "\n".join(lines) + "\n"


def plan(per_server: int, server_cores: int) -> str:
    """Streams and servers for some numbers of calls, as Markdown."""
    lines = [
        f"Servers of {server_cores} cores, each planned for {per_server} streams; one more than needed, so "
        "that one may fail.",
        "",
        f"| calls at the same time, mean | streams to have for {100 * BLOCKED:g} % refused | refused, simulated "
        "| servers | cores |",
        "|---|---|---|---|---|",
    ]
    for load in LOADS:
        ready = places(load)
        servers = -(-ready // per_server) + 1
        refused = simulated_blocking(load, ready, 200_000 + 30 * load, 1)
        lines.append(f"| {load} | {ready} | {100 * refused:.2f} % | {servers} | {servers * server_cores} |")
    return "\n".join(lines) + "\n"


def cost(speed: float, per_server: int, server_cores: int, price: float) -> str:
    """Core hours and price of a thousand hours of audio, as Markdown."""
    files = 1000 / speed
    live = 1000 * server_cores / (per_server * BUSY)
    return (
        f"| a thousand hours of audio | core hours | at {price:g} per core and hour |\n|---|---|---|\n"
        f"| recordings, cores always busy | {files:.0f} | {files * price:.2f} |\n"
        f"| live, {100 * BUSY:g} % of the planned streams in use on average | {live:.0f} | {live * price:.2f} |\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--chunk", type=float, default=0.3)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--target", type=float, default=0.3)
    parser.add_argument("--server-cores", type=int, default=2)
    parser.add_argument("--holds", type=int, help="streams that hold on one server, as measured; default: simulated")
    parser.add_argument("--price", type=float, default=0.04)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    most = arguments.holds or most_streams(arguments.server_cores, arguments.speed, arguments.chunk, arguments.target)
    per_server = max(1, int(LOADED * most))
    text = "\n".join(
        [
            table(arguments.speed, arguments.chunk, arguments.cores, arguments.target),
            plan(per_server, arguments.server_cores),
            cost(arguments.speed, per_server, arguments.server_cores, arguments.price),
        ]
    )
    print(text, end="")
    if arguments.write:
        words = sys.argv[1 : sys.argv.index("--write")]
        command = f"`python benchmarks/capacity.py {' '.join(words)}`\n\n"
        page = arguments.write.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        arguments.write.write_text(before + BEGIN + command + text + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
