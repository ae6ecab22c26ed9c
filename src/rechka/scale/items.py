"""What an archive is made of: files, and ranges of a dataset's rows; laid down in the plan, read again by workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rechka.data import places
from rechka.data.decode import source_of
from rechka.data.shards import Row, Shard, find_shards
from rechka.data.sources import label, unreadable
from rechka.errors import AudioNotFound, DataError, MissingExtra, RechkaError

MAX_REMOTE_BYTES = 1 << 30
"""Of one recording behind a URL, which is held in memory."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows ``start`` to ``stop`` of one shard of a dataset.

    Attributes:
        place: path or URL of the shard.
        start, stop: numbers of rows, the last not included.
        mark: of the first, see ``rechka.data.Shard.marks``.
    """

    place: str
    start: int
    stop: int
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """What was to be recognised and cannot be; it is a line of the results all the same.

    Attributes:
        name: of the record.
        message: why.
        remedy: what helps.
    """

    name: str
    message: str
    remedy: str = ""


Item = str | Rows | Lost
"""A path or URL of a recording, or one of the above."""


def num_recordings(item: Item) -> int:
    """How many recordings an item stands for."""
    return item.stop - item.start if isinstance(item, Rows) else 1


def to_json(item: Item) -> Any:
    """For the plan."""
    if isinstance(item, Rows):
        return {"rows": item.place, "start": item.start, "stop": item.stop, "mark": item.mark}
    return item if isinstance(item, str) else {"lost": item.name, "message": item.message, "remedy": item.remedy}


def from_json(value: Any) -> Item:
    """The inverse of ``to_json``.

    Raises:
        KeyError, TypeError, ValueError: a value of another kind.
    """
    if isinstance(value, str):
        return value
    if "rows" in value:
        return Rows(value["rows"], int(value["start"]), int(value["stop"]), int(value["mark"]))
    return Lost(value["lost"], value["message"], value["remedy"])


def of_source(source: str, size: int) -> Iterator[Rows | Lost]:
    """A dataset as ranges of at most ``size`` rows; the rows are counted, their audio is not read.

    A shard that breaks off gives the rows before, and what is lost.

    Raises:
        DataError: no such source, or a shard of which nothing can be read.
    """
    for shard in find_shards(source, texts=False):
        place = shard.place if places.is_url(shard.place) else os.path.abspath(shard.place)
        first, mark, number = 0, 0, 0
        try:
            for number, following in enumerate(shard.marks(), 1):
                if number - 1 - first == size:
                    yield Rows(place, first, number - 1, mark)
                    first = number - 1
                if number - 1 == first:
                    mark = following
        except DataError as error:
            if not number:
                raise
            yield Rows(place, first, number, mark)
            yield Lost(f"{place}:{number + 1}", f"{error.message}; broken off after record {number}", error.remedy)
        else:
            if number > first:
                yield Rows(place, first, number, mark)


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording on its way to the model.

    Attributes:
        key: its own among all of an archive.
        name: as it stands in the results.
        content: a path, URL or row, or why there is none.
    """

    key: str
    name: str
    content: str | Row | RechkaError

    def open(self) -> Any:
        """What a recogniser takes, read as far as needed, or the error in its place.

        Raises:
            MissingExtra: it is the same for all recordings of its kind.
        """
        if isinstance(self.content, RechkaError):
            return self.content
        if isinstance(self.content, str):
            return _fetched(self.content)
        try:
            return source_of(self.content)
        except MissingExtra:
            raise
        except RechkaError as error:
            return error


class Reader:
    """Finds the recordings of items. Ranges of one shard that come in their order cost one pass over it."""

    def __init__(self) -> None:
        self._shard: Shard | None = None
        self._rows: Iterator[Row | None] = iter(())
        self._next = 0

    def entries(self, items: Iterable[Item]) -> Iterator[Entry]:
        """Every recording of the items once, those that are not there as errors."""
        for item in items:
            if isinstance(item, Rows):
                yield from self._range(item)
            elif isinstance(item, Lost):
                yield Entry(item.name, item.name, DataError(item.message, remedy=item.remedy))
            else:
                yield Entry(item, item, item)

    def _range(self, item: Rows) -> Iterator[Entry]:
        failure: DataError | None = None
        for number in range(item.start, item.stop):
            key = f"{item.place}:{number + 1}"
            if failure is None:
                try:
                    self._move(item, number)
                    row = next(self._rows)
                    self._next += 1
                    yield (
                        Entry(key, key, unreadable(item.place, number + 1))
                        if row is None
                        else Entry(key, label(row), row)
                    )
                    continue
                except StopIteration:
                    failure = DataError(f"{item.place} has become shorter", remedy="the data must not change")
                except DataError as error:
                    failure = error
                self._shard = None
            yield Entry(key, key, failure)

    def _move(self, item: Rows, number: int) -> None:
        """Stand before a row."""
        shard = self._shard
        if shard is None or shard.place != item.place or self._next > number or (self._next < number and shard.seeks):
            self._shard = shard = find_shards(item.place, texts=False)[0]
            self._rows, self._next = shard.rows(item.start, item.mark), item.start
        while self._next < number:
            next(self._rows)
            self._next += 1


def _fetched(name: str) -> Any:
    """A path, the bytes behind a URL, or why there are none."""
    if not places.is_url(name):
        return name
    try:
        import fsspec

        with fsspec.open(name, "rb") as file:
            data = file.read(MAX_REMOTE_BYTES + 1)
    except ModuleNotFoundError:
        raise MissingExtra(f"{name} needs fsspec", remedy='pip install "rechka[data]"') from None
    except Exception as error:  # noqa: BLE001 - file systems raise what their libraries raise; it is this recording's failure
        return AudioNotFound(f"cannot read {name}: {error}", remedy="check the address and the rights")
    if len(data) > MAX_REMOTE_BYTES:
        return AudioNotFound(f"{name} is larger than {MAX_REMOTE_BYTES} bytes", remedy="cut it, or copy it here")
    return data
