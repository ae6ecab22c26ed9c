"""How late the event loop is: every time at which it should have woken up counts."""

import pytest

from rechka.engine.metrics import Registry

pytest.importorskip("starlette", reason="the server extra is not installed")
from rechka.server.lag import EVERY_S, MAX_MISSED, RECENT_S, LagWatch, count_process


def counts(metrics):
    """Wake-ups below each bound."""
    lines = [line for line in metrics.render().splitlines() if line.startswith("rechka_loop_lag_seconds_bucket")]
    return {line.split('"')[1]: int(line.split()[-1]) for line in lines}


def test_wake_ups_missed_in_one_stop_count_each():
    now = [100.0]
    metrics = Registry()
    watch = LagWatch(metrics, lambda: now[0])
    for _ in range(80):
        now[0] += EVERY_S
        assert watch.woke(now[0] - 0.0002) == pytest.approx(now[0] - 0.0002 + EVERY_S)
    now[0] += 1.0
    due = watch.woke(now[0] - 1.0 + 1e-6)
    assert now[0] < due <= now[0] + EVERY_S
    found = counts(metrics)
    assert (found["0.001"], found["0.05"]) == (80, 81)  # the twenty others are up to a second late
    assert found["+Inf"] == 100
    assert watch.worst == pytest.approx(1.0, abs=0.001)
    now[0] += RECENT_S + 0.1
    watch.woke(now[0])
    assert watch.worst == 0.0


def test_a_machine_that_slept_for_a_day():
    metrics = Registry()
    now = [100_000.0]
    assert LagWatch(metrics, lambda: now[0]).woke(now[0] - 86400) > now[0]
    assert counts(metrics)["+Inf"] == MAX_MISSED


def test_the_process_counts_itself():
    metrics = Registry()
    count_process(metrics)
    text = metrics.render()
    assert "# TYPE process_cpu_seconds_total counter" in text
    values = dict(line.split() for line in text.splitlines() if not line.startswith("#"))
    assert float(values["process_cpu_seconds_total"]) > 0
    if "process_resident_memory_bytes" in values:
        assert int(values["process_resident_memory_bytes"]) > 10 << 20
