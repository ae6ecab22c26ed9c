"""What is remembered of jobs and live sessions that ended, as far as the settings allow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from rechka.recognizers.asr import refined
from rechka.server.store.records import Entry, Job
from rechka.types import Final, Refined, Segment, Transcript, Word

if TYPE_CHECKING:
    from rechka.engine import Session
    from rechka.server.auth import Meter
    from rechka.server.jobs import Jobs


def entry_of(history: str, job: Job, result: Mapping[str, Any]) -> Entry | None:
    """The line for a job that is done; without texts it has no name either, since names of recordings tell much."""
    if history == "off":
        return None
    whole = history == "on"
    return Entry(
        id=job.id,
        owner=job.owner,
        kind="job",
        created=job.created,
        duration=job.duration or 0.0,
        model=str(result["model"]),
        name=job.name if whole else "",
        result=dict(result) if whole else None,
    )


class Recorder:
    """Stands between a live session and its meter, and remembers what was said.

    Args:
        jobs: keep the history.
        owner: see ``Job``.
        meter: the session's own.
        model: name and language of the model.
    """

    def __init__(self, jobs: Jobs, owner: str, meter: Meter, model: tuple[str, str]) -> None:
        self._jobs, self._owner, self._meter, self._model = jobs, owner, meter, model
        self._began = jobs.store.now()
        self._segments: list[Segment] = []
        self.session: Session | None = None

    def audio(self, seconds: float) -> None:
        """See ``Meter``."""
        self._meter.audio(seconds)

    def watch(self, event: object) -> None:
        """The session found something."""
        if isinstance(event, Final):
            self._segments.append(event.segment)
        elif isinstance(event, Refined):
            self._segments = refined(self._segments, event.segment)

    def end(self) -> None:
        """The session is over."""
        self._meter.end()
        session = self.session
        duration = 0.0 if session is None else session.fed_s - session.options.start_s
        if session is None or duration <= 0:
            return
        self._jobs.remember(partial(self._entry, f"live_{session.id}", duration))

    def _entry(self, id: str, duration: float) -> Entry:
        name, language = self._model
        result: dict[str, Any] | None = None
        if self._jobs.service.settings.history == "on":
            ordered = tuple(sorted(self._segments, key=lambda segment: (segment.start, segment.channel)))
            result = {**Transcript(ordered, language, name, duration).to_dict(), "truncated": False}
        return Entry(id, self._owner, "live", self._began, duration, name, result=result)


def transcript_of(result: Mapping[str, Any]) -> Transcript:
    """A transcript from its JSON, to be written in another format."""
    segments = tuple(
        Segment(
            text=segment["text"],
            start=segment["start"],
            end=segment["end"],
            words=tuple(Word(w["word"], w["start"], w["end"], w["confidence"]) for w in segment["words"]),
            speaker=segment["speaker"],
            channel=segment["channel"],
            labels=segment["labels"],
        )
        for segment in result["segments"]
    )
    return Transcript(
        segments=segments,
        language=result["language"],
        model=result["model"],
        duration=result["duration"],
        truncated=bool(result.get("truncated")),
    )
