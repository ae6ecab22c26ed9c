"""The file of API keys, which are hashed at rest.

A key is a random text of 256 bits, so a single SHA-256 of it cannot be turned back and needs no slow hash.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rechka.errors import OutputError, UsageError
from rechka.hub import toml

SCOPES = ("stream", "files", "jobs", "history", "metrics", "admin")
"""What a key may be for. ``stream`` is live audio, ``files`` recordings in one request; ``admin`` includes all."""
DEFAULT_SCOPES = ("stream", "files")
KEY_PREFIX = "rk_"
MAX_KEYS_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of the keys file.

    Attributes:
        name: of its holder, for logs and metrics.
        sha256: of the key, hexadecimal.
        scopes: of ``SCOPES``.
        expires: first day on which it is not accepted any more; None for never.
        max_streams: sessions at the same time; None for no limit.
        audio_s_per_day: seconds of audio per day (UTC); None for no limit.
        requests_per_minute: None for the server's.
    """

    name: str
    sha256: str
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    expires: datetime.date | None = None
    max_streams: int | None = None
    audio_s_per_day: float | None = None
    requests_per_minute: int | None = None


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        UsageError: it cannot be read, or an entry is wrong.
    """
    try:
        if path.stat().st_size > MAX_KEYS_BYTES:
            raise UsageError(f"{path} is too large for a keys file")
        table = toml.loads(path.read_text("utf-8"))
    except OSError as error:
        remedy = "make a first key: rechka serve --new-key NAME --keys-file FILE"
        raise UsageError(f"cannot read {path}: {error.strerror or error}", remedy=remedy) from None
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    entries = table.pop("key", [])
    if table or not isinstance(entries, list):
        raise UsageError(f"{path} may hold nothing but [[key]] tables, got {sorted(table)}")
    keys = [_key(entry, f"key {i + 1} in {path}") for i, entry in enumerate(entries)]
    if len({key.name for key in keys}) != len(keys):
        raise UsageError(f"{path} has two keys of the same name")
    return keys


_FIELDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "sha256": (str,),
    "scopes": (list,),
    "expires": (datetime.date,),
    "max_streams": (int,),
    "audio_s_per_day": (int, float),
    "requests_per_minute": (int,),
}


def _key(entry: Any, where: str) -> Key:
    if not isinstance(entry, dict) or not {"name", "sha256"} <= set(entry) <= set(_FIELDS):
        raise UsageError(f"{where} must have name and sha256, and may have {', '.join(list(_FIELDS)[2:])}")
    for name, value in entry.items():
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise UsageError(f"{where}: {name} is of the wrong type, got {value!r}")
    entry = dict(entry)
    if "scopes" in entry:
        entry["scopes"] = tuple(entry["scopes"])
        if not all(scope in SCOPES for scope in entry["scopes"]):
            raise UsageError(f"{where}: scopes are of {', '.join(SCOPES)}, got {list(entry['scopes'])}")
    if isinstance(entry.get("expires"), datetime.datetime):
        entry["expires"] = entry["expires"].date()
    if len(entry["sha256"]) != 64 or set(entry["sha256"]) - set("0123456789abcdef"):
        raise UsageError(f"{where}: sha256 is 64 hexadecimal digits")
    return Key(**entry)


def new_key(name: str, path: Path) -> str:
    """A new key, appended to a file in its hashed form; the key itself is nowhere but in the result.

    Raises:
        UsageError: a name that is taken or odd.
        OutputError: the file cannot be written.
    """
    if not name or len(name) > 100 or not name.isprintable() or set(name) & set('"\\'):
        raise UsageError(f"a key's name has 1 to 100 letters, no quotes and no backslash, got {name!r}")
    if path.exists() and name in {key.name for key in read_keys(path)}:
        raise UsageError(f"{path} has a key named {name!r} already", remedy="choose another name")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    scopes = ", ".join(f'"{scope}"' for scope in DEFAULT_SCOPES)
    text = f'\n[[key]]\nname = "{name}"\nsha256 = "{digest}"\nscopes = [{scopes}]\n'
    try:
        fresh = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        if fresh:
            path.chmod(0o600)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    return key
