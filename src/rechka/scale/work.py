"""The work on one part of an archive: recordings to texts to one file, in a process of its own, here or elsewhere."""

from __future__ import annotations

import io
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rechka.data.listen import ahead
from rechka.errors import MissingExtra, RechkaError
from rechka.scale.items import Entry, Item, Reader
from rechka.scale.options import BatchOptions
from rechka.scale.store import Store
from rechka.types import Transcript

SIDE_BY_SIDE = 16
"""Recordings of a part that share the model's batches."""
AHEAD = 4
"""Recordings that are read before they are needed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A unit of work.

    Attributes:
        number: in the archive, from 0.
        items: recordings.
    """

    number: int
    items: tuple[Item, ...]

    @property
    def marker(self) -> str:
        """The file that says that the part is done."""
        return f"done/{self.number:07d}.json"

    def output(self, format_: str) -> str:
        """The file of its texts."""
        return f"parts/{self.number:07d}.{format_}"


class Worker:
    """A model, loaded once, that does one part after the other.

    Args:
        options: of the archive.
        place: of its output.
        load: gives the model; by default what ``options`` name.
    """

    def __init__(self, options: BatchOptions, place: str, load: Callable[[BatchOptions], Any] | None = None) -> None:
        self.options = options
        self.store = Store(place)
        self.asr = (load or _load)(options)
        self.reader = Reader()

    def do(
        self, part: Part, *, crashed: Mapping[str, str] | None = None, at: Callable[[str], None] | None = None
    ) -> Any:
        """Recognise a part and write it; what it says of itself is in its marker, which comes last.

        Args:
            part: to do. If its marker is there already, nothing is done.
            crashed: keys of recordings that ended a worker, with what is said of them; they are not tried again.
            at: told the key of the recording that comes next, one by one, so that whoever watches knows which one ended
                the worker.
        """
        before = self.store.read(part.marker)
        if before is not None:
            return json.loads(before)
        began, rows, failures, audio_s = time.monotonic(), [], [], 0.0
        for name, result in self._results(part, crashed or {}, at):
            if isinstance(result, Transcript):
                audio_s += result.duration
                rows.append({"input": name, "transcript": result.to_dict(), "error": None})
            else:
                failures.append({"input": name, "error": result})
                rows.append({"input": name, "transcript": None, "error": result})
        self.store.write(part.output(self.options.format), encode(rows, self.options.format))
        said = {
            "part": part.number, "recordings": len(rows), "audio_s": round(audio_s, 3),
            "seconds": round(time.monotonic() - began, 3), "failures": failures,
        }  # fmt: skip
        self.store.write(part.marker, json.dumps(said, ensure_ascii=False).encode())
        return said

    def _results(
        self, part: Part, crashed: Mapping[str, str], at: Callable[[str], None] | None
    ) -> Iterator[tuple[str, Transcript | dict[str, str]]]:
        from rechka.recognizers.finish import finish

        entries = self.reader.entries(part.items)
        for name, result in self._together(entries) if at is None else self._singly(entries, crashed, at):
            if isinstance(result, RechkaError):
                yield name, result.to_dict()
            elif isinstance(result, Transcript):
                yield name, finish(result, digits=self.options.digits, punctuate=self.options.punctuate)
            else:
                yield name, result

    def _together(self, entries: Iterator[Entry]) -> Iterator[tuple[str, Transcript | RechkaError]]:
        """Several recordings at a time, the next ones read meanwhile."""
        waiting: deque[str] = deque()

        def sources() -> Iterator[Any]:
            for entry, source in ahead(entries, Entry.open, window=AHEAD):
                if isinstance(source, MissingExtra):
                    raise source  # the same for all
                waiting.append(entry.name)
                yield source

        for result in self._heard(sources()):
            yield waiting.popleft(), result

    def _singly(
        self, entries: Iterator[Entry], crashed: Mapping[str, str], at: Callable[[str], None]
    ) -> Iterator[tuple[str, Transcript | RechkaError | dict[str, str]]]:
        """One recording after the other, telling which; those that ended a worker are left out."""
        for entry in entries:
            if entry.key in crashed:
                why, remedy = crashed[entry.key], "look at this recording by itself"
                yield entry.name, {"code": "internal", "message": why, "remedy": remedy}
                continue
            at(entry.key)
            for result in self._heard(iter([entry.open()])):
                yield entry.name, result

    def _heard(self, sources: Iterator[Any]) -> Iterator[Transcript | RechkaError]:
        options = self.options
        heard: Iterator[Transcript | RechkaError] = self.asr.transcribe_many(
            sources, channels=options.channels, hotwords=options.hotwords or None, batch=SIDE_BY_SIDE
        )
        return heard


def _load(options: BatchOptions) -> Any:
    import rechka

    return rechka.load(options.model, refine=options.refine, device=options.device, threads=options.threads)


def encode(rows: Iterable[Mapping[str, Any]], format_: str) -> bytes:
    """A part as bytes: JSON lines, or parquet with the transcript as JSON beside its text.

    Args:
        rows: ``input`` with ``transcript`` or ``error``.
        format_: ``"jsonl"`` or ``"parquet"``.
    """
    if format_ == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise MissingExtra("parquet needs pyarrow", remedy='pip install "rechka[data]"') from None
    rows = list(rows)
    heard = [row["transcript"] or {} for row in rows]
    columns = {
        "input": pa.array([row["input"] for row in rows], pa.string()),
        "text": pa.array([t.get("text") for t in heard], pa.string()),
        "duration": pa.array([t.get("duration") for t in heard], pa.float64()),
        "transcript": pa.array([json.dumps(t, ensure_ascii=False) if t else None for t in heard], pa.string()),
        "error": pa.array([row["error"] and row["error"]["code"] for row in rows], pa.string()),
        "message": pa.array([row["error"] and row["error"]["message"] for row in rows], pa.string()),
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()
