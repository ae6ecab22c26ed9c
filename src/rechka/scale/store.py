"""The folder that results go to, here or anywhere fsspec reaches; every file appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from rechka.errors import MissingExtra, OutputError, UsageError


class Store:
    """Files of one folder by name.

    Args:
        place: path, or URL such as ``s3://bucket/folder``; made if absent.

    Raises:
        OutputError: the folder cannot be made.
        MissingExtra, UsageError: a URL that cannot be reached.
    """

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/") or "/"
        self._system: Any = None
        if "://" in place:
            try:
                from fsspec.core import url_to_fs
            except ModuleNotFoundError:
                raise MissingExtra(f"{place} needs fsspec", remedy='pip install "rechka[data]"') from None
            try:
                self._system, self._path = url_to_fs(self.place)
            except (ImportError, ValueError) as error:
                remedy = "install the fsspec package for this protocol"
                raise UsageError(f"cannot reach {place}: {error}", remedy=remedy) from error
            self._do(lambda: self._system.makedirs(self._path, exist_ok=True))
        else:
            self._do(lambda: Path(self.place).mkdir(parents=True, exist_ok=True))

    def write(self, name: str, data: bytes) -> None:
        """A whole file, in the place of an older one.

        Raises:
            OutputError: it cannot be written; then nothing stands under its name, or what stood there.
        """
        self._do(lambda: self._write(name, data))

    def _write(self, name: str, data: bytes) -> None:
        if self._system is not None:
            self._system.pipe_file(f"{self._path}/{name}", data)
            return
        path = Path(self.place, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def read(self, name: str) -> bytes | None:
        """A file, or None if it is not there."""
        try:
            if self._system is not None:
                data: bytes = self._system.cat_file(f"{self._path}/{name}")
                return data
            return Path(self.place, name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"cannot read {name} in {self.place}: {error}", remedy="check its rights") from error

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder of the store; none if it is not there."""
        try:
            if self._system is not None:
                self._system.invalidate_cache()
                found = self._system.ls(f"{self._path}/{folder}", detail=False)
                return {str(name).rsplit("/", 1)[1] for name in found}
            return {path.name for path in Path(self.place, folder).iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise OutputError(f"cannot list {folder} in {self.place}: {error}", remedy="check its rights") from error

    def sweep(self, *folders: str) -> None:
        """Remove what writers that were killed left half-written; to be called when nobody writes any more.

        Only folders of this machine need it: elsewhere a file appears when it is whole.

        Raises:
            OutputError: something cannot be removed.
        """
        if self._system is None:
            for folder in folders:
                for path in Path(self.place, folder).glob(".*"):
                    self._do(partial(path.unlink, missing_ok=True))

    def _do(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            why = error.strerror or str(error)
            raise OutputError(f"cannot write to {self.place}: {why}", remedy="check room and rights") from error
