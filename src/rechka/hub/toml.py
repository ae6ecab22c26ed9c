"""TOML in and out: the standard reader (``tomli`` on Python 3.10) and a small writer for cards."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def loads(text: str) -> dict[str, Any]:
    """A TOML document as a dictionary.

    Raises:
        ValueError: not TOML, or nested so deeply that the reader gives up.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(table: Mapping[str, Any]) -> str:
    """A dictionary as a TOML document that ``loads`` reads back as the same dictionary.

    Values may be texts, integers, finite floats, booleans, sequences and dictionaries of these. In each table the
    scalars come first, then sub-tables and arrays of tables, each under its own header.

    Raises:
        TypeError: a value of another type.
    """
    lines: list[str] = []
    _table(lines, table, ())
    return "\n".join(lines).strip("\n") + "\n"


def _table(lines: list[str], table: Mapping[str, Any], path: tuple[str, ...]) -> None:
    lines.extend(f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _is_section(value))
    for key, value in table.items():
        here = (*path, key)
        header = ".".join(_key(part) for part in here)
        if isinstance(value, Mapping):
            lines += ["", f"[{header}]"]
            _table(lines, value, here)
        elif _is_section(value):
            for item in value:
                lines += ["", f"[[{header}]]"]
                _table(lines, item, here)


def _is_section(value: object) -> bool:
    """True for what is written under a header: a table, or a non-empty sequence of nothing but tables."""
    if isinstance(value, Mapping):
        return True
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and bool(value)
        and all(isinstance(item, Mapping) for item in value)
    )


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """A basic string. JSON's escapes are a subset of TOML's, but TOML wants DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"a card holds texts, numbers, booleans, lists and tables, got {type(value).__name__}")
