"""How many cores this process may really use: the machine's, the affinity's, the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores(cgroup: Path = CGROUP) -> int:
    """Whole cores, at least one.

    A container with a quota of two cores on a machine with 64 sees 64; that many threads would take turns and be
    throttled. Source: the Linux kernel's ``cgroup-v2`` (``cpu.max``) and ``sched-bwc`` (``cpu.cfs_quota_us``) pages.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, count if quota is None else min(count, round(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores that the control group allows, None if it sets no limit."""
    fields = _words(cgroup / "cpu.max")  # version 2: "max 100000" or "150000 100000"
    if len(fields) != 2:  # version 1
        fields = _words(cgroup / "cpu/cpu.cfs_quota_us") + _words(cgroup / "cpu/cpu.cfs_period_us")
    try:
        quota, period = (float(field) for field in fields)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
