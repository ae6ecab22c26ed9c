"""OpenAI's REST API for recordings: ``/v1/audio/transcriptions`` with all formats and SSE, and ``/v1/models``."""

from __future__ import annotations

import asyncio
import contextlib
import math
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from rechka.engine import SessionOptions
from rechka.errors import BadRequest, NoSuchThing, QuotaExceeded, RechkaError, Unauthorized
from rechka.formats import render
from rechka.server.auth import Principal
from rechka.server.service import Service
from rechka.server.uploads import Form, form_of
from rechka.server.wire import dumps, flag, hotwords, retry_headers, status_of
from rechka.types import Event, Final, Refined, Segment, Transcript

FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
KEEPALIVE_S = 10.0
"""A comment is sent when there was nothing to say for so long, so that proxies keep the connection."""


def shown(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint with errors in OpenAI's shape."""

    @wraps(endpoint)
    async def wrapped(request: Request) -> Response:
        try:
            return await endpoint(request)
        except RechkaError as error:
            return JSONResponse({"error": error_dict(error)}, status_of(error), retry_headers(error))

    return wrapped


def error_dict(error: RechkaError) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    kind = "invalid_request_error" if status_of(error) < 500 else "server_error"
    if isinstance(error, Unauthorized):
        kind = "authentication_error"
    elif isinstance(error, QuotaExceeded):
        kind = "rate_limit_error"
    return {"message": str(error), "type": kind, "param": None, "code": error.code}


def routes(service: Service) -> list[BaseRoute]:
    """``/v1/audio/transcriptions``, ``/v1/models``, ``/v1/models/{id}``."""

    @shown
    async def transcriptions(request: Request) -> Response:
        principal = service.identify(request, "files")
        async with contextlib.AsyncExitStack() as stack:
            form = await stack.enter_async_context(form_of(request))
            ask = _Ask(service, principal, form)
            if ask.stream:
                kept = stack.pop_all()  # the file is needed until the last event is sent
                return StreamingResponse(ask.events(kept), media_type="text/event-stream", headers=_UNBUFFERED)
            return ask.answer(await ask.transcribe())

    @shown
    async def models(request: Request) -> Response:
        service.identify(request, "files")
        return JSONResponse({"object": "list", "data": [_model(service, name) for name in _names(service)]})

    @shown
    async def model(request: Request) -> Response:
        service.identify(request, "files")
        name = request.path_params["name"]
        if name not in _names(service):
            raise NoSuchThing(f"no model is called {name[:80]!r}")
        return JSONResponse(_model(service, name))

    return [
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def _names(service: Service) -> list[str]:
    return [*service.engines, *service.settings.aliases]


def _model(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.started, "owned_by": "rechka"}


class _Ask:
    """One request to transcribe.

    Raises:
        BadRequest: fields that cannot be.
    """

    def __init__(self, service: Service, principal: Principal, form: Form) -> None:
        if form.file is None:
            raise BadRequest("the form has no file", remedy="send the recording in the field `file`")
        self.service, self.principal, self.file = service, principal, form.file
        self.model = form.one("model")
        service.engine(self.model)
        self.format = form.one("response_format", "json")
        if self.format not in FORMATS:
            raise BadRequest(f"response_format must be one of {', '.join(FORMATS)}, got {self.format[:40]!r}")
        # Other formats cannot be sent piece by piece; clients that ask for both get them whole.
        self.stream = flag(form.one("stream", "false"), "stream") and self.format in ("json", "text", "diarized_json")
        self.granularities = form.many("timestamp_granularities")
        self.words = hotwords(form.many("keywords"))
        self.diarized = self.format == "diarized_json"

    async def transcribe(self, on_event: Callable[[Event], None] | None = None) -> Transcript:
        return await self.service.transcribe(
            self.principal,
            self.file,
            model=self.model,
            options=SessionOptions(hotwords=self.words, partials=False, bulk=True),
            split=self.diarized,
            on_event=on_event,
        )

    def answer(self, transcript: Transcript) -> Response:
        """In the format that was asked for."""
        if self.format == "text":
            return PlainTextResponse(transcript.text + "\n")
        if self.format in ("srt", "vtt"):
            kind = "application/x-subrip" if self.format == "srt" else "text/vtt"
            return PlainTextResponse(render(transcript, self.format), media_type=kind)
        usage = {"type": "duration", "seconds": math.ceil(transcript.duration)}
        if self.format == "json":
            return JSONResponse({"text": transcript.text, "usage": usage})
        duration = round(transcript.duration, 3)
        common = {"task": "transcribe", "duration": duration, "text": transcript.text, "usage": usage}
        if self.diarized:
            return JSONResponse({**common, "segments": [diarized(s, i) for i, s in enumerate(transcript.segments)]})
        body: dict[str, Any] = {**common, "language": LANGUAGES.get(transcript.language, transcript.language)}
        if "segment" in self.granularities or not self.granularities:
            body["segments"] = [_segment(s, i) for i, s in enumerate(transcript.segments)]
        if "word" in self.granularities:
            body["words"] = [word.to_dict() for word in transcript.words]
        return JSONResponse(body)

    async def events(self, kept: contextlib.AsyncExitStack) -> AsyncIterator[str]:
        """Server-sent events: what is final goes out at once; the pieces together are the whole text."""
        async with kept:
            queue: asyncio.Queue[Segment | None] = asyncio.Queue()
            hold = _Hold(queue)
            task = asyncio.create_task(self.transcribe(hold.see))
            task.add_done_callback(lambda _: hold.end())
            told, count = "", 0
            try:
                while True:
                    try:
                        segment = await asyncio.wait_for(queue.get(), KEEPALIVE_S)
                    except asyncio.TimeoutError:
                        yield ": still listening\n\n"
                        continue
                    if segment is None:
                        break
                    if segment.text:
                        delta = f" {segment.text}" if told else segment.text
                        told += delta
                        if self.diarized:
                            yield _sse(diarized(segment, count))
                            count += 1
                        yield _sse({"type": "transcript.text.delta", "delta": delta})
                try:
                    await task
                except RechkaError as error:
                    yield _sse({"error": error_dict(error)})
                    return
                yield _sse({"type": "transcript.text.done", "text": told})
                yield "data: [DONE]\n\n"
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


class _Hold:
    """Passes finals on, each one event late: it may be refined at once."""

    def __init__(self, queue: asyncio.Queue[Segment | None]) -> None:
        self._queue = queue
        self._held: Segment | None = None

    def see(self, event: Event) -> None:
        if isinstance(event, Refined):
            self._held = event.segment
            return
        self._pass()
        if isinstance(event, Final):
            self._held = event.segment

    def end(self) -> None:
        self._pass()
        self._queue.put_nowait(None)

    def _pass(self) -> None:
        if self._held is not None:
            self._queue.put_nowait(self._held)
            self._held = None


LANGUAGES = {"ru": "russian", "en": "english"}
"""Names that OpenAI uses where others use codes."""


def _segment(segment: Segment, number: int) -> dict[str, Any]:
    """A segment of ``verbose_json``; what only Whisper knows has its neutral value."""
    sure = [word.confidence for word in segment.words if word.confidence]
    text = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(math.log(p) for p in sure) / len(sure), 4) if sure else 0.0,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4) if text else 0.0,
        "no_speech_prob": 0.0,
    }


def diarized(segment: Segment, number: int) -> dict[str, Any]:
    """A segment of ``diarized_json``: speakers are channels, A, B, ..."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "speaker": chr(ord("A") + segment.channel),
        "text": segment.text,
    }


def _sse(value: dict[str, Any]) -> str:
    return f"data: {dumps(value)}\n\n"
