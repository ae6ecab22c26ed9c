"""The store in one file: SQLite with a write-ahead log; several servers of one machine may share it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rechka.errors import StorageBusy, StorageFull
from rechka.server.store.records import Purged, Term
from rechka.server.store.sql import SqlStore, Transaction
from rechka.server.store.words import stems

BUSY_S = 5.0
"""How long a locked database is waited for."""
SECURE_DELETE = (3, 42)
"""SQLite from which the index forgets deleted words at once; before, when its parts are merged."""
RETRY_S = 2.0
RETRY_FULL_S = 60.0


class SqliteStore(SqlStore):
    """See ``Store``.

    Args:
        path: of the file; its folder exists.
        busy_s: patience with others that write.
    """

    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"

    def __init__(self, path: Path, *, busy_s: float = BUSY_S) -> None:
        super().__init__()
        with _translated():
            # One connection, used under the lock of SqlStore, whatever thread that is.
            self._connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._connection.row_factory = _as_dict
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # an accepted job outlives a power cut
            self._connection.execute("PRAGMA secure_delete = ON")  # deleted means gone
        # Without remove_diacritics й would be и.
        more = [
            "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(stems, tokenize = 'unicode61 remove_diacritics 0')"
        ]
        if sqlite3.sqlite_version_info >= SECURE_DELETE:
            more.append("INSERT INTO words (words, rank) VALUES ('secure-delete', 1)")
        self._create(more)

    def now(self) -> float:
        """See ``Store``."""
        return time.time()

    def close(self) -> None:
        """See ``Store``."""
        with self._lock:
            self._connection.close()

    def delete(self, id: str, owner: str | None) -> bool:
        """See ``Store``."""
        found = super().delete(id, owner)
        self._wipe()
        return found

    def purge(self, *, jobs_before: float, entries_before: float) -> Purged:
        """See ``Store``."""
        purged = super().purge(jobs_before=jobs_before, entries_before=entries_before)
        self._wipe()
        return purged

    def _wipe(self) -> None:
        """Empty the log, where deleted rows still are; if others read it just now, the next time."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def _begin(self, *, write: bool) -> Iterator[Transaction]:
        with _translated():
            self._connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield _Transaction(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _index(self, tx: Transaction, seq: int, text: str) -> None:
        tx.count("INSERT INTO words (rowid, stems) VALUES (?, ?)", seq, " ".join(stems(text)))

    def _unindex(self, tx: Transaction, condition: str, values: Sequence[Any]) -> None:
        tx.count(f"DELETE FROM words WHERE rowid IN (SELECT seq FROM history WHERE {condition})", *values)

    def _matches(self, terms: Sequence[Term]) -> tuple[str, str, list[Any]]:
        query = " AND ".join(f'"{" ".join(term.stems)}"{"*" if term.prefix else ""}' for term in terms)
        return "JOIN words ON words.rowid = h.seq", "words MATCH ?", [query]


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        return self._connection.execute(sql, values).fetchall()

    def count(self, sql: str, *values: Any) -> int:
        return self._connection.execute(sql, values).rowcount


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours; the text tells them apart, as codes come with Python 3.11 only."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "full" in text:
            raise StorageFull("no room for the database", remedy="try later", retry_after_s=RETRY_FULL_S) from None
        raise StorageBusy(
            f"the database cannot be used now: {text}", remedy="try again soon", retry_after_s=RETRY_S
        ) from None
