"""Features of training sets on disk: computed once, read by every worker through one memory map.

A store is a folder with ``bands.f16`` (log band energies, float16, frames of all recordings one after another) and
``index.jsonl`` (offset, frames, text, speaker of each). It grows by appending, so training may start while speech is
still being synthesised, and a build that was killed goes on where its last whole line stands.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import DataError
from rechka.features import bands
from rechka.hub.locking import exclusive
from rechka.train.text import held_out, training
from rechka.types import F32

log = logging.getLogger(__name__)

BANDS_FILE = "bands.f16"
INDEX_FILE = "index.jsonl"
SHORTEST = 2
"""Frames without which the tempo of a recording cannot be changed; only one without a text can be as short."""
CEPSTRA = 13
LIFTER = 22


@dataclass(frozen=True, slots=True)
class Item:
    """One recording in a store: frames of 10 ms from ``offset``, its text as a training target, its speaker."""

    offset: int
    frames: int
    text: str
    speaker: str
    key: str


def cepstra_to_bands(cepstra: F32) -> F32:
    """(T, 13) Sphinx cepstra (liftered, orthonormal DCT-II) back to (T, 15) log band energies."""
    k = np.arange(CEPSTRA)
    basis = np.sqrt(2 / bands.BANDS) * np.cos(np.pi * k[:, None] * (np.arange(bands.BANDS) + 0.5) / bands.BANDS)
    basis[0] *= np.sqrt(0.5)
    lifter = 1 + LIFTER / 2 * np.sin(np.pi * k / LIFTER)
    return ((cepstra / lifter) @ basis).astype(np.float32)


class Store:
    """A readable store; ``items`` are those that were complete when it was opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = folder / INDEX_FILE
        if not index.exists():
            raise DataError(f"no feature store in {folder}", remedy="build it first with rechka.train.store.build")
        whole = index.read_bytes().rpartition(b"\n")[0]
        self.items = [Item(**json.loads(line)) for line in whole.decode("utf-8").splitlines()]
        frames = self.items[-1].offset + self.items[-1].frames if self.items else 0
        self._frames: NDArray[np.float16] = np.zeros((0, bands.BANDS), np.float16)
        if frames:  # beyond them another build may be writing just now
            self._frames = np.memmap(folder / BANDS_FILE, np.float16, "r", shape=(frames, bands.BANDS))

    def read(self, item: Item) -> F32:
        """(frames, 15) log band energies of a recording."""
        return np.array(self._frames[item.offset : item.offset + item.frames], np.float32)

    @property
    def seconds(self) -> float:
        """Audio in the store."""
        return sum(item.frames for item in self.items) * bands.STEP / bands.SAMPLE_RATE


def build(manifests: list[Path], folder: Path, *, keep_held_out: bool = False) -> Store:
    """Bring a store up to date with its manifests.

    Args:
        manifests: JSONL files whose records have ``text`` and either ``audio_filepath`` (or ``file``) or ``feat_file``,
            ``offset``, ``frames`` (cepstra). Paths are relative to the manifest.
        folder: where the store is or shall be.
        keep_held_out: take also sentences that belong to no training set (for test stores).
    Raises:
        DataError: a record without text or audio.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "lock"):  # trainings that share the store may begin together
        _extend(manifests, folder, keep_held_out)
    return Store(folder)


def _extend(manifests: list[Path], folder: Path, keep_held_out: bool) -> None:
    done, frames = _repair(folder)
    places: dict[str, Path] = {}  # what a name stands for: manifests in two folders may have the same for two files
    with open(folder / BANDS_FILE, "ab") as values, open(folder / INDEX_FILE, "a", encoding="utf-8") as index:
        for manifest in manifests:
            for name, path, text, speaker, load in _records(manifest):
                key = name if places.setdefault(name, path) == path else f"{path}:{name}"
                if key in done or (held_out(text) and not keep_held_out):
                    continue
                try:
                    target = training(text)
                except DataError as error:
                    log.warning("%s: %s left out: %s", manifest.name, key, error.message)
                    continue
                features = load()
                if len(features) < max(SHORTEST, 4 * len(target) * 0.5):
                    continue  # faster than 50 letters a second: the text cannot be that of the sound
                values.write(np.ascontiguousarray(features, dtype=np.float16).tobytes())
                values.flush()
                item = {"offset": frames, "frames": len(features), "text": target, "speaker": speaker, "key": key}
                index.write(json.dumps(item, ensure_ascii=False) + "\n")
                index.flush()
                frames += len(features)
                done.add(key)


def _repair(folder: Path) -> tuple[set[str], int]:
    """Drop what a kill left half-written; the keys that are there and the number of frames."""
    index, values = folder / INDEX_FILE, folder / BANDS_FILE
    for path in (index, values):
        path.touch()
    whole = index.read_bytes().rpartition(b"\n")[0]
    items = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
    with open(index, "r+b") as file:
        file.truncate(len(whole) + 1 if whole else 0)
    frames = items[-1]["offset"] + items[-1]["frames"] if items else 0
    os.truncate(values, frames * bands.BANDS * 2)
    return {item["key"] for item in items}, frames


def _records(manifest: Path) -> Iterator[tuple[str, Path, str, str, Callable[[], F32]]]:
    """Name, file, text, speaker and a loader of each record."""
    for number, record in _lines(manifest):
        text = record.get("text")
        if not isinstance(text, str):
            raise DataError(f"{manifest}:{number}: a record needs a text")
        speaker = str(record.get("speaker", ""))
        if "feat_file" in record:
            path, first, count = manifest.parent / record["feat_file"], record["offset"], record["frames"]
            yield f"{path.name}:{first}", path.resolve(), text, speaker, partial(_read_cepstra, path, first, count)
        else:
            name = record.get("audio_filepath") or record.get("file")
            if not name:
                raise DataError(f"{manifest}:{number}: a record needs audio_filepath or feat_file")
            path = manifest.parent / name
            yield name, path.resolve(), text, speaker, partial(audio_to_bands, path)


def _read_cepstra(path: Path, first: int, count: int) -> F32:
    return cepstra_to_bands(_cepstra(path)[first : first + count])


@lru_cache(maxsize=1)
def _cepstra(path: Path) -> F32:
    """All cepstra of a file: whole numbers times a step plus a middle. Records come file by file, so one is kept."""
    with np.load(path) as arrays:
        cepstra: F32 = arrays["cep"].astype(np.float32) * arrays["step"] + arrays["mid"]
    return cepstra


def _lines(manifest: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    whole = manifest.read_bytes().rpartition(b"\n")[0]  # the last line may still be being written
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{manifest}:{number}: no JSON: {error}") from error
        yield number, record


def audio_to_bands(path: Path) -> F32:
    """(T, 15) log band energies of an audio file, mono, resampled to 8 kHz; a rest below 10 ms is dropped."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate != bands.SAMPLE_RATE:
        mono = soxr.resample(mono, rate, bands.SAMPLE_RATE)
    whole = len(mono) // bands.STEP * bands.STEP
    if not whole:
        return np.zeros((0, bands.BANDS), np.float32)
    return bands.log_bands(mono[:whole].astype(np.float32), np.zeros(bands.CONTEXT + 1, np.float32))
