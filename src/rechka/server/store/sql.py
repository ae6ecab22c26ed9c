"""A store in SQL that SQLite and PostgreSQL both understand; ``?`` stands for a value."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any, Protocol

from rechka.errors import Overloaded, UsageError
from rechka.server.store.records import ACTIVE, STATES, Delivery, Entry, Job, Limits, Outcome, Purged, Term

VERSION = 1

TABLES = """
CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, created {real} NOT NULL, ready {real} NOT NULL,
  model TEXT NOT NULL, options TEXT NOT NULL, name TEXT NOT NULL, url TEXT NOT NULL, spool TEXT NOT NULL,
  size BIGINT NOT NULL, started {real}, finished {real}, attempts INTEGER NOT NULL, worker TEXT NOT NULL,
  lease {real} NOT NULL DEFAULT 0, stop INTEGER NOT NULL, progress {real} NOT NULL, duration {real}, error TEXT,
  result TEXT, callback TEXT NOT NULL, key TEXT, digest TEXT NOT NULL, UNIQUE (owner, key));
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, created);
CREATE TABLE IF NOT EXISTS deliveries (
  id TEXT PRIMARY KEY, job TEXT NOT NULL, url TEXT NOT NULL, body TEXT NOT NULL, ready {real} NOT NULL,
  attempts INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS history (
  seq {serial}, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, kind TEXT NOT NULL, created {real} NOT NULL,
  duration {real} NOT NULL, model TEXT NOT NULL, name TEXT NOT NULL, result TEXT);
CREATE INDEX IF NOT EXISTS history_by_owner ON history (owner, created);
CREATE INDEX IF NOT EXISTS history_by_time ON history (created);
CREATE TABLE IF NOT EXISTS used (
  owner TEXT NOT NULL, day TEXT NOT NULL, seconds {real} NOT NULL, PRIMARY KEY (owner, day))
"""

COLUMNS = ", ".join(field.name for field in fields(Job))
LINE = ", ".join(f"h.{name}" for name in ("id", "owner", "kind", "created", "duration", "model", "name"))
LINE += ", CASE WHEN h.result IS NULL THEN 0 ELSE 1 END AS has_text"


class Transaction(Protocol):
    """Between BEGIN and COMMIT."""

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """What a statement returns."""
        ...

    def count(self, sql: str, *values: Any) -> int:
        """How many rows a statement changed."""
        ...


class SqlStore(ABC):
    """All but the dialect; see ``Store`` for what each call does."""

    real = "DOUBLE PRECISION"
    serial: str
    skip_locked = ""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @abstractmethod
    def now(self) -> float:
        """Seconds since 1970."""

    @abstractmethod
    def _begin(self, *, write: bool) -> AbstractContextManager[Transaction]:
        """A transaction; the database's own errors become ours."""

    @abstractmethod
    def _index(self, tx: Transaction, seq: int, text: str) -> None:
        """Make an entry findable."""

    @abstractmethod
    def _matches(self, terms: Sequence[Term]) -> tuple[str, str, list[Any]]:
        """Joined tables, condition and values of a search."""

    @abstractmethod
    def _unindex(self, tx: Transaction, condition: str, values: Sequence[Any]) -> None:
        """Entries are about to be deleted."""

    def _create(self, more: Sequence[str], *, first: Sequence[str] = ()) -> None:
        tables = TABLES.format(real=self.real, serial=self.serial).split(";")
        with self._writing() as tx:
            for statement in (*first, *tables, *more):
                tx.count(statement)
            found = tx.rows("SELECT version FROM meta")
            if not found:
                tx.count("INSERT INTO meta (version) VALUES (?)", VERSION)
            elif found[0]["version"] > VERSION:
                raise UsageError(
                    f"the database has the tables of a newer rechka ({found[0]['version']}, this one knows {VERSION})",
                    remedy="install that version, or name another database",
                )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Transaction]:
        with self._lock, self._begin(write=True) as tx:
            yield tx

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Transaction]:
        with self._lock, self._begin(write=False) as tx:
            yield tx

    # Jobs

    def add(self, job: Job, limits: Limits) -> Job:
        """See ``Store``."""
        with self._writing() as tx:
            if job.key is not None:
                same = tx.rows(f"SELECT {COLUMNS} FROM jobs WHERE owner = ? AND key = ?", job.owner, job.key)
                if same:
                    return _job(same[0])
            self._room(tx, job.owner, limits)
            values = [_stored(getattr(job, field.name)) for field in fields(Job)]
            marks = ", ".join("?" * len(values))
            # The same key may come to two servers at once.
            added = tx.rows(
                f"INSERT INTO jobs ({COLUMNS}) VALUES ({marks}) ON CONFLICT (owner, key) DO NOTHING RETURNING id",
                *values,
            )
            if added:
                return job
            return _job(tx.rows(f"SELECT {COLUMNS} FROM jobs WHERE owner = ? AND key = ?", job.owner, job.key)[0])

    def _room(self, tx: Transaction, owner: str, limits: Limits) -> None:
        sql = "SELECT count(*) AS n, count(CASE WHEN owner = ? THEN 1 END) AS own FROM jobs WHERE state IN (?, ?)"
        found = tx.rows(sql, owner, *ACTIVE)[0]
        if found["n"] >= limits.total or found["own"] >= limits.per_owner:
            many = limits.total if found["n"] >= limits.total else limits.per_owner
            raise Overloaded(f"{many} jobs wait already", remedy="send this one later", retry_after_s=60.0)

    def job(self, id: str, owner: str | None) -> Job | None:
        """See ``Store``."""
        with self._reading() as tx:
            return self._one(tx, id, owner)

    def _one(self, tx: Transaction, id: str, owner: str | None) -> Job | None:
        whose, values = _whose(owner)
        rows = tx.rows(f"SELECT {COLUMNS} FROM jobs WHERE id = ?{whose}", id, *values)
        return _job(rows[0]) if rows else None

    def result(self, id: str) -> dict[str, Any] | None:
        """See ``Store``."""
        with self._reading() as tx:
            rows = tx.rows("SELECT result FROM jobs WHERE id = ? AND result IS NOT NULL", id)
            found: dict[str, Any] | None = json.loads(rows[0]["result"]) if rows else None
            return found

    def jobs(self, owner: str | None, *, state: str | None, after: str | None, limit: int) -> list[Job]:
        """See ``Store``."""
        whose, values = _whose(owner)
        if state is not None:
            whose, values = f"{whose} AND state = ?", [*values, state]
        if after is not None:
            whose += " AND (created, id) < (SELECT created, id FROM jobs WHERE id = ?)"
            values = [*values, after]
        sql = f"SELECT {COLUMNS} FROM jobs WHERE 1 = 1{whose} ORDER BY created DESC, id DESC LIMIT ?"
        with self._reading() as tx:
            return [_job(row) for row in tx.rows(sql, *values, limit)]

    def claim(self, worker: str, *, models: Collection[str], spool: str, lease_s: float) -> Job | None:
        """See ``Store``. Among keys the one with the fewest running jobs is first, then the oldest job."""
        now = self.now()
        marks = ", ".join("?" * len(models))
        sql = f"""
            UPDATE jobs SET state = 'running', worker = ?, lease = ?, attempts = attempts + 1, progress = 0,
              error = NULL, started = ?
            WHERE state = 'queued' AND id = (
              SELECT j.id FROM jobs AS j
              WHERE j.state = 'queued' AND j.ready <= ? AND j.model IN ({marks}) AND j.spool IN ('', ?)
              ORDER BY (SELECT count(*) FROM jobs AS r WHERE r.state = 'running' AND r.owner = j.owner), j.created
              LIMIT 1 {self.skip_locked})
            RETURNING {COLUMNS}"""
        with self._writing() as tx:
            rows = tx.rows(sql, worker, now + lease_s, now, now, *models, spool)
            return _job(rows[0]) if rows else None

    def beat(self, job: Job, *, progress: float, lease_s: float) -> str:
        """See ``Store``."""
        sql = f"UPDATE jobs SET lease = ?, progress = ? WHERE {OURS} RETURNING stop"
        with self._writing() as tx:
            rows = tx.rows(sql, self.now() + lease_s, progress, *_ours(job))
            return "lost" if not rows else "stop" if rows[0]["stop"] else "run"

    def finish(self, job: Job, outcome: Outcome) -> bool:
        """See ``Store``."""
        with self._writing() as tx:
            return self._finish(tx, job, outcome)

    def _finish(self, tx: Transaction, job: Job, outcome: Outcome) -> bool:
        sql = f"""
            UPDATE jobs SET state = ?, result = ?, error = ?, duration = ?, finished = ?, progress = ?, lease = 0
            WHERE {OURS}"""
        now, progress = self.now(), 1.0 if outcome.state == "done" else job.progress
        ended = (outcome.state, _stored(outcome.result), _stored(outcome.error), outcome.duration, now, progress)
        if not tx.count(sql, *ended, *_ours(job)):
            return False
        if outcome.entry is not None:
            self._remember(tx, outcome.entry)
        if outcome.delivery is not None:
            self._tell(tx, outcome.delivery)
        if outcome.used_s and job.owner:
            self._use(tx, job.owner, outcome.day, outcome.used_s)
        return True

    def release(self, job: Job, *, delay_s: float, counted: bool) -> bool:
        """See ``Store``."""
        sql = f"""
            UPDATE jobs SET state = 'queued', lease = 0, progress = 0, ready = ?, attempts = attempts - ?
            WHERE {OURS}"""
        with self._writing() as tx:
            return bool(tx.count(sql, self.now() + delay_s, int(not counted), *_ours(job)))

    def abandon(self, worker: str) -> int:
        """See ``Store``."""
        sql = "UPDATE jobs SET state = 'queued', lease = 0, progress = 0 WHERE state = 'running' AND worker = ?"
        with self._writing() as tx:
            return tx.count(sql, worker)

    def overdue(self, attempts: int, error: Mapping[str, str], tell: Callable[[Job], Delivery | None]) -> list[Job]:
        """See ``Store``."""
        now = self.now()
        with self._writing() as tx:
            tx.count(
                "UPDATE jobs SET state = 'queued', lease = 0, progress = 0 WHERE state = 'running' AND lease < ?", now
            )
            sql = f"""
                UPDATE jobs SET state = 'failed', error = ?, finished = ?
                WHERE state = 'queued' AND attempts >= ? RETURNING {COLUMNS}"""
            failed = [_job(row) for row in tx.rows(sql, _stored(error), now, attempts)]
            for job in failed:
                if (delivery := tell(job)) is not None:
                    self._tell(tx, delivery)
            return failed

    def cancel(self, id: str, owner: str | None) -> Job | None:
        """See ``Store``."""
        whose, values = _whose(owner)
        with self._writing() as tx:
            tx.count(
                f"UPDATE jobs SET state = 'cancelled', finished = ? WHERE id = ? AND state = 'queued'{whose}",
                self.now(), id, *values,
            )  # fmt: skip
            tx.count(f"UPDATE jobs SET stop = 1 WHERE id = ? AND state = 'running'{whose}", id, *values)
            return self._one(tx, id, owner)

    def retry(self, id: str, owner: str | None, limits: Limits) -> bool:
        """See ``Store``."""
        whose, values = _whose(owner)
        sql = f"""
            UPDATE jobs SET state = 'queued', attempts = 0, stop = 0, progress = 0, ready = ?, started = NULL,
              finished = NULL, error = NULL
            WHERE id = ? AND state IN ('failed', 'cancelled'){whose}"""
        with self._writing() as tx:
            if job := self._one(tx, id, owner):
                self._room(tx, job.owner, limits)
            return bool(tx.count(sql, self.now(), id, *values))

    def delete(self, id: str, owner: str | None) -> bool:
        """See ``Store``."""
        whose, values = _whose(owner)
        with self._writing() as tx:
            gone = tx.count(f"DELETE FROM jobs WHERE id = ? AND state NOT IN (?, ?){whose}", id, *ACTIVE, *values)
            return bool(self._forget(tx, f"id = ?{whose}", [id, *values]) + gone)

    def known(self, ids: Collection[str]) -> set[str]:
        """See ``Store``."""
        if not ids:
            return set()
        marks = ", ".join("?" * len(ids))
        sql = f"SELECT id FROM jobs WHERE state IN ('queued', 'running', 'failed') AND spool <> '' AND id IN ({marks})"
        with self._reading() as tx:
            return {row["id"] for row in tx.rows(sql, *ids)}

    def counts(self) -> dict[str, int]:
        """See ``Store``."""
        with self._reading() as tx:
            found = {row["state"]: row["n"] for row in tx.rows("SELECT state, count(*) AS n FROM jobs GROUP BY state")}
        return {state: found.get(state, 0) for state in STATES}

    # Callbacks

    def tell(self, delivery: Delivery) -> None:
        """See ``Store``."""
        with self._writing() as tx:
            self._tell(tx, delivery)

    def _tell(self, tx: Transaction, delivery: Delivery) -> None:
        sql = """
            INSERT INTO deliveries (id, job, url, body, ready, attempts) VALUES (?, ?, ?, ?, ?, 0)
            ON CONFLICT (id) DO NOTHING"""
        tx.count(sql, delivery.id, delivery.job, delivery.url, delivery.body, self.now())

    def due(self, *, lease_s: float, attempts: int) -> Delivery | None:
        """See ``Store``. What was tried ``attempts`` times is given up."""
        now = self.now()
        sql = f"""
            UPDATE deliveries SET ready = ?, attempts = attempts + 1 WHERE id = (
              SELECT id FROM deliveries WHERE ready <= ? ORDER BY ready LIMIT 1 {self.skip_locked})
            RETURNING id, job, url, body, attempts"""
        with self._writing() as tx:
            tx.count("DELETE FROM deliveries WHERE attempts >= ? AND ready <= ?", attempts, now)
            rows = tx.rows(sql, now + lease_s, now)
            return Delivery(**rows[0]) if rows else None

    def told(self, id: str, *, retry_s: float | None) -> None:
        """See ``Store``."""
        with self._writing() as tx:
            if retry_s is None:
                tx.count("DELETE FROM deliveries WHERE id = ?", id)
            else:
                tx.count("UPDATE deliveries SET ready = ? WHERE id = ?", self.now() + retry_s, id)

    # History

    def remember(self, entry: Entry) -> None:
        """See ``Store``."""
        with self._writing() as tx:
            self._remember(tx, entry)

    def _remember(self, tx: Transaction, entry: Entry) -> None:
        self._forget(tx, "id = ?", [entry.id])  # a job that was tried again
        sql = """
            INSERT INTO history (id, owner, kind, created, duration, model, name, result)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq"""
        e = entry
        stored = (e.id, e.owner, e.kind, e.created, e.duration, e.model, e.name, _stored(e.result))
        seq = tx.rows(sql, *stored)[0]["seq"]
        if entry.text:
            self._index(tx, seq, entry.text)

    def entries(
        self, owner: str | None, *, terms: Sequence[Term], kind: str | None, after: str | None, limit: int
    ) -> list[Entry]:
        """See ``Store``."""
        join, where, values = self._matches(terms) if terms else ("", "1 = 1", [])
        if owner is not None:
            where, values = f"{where} AND h.owner = ?", [*values, owner]
        if kind is not None:
            where, values = f"{where} AND h.kind = ?", [*values, kind]
        if after is not None:
            where += " AND (h.created, h.id) < (SELECT created, id FROM history WHERE id = ?)"
            values = [*values, after]
        sql = f"SELECT {LINE} FROM history AS h {join} WHERE {where} ORDER BY h.created DESC, h.id DESC LIMIT ?"
        with self._reading() as tx:
            return [_entry(row) for row in tx.rows(sql, *values, limit)]

    def entry(self, id: str, owner: str | None) -> Entry | None:
        """See ``Store``."""
        whose, values = _whose(owner)
        with self._reading() as tx:
            rows = tx.rows(f"SELECT {LINE}, h.result FROM history AS h WHERE h.id = ?{whose}", id, *values)
            return _entry(rows[0]) if rows else None

    def _forget(self, tx: Transaction, condition: str, values: Sequence[Any]) -> int:
        self._unindex(tx, condition, values)
        return tx.count(f"DELETE FROM history WHERE {condition}", *values)

    # Time and quota

    def purge(self, *, jobs_before: float, entries_before: float) -> Purged:
        """See ``Store``."""
        with self._writing() as tx:
            jobs = tx.rows(
                "DELETE FROM jobs WHERE state NOT IN (?, ?) AND finished < ? RETURNING id", *ACTIVE, jobs_before
            )
            entries = self._forget(tx, "created < ?", [entries_before])
            tx.count("DELETE FROM used WHERE day < ?", _day(jobs_before - 7 * 86400))
        return Purged([row["id"] for row in jobs], entries)

    def use(self, day: str, used: Mapping[str, float]) -> dict[str, float]:
        """See ``Store``."""
        with self._writing() as tx:
            for owner, seconds in sorted(used.items()):  # in one order, so that two servers never wait for one another
                if seconds:
                    self._use(tx, owner, day, seconds)
            return {row["owner"]: row["seconds"] for row in tx.rows("SELECT * FROM used WHERE day = ?", day)}

    def _use(self, tx: Transaction, owner: str, day: str, seconds: float) -> None:
        sql = """
            INSERT INTO used (owner, day, seconds) VALUES (?, ?, ?)
            ON CONFLICT (owner, day) DO UPDATE SET seconds = used.seconds + excluded.seconds"""
        tx.count(sql, owner, day, seconds)


OURS = "id = ? AND state = 'running' AND worker = ? AND attempts = ?"
"""The compare of every compare-and-set: whoever lost a job to another worker, or to itself later, changes nothing."""


def _ours(job: Job) -> tuple[str, str, int]:
    return job.id, job.worker, job.attempts


def _whose(owner: str | None) -> tuple[str, list[Any]]:
    return ("", []) if owner is None else (" AND owner = ?", [owner])


def _stored(value: Any) -> Any:
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return int(value) if isinstance(value, bool) else value


def _job(row: Mapping[str, Any]) -> Job:
    values = dict(row)
    values["options"] = json.loads(values["options"])
    values["error"] = json.loads(values["error"]) if values["error"] else None
    values["stop"] = bool(values["stop"])
    return Job(**values)


def _entry(row: Mapping[str, Any]) -> Entry:
    result = row.get("result")
    found = {**row, "result": json.loads(result) if result else None, "has_text": bool(row["has_text"])}
    return Entry(**found)


def _day(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).date().isoformat()
