"""What a user may name where recordings are wanted: data sources beside files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rechka.data import places
from rechka.data.shards import SUFFIXES, Row, find_shards
from rechka.errors import DataError, RechkaError


def is_source(place: str) -> bool:
    """Whether a name means recordings with texts: by its ending, ``hf://``, or a Kaldi folder."""
    if place.startswith("hf://"):
        return True
    if not places.is_url(place) and os.path.isfile(os.path.join(place, "wav.scp")):
        return True
    return place.lower().endswith(SUFFIXES)


def recordings(source: str) -> Iterator[Row | RechkaError]:
    """The rows that a source names: of data, with texts or without, or one for every file of a URL or its pattern.

    Rows that cannot be read, and a source that breaks off, are errors in their place.
    """
    try:
        shards = find_shards(source, texts=False) if is_source(source) else []
        files = [] if shards else places.expand(source)
    except DataError as error:
        yield error
        return
    for place in files:
        yield Row(0, 0, "", place, name=place)
    for shard in shards:
        number = 0
        try:
            for number, row in enumerate(shard.rows(), 1):
                yield unreadable(shard.place, number) if row is None else row
        except DataError as error:
            yield DataError(f"{error.message}; broken off after record {number}", remedy=error.remedy)


def unreadable(place: str, number: int) -> DataError:
    """What is said of record ``number``, from 1, of a shard that names no recording."""
    return DataError(f"{place}:{number}: the record names no recording", remedy="see docs/data.md for what it may hold")


def label(row: Row) -> str:
    """What a recording is called where its result is given: its file's path, or its place in the source."""
    return str(row.audio) if isinstance(row.audio, str) and row.start_s is None else row.name
