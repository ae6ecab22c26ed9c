"""What is kept, and what a store must do with it. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

STATES = ("queued", "running", "done", "failed", "cancelled")
ACTIVE = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Job:
    """A recording that is recognised when there is time.

    Attributes:
        owner: name of the key that sent it; empty where no keys are needed.
        ready: not begun before.
        options: ``channels``, ``hotwords``, ``pause``, ``punctuate``.
        name: that the client gave; for showing only.
        url: where the recording is fetched; empty for an upload.
        spool: of the server that has the audio; empty if any server can run it.
        size: of the audio in bytes, 0 if it is not known yet.
        attempts: how often it was begun.
        worker: that runs it, or ran it last.
        stop: it shall be cancelled.
        progress: 0 to 1.
        duration: of the recording in seconds, once it is done.
        key: the client's idempotency key; None without.
        digest: of what was asked for, to tell a repeated request from another one.
    """

    id: str
    owner: str
    state: str
    created: float
    ready: float
    model: str
    options: Mapping[str, Any]
    name: str = ""
    url: str = ""
    spool: str = ""
    size: int = 0
    started: float | None = None
    finished: float | None = None
    attempts: int = 0
    worker: str = ""
    stop: bool = False
    progress: float = 0.0
    duration: float | None = None
    error: Mapping[str, str] | None = None
    callback: str = ""
    key: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the history: a job or a live session that ended.

    Attributes:
        kind: ``job`` or ``live``.
        result: transcript as in the JSON contract; None in a history without texts, and in lists.
        has_text: there is a result; filled in by the store.
    """

    id: str
    owner: str
    kind: str
    created: float
    duration: float
    model: str
    name: str = ""
    result: Mapping[str, Any] | None = None
    has_text: bool = False

    @property
    def text(self) -> str:
        """All of it, empty without texts."""
        return "" if self.result is None else str(self.result["text"])


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something to be told to a ``callback_url``."""

    id: str
    job: str
    url: str
    body: str
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended; all of it is written together or not at all.

    Attributes:
        state: ``done``, ``failed`` or ``cancelled``.
        result: transcript as in the JSON contract, of a job that is done.
        used_s: seconds of audio to count for the owner, on ``day``.
        entry: for the history.
        delivery: for the callback.
    """

    state: str
    result: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None
    duration: float | None = None
    used_s: float = 0.0
    day: str = ""
    entry: Entry | None = None
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs may wait or run."""

    total: int
    per_owner: int


@dataclass(frozen=True, slots=True)
class Purged:
    """What time has taken away."""

    jobs: Sequence[str] = ()
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Term:
    """Stems that follow one another; of the last one perhaps only the beginning is known."""

    stems: tuple[str, ...]
    prefix: bool = False


class Store(Protocol):
    """Blocking; one thread at a time. Every call is one transaction.

    Every method raises StorageBusy (locked, unreachable) or StorageFull, and then has changed nothing.
    ``owner`` None means everybody's.
    """

    def now(self) -> float:
        """Seconds since 1970, the same for all servers that share the store."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...

    # Jobs

    def add(self, job: Job, limits: Limits) -> Job:
        """Queue a job, or find the one that the same idempotency key made before.

        Raises:
            Overloaded: too many wait already.
        """
        ...

    def job(self, id: str, owner: str | None) -> Job | None:
        """One job."""
        ...

    def result(self, id: str) -> dict[str, Any] | None:
        """The transcript of a job that is done."""
        ...

    def jobs(self, owner: str | None, *, state: str | None, after: str | None, limit: int) -> list[Job]:
        """The newest first; ``after`` is the last one of the page before."""
        ...

    def claim(self, worker: str, *, models: Collection[str], spool: str, lease_s: float) -> Job | None:
        """Take a queued job: nobody else has it from now on, until the lease ends."""
        ...

    def beat(self, job: Job, *, progress: float, lease_s: float) -> str:
        """Renew the lease: ``"run"``, ``"stop"`` if it shall be cancelled, ``"lost"`` if somebody else has it."""
        ...

    def finish(self, job: Job, outcome: Outcome) -> bool:
        """Write how it ended; False, and nothing is written, if somebody else has it or had it."""
        ...

    def release(self, job: Job, *, delay_s: float, counted: bool) -> bool:
        """Put it back into the queue; ``counted`` says whether this was an attempt."""
        ...

    def abandon(self, worker: str) -> int:
        """Put back all that a dead worker had."""
        ...

    def overdue(self, attempts: int, error: Mapping[str, str], tell: Callable[[Job], Delivery | None]) -> list[Job]:
        """Put back jobs whose lease ended; those that were begun ``attempts`` times already have failed: these.

        Args:
            attempts: allowed.
            error: of those that failed.
            tell: what to tell about one of them.
        """
        ...

    def cancel(self, id: str, owner: str | None) -> Job | None:
        """Cancel a queued job now, tell the worker of a running one; the job as it is then."""
        ...

    def retry(self, id: str, owner: str | None, limits: Limits) -> bool:
        """Queue a job again that failed or was cancelled; False if it is in another state."""
        ...

    def delete(self, id: str, owner: str | None) -> bool:
        """Forget a finished job and what the history has of it."""
        ...

    def known(self, ids: Collection[str]) -> set[str]:
        """Which of these jobs still need their audio: they wait, run, or failed and may be tried again."""
        ...

    def counts(self) -> dict[str, int]:
        """Jobs by state."""
        ...

    # Callbacks

    def tell(self, delivery: Delivery) -> None:
        """Have something told."""
        ...

    def due(self, *, lease_s: float, attempts: int) -> Delivery | None:
        """Take something that is to be told now; it comes again after ``lease_s`` unless ``told`` is called."""
        ...

    def told(self, id: str, *, retry_s: float | None) -> None:
        """It was told, or nobody will try again; or it shall be tried again after ``retry_s``."""
        ...

    # History

    def remember(self, entry: Entry) -> None:
        """Add a line."""
        ...

    def entries(
        self, owner: str | None, *, terms: Sequence[Term], kind: str | None, after: str | None, limit: int
    ) -> list[Entry]:
        """The newest first, without their results, which may be long; only those with all terms."""
        ...

    def entry(self, id: str, owner: str | None) -> Entry | None:
        """One line."""
        ...

    # Time and quota

    def purge(self, *, jobs_before: float, entries_before: float) -> Purged:
        """Forget finished jobs and lines of the history that are older."""
        ...

    def use(self, day: str, used: Mapping[str, float]) -> dict[str, float]:
        """Add seconds of audio to what owners have used on a day; what they have used on it now, of all servers."""
        ...
