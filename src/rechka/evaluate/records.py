"""The recordings that an evaluation goes through, as often as it needs: manifests, and what ``rechka.data`` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from rechka.data.decode import source_of
from rechka.data.places import is_url
from rechka.data.shards import Row, find_shards
from rechka.errors import DataError
from rechka.evaluate import manifest
from rechka.evaluate.manifest import Record

MANIFEST = ".jsonl"


class Records:
    """Records of sources, in order; every iteration reads them again, so that memory does not hold their audio.

    Args:
        sources: manifests, read strictly: a line that is no record is an error; other sources as ``find_shards`` takes
            them: a row that cannot be read is counted in ``bad``.

    With several sources each is a domain of its own, unless its records name one.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.bad = 0
        """Rows that could not be read in the last iteration."""
        self._several = len(sources) > 1
        self._parts: list[tuple[str, list[Record] | str]] = []
        for source in sources:
            local = source.endswith(MANIFEST) and not is_url(source)
            read = list(manifest.read(source, require_text=True)) if local else source
            if not isinstance(read, list):
                find_shards(read)  # a wrong name is told before a model is loaded
            elif not read:
                raise DataError(f"{source} holds no records", remedy="give a manifest with recordings and texts")
            self._parts.append((Path(source.partition("?")[0]).stem, read))

    @property
    def total(self) -> int | None:
        """How many records there are, if that is known before they are read."""
        lists = [part for _, part in self._parts if isinstance(part, list)]
        return sum(map(len, lists)) if len(lists) == len(self._parts) else None

    def __iter__(self) -> Iterator[Record]:
        self.bad = 0
        for domain, part in self._parts:
            for record in part if isinstance(part, list) else self._streamed(part):
                if self._several and "domain" not in record.extra:
                    record.extra["domain"] = domain
                yield record

    def _streamed(self, source: str) -> Iterator[Record]:
        for shard in find_shards(source):
            for row in shard.rows():
                if row is None:
                    self.bad += 1
                else:
                    yield of_row(row)


def of_row(row: Row) -> Record:
    """A row as a record that fetches its recording when it is heard."""
    whole = isinstance(row.audio, str) and row.start_s is None and not is_url(row.audio)
    if whole:
        return Record(Path(str(row.audio)), row.text, None, row.speaker or None, dict(row.extra))
    return Record(Path(row.name), row.text, None, row.speaker or None, dict(row.extra), partial(source_of, row))
