"""Counters, gauges and histograms in Prometheus' text format.

Small on purpose: three kinds, labels, one lock, no background work. Source of the format: Prometheus' "Exposition
formats", text version 0.0.4.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_SERIES = 1000
"""Label combinations of one metric; further ones are counted under ``other``, so that no client can fill the memory."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds for latencies, seconds."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Bounds for batch sizes."""


class Metric:
    """One name with its label names; ``labels(...)`` are given with every value, in order."""

    kind = "untyped"

    def __init__(self, name: str, help_: str, labels: Sequence[str] = ()) -> None:
        self.name, self.help, self.label_names = name, help_, tuple(labels)
        self._lock = threading.Lock()

    def _key(self, labels: tuple[str, ...], known: dict[tuple[str, ...], float]) -> tuple[str, ...]:
        if len(labels) != len(self.label_names):
            raise TypeError(f"{self.name} has labels {self.label_names}, got {labels}")
        if labels in known or len(known) < MAX_SERIES:
            return labels
        return ("other",) * len(labels)

    def lines(self) -> list[str]:
        """The samples as text."""
        raise NotImplementedError

    def _line(self, suffix: str, labels: Sequence[tuple[str, str]], value: float) -> str:
        inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        return (
            f"{self.name}{suffix}{{{inside}}} {_number(value)}" if inside else f"{self.name}{suffix} {_number(value)}"
        )


class Counter(Metric):
    """A number that only grows."""

    kind = "counter"

    def __init__(self, name: str, help_: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help_, labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Count."""
        with self._lock:
            key = self._key(labels, self._values)
            self._values[key] = self._values.get(key, 0.0) + amount

    def value(self, *labels: str) -> float:
        """What was counted so far."""
        return self._values.get(labels, 0.0)

    def lines(self) -> list[str]:
        """The samples as text."""
        with self._lock:
            values = sorted(self._values.items())
        return [self._line("", list(zip(self.label_names, key, strict=True)), value) for key, value in values]


class Gauge(Metric):
    """A number asked for when it is read: ``read`` gives the value of each combination of labels, or one number."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help_: str,
        read: Callable[[], float | dict[tuple[str, ...], float]],
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(name, help_, labels)
        self._read = read

    def lines(self) -> list[str]:
        """The samples as text."""
        found = self._read()
        values = found if isinstance(found, dict) else {(): found}
        return [self._line("", list(zip(self.label_names, key, strict=True)), v) for key, v in sorted(values.items())]


class Histogram(Metric):
    """How often values lay below each bound."""

    kind = "histogram"

    def __init__(self, name: str, help_: str, bounds: Sequence[float] = SECONDS) -> None:
        super().__init__(name, help_)
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    @property
    def count(self) -> int:
        """Values observed."""
        return sum(self._counts)

    def lines(self) -> list[str]:
        """The samples as text."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        out, below = [], 0
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            below += count
            out.append(self._line("_bucket", [("le", _number(bound))], below))
        return [*out, self._line("_sum", [], total), self._line("_count", [], below)]


class Registry:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}

    def counter(self, name: str, help_: str, labels: Sequence[str] = ()) -> Counter:
        """A new counter, or the one of that name."""
        found = self._metrics.setdefault(name, Counter(name, help_, labels))
        assert isinstance(found, Counter)
        return found

    def gauge(
        self,
        name: str,
        help_: str,
        read: Callable[[], float | dict[tuple[str, ...], float]],
        labels: Sequence[str] = (),
        *,
        grows: bool = False,
    ) -> None:
        """A gauge; a second one of that name takes its place. ``grows``: it is a counter that something else counts."""
        self._metrics[name] = found = Gauge(name, help_, read, labels)
        found.kind = "counter" if grows else "gauge"

    def histogram(self, name: str, help_: str, bounds: Sequence[float] = SECONDS) -> Histogram:
        """A new histogram, or the one of that name."""
        found = self._metrics.setdefault(name, Histogram(name, help_, bounds))
        assert isinstance(found, Histogram)
        return found

    def render(self) -> str:
        """All of them in Prometheus' text format."""
        out = []
        for metric in self._metrics.values():
            out += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
        return "\n".join(out) + "\n"


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
