"""One level of load: so many streams for so long, and all that was measured."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rechka.server.client import address
from rechka.server.load.call import Heard, Manner, make_call
from rechka.server.load.latency import Latencies, summary, text_of
from rechka.server.load.plan import Plan, make_plan
from rechka.server.load.speech import Script
from rechka.server.load.watch import Samples, Watch, quantile, slope

LEAD_S = 0.3
"""Between making the plan and its beginning."""
SLOW_S = 0.1
"""A packet that leaves later than this although its connection was free: the generator itself is too slow."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the server, at every level alike.

    Attributes:
        url: of the server.
        scripts: what calls say.
        seconds: of a level that count.
        key: API key.
        options: of the start message.
        packet_s: audio of one packet.
        jitter_s: how long the network holds a packet up at most.
        limit_s: a level holds if 95 of 100 finals come within this time after the last word.
        seed: of all plans.
    """

    url: str
    scripts: Sequence[Script]
    seconds: float = 20.0
    key: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    packet_s: float = 0.1
    jitter_s: float = 0.02
    limit_s: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """Results.

    Attributes:
        streams: open at any time.
        holds: finals came in time, no call was refused or broke off, and equal audio gave equal text.
        calls: by outcome.
        why: what the server said to calls that were not done, with how often.
        differing: calls whose text is not that of most calls with the same audio.
        latency: ``first_partial``, ``word``, ``final``: seconds.
        sender: how late packets left (``late``), and how long connections did not take them (``held``).
        server: what its metrics tell; empty if they cannot be read.
    """

    streams: int
    holds: bool
    calls: dict[str, int]
    why: dict[str, int]
    differing: int
    latency: dict[str, dict[str, Any]]
    sender: dict[str, Any]
    server: dict[str, Any]

    @property
    def final_p95(self) -> float | None:
        """Seconds from the last word to its final that 95 of 100 do not exceed."""
        found: float | None = self.latency["final"]["p95"]
        return found

    @property
    def too_slow(self) -> bool:
        """The generator could not keep its own plan, so that the figures are not the server's alone."""
        return bool((self.sender["late"]["p99"] or 0.0) > SLOW_S)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"generator_late": self.too_slow}


async def run_level(load: Load, streams: int) -> Level:
    """Make all calls of a level, to their ends."""
    plan = make_plan(load.scripts, streams, load.seconds, seed=load.seed)
    manner = Manner(address(load.url), load.key, load.options, load.packet_s, load.jitter_s)
    async with Watch(load.url, load.key) as watch:
        epoch = time.monotonic() + LEAD_S
        heard = await asyncio.gather(*(make_call(call, manner, epoch) for call in plan.calls))
    begin, end = epoch + plan.begin_s, epoch + plan.end_s
    readings = watch.between(begin, end)
    if len(readings) < 2:  # a short level, or a server too busy to answer within it: the whole level tells more
        readings = watch.readings
    return _level(load, plan, heard, begin, end, _server(readings))


def _level(load: Load, plan: Plan, heard: Sequence[Heard], begin: float, end: float, server: dict[str, Any]) -> Level:
    found = Latencies()
    for call in heard:
        found.add(call, begin, end)
    latency = {name: summary(getattr(found, name)) for name in ("first_partial", "word", "final")}
    calls = Counter(call.outcome for call in heard)
    differing = count_differing(heard)
    p95 = latency["final"]["p95"]
    return Level(
        streams=plan.streams,
        holds=calls["done"] == len(heard) and not differing and p95 is not None and p95 < load.limit_s,
        calls=dict(calls),
        why=dict(Counter(call.why for call in heard if call.outcome != "done").most_common(5)),
        differing=differing,
        latency=latency,
        sender={
            "late": summary([call.late_s for call in heard]),
            "held": summary([call.held_s for call in heard]),
        },
        server=server,
    )


def count_differing(heard: Sequence[Heard]) -> int:
    """Finished calls whose text is not what most calls of the same script have."""
    texts: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for call in heard:
        if call.outcome == "done":
            texts[call.call.script.number][text_of(call)] += 1
    return sum(sum(found.values()) - found.most_common(1)[0][1] for found in texts.values())


def _server(readings: Sequence[tuple[float, Samples]]) -> dict[str, Any]:
    """Seconds, bytes and shares from the first and the last reading of the part that counts."""
    if len(readings) < 2:
        return {}
    (begin, before), (end, after) = readings[0], readings[-1]

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    audio, steps, cpu = grown("rechka_audio_seconds_total"), grown("rechka_step_seconds_sum"), grown(CPU)
    workers = after.get("rechka_workers", 0.0)
    memory = [(when, samples[MEMORY]) for when, samples in readings if MEMORY in samples]
    growth = slope([when for when, _ in memory], [size for _, size in memory])
    lag = {f"p{q}": _rounded(quantile(before, after, LAG, q / 100)) for q in (50, 99)}
    return {
        "audio_s": round(audio, 1),
        "rtf": _rounded(steps / audio if audio else None),
        "cpu_per_audio_s": _rounded(cpu / audio if audio and CPU in after else None),
        "busy": _rounded(steps / workers / (end - begin) if workers else None),
        "batch": _rounded(grown("rechka_batch_streams_sum") / max(1.0, grown("rechka_batch_streams_count"))),
        "queue_p95_s": _rounded(quantile(before, after, "rechka_queue_seconds", 0.95)),
        "loop_lag_s": {**lag, "max": max(samples.get(RECENT_LAG, 0.0) for _, samples in readings)},
        "memory_mb": round(memory[-1][1] / 2**20, 1) if memory else None,
        "memory_slope_mb_per_min": None if growth is None else round(growth * 60 / 2**20, 2),
    }


CPU, MEMORY = "process_cpu_seconds_total", "process_resident_memory_bytes"
LAG, RECENT_LAG = "rechka_loop_lag_seconds", "rechka_loop_lag_recent_seconds"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
