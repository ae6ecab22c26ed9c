"""An archive: a plan of parts, what is done of it, and how to do the rest.

The output folder holds ``plan.json`` and ``plan/`` (which recordings are in which part), ``parts/`` (the texts),
``done/`` (a marker a part, written after its texts) and, at the end, ``report.json``. A part without a marker is done
again from its beginning and takes its own place, so whatever was killed and whenever, every recording stands in the
output exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rechka import __version__
from rechka.errors import OutputError, UsageError, WorkerLost
from rechka.scale import local
from rechka.scale.items import Item, from_json, num_recordings, to_json
from rechka.scale.options import BatchOptions
from rechka.scale.store import Store
from rechka.scale.work import Part

PLAN_PARTS = 1000
"""Parts of one file of the plan, so that a plan of millions is read piece by piece."""
ROUNDS = 3
"""Times that parts are handed out anew when an engine ends without having done them all."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an archive.

    Attributes:
        recordings: in all.
        failed: of them, how many have no text; they are in the report's ``failures`` and in the parts, with the reason.
        audio_s: seconds of audio that were recognised.
        seconds: of work, summed over the workers.
        failures: ``input`` and ``error`` of the failed ones.
    """

    recordings: int
    failed: int
    audio_s: float
    seconds: float
    failures: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``report.json``."""
        return {
            "recordings": self.recordings, "failed": self.failed, "audio_s": round(self.audio_s, 3),
            "seconds": round(self.seconds, 3), "failures": list(self.failures),
        }  # fmt: skip


class Archive:
    """Recordings, and a folder for their texts.

    Args:
        place: of the output, a path or an fsspec URL. If a plan is there, it is gone on with.
        options: what is done with every recording.

    Raises:
        UsageError: the folder holds results of other options.
        OutputError: it cannot be used.
    """

    def __init__(self, place: str, options: BatchOptions) -> None:
        self.store = Store(place)
        self.options = options
        head = self.store.read("plan.json")
        self.plan: dict[str, Any] | None = None
        if head is not None:
            try:
                self.plan = json.loads(head)
                same = self.plan["digest"] == options.digest
                self.num_parts = int(self.plan["parts"])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise OutputError(
                    f"{place}/plan.json is no plan of rechka batch", remedy="choose another --out"
                ) from None
            if not same:
                raise UsageError(
                    f"{place} holds results of other options: {json.dumps(self.plan['options'], ensure_ascii=False)}",
                    remedy="give the same options to go on, or another --out",
                )

    @property
    def begun(self) -> bool:
        """Whether a plan is there."""
        return self.plan is not None

    def write_plan(self, items: Iterable[Item]) -> None:
        """Lay down which recordings are done, in which parts; from then on the plan counts, not what is in the inputs.

        A part has as many recordings as the options say, or fewer where a range of rows would make it larger.

        Raises:
            UsageError: there are none.
        """
        parts, num_parts, total = _parts(items, self.options.part_size), 0, 0
        while block := list(islice(parts, PLAN_PARTS)):
            data = json.dumps([[to_json(item) for item in part] for part in block], ensure_ascii=False)
            self.store.write(f"plan/{num_parts // PLAN_PARTS:05d}.json", data.encode())
            num_parts += len(block)
            total += sum(num_recordings(item) for part in block for item in part)
        if not num_parts:
            raise UsageError("no recordings were named", remedy="name files, folders or patterns that hold audio")
        self.num_parts = num_parts
        self.plan = {
            "version": __version__, "parts": num_parts, "recordings": total,
            "digest": self.options.digest, "options": self.options.to_dict(),
        }  # fmt: skip
        # Last: without it there is no plan, and a plan that was cut off is written anew.
        self.store.write("plan.json", json.dumps(self.plan, ensure_ascii=False, indent=2).encode())

    @property
    def num_recordings(self) -> int:
        """Of the plan."""
        assert self.plan is not None
        return int(self.plan["recordings"])

    def done(self) -> set[int]:
        """Numbers of the parts that are done."""
        return {int(name[:7]) for name in self.store.names("done") if name.endswith(".json")}

    def remaining(self) -> Iterator[Part]:
        """Parts that are not done."""
        done = self.done()
        for first in range(0, self.num_parts, PLAN_PARTS):
            numbers = range(first, min(first + PLAN_PARTS, self.num_parts))
            if done.issuperset(numbers):
                continue
            try:
                block = json.loads(self.store.read(f"plan/{first // PLAN_PARTS:05d}.json") or b"[]")
                parts = [
                    Part(number, tuple(map(from_json, items))) for number, items in zip(numbers, block, strict=True)
                ]
            except (ValueError, KeyError, TypeError, RecursionError):
                damaged = f"the plan in {self.store.place} is damaged"
                raise OutputError(damaged, remedy="begin anew with another --out") from None
            yield from (part for part in parts if part.number not in done)

    def run(
        self, engine: Callable[[list[Part]], Iterator[dict[str, Any]]] | None = None, *, workers: int = 1
    ) -> Iterator[dict[str, Any]]:
        """Do what remains; tells of each part as it becomes done.

        Args:
            engine: does parts; worker processes of this machine if None.
            workers: of these.

        Raises:
            WorkerLost: parts are left although they were handed out several times.
        """
        told: set[int] = set()
        for _ in range(ROUNDS):
            if engine is None:
                said = local.run(self.remaining(), self.options, self.store.place, workers=workers)
            else:
                parts = list(self.remaining())
                said = engine(parts) if parts else iter(())
            for one in said:
                if one["part"] not in told:
                    told.add(one["part"])
                    yield one
            if len(self.done()) == self.num_parts:
                return
        raise WorkerLost("parts were handed out again and again and are not done", remedy="run the same command again")

    def report(self) -> Report:
        """Count what is done, leave ``report.json``, and clean up after workers that were killed."""
        self.store.sweep("", "plan", "parts", "done")
        recordings, audio_s, seconds = 0, 0.0, 0.0
        failures: list[dict[str, Any]] = []
        for number in sorted(self.done()):
            said = json.loads(self.store.read(Part(number, ()).marker) or b"{}")
            recordings += said["recordings"]
            audio_s += said["audio_s"]
            seconds += said["seconds"]
            failures += said["failures"]
        report = Report(recordings, len(failures), audio_s, seconds, tuple(failures))
        self.store.write("report.json", json.dumps(report.to_dict(), ensure_ascii=False, indent=2).encode())
        return report


def _parts(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    part: list[Item] = []
    room = size
    for item in items:
        needed = num_recordings(item)
        if part and needed > room:
            yield part
            part, room = [], size
        part.append(item)
        room -= needed
    if part:
        yield part
