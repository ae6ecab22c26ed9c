"""Where recordings with texts come from: one class a format, each a numbered sequence of rows that can start anywhere.

Recognised by name: ``.jsonl`` (NeMo), ``.tsv`` (Common Voice, GigaAM), ``.csv``, ``.parquet``, ``.tar`` (WebDataset), a
Kaldi folder (``wav.scp`` and ``text``), a folder of parquet or tar files, and ``hf://owner/name?split=train`` (the
parquet files that the Hugging Face Hub keeps of a dataset). Names may hold ``*`` and ``{000..099}``; all but Kaldi may
be URLs that fsspec reaches.
"""

from __future__ import annotations

import csv
import json
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast
from urllib.parse import parse_qs, urlsplit

from rechka.data import places
from rechka.errors import DataError, MissingExtra

TEXT_NAMES = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_transcription")
AUDIO_NAMES = ("audio_filepath", "audio", "path", "file", "wav", "wav_filename")
SPEAKER_NAMES = ("speaker", "speaker_id", "client_id")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm")
READ = frozenset({*AUDIO_SUFFIXES, ".json", ".txt"})
"""Members of an archive that make a row."""
MAX_ROW_BYTES = 512 * 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One recording with its text, audio not yet read.

    Attributes:
        shard, number: where it stands: the shard's index and the row's number in it.
        text: what is said.
        audio: path or URL of the file, or its bytes, still encoded.
        speaker: who, or "".
        start_s, duration_s: the part of the file that is meant; None for the whole.
        name: for messages.
    """

    shard: int
    number: int
    text: str
    audio: str | bytes
    speaker: str = ""
    start_s: float | None = None
    duration_s: float | None = None
    name: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class Shard(ABC):
    """A numbered sequence of rows.

    Args:
        place: file or folder.
        index: the shard's number among all.
        texts: whether a record without a text is one that cannot be read; else its text is "".
    """

    seeks = False
    """Whether reading from the middle costs no reading of what stands before it, given a mark."""

    def __init__(self, place: str, index: int, *, texts: bool = True) -> None:
        self.place = place
        self.index = index
        self.texts = texts

    def rows(self, start: int = 0, mark: int = 0) -> Iterator[Row | None]:
        """Rows from number ``start`` on; None in place of one that cannot be read, so that numbers stay.

        Args:
            start: number of the first.
            mark: what ``marks`` gave for that row, or 0.

        Raises:
            DataError: the shard itself cannot be read.
        """
        return islice(self._rows(), start, None)

    def marks(self) -> Iterator[int]:
        """One number a row, so that rows can be counted without their audio, and read from each of them on.

        Raises:
            DataError: as ``rows``.
        """
        return (0 for _ in self._rows())

    @abstractmethod
    def _rows(self) -> Iterator[Row | None]: ...

    def _row(self, number: int, fields: Mapping[str, Any], base: str) -> Row | None:
        """A row from named fields, or None."""
        text, audio, speaker = _text(fields), _first(fields, AUDIO_NAMES), _first(fields, SPEAKER_NAMES)
        if text is None and not self.texts:
            text = ""
        if not isinstance(text, str) or not isinstance(audio, str) or not audio:
            return None
        start, duration = _seconds(fields.get("offset")), _seconds(fields.get("duration"))
        known = {*TEXT_NAMES, *AUDIO_NAMES, *SPEAKER_NAMES, "offset", "duration"}
        extra = {str(name): value for name, value in fields.items() if name is not None and name not in known}
        return Row(
            self.index, number, text, places.beside(base, audio), str(speaker or ""), start,
            duration if start is not None else None, f"{self.place}:{number + 1}", extra,
        )  # fmt: skip


def _first(fields: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def _text(fields: Mapping[str, Any]) -> Any:
    """The text of a record; "" if it has one that is empty, which means silence; None if it has none."""
    return _first(fields, TEXT_NAMES) or ("" if any(fields.get(name) == "" for name in TEXT_NAMES) else None)


def _seconds(value: object) -> float | None:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):  # a whole number may be larger than any float
        return None
    return seconds if 0 <= seconds < 1e7 else None


class JsonLines(Shard):
    """One JSON object a line."""

    seeks = True

    def rows(self, start: int = 0, mark: int = 0) -> Iterator[Row | None]:
        """See ``Shard.rows``."""
        return self._rows(start, mark) if mark else islice(self._rows(), start, None)

    def marks(self) -> Iterator[int]:
        """See ``Shard.marks``: where the line begins, or blank lines before it."""
        with places.open_binary(self.place) as file:
            mark = 0
            for _ in _lines(file, self.place):
                yield mark
                mark = file.tell()

    def _rows(self, start: int = 0, mark: int = 0) -> Iterator[Row | None]:
        with places.open_binary(self.place) as file:
            file.seek(mark)
            for number, line in enumerate(_lines(file, self.place), start):
                try:
                    fields = json.loads(line)
                except (ValueError, RecursionError):  # brackets within brackets, thousands deep
                    fields = None
                yield self._row(number, fields, self.place) if isinstance(fields, dict) else None


class Table(Shard):
    """CSV or TSV with a header. Common Voice keeps its recordings in ``clips`` beside the table."""

    def _rows(self) -> Iterator[Row | None]:
        tabs = self.place.lower().endswith(".tsv")
        with places.open_binary(self.place) as file:
            lines = (line.decode("utf-8", "replace") for line in _lines(file, self.place))
            # Common Voice does not quote: a quotation mark there is a letter of the sentence.
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.DictReader(lines)
            try:
                names = set(reader.fieldnames or ())  # reads the first line
                base = places.beside(self.place, "clips/x") if {"client_id", "sentence"} <= names else self.place
                for number, fields in enumerate(reader):
                    yield self._row(number, fields, base)
            except csv.Error as error:
                raise DataError(f"{self.place} is no table: {error}") from error


class Kaldi(Shard):
    """A Kaldi data folder: ``wav.scp``, ``text``, and if there ``segments`` and ``utt2spk``. Commands are not run.

    Where no texts are needed, a folder without ``text`` has a row for every segment, or recording.
    """

    def _rows(self) -> Iterator[Row | None]:
        folder = Path(self.place)
        recordings, speakers = self._map(folder / "wav.scp"), self._map(folder / "utt2spk", needed=False)
        texts, segments = self._map(folder / "text", needed=self.texts), self._map(folder / "segments", needed=False)
        if not texts:
            texts = dict.fromkeys(segments or recordings, "")
        for number, (utterance, text) in enumerate(texts.items()):
            recording, start, duration = utterance, None, None
            if segments:
                parts = segments.get(utterance, "").split()
                times = [_seconds(part) for part in parts[1:3]]
                if len(times) < 2 or times[0] is None or times[1] is None or times[1] <= times[0]:
                    yield None
                    continue
                recording, start, duration = parts[0], times[0], times[1] - times[0]
            audio = recordings.get(recording, "")
            if not audio or audio.endswith("|"):
                yield None
                continue
            place = places.beside(str(folder / "wav.scp"), audio)
            yield Row(self.index, number, text, place, speakers.get(utterance, ""), start, duration, utterance)

    @staticmethod
    def _map(path: Path, *, needed: bool = True) -> dict[str, str]:
        """First word of each line to the rest of it."""
        if not needed and not path.exists():
            return {}
        with places.open_binary(str(path)) as file:
            pairs = (line.decode("utf-8", "replace").strip().partition(" ") for line in _lines(file, str(path)))
            return {key: value.strip() for key, _, value in pairs if key}


class Parquet(Shard):
    """A parquet file; only the columns that are needed are read. Audio is a path, or the Hub's struct of bytes."""

    seeks = True

    def marks(self) -> Iterator[int]:
        """See ``Shard.marks``; the rows are counted in the file's metadata."""
        with self._table() as table:
            rows = table.metadata.num_rows
        return repeat(0, rows)

    @contextmanager
    def _table(self) -> Iterator[Any]:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingExtra(f"{self.place} needs pyarrow", remedy='pip install "rechka[data]"') from error
        with places.open_binary(self.place) as file:
            try:
                yield parquet.ParquetFile(file)
            except (arrow.ArrowException, OSError) as error:
                raise DataError(f"{self.place} is no readable parquet file: {error}") from error

    def rows(self, start: int = 0, mark: int = 0) -> Iterator[Row | None]:
        """See ``Shard.rows``; row groups before ``start`` are skipped unread."""
        with self._table() as table:
            wanted = {*TEXT_NAMES, *AUDIO_NAMES, *SPEAKER_NAMES, "offset", "duration", "domain"}
            columns = [name for name in table.schema_arrow.names if name in wanted]
            number = 0
            for group in range(table.num_row_groups):
                size = table.metadata.row_group(group).num_rows
                if number + size <= start:
                    number += size
                    continue
                for batch in table.iter_batches(32, row_groups=[group], columns=columns):
                    for fields in self._values(batch):
                        if number >= start:
                            yield self._parsed(number, fields)
                        number += 1

    def _rows(self) -> Iterator[Row | None]:
        return self.rows()

    def _values(self, batch: Any) -> list[dict[str, Any]]:
        try:
            return cast("list[dict[str, Any]]", batch.to_pylist())
        except (ValueError, OverflowError) as error:  # text that is no UTF-8, dates that Python has not
            raise DataError(f"{self.place} holds values that cannot be read: {error}") from error

    def _parsed(self, number: int, fields: dict[str, Any]) -> Row | None:
        audio = fields.get("audio")
        if not isinstance(audio, dict):
            return self._row(number, fields, self.place)
        content, path = audio.get("bytes"), audio.get("path")
        row = self._row(number, {**fields, "audio": path or "bytes"}, self.place)
        if row is None or content is None:
            return row if path else None
        return Row(row.shard, row.number, row.text, content, row.speaker, None, None, row.name, row.extra)


class Tar(Shard):
    """A WebDataset archive: members that share a name up to its first dot are one row. Nothing is unpacked to disk."""

    @property
    def seeks(self) -> bool:  # type: ignore[override]
        """See ``Shard.seeks``: unless it is compressed."""
        return self.place.lower().endswith(".tar")

    def rows(self, start: int = 0, mark: int = 0) -> Iterator[Row | None]:
        """See ``Shard.rows``."""
        return self._rows(start, mark) if mark else islice(self._rows(), start, None)

    def marks(self) -> Iterator[int]:
        """See ``Shard.marks``: where the header of the row's first member begins; the audio is passed over."""
        last = None
        for key, _, mark, _ in self._members(0, audio=False):
            if key != last:
                yield mark if self.seeks else 0
            last = key

    def _members(self, mark: int, *, audio: bool = True) -> Iterator[tuple[str, str, int, bytes | None]]:
        """Regular files from a mark on: row, suffix in lower case, own mark, content if wanted and not too large.

        What no row is made of, pictures say, comes as empty.
        """
        mode: Any = "r|" if mark else "r:" if self.seeks and not audio else "r|*"
        row, room = "", 0  # what a row may still hold in memory: a small archive may unpack to whatever it likes
        with places.open_binary(self.place) as file:
            try:
                file.seek(mark)
                with tarfile.open(fileobj=file, mode=mode) as archive:
                    for member in archive:
                        archive.members = []  # type: ignore[attr-defined]  # it would remember all of them
                        if not member.isreg():
                            continue
                        path = PurePosixPath(member.name)
                        stem, _, suffix = path.name.partition(".")
                        key, suffix = str(path.parent / stem), "." + suffix.lower()
                        if key != row:
                            row, room = key, MAX_ROW_BYTES
                        content = None
                        if audio and suffix not in READ:
                            content = b""
                        elif audio and member.size <= room:
                            opened = archive.extractfile(member)
                            content = opened.read() if opened else b""
                            room -= len(content)
                        yield key, suffix, member.offset, content
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                raise DataError(f"{self.place} is no readable tar archive: {error}") from error

    def _rows(self, start: int = 0, mark: int = 0) -> Iterator[Row | None]:
        number, last, parts = start, "", dict[str, bytes]()
        for key, suffix, _, content in self._members(mark):
            if key != last and parts:
                yield self._joined(number, last, parts)
                number, parts = number + 1, {}
            last = key
            if content is None:
                parts[""] = b""  # the row stays, without audio: it is counted as bad
            else:
                parts[suffix] = content
        if parts:
            yield self._joined(number, last, parts)

    def _joined(self, number: int, key: str, parts: dict[str, bytes]) -> Row | None:
        audio = next((parts[suffix] for suffix in AUDIO_SUFFIXES if suffix in parts), None)
        fields: Any = {}
        try:
            if ".json" in parts:
                fields = json.loads(parts[".json"])
            text = _text(fields) if isinstance(fields, dict) else None
            if text is None and ".txt" in parts:
                text = parts[".txt"].decode("utf-8").strip()
        except (ValueError, RecursionError):
            return None
        if text is None and not self.texts:
            text = ""
        if audio is None or not isinstance(text, str):
            return None
        speaker = str(_first(fields, SPEAKER_NAMES) or "") if isinstance(fields, dict) else ""
        return Row(self.index, number, text, audio, speaker, None, None, f"{self.place}:{key}")


def _lines(file: IO[bytes], place: str) -> Iterator[bytes]:
    """Lines of bounded length, a byte order mark at the beginning dropped, blank ones left out."""
    first = True
    while line := _line(file, place):
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{place}: a line is longer than {MAX_LINE_BYTES} bytes; this is no manifest")
        if first:
            line, first = line.removeprefix(b"\xef\xbb\xbf"), False
        if line.strip():
            yield line


def _line(file: IO[bytes], place: str) -> bytes:
    try:
        return file.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read on in {place}: {error}") from error


_BY_SUFFIX: dict[str, type[Shard]] = {
    ".jsonl": JsonLines, ".json": JsonLines, ".csv": Table, ".tsv": Table, ".parquet": Parquet, ".tar": Tar,
    ".tar.gz": Tar, ".tgz": Tar,
}  # fmt: skip

SUFFIXES = tuple(_BY_SUFFIX)
"""Endings of names that are recognised."""


def find_shards(sources: str | Path | Iterable[str | Path], *, texts: bool = True) -> list[Shard]:
    """The shards that sources name, in order.

    Args:
        sources: one or more.
        texts: see ``Shard``.

    Raises:
        DataError: a source of no known format, or a pattern that matches nothing.
    """
    named = [sources] if isinstance(sources, (str, Path)) else list(sources)
    found: list[tuple[type[Shard], str]] = []
    for source in named:
        place = str(source)
        for name in expand_hub(place) if place.startswith("hf://") else places.expand(place):
            found += _kinds(name)
    if not found:
        raise DataError("no source of data was named", remedy="give manifests, tables, archives or folders")
    return [kind(name, index, texts=texts) for index, (kind, name) in enumerate(found)]


def _kinds(place: str) -> list[tuple[type[Shard], str]]:
    if not places.is_url(place) and os.path.isfile(os.path.join(place, "wav.scp")):
        return [(Kaldi, place)]
    kind = next((kind for suffix, kind in _BY_SUFFIX.items() if place.lower().endswith(suffix)), None)
    if kind is not None:
        return [(kind, place)]
    inside = places.children(place, (".parquet", ".tar"))
    if inside:
        return [(_BY_SUFFIX[".parquet" if name.lower().endswith(".parquet") else ".tar"], name) for name in inside]
    known = ", ".join(_BY_SUFFIX)
    raise DataError(
        f"{place} is in no known format", remedy=f"known are {known}, Kaldi folders and folders of parquet or tar files"
    )


def expand_hub(url: str) -> list[str]:
    """``hf://owner/name?split=train&config=default`` to the parquet files of that split on the Hugging Face Hub."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    name = f"{parts.netloc}{parts.path}".strip("/")
    if name.startswith("datasets/") or name.count("/") != 1:
        return places.expand(url)  # a full path within the Hub
    split, config = query.get("split", ["train"])[0], query.get("config", ["default"])[0]
    return places.expand(f"hf://datasets/{name}@~parquet/{config}/{split}/*.parquet")
