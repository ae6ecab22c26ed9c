"""The writers, one a format; see ``rechka.data.write``."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from rechka.data.listen import Sound
from rechka.data.places import is_url
from rechka.data.shards import Row
from rechka.data.write import Writer, encoded, one_line
from rechka.errors import MissingExtra, UsageError


class NemoWriter(Writer):
    """One JSON object a line: ``audio_filepath``, ``duration``, ``text``, ``speaker``, and what else the record has."""

    def __init__(self, out: Path, folder: Path) -> None:
        super().__init__(out, folder)
        self.files[folder / "manifest"] = out
        self._file = self.opened.enter_context((folder / "manifest").open("w", encoding="utf-8"))

    def add(self, row: Row, sound: Sound) -> None:
        """See ``Writer``."""
        fields: dict[str, Any] = {"audio_filepath": self.told(row, parts=True)}
        if row.start_s is not None:
            fields["offset"] = row.start_s
        fields["duration"] = round(sound.seconds, 3)
        fields["text"] = row.text.strip()
        if row.speaker:
            fields["speaker"] = row.speaker
        extra = {name: value for name, value in row.extra.items() if name not in fields}
        self._file.write(json.dumps(fields | extra, ensure_ascii=False, default=str) + "\n")


class TableWriter(Writer):
    """A table with a header; ``columns`` names what is written."""

    columns: tuple[str, ...] = ("path", "duration", "text", "speaker")
    tabs = False

    def __init__(self, out: Path, folder: Path) -> None:
        super().__init__(out, folder)
        self.files[folder / "table"] = out
        self._file = self.opened.enter_context((folder / "table").open("w", encoding="utf-8", newline=""))
        self._csv = csv.writer(self._file)
        self._line(self.columns)

    def add(self, row: Row, sound: Sound) -> None:
        """See ``Writer``."""
        self._line((self.told(row, parts=False), f"{sound.seconds:.3f}", row.text.strip(), row.speaker))

    def _line(self, values: Iterable[str]) -> None:
        if self.tabs:  # these tables know no quoting: a quotation mark is a letter of the text
            self._file.write("\t".join(map(one_line, values)) + "\n")
        else:
            self._csv.writerow(values)


class GigaamWriter(TableWriter):
    """GigaAM's table: path, duration, transcription, separated by tabs. It has no speakers."""

    columns = ("path", "duration", "transcription")
    tabs = True

    def add(self, row: Row, sound: Sound) -> None:
        """See ``Writer``."""
        self._line((self.told(row, parts=False), f"{sound.seconds:.3f}", row.text))


class CommonVoiceWriter(TableWriter):
    """Common Voice's table beside a folder ``clips`` with all recordings."""

    columns = ("client_id", "path", "sentence")
    tabs = True

    def add(self, row: Row, sound: Sound) -> None:
        """See ``Writer``."""
        self._line((row.speaker, self.kept(row, self.out.parent / "clips").name, row.text))


class KaldiWriter(Writer):
    """A folder with ``wav.scp``, ``text``, ``utt2spk``, ``spk2utt``, ``utt2dur``, and if needed ``segments``.

    Names of records begin with their speaker, and all lists are sorted, as Kaldi wants. The lists are held in memory.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        super().__init__(out, folder)
        self._lists: dict[str, dict[str, str]] = {name: {} for name in ("text", "utt2spk", "utt2dur", "segments")}
        self._recordings: dict[str, str] = {}
        self._by_place: dict[str, str] = {}
        self._whole = True
        self._made = folder / "kaldi"
        self._made.mkdir()
        self.files[self._made] = out

    def add(self, row: Row, sound: Sound) -> None:
        """See ``Writer``."""
        speaker = one_line(row.speaker).replace(" ", "_")
        name = self.name_of(row)
        utterance = f"{speaker}-{name}" if speaker else name
        place = self._inside(row, name) if isinstance(row.audio, bytes) else self._outside(row.audio)
        recording = self._by_place.setdefault(place, utterance)
        self._recordings[recording] = place
        lists, start = self._lists, row.start_s or 0.0
        lists["text"][utterance] = one_line(row.text)
        lists["utt2spk"][utterance] = speaker or utterance
        lists["utt2dur"][utterance] = f"{sound.seconds:.3f}"
        lists["segments"][utterance] = f"{recording} {start:.6f} {start + sound.seconds:.6f}"
        self._whole = self._whole and row.start_s is None

    def _inside(self, row: Row, name: str) -> str:
        """Put a recording into the folder, which is moved as a whole."""
        content, suffix = encoded(row)
        (self._made / "audio").mkdir(exist_ok=True)
        (self._made / "audio" / (name + suffix)).write_bytes(content)
        return f"audio/{name}{suffix}"

    @staticmethod
    def _outside(audio: str) -> str:
        return audio if is_url(audio) else str(Path(audio).absolute())

    def close(self) -> None:
        """See ``Writer``."""
        lists = dict(self._lists, **{"wav.scp": self._recordings})
        if self._whole and len(self._recordings) == len(self._lists["text"]):
            del lists["segments"]
        speakers: dict[str, list[str]] = {}
        for utterance, speaker in sorted(self._lists["utt2spk"].items()):
            speakers.setdefault(speaker, []).append(utterance)
        lists["spk2utt"] = {speaker: " ".join(names) for speaker, names in speakers.items()}
        for name, lines in lists.items():
            text = "".join(f"{key} {value}".rstrip() + "\n" for key, value in sorted(lines.items()))
            (self._made / name).write_text(text, encoding="utf-8")


class ParquetWriter(Writer):
    """Parquet as the Hugging Face Hub keeps datasets: ``audio`` (bytes, path), ``text``, ``speaker``, ``duration``."""

    rows_per_group = 100

    def __init__(self, out: Path, folder: Path) -> None:
        super().__init__(out, folder)
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingExtra("parquet needs pyarrow", remedy='pip install "rechka[data]"') from error
        text, number = ({"dtype": kind, "_type": "Value"} for kind in ("string", "float64"))
        features = {"audio": {"_type": "Audio"}, "text": text, "speaker": text, "duration": number}
        audio = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        schema = arrow.schema(
            [("audio", audio), ("text", arrow.string()), ("speaker", arrow.string()), ("duration", arrow.float64())],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        self._arrow, self._schema = arrow, schema
        self._table = self.opened.enter_context(parquet.ParquetWriter(folder / "table", schema))
        self.files[folder / "table"] = out
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: Row, sound: Sound) -> None:
        """See ``Writer``."""
        content, suffix = encoded(row)
        audio = {"bytes": content, "path": self.name_of(row) + suffix}
        self._waiting.append(
            {"audio": audio, "text": row.text.strip(), "speaker": row.speaker, "duration": round(sound.seconds, 3)}
        )
        if len(self._waiting) >= self.rows_per_group:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._table.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting.clear()

    def close(self) -> None:
        """See ``Writer``."""
        self._flush()
        super().close()


class TarWriter(Writer):
    """WebDataset: for every record a recording and a ``.json`` with its text."""

    def __init__(self, out: Path, folder: Path) -> None:
        super().__init__(out, folder)
        self.files[folder / "archive"] = out
        packed = out.name.lower().endswith((".gz", ".tgz"))
        file = self.opened.enter_context((folder / "archive").open("wb"))
        mode: Literal["w|gz", "w|"] = "w|gz" if packed else "w|"
        archive = tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT)  # noqa: SIM115 - the stack closes it
        self._archive = self.opened.enter_context(archive)

    def add(self, row: Row, sound: Sound) -> None:
        """See ``Writer``."""
        fields = {"text": row.text.strip(), "speaker": row.speaker, "duration": round(sound.seconds, 3)}
        name = self.name_of(row)
        content, suffix = encoded(row)
        for ending, data in ((suffix, content), (".json", json.dumps(fields, ensure_ascii=False).encode())):
            member = tarfile.TarInfo(name + ending)
            member.size = len(data)
            self._archive.addfile(member, io.BytesIO(data))


FORMATS: dict[str, type[Writer]] = {
    "nemo": NemoWriter, "kaldi": KaldiWriter, "common-voice": CommonVoiceWriter, "csv": TableWriter,
    "parquet": ParquetWriter, "tar": TarWriter, "gigaam": GigaamWriter,
}  # fmt: skip
SUFFIXES = {
    ".jsonl": "nemo", ".json": "nemo", ".csv": "csv", ".parquet": "parquet", ".tar": "tar", ".tgz": "tar", ".gz": "tar",
    "": "kaldi",
}  # fmt: skip
"""What an output's name tells; ``.tsv`` may be either of two and needs a format."""


def writer_for(out: Path, format: str | None) -> type[Writer]:
    """The writer of a format, or of a name's ending.

    Raises:
        UsageError: neither tells one.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", remedy=f"known: {', '.join(FORMATS)}")
    name = format or SUFFIXES.get(out.suffix.lower())
    if name is None:
        raise UsageError(
            f"the name {out.name} does not tell a format", remedy=f"name one with --format: {', '.join(FORMATS)}"
        )
    return FORMATS[name]
