"""When everything happens: made before the first packet is sent, and kept whatever the server does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rechka.server.load.speech import Script


@dataclass(frozen=True, slots=True)
class Call:
    """One connection.

    Attributes:
        script: what is said.
        start_s: when the speaker begins, seconds from the beginning of the level.
        seed: of the network's jitter.
    """

    script: Script
    start_s: float
    seed: int

    @property
    def end_s(self) -> float:
        """When the speaker ends."""
        return self.start_s + self.script.seconds

    def packets(self, packet_s: float, jitter_s: float) -> Iterator[tuple[float, bytes]]:
        """(when it is due, counted from the call's beginning; bytes): a packet leaves when its last sample was spoken,
        and the network holds it up for a random time; packets do not overtake one another."""
        chance = np.random.default_rng(self.seed)
        size = 2 * max(1, round(packet_s * self.script.rate))
        data, before = self.script.data, 0.0
        for at in range(0, len(data), size):
            spoken = min(len(data), at + size) / 2 / self.script.rate
            before = max(before, spoken + chance.uniform(0.0, jitter_s))
            yield before, data[at : at + size]


@dataclass(frozen=True, slots=True)
class Plan:
    """All calls of one level, and the part of it that counts.

    Attributes:
        streams: calls that are open at any time of that part.
        calls: by their beginnings.
        begin_s: every stream has begun; what is spoken before does not count.
        end_s: what is spoken after does not count.
    """

    streams: int
    calls: tuple[Call, ...]
    begin_s: float
    end_s: float


def make_plan(scripts: Sequence[Script], streams: int, seconds: float, *, seed: int = 0) -> Plan:
    """``streams`` speakers, each calling again and again without a gap.

    The speakers begin one after the other, at random times within the length of a script, so that beginnings, pauses
    and ends fall everywhere and not together.
    """
    chance = np.random.default_rng((seed, streams))
    ramp = max(script.seconds for script in scripts) / 2
    calls = []
    for _ in range(streams):
        at = float(chance.uniform(0.0, ramp))
        while at < ramp + seconds:
            script = scripts[int(chance.integers(len(scripts)))]
            calls.append(Call(script, at, int(chance.integers(1 << 31))))
            at += script.seconds
    return Plan(streams, tuple(sorted(calls, key=lambda call: call.start_s)), ramp, ramp + seconds)
