"""Jobs and lines of the history as JSON."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rechka.server.store.records import Entry, Job


def stamp(at: float | None) -> str | None:
    """RFC 3339 in UTC, milliseconds."""
    if at is None:
        return None
    moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_dict(job: Job, result: Mapping[str, Any] | None = None, *, owner: bool = False) -> dict[str, Any]:
    """A job; ``result`` only where one was asked for, ``owner`` for those who see everybody's."""
    shown = {
        "id": job.id,
        "status": job.state,
        "progress": round(job.progress, 3),
        "created": stamp(job.created),
        "started": stamp(job.started),
        "finished": stamp(job.finished),
        "model": job.model,
        "name": job.name,
        "source": "url" if job.url else "upload",
        "url": _without_query(job.url) if job.url else None,
        "size": job.size,
        "duration": None if job.duration is None else round(job.duration, 3),
        "attempts": job.attempts,
        "channels": job.options["channels"],
        "hotwords": job.options["hotwords"],
        "pause": job.options["pause"],
        "punctuate": job.options.get("punctuate", False),
        "callback_url": _without_query(job.callback) if job.callback else None,
        "error": job.error,
    }
    if owner:
        shown["owner"] = job.owner
    return shown if result is None else {**shown, "result": dict(result)}


def entry_dict(entry: Entry, *, owner: bool = False) -> dict[str, Any]:
    """A line of the history without its transcript."""
    shown = {
        "id": entry.id,
        "kind": entry.kind,
        "created": stamp(entry.created),
        "duration": round(entry.duration, 3),
        "model": entry.model,
        "name": entry.name,
        "has_text": entry.has_text,
    }
    return {**shown, "owner": entry.owner} if owner else shown


def _without_query(url: str) -> str:
    """Signed addresses have their signature there."""
    return urlsplit(url)._replace(query="").geturl()
