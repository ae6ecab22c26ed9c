"""What all writers of recordings with texts share: a place that is filled in secret, names, recordings as files."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from rechka.data import places
from rechka.data.decode import read_bytes, source_of
from rechka.data.listen import Sound
from rechka.data.shards import Row
from rechka.types import F32

_MAGIC = ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"ID3", ".mp3"), (b"\x1aE\xdf\xa3", ".webm"))
_CODINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm")


class Writer(ABC):
    """Writes rows into a temporary folder; what lies there at the end is moved into place.

    Args:
        out: what the user named.
        folder: temporary, on the same file system. ``self.files`` maps what is made in it to its final place.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        self.out, self.folder = out, folder
        self.files: dict[Path, Path] = {}
        self.opened = ExitStack()
        """Closes what is open, after an error too."""
        self._names: Counter[str] = Counter()

    @abstractmethod
    def add(self, row: Row, sound: Sound) -> None:
        """One record, which has been listened to."""

    def close(self) -> None:
        """After the last record."""
        self.opened.close()

    def beside(self) -> Path:
        """The folder of recordings that are no files of their own."""
        return self.out.parent / f"{self.out.stem}_audio"

    def kept(self, row: Row, folder: Path | None = None, name: str = "") -> Path:
        """Put a recording into the folder of recordings, under a name of its own; its final path."""
        final = folder or self.beside()
        temporary = self.folder / final.name
        temporary.mkdir(exist_ok=True)
        self.files[temporary] = final
        content, suffix = encoded(row)
        file = (name or self.name_of(row)) + suffix
        (temporary / file).write_bytes(content)
        return final / file

    def name_of(self, row: Row) -> str:
        """A name for a record, not given before: letters, digits, ``-`` and ``_``."""
        if isinstance(row.audio, str) and row.start_s is None:
            stem = Path(row.audio.rpartition("/")[2]).stem
        else:
            stem = row.name.replace("/", ":").rpartition(":")[2]
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in stem)[:80] or "record"
        plain = f"r{plain}" if plain.isdigit() and isinstance(row.audio, bytes) else plain
        self._names[plain] += 1
        times = self._names[plain]
        return plain if times == 1 else self._next(plain, times)

    def _next(self, plain: str, times: int) -> str:
        name = f"{plain}-{times}"
        while name in self._names:
            times += 1
            name = f"{plain}-{times}"
        self._names[name] += 1
        return name

    def told(self, row: Row, *, parts: bool) -> str:
        """How a manifest names a recording: its own file, absolute if it is outside; a URL; or a file beside.

        Args:
            parts: whether the format can name a part of a file.
        """
        if isinstance(row.audio, bytes) or (row.start_s is not None and not parts):
            return self.kept(row).relative_to(self.out.parent).as_posix()
        if places.is_url(row.audio):
            return row.audio
        place, folder = Path(row.audio).absolute(), self.out.parent.absolute()
        return place.relative_to(folder).as_posix() if place.is_relative_to(folder) else place.as_posix()


def encoded(row: Row) -> tuple[bytes, str]:
    """The recording as a file: as it is, or FLAC in 16 bits for a part of a file; and its suffix."""
    source = source_of(row) if row.start_s is not None else None
    if source is not None:
        return _flac(*cast("tuple[F32, int]", source)), ".flac"
    content = row.audio if isinstance(row.audio, bytes) else read_bytes(row.audio)
    named = Path(row.audio).suffix.lower() if isinstance(row.audio, str) else ""
    found = next((suffix for magic, suffix in _MAGIC if content.startswith(magic)), ".mp3")
    return content, named if named in _CODINGS else found


def _flac(samples: F32, sample_rate: int) -> bytes:
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return target.getvalue()


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())
