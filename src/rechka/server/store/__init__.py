"""Where jobs, the history and used quota are kept: one protocol, on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from rechka.server.store.records import Delivery, Entry, Job, Outcome, Store

__all__ = ["Delivery", "Entry", "Job", "Outcome", "Store", "open_store"]

DATABASE_NAME = "rechka.db"


def open_store(folder: Path, database: str = "") -> Store:
    """The store of a server; tables that are missing are made.

    Args:
        folder: exists; holds SQLite's file.
        database: ``postgresql://...``, or empty for SQLite.

    Raises:
        MissingExtra: psycopg is not installed.
        StorageBusy, StorageFull: the database cannot be used now.
        UsageError: it was made by a newer rechka.
    """
    if database:
        from rechka.server.store.postgres import PostgresStore

        return PostgresStore(database)
    from rechka.server.store.sqlite import SqliteStore

    return SqliteStore(folder / DATABASE_NAME)
