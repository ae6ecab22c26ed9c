"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from rechka.errors import OutputError


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text under a temporary name beside ``path``, force it to disk, rename.

    A letter that UTF-8 lacks is escaped as on the terminal: a part of a recording's name that is no text.

    A file that was there before is replaced; if anything fails it stays as it was and nothing else is left.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        target = Path(os.path.realpath(path))  # a link stays a link
        temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            with temporary.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", remedy=_remedy(path)) from error
    return path


def _remedy(path: Path) -> str:
    if not path.parent.is_dir():
        return f"make the folder {path.parent} first"
    if path.is_dir():
        return "it is a folder; name a file"
    return "check free space and permissions, or write elsewhere"
