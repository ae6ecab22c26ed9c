"""A row stream loses nothing and repeats nothing: over shuffles, splits and stops at any place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.data.shards import Row, Shard
from rechka.data.stream import RowStream
from rechka.errors import DataError, UsageError


class Numbers(Shard):
    """Rows that are nothing but their numbers; some cannot be read."""

    def __init__(self, index: int, size: int, bad: frozenset[int] = frozenset()) -> None:
        super().__init__(f"shard {index}", index)
        self.size, self.bad = size, bad

    def _rows(self) -> Iterator[Row | None]:
        for number in range(self.size):
            yield None if number in self.bad else Row(self.index, number, "да", "a.wav")


SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=7)
SETUPS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "shuffle": st.integers(0, 20),
        "interleave": st.integers(1, 5),
        "epochs": st.integers(1, 3),
    }
)


def made(sizes: list[int], setup: dict[str, int], **more: int) -> RowStream:
    return RowStream([Numbers(i, size) for i, size in enumerate(sizes)], **{**setup, **more})


def keys(rows: RowStream, count: int | None = None) -> list[tuple[int, int]]:
    return [(row.shard, row.number) for row in islice(rows, count)]


@settings(deadline=None)
@given(SIZES, SETUPS, st.integers(1, 5))
def test_consumers_together_see_every_row_once_an_epoch(
    sizes: list[int], setup: dict[str, int], consumers: int
) -> None:
    seen = [key for c in range(consumers) for key in keys(made(sizes, setup, consumer=c, num_consumers=consumers))]
    expected = [(i, row) for i, size in enumerate(sizes) for row in range(size)] * setup["epochs"]
    assert sorted(seen) == sorted(expected)


@settings(deadline=None)
@given(SIZES, SETUPS, st.data())
def test_a_stopped_stream_goes_on_as_if_nothing_had_happened(
    sizes: list[int], setup: dict[str, int], data: st.DataObject
) -> None:
    whole = keys(made(sizes, setup))
    at = data.draw(st.integers(0, len(whole)))
    first = made(sizes, setup)
    head = keys(first, at)
    state = json.loads(json.dumps(first.state()))
    second = made(sizes, setup)
    second.restore(state)
    assert head + keys(second) == whole


@settings(deadline=None)
@given(SIZES, SETUPS, st.integers(1, 4), st.data())
def test_consumers_that_are_stopped_anywhere_lose_and_repeat_no_row_and_count_damage_once(
    sizes: list[int], setup: dict[str, int], consumers: int, data: st.DataObject
) -> None:
    """Workers and ranks together, each stopped at a point of its own, with rows that cannot be read among the rest."""
    bad = [frozenset(row for row in range(size) if (row + shard) % 4 == 3) for shard, size in enumerate(sizes)]

    def stream(consumer: int) -> RowStream:
        shards = [Numbers(i, size, bad[i]) for i, size in enumerate(sizes)]
        return RowStream(shards, **setup, consumer=consumer, num_consumers=consumers)

    seen: list[tuple[int, int]] = []
    damaged = 0
    for consumer in range(consumers):
        first, second = stream(consumer), stream(consumer)
        seen += keys(first, data.draw(st.integers(0, sum(sizes))))
        second.restore(json.loads(json.dumps(first.state())))
        seen += keys(second)
        damaged += sum(second.bad.values())
    good = [(i, row) for i, size in enumerate(sizes) for row in range(size) if row not in bad[i]]
    assert sorted(seen) == sorted(good * setup["epochs"])
    assert damaged == sum(map(len, bad)) * setup["epochs"]


@settings(deadline=None)
@given(SIZES, SETUPS)
def test_each_epoch_is_whole_before_the_next_begins(sizes: list[int], setup: dict[str, int]) -> None:
    seen, size = keys(made(sizes, setup)), sum(sizes)
    for epoch in range(setup["epochs"]):
        assert len(set(seen[epoch * size : (epoch + 1) * size])) == size


def test_shuffling_mixes_within_and_across_shards_and_epochs_differ() -> None:
    stream = RowStream([Numbers(i, 50) for i in range(8)], seed=1, shuffle=60, interleave=4, epochs=2)
    seen = keys(stream)
    assert seen[:400] != sorted(seen[:400])
    assert len({shard for shard, _ in seen[:20]}) >= 3
    assert seen[:400] != seen[400:]
    assert keys(RowStream([Numbers(0, 5), Numbers(1, 2)], shuffle=0)) == [(0, n) for n in range(5)] + [(1, 0), (1, 1)]


def test_rows_that_cannot_be_read_are_counted() -> None:
    stream = RowStream([Numbers(0, 5, frozenset({1, 3})), Numbers(1, 2)], shuffle=0)
    assert keys(stream) == [(0, 0), (0, 2), (0, 4), (1, 0), (1, 1)]
    assert stream.bad == {0: 2}


def test_data_that_changed_is_noticed() -> None:
    stream = RowStream([Numbers(0, 9)], shuffle=5)
    keys(stream, 2)
    other = RowStream([Numbers(0, 1)], shuffle=5)
    with pytest.raises(DataError, match="no longer there"):
        other.restore(stream.state())


def test_states_of_other_consumers_and_senseless_numbers_are_refused() -> None:
    state = RowStream([Numbers(0, 3)], consumer=0, num_consumers=2).state()
    with pytest.raises(UsageError, match="as many workers"):
        RowStream([Numbers(0, 3)], consumer=1, num_consumers=2).restore(state)
    with pytest.raises(UsageError, match="consumer"):
        RowStream([Numbers(0, 3)], consumer=2, num_consumers=2)
