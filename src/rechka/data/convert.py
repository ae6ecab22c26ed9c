"""Recordings with texts from one format to another, whole or not at all.

    convert(["clips.tar"], "out.jsonl")

Formats that name files (``nemo``, ``kaldi``, ``csv``, ``gigaam``) name those that are there; recordings that are no
files of their own go into a folder beside. ``common-voice`` copies all into its ``clips``; ``parquet`` and ``tar`` hold
all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rechka.data.decode import SOON
from rechka.data.listen import Sound, ahead, listen
from rechka.data.shards import Row, Shard, find_shards
from rechka.data.write import Writer
from rechka.data.writers import writer_for
from rechka.errors import DataError, MissingExtra, OutputError, RechkaError


@dataclass
class Converted:
    """What became of the records.

    Attributes:
        written, seconds: how much was written.
        skipped: damaged records, and ``reasons`` of the last of them.
    """

    written: int = 0
    seconds: float = 0.0
    skipped: int = 0
    reasons: deque[str] = field(default_factory=lambda: deque(maxlen=20))


def convert(
    sources: Sequence[str],
    out: str | Path,
    *,
    format: str | None = None,
    max_bad: float = 0.05,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Converted:
    """Write the records of sources, in order, in another format.

    Args:
        sources: as ``find_shards`` takes them.
        out: a file or, for ``kaldi``, a folder; must not be there.
        format: a name of ``FORMATS``; None to go by the name of ``out``.
        max_bad: share of damaged records above which nothing is written. Judged from the 50th record on.
        progress: called with the number of records done.

    Raises:
        UsageError: no such format, or a name that does not tell it.
        OutputError: ``out`` is there, or cannot be written.
        DataError: too many damaged records, or none that can be used.
    """
    target = Path(out)
    kind = writer_for(target, format)
    shards = find_shards(sources)
    done = Converted()
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _free(target)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        writer = kind(target, temporary)
        with writer.opened:
            for number, (item, sound) in enumerate(ahead(_rows(shards), _listened, threads=threads), 1):
                _take(writer, item, sound, done, max_bad)
                if progress is not None:
                    progress(number)
            if not done.written:
                raise DataError(f"no record can be used; last: {done.reasons[-1] if done.reasons else 'there is none'}")
            writer.close()
        for final in writer.files.values():
            _free(final)
        for made, final in reversed(writer.files.items()):  # recordings first: what names them comes last
            made.replace(final)
    except OSError as error:
        if isinstance(error, RechkaError):
            raise
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return done


def _rows(shards: Sequence[Shard]) -> Iterator[tuple[str, Row | None]]:
    for shard in shards:
        for number, row in enumerate(shard.rows(), 1):
            yield f"{shard.place}:{number}", row


def _listened(item: tuple[str, Row | None]) -> Sound:
    if item[1] is None:
        raise DataError("no text, or no recording")
    row = item[1]
    try:
        told = (row.text, row.speaker, "" if isinstance(row.audio, bytes) else row.audio, row.extra)
        json.dumps(told, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"half a letter, which no format can hold: {error.object[error.start]!r}") from error
    return listen(row)


def _take(
    writer: Writer, item: tuple[str, Row | None], sound: Sound | RechkaError, done: Converted, max_bad: float
) -> None:
    place, row = item
    if isinstance(sound, MissingExtra):
        raise sound
    if row is not None and isinstance(sound, Sound):
        writer.add(row, sound)
        done.written += 1
        done.seconds += sound.seconds
    else:
        done.skipped += 1
        done.reasons.append(f"{place}: {sound}")
    total = done.written + done.skipped
    if total >= SOON and done.skipped > max_bad * total:
        raise DataError(
            f"{done.skipped} of {total} records are damaged, more than {100 * max_bad:g} %; last: {done.reasons[-1]}",
            remedy="see what rechka data check says, or raise --max-bad",
        )


def _free(place: Path) -> None:
    if place.exists():
        raise OutputError(f"{place} is there already", remedy="remove it, or write elsewhere")
