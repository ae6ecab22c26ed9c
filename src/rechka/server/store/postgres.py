"""The store on a PostgreSQL server, 12 or newer, shared by many servers."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rechka.errors import MissingExtra, StorageBusy, StorageFull
from rechka.server.store.records import Term
from rechka.server.store.sql import SqlStore, Transaction
from rechka.server.store.words import stems

log = logging.getLogger("rechka.server")

CONNECT_S = 10
STATEMENT_MS = 20_000
LOCK_MS = 5_000
NETWORK = {"tcp_user_timeout": 30_000, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
"""So that a network that swallows everything is noticed within half a minute; the statement's limit is the server's."""
RETRY_S = 2.0
RETRY_FULL_S = 60.0
SETUP_LOCK = 7237841
"""Two servers that start together must not make the tables at the same time; any number that nobody else uses."""


class PostgresStore(SqlStore):
    """See ``Store``.

    Args:
        address: ``postgresql://...``; connected to again whenever the connection is lost.
    """

    serial = "BIGSERIAL PRIMARY KEY"
    skip_locked = "FOR UPDATE SKIP LOCKED"

    def __init__(self, address: str) -> None:
        super().__init__()
        try:
            import psycopg
            from psycopg.rows import dict_row
        except ImportError as error:
            raise MissingExtra(
                f"database = postgresql://... needs psycopg: {error}", remedy='pip install "rechka[postgres]"'
            ) from None
        self._psycopg, self._dict_row = psycopg, dict_row
        self._address = address
        self._connection: Any = None
        self._offset = 0.0
        self._create(
            [
                "ALTER TABLE history ADD COLUMN IF NOT EXISTS stems tsvector",
                "CREATE INDEX IF NOT EXISTS history_by_stem ON history USING gin (stems)",
            ],
            first=[f"SELECT pg_advisory_xact_lock({SETUP_LOCK})"],
        )

    def now(self) -> float:
        """See ``Store``: the clock of the database, so that no server's wrong clock ends another's lease."""
        return time.time() + self._offset

    def close(self) -> None:
        """See ``Store``."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Any:
        if self._connection is None or self._connection.closed:
            self._connection = self._psycopg.connect(
                self._address,
                row_factory=self._dict_row,
                connect_timeout=CONNECT_S,
                application_name="rechka",
                **{name: value for name, value in NETWORK.items() if f"{name}=" not in self._address},
                options=f"-c statement_timeout={STATEMENT_MS} -c lock_timeout={LOCK_MS}",
            )
            # With every connection, so that a clock that drifts is noticed at times.
            row = self._connection.execute("SELECT extract(epoch FROM clock_timestamp()) AS now").fetchone()
            self._offset = float(row["now"]) - time.time()
            self._connection.commit()
        return self._connection

    @contextlib.contextmanager
    def _begin(self, *, write: bool) -> Iterator[Transaction]:
        errors = self._psycopg.errors
        try:
            connection = self._connect()
            with connection.transaction():
                yield _Transaction(connection)
        except self._psycopg.Error as error:
            self._drop()
            if isinstance(error, errors.DiskFull):
                raise StorageFull("no room for the database", remedy="try later", retry_after_s=RETRY_FULL_S) from None
            if isinstance(error, self._psycopg.OperationalError):  # says why, and quotes nothing of what is stored
                log.warning("PostgreSQL: %s", error)
            # Its message may quote what was to be stored, or name the server.
            raise StorageBusy(
                f"the database cannot be used now ({type(error).__name__})",
                remedy="try again soon",
                retry_after_s=RETRY_S,
            ) from error

    def _index(self, tx: Transaction, seq: int, text: str) -> None:
        tx.count("UPDATE history SET stems = to_tsvector('simple', ?) WHERE seq = ?", " ".join(stems(text)), seq)

    def _unindex(self, tx: Transaction, condition: str, values: Sequence[Any]) -> None:
        pass  # the index belongs to the rows

    def _matches(self, terms: Sequence[Term]) -> tuple[str, str, list[Any]]:
        # Stems are letters and digits only, so that quoting them is enough.
        parts = [" <-> ".join(f"'{stem}'" for stem in term.stems) + (":*" if term.prefix else "") for term in terms]
        return "", "h.stems @@ to_tsquery('simple', ?)", [" & ".join(f"({part})" for part in parts)]


class _Transaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._connection.execute(sql.replace("?", "%s"), _storable(values)).fetchall()
        return found

    def count(self, sql: str, *values: Any) -> int:
        changed: int = self._connection.execute(sql.replace("?", "%s"), _storable(values)).rowcount
        return changed


def _storable(values: Sequence[Any]) -> list[Any]:
    """PostgreSQL has no character 0 in texts; whoever asks for one shall find nothing, and not lose the connection."""
    return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
