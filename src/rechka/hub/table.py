"""Reading a TOML table key by key, with errors that say where they are."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from rechka.errors import BadCard

T = TypeVar("T")


def show(value: object) -> str:
    """A value for a message, cut short: a hostile one may be long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Table:
    """A TOML table that is taken apart key by key; what is left at the end is an unknown key."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._left = dict(table)
        self._known: list[str] = []
        self.where = where

    def error(self, message: str, remedy: str = "") -> BadCard:
        """An error that says in which file and table; to be raised by the caller."""
        return BadCard(f"{self.where}: {message}", remedy=remedy or "see docs/models.md for the form of a card")

    def _take(self, key: str) -> Any:
        self._known.append(key)
        return self._left.pop(key, None)

    def need(self, key: str, value: T | None) -> T:
        """``value``, which was read from ``key``.

        Raises:
            BadCard: it is None: the key is missing.
        """
        if value is None:
            raise self.error(f"key {key!r} is missing")
        return value

    def text(self, key: str, pattern: re.Pattern[str] | None = None, form: str = "") -> str | None:
        """A text that is not empty, or None if the key is missing.

        Args:
            key: taken out of the table.
            pattern: what the whole text must match, if given.
            form: the same in words, for the error.
        Raises:
            BadCard: of another type, empty, or of another form.
        """
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{key!r} must be a text that is not empty, got {show(value)}")
        if pattern is not None and not pattern.fullmatch(value):
            raise self.error(f"{key!r} must be {form}, got {show(value)}")
        return value

    def flag(self, key: str) -> bool:
        """True or false; false if the key is missing.

        Raises:
            BadCard: of another type.
        """
        value = self._take(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(f"{key!r} must be true or false, got {show(value)}")
        return value

    def count(self, key: str) -> int | None:
        """A whole number from 0 to 2**50 - 1, or None if the key is missing.

        Raises:
            BadCard: of another type, or outside.
        """
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 50:
            raise self.error(f"{key!r} must be a whole number, 0 or more, got {show(value)}")
        return value

    def number(self, key: str) -> float | None:
        """A finite number, or None if the key is missing.

        Raises:
            BadCard: of another type, infinite or not a number.
        """
        value = self._take(key)
        return None if value is None else self._number(key, value)

    def pair(self, key: str) -> tuple[float, float] | None:
        """An array of two finite numbers, or None if the key is missing.

        Raises:
            BadCard: of another type or length.
        """
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            raise self.error(f"{key!r} must be two numbers, got {show(value)}")
        return self._number(key, value[0]), self._number(key, value[1])

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(f"{key!r} must be a finite number, got {show(value)}")
        return float(value)

    def table(self, key: str) -> Table:
        """The table below ``key``; an empty one if the key is missing.

        Raises:
            BadCard: of another type.
        """
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(f"{key!r} must be a table, got {show(value)}")
        return Table(value or {}, f"{self.where}: [{key}]")

    def tables(self, key: str) -> list[Table]:
        """The tables of the array below ``key``; none if the key is missing.

        Raises:
            BadCard: no array, or not of tables.
        """
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(f"{key!r} must be an array of tables ([[{key}]]), got {show(value)}")
        return [Table(item, f"{self.where}: [[{key}]] {number}") for number, item in enumerate(value, 1)]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._left))

    def rest(self) -> dict[str, Any]:
        """All that is left, checked to hold only plain finite values."""
        rest, self._left = self._left, {}
        self._plain(rest)
        return rest

    def _plain(self, value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                self._plain(item)
        elif isinstance(value, list):
            for item in value:
                self._plain(item)
        elif isinstance(value, float) and not math.isfinite(value):
            raise self.error(f"numbers must be finite, got {value}")
        elif not isinstance(value, (str, int, float)):
            raise self.error(f"values must be texts, numbers, booleans, lists or tables, got {show(value)}")

    def finish(self) -> None:
        """The end of reading.

        Raises:
            BadCard: keys are left that nobody asked for.
        """
        if self._left:
            unknown = ", ".join(repr(key) for key in self._left)
            raise self.error(f"unknown key {unknown}", f"known here: {', '.join(self._known)}")
