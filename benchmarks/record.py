"""What a benchmark leaves behind: rows with the CPU seconds of every round, as JSON, from which all pages are written.

A row is one comparison of rechka with one peer, both of which did the same work in turns within one run. Its ratio is
taken within a round: the peer's CPU seconds divided by ours, so above 1 rechka is faster.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    Attributes:
        what: was done, on which model.
        peer: the other program.
        audio_s: seconds of audio that a round takes on each side.
        ours_s, peer_s: CPU seconds of each round.
        result: whether both found the same, in a few words.
        ours: which of our ways, if there are several.
        detail: of the result, for the part's own page.
    """

    what: str
    peer: str
    audio_s: float
    ours_s: Sequence[float]
    peer_s: Sequence[float]
    result: str = ""
    ours: str = "rechka"
    detail: str = ""

    @property
    def ratios(self) -> list[float]:
        """The peer's time divided by ours, round by round."""
        return [theirs / ours for ours, theirs in zip(self.ours_s, self.peer_s, strict=True)]

    @property
    def median(self) -> float:
        """Of the ratios."""
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        """Faster or slower where three rounds of four say so, even where they do not agree."""
        share = sum(ratio > 1 for ratio in self.ratios) / len(self.ratios)
        if share >= 0.75:
            return "faster"
        return "**slower**" if share <= 0.25 else "even" if self.median >= 1 else "**even, rather slower**"

    def _speeds(self) -> tuple[float, float]:
        """Seconds of audio per CPU second, medians of the rounds: ours, theirs."""
        return self.audio_s / median(self.ours_s), self.audio_s / median(self.peer_s)

    def cells(self) -> list[str]:
        """Speeds of both, smallest, median and largest ratio, verdict."""
        ratios = self.ratios
        speeds = (f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in self._speeds())
        return [*speeds, *(f"{x:.2f}" for x in (min(ratios), self.median, max(ratios))), self.verdict]


@dataclass(slots=True)
class Record:
    """One part of the suite, measured once.

    Attributes:
        part: its name.
        rows: its comparisons.
        skipped: peers that were not measured, with the reason.
        versions: of rechka and of all that computed.
        more: figures that are no comparison of times.
        machine, day: where and when.
    """

    part: str
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=lambda: machine())
    day: str = field(default_factory=lambda: date.today().isoformat())

    @property
    def rounds(self) -> int:
        """Of every row."""
        return min((len(row.ours_s) for row in self.rows), default=0)

    def write(self, path: Path) -> None:
        """As JSON; seconds to a tenth of a millisecond."""
        told = asdict(self)
        for row in told["rows"]:
            for side in ("ours_s", "peer_s"):
                row[side] = [round(x, 4) for x in row[side]]
        path.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Record:
        """What ``write`` wrote."""
        told = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**told, "rows": [Row(**row) for row in told["rows"]]})


def table(rows: Iterable[Row]) -> list[str]:
    """Markdown lines, losses marked."""
    lines = [
        "| what | ours | beside | ours, audio s per CPU s | theirs | ratio: min | median | max | rechka is | result |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + ["| " + " | ".join([row.what, row.ours, row.peer, *row.cells(), row.result]) + " |" for row in rows]


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, and how busy it was already."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": names[0] if names else platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "vectors": next((name for name in ("amx_tile", "avx512_vnni", "avx512f", "avx2") if name in flags), ""),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load_before": round(os.getloadavg()[0], 1),
    }


def missing(python: str, module: str) -> str:
    """Why a Python cannot import a module, or nothing."""
    try:
        done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    said = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else said[-1] if said else f"it ended with {done.returncode}"


def versions(python: str, *packages: str) -> dict[str, str]:
    """Of distributions that a Python has."""
    code = (
        "import sys, json\nfrom importlib.metadata import version, PackageNotFoundError\nfound = {}\n"
        "for name in sys.argv[1:]:\n    try: found[name] = version(name)\n    except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def finish(record: Record, path: Path | None) -> None:
    """Print the table and what was skipped; write the JSON if a file is named."""
    print("\n".join(table(record.rows)))
    for peer, why in record.skipped.items():
        print(f"not measured: {peer}: {why}")
    if path is not None:
        record.write(path)
