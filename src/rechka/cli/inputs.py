"""From what was written on the command line to recordings, and to the names of their outputs."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rechka.errors import AudioNotFound, RechkaError, UsageError

if TYPE_CHECKING:
    from rechka.data.shards import Row

AUDIO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "wave", "w64", "aif", "aifc", "aiff", "au", "snd", "caf", "flac", "mp3", "oga", "ogg", "opus"),
        *("3gp", "aac", "amr", "m4a", "mka", "mkv", "mov", "mp4", "webm", "wma"),
    )
)
"""Files of a folder that are taken. A file that is named itself is taken whatever its suffix."""


@dataclass(frozen=True, slots=True)
class Input:
    """One recording.

    Attributes:
        name: as the user sees it.
        path: of the file, or None for stdin.
        base: the part of the path that names the output: the file's name, or its path inside the folder that was named.
        error: why there is no recording, if there is none.
        row: the recording where it is no file of this machine: from an archive, a table, the network.
    """

    name: str
    path: Path | None
    base: Path
    error: RechkaError | None = None
    row: Row | None = None


def expand(arguments: Iterable[str]) -> list[Input]:
    """Files, folders (recursively, audio suffixes only), glob patterns and ``-`` as recordings, each once, in order.

    What is not there gives an ``Input`` with an error, so that the others are still done.
    """
    found: dict[str, Input] = {}
    for argument in arguments:
        for item in _expand(argument):
            found.setdefault("-" if item.path is None else os.path.realpath(item.path), item)
    return list(found.values())


def _expand(argument: str) -> Iterator[Input]:
    path = Path(argument)
    if argument == "-":
        yield Input("-", None, Path("stdin"))
    elif os.path.isdir(path):  # pathlib raises where a name is too long, or a folder on the way is closed to us
        yield from _folder(path)
    elif os.path.exists(path):
        yield Input(argument, path, Path(path.name))
    elif matches := sorted(glob.glob(argument, recursive=True)):
        for match in matches:
            yield from _expand(match)
    else:
        pattern = glob.has_magic(argument)
        message = f"no file matches {argument}" if pattern else f"{argument} {_absence(path)}"
        error = AudioNotFound(message, remedy="check the name and the folder you are in")
        yield Input(argument, path, Path(path.name), error)


def _absence(path: Path) -> str:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return f"cannot be reached: {error.strerror}"
    return "does not exist"


def _folder(folder: Path) -> Iterator[Input]:
    """The recordings below a folder in order of their names; hidden files and folders are left out."""
    failures: list[OSError] = []
    empty = True
    for place, folders, files in os.walk(folder, onerror=failures.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if path.suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                empty = False
                yield Input(str(path), path, path.relative_to(folder))
    for failure in failures:
        path = Path(os.fspath(failure.filename))
        error = AudioNotFound(f"cannot read the folder {path}: {failure.strerror}", remedy="check its permissions")
        yield Input(str(path), path, Path(path.name), error)
    if empty and not failures:
        error = AudioNotFound(f"{folder} holds no audio files", remedy="name files whose suffix is unusual one by one")
        yield Input(str(folder), folder, Path(folder.name), error)


def is_data(argument: str) -> bool:
    """Whether an argument names recordings that are read as a stream: a URL, or a source of data with texts."""
    from rechka.data.places import is_url
    from rechka.data.sources import is_source

    return is_url(argument) or is_source(argument)


def streamed(arguments: Iterable[str]) -> Iterator[Input]:
    """As ``expand`` where an argument names data or a URL: found one by one while they are recognised.

    A recording that two arguments name comes twice. Bases are all different, so that no result replaces another.
    """
    taken: set[str] = set()
    for argument in arguments:
        for item in _rows(argument) if is_data(argument) else _expand(argument):
            yield replace(item, base=_fresh(item.base, taken))


def _rows(argument: str) -> Iterator[Input]:
    from rechka.data.sources import label, recordings

    for number, row in enumerate(recordings(argument), 1):
        if isinstance(row, RechkaError):
            yield Input(f"{argument}:{number}", None, Path(f"record{number:06d}"), row)
            continue
        whole = isinstance(row.audio, str) and row.start_s is None
        name = label(row)
        place = name.partition("?")[0].replace(":", "/").rpartition("/")[2]
        plain = place.isascii() and place.isdigit() and len(place) < 10
        base = Path(place) if whole else Path(f"record{int(place):06d}" if plain else f"{place}.flac")
        if not base.name:  # a path of dots or slashes alone; what is wrong with it is told when it is read
            base = Path(f"record{number:06d}")
        yield Input(name, None, base, None, row)


def _fresh(base: Path, taken: set[str]) -> Path:
    """The base, or one with a number behind its stem, that nothing had before, whatever the letter case."""
    found, number = base, 1
    while str(found.with_suffix("")).casefold() in taken:
        number += 1
        found = base.with_name(f"{base.stem}-{number}{base.suffix}")
    taken.add(str(found.with_suffix("")).casefold())
    return found


def output_paths(inputs: Sequence[Input], folder: Path, suffix: str) -> list[Path]:
    """Where each input's result goes, no two to the same place.

    ``call.wav`` gives ``call.txt``. Inputs that would meet there keep their whole name (``call.wav.txt``) and, if they
    still meet, as many of their own folders as it takes (``monday/call.wav.txt``). Letter case does not tell names
    apart, since on some file systems it does not.

    Raises:
        UsageError: a result would overwrite an input.
    """
    depth = [0] * len(inputs)
    while True:
        names = [_named(item, level, i) for i, (item, level) in enumerate(zip(inputs, depth, strict=True))]
        times = Counter(str(name).casefold() for name in names)
        meeting = [i for i, name in enumerate(names) if times[str(name).casefold()] > 1]
        if not meeting:
            break
        for i in meeting:
            depth[i] += 1
    paths = [folder / f"{name}.{suffix}" for name in names]
    sources = {os.path.realpath(item.path) for item in inputs if item.path is not None}
    for path in paths:
        if os.path.realpath(path) in sources:
            raise UsageError(
                f"{path} is an input and would be overwritten", remedy="choose another folder for --output"
            )
    return paths


def _named(item: Input, depth: int, index: int) -> Path:
    """The output's path without the new suffix; each step of ``depth`` tells more of the input's path.

    When all is told and still not enough, for stdin or names that differ in letter case only, the ``index`` is added.
    """
    if depth == 0:
        stem = item.base.stem
        return item.base.with_name(stem) if stem.strip(".") else item.base  # a name of dots alone would be a folder
    parts = item.base.parts if item.path is None else Path(os.path.abspath(item.path)).parts[1:]
    num_parts = len(item.base.parts) + depth - 1
    name = Path(*parts[-num_parts:])
    return name if num_parts <= len(parts) else name.with_name(f"{name.name}.{index + 1}")
