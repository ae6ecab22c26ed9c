"""Deepgram's ``/v1/listen``: live over a WebSocket, recordings by POST.

``is_final`` is true for every phrase; ``speech_final`` if it ended with a pause rather than because it grew too long.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from rechka.audio import open_source
from rechka.audio.wav import parse_wav
from rechka.engine import Flushed, Session, SessionEvent, SessionOptions
from rechka.errors import BadRequest, RechkaError
from rechka.server.auth import Principal
from rechka.server.live import GOING_AWAY, Gone, Socket, guarded, talk
from rechka.server.service import Service
from rechka.server.uploads import body_of, json_of
from rechka.server.wire import flag, hotwords, integer, loads, number, retry_headers, status_of
from rechka.types import Final, Partial, Segment, SpeechEnd, SpeechStart, Word

ENCODINGS = {"linear16": "s16le", "mulaw": "mulaw", "alaw": "alaw", "linear32": "f32le"}
DEFAULT_RATES = {"linear16": 16000, "linear32": 16000, "mulaw": 8000, "alaw": 8000}
WAV_ENCODINGS = {"s16": "s16le", "f32": "f32le", "alaw": "alaw", "mulaw": "mulaw"}
MIN_ENDPOINTING_MS = 100.0
"""Deepgram's own default is 10 ms, for which it has another meaning: here a pause that short would cut words."""


def routes(service: Service) -> list[BaseRoute]:
    """``/v1/listen`` twice."""

    async def live(websocket: WebSocket) -> None:
        socket = Socket(websocket, service)
        request_id = new_id()

        async def show(error: RechkaError) -> None:
            if websocket.application_state is WebSocketState.CONNECTING:  # its clients understand a status best
                await socket.deny(status_of(error), error_dict(error, request_id), retry_headers(error))
            else:
                await socket.send({"type": "Error", "description": error.message, "message": error.remedy,
                                   "variant": error.code})  # fmt: skip

        async with guarded(socket, show):
            principal = service.identify(websocket, "stream")
            ask = _Ask(websocket.query_params)
            engine = service.engine(ask.model)
            session = None if ask.encoding is None else await service.open(principal, ask.options(), model=ask.model)
            try:
                await socket.accept()
                if session is None:  # a container: its first bytes tell what it is
                    first = await socket.receive()
                    session, first = await _by_header(service, principal, ask, first)
                    await session.feed(first)
                await _Live(service, socket, session, ask, request_id, engine.asr.name).run()
            finally:
                if session is not None:
                    session.cancel()

    async def recording(request: Request) -> Response:
        request_id = new_id()
        try:
            return await _recording(service, request, request_id)
        except RechkaError as error:
            return JSONResponse(error_dict(error, request_id), status_of(error), retry_headers(error))

    return [WebSocketRoute("/v1/listen", live), Route("/v1/listen", recording, methods=["POST"])]


def new_id() -> str:
    """Looks like a UUID, which clients may parse."""
    text = secrets.token_hex(16)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def error_dict(error: RechkaError, request_id: str) -> dict[str, Any]:
    """An error as Deepgram's clients expect it."""
    return {"err_code": error.code, "err_msg": str(error), "request_id": request_id}


class _Ask:
    """The query of a request; what means nothing here (``punctuate``, ``smart_format``, ...) is let pass.

    Raises:
        BadRequest: values that cannot be.
    """

    def __init__(self, query: QueryParams) -> None:
        self.model = query.get("model")
        self.encoding = query.get("encoding")
        if self.encoding is not None and self.encoding not in ENCODINGS:
            raise BadRequest(f"encoding must be one of {', '.join(ENCODINGS)}, got {self.encoding[:40]!r}")
        default = DEFAULT_RATES.get(self.encoding or "", 16000)
        self.rate = integer(query.get("sample_rate", default), "sample_rate")
        self.channels = integer(query.get("channels", 1), "channels")
        self.multichannel = flag(query.get("multichannel", "false"), "multichannel")
        self.interim = flag(query.get("interim_results", "false"), "interim_results")
        self.vad_events = flag(query.get("vad_events", "false"), "vad_events")
        self.utterances = flag(query.get("utterances", "false"), "utterances")
        self.utterance_end = query.get("utterance_end_ms", "").lower() not in ("", "false")
        self.words = hotwords([*query.getlist("keyterm"), *query.getlist("keywords")])
        self.pause_s: float | None = None
        if query.get("endpointing", "true").lower() not in ("true", "false"):
            self.pause_s = max(MIN_ENDPOINTING_MS, number(query["endpointing"], "endpointing")) / 1000

    def options(self, **changes: Any) -> SessionOptions:
        given: dict[str, Any] = {
            "sample_rate": self.rate,
            "encoding": ENCODINGS[self.encoding or "linear16"],
            "channels": self.channels,
            "mix": self.channels > 1 and not self.multichannel,
            "hotwords": self.words,
            "partials": self.interim,
            "min_silence_s": self.pause_s,
        }
        return SessionOptions(**{**given, **changes})


async def _by_header(service: Service, principal: Principal, ask: _Ask, first: str | bytes) -> tuple[Session, bytes]:
    """A session for audio whose encoding was not named: a wav header tells it, else it is taken for 16-bit samples."""
    if isinstance(first, str):
        raise BadRequest("audio comes first if the encoding is not named")
    form = parse_wav(first) if first.startswith(b"RIFF") else None
    if form is None:
        if first.startswith(b"RIFF") or first[:4] in (b"OggS", b"fLaC", b"\x1aE\xdf\xa3"):
            raise BadRequest(
                "a live stream is linear16, mulaw, alaw or wav", remedy="name the encoding, or POST the recording"
            )
        return await service.open(principal, ask.options(), model=ask.model), first
    if form.encoding not in WAV_ENCODINGS:
        raise BadRequest(f"a live wav holds 16-bit, float or G.711 samples, got {form.encoding}")
    changes = {"encoding": WAV_ENCODINGS[form.encoding], "sample_rate": form.sample_rate, "channels": form.channels}
    options = ask.options(**changes, mix=form.channels > 1 and not ask.multichannel)
    return await service.open(principal, options, model=ask.model), first[form.data_start :]


class _Live:
    """One WebSocket after its session is open."""

    def __init__(
        self, service: Service, socket: Socket, session: Session, ask: _Ask, request_id: str, model: str
    ) -> None:
        self.service, self.socket, self.session, self.ask = service, socket, session, ask
        self.request_id, self.model = request_id, model
        self.channels = 1 if session.options.mix else session.options.channels
        self.flushes = 0

    async def run(self) -> None:
        await talk(self.socket, self.session, hear=self._hear, tell=self._tell)

    async def _hear(self, message: str | bytes) -> bool:
        if isinstance(message, bytes):
            if message:  # an empty one was the old way to close
                await self.session.feed(message)
                return True
            kind: Any = "CloseStream"
        else:
            kind = loads(message).get("type")
        if kind == "Finalize":
            self.flushes += 1
            self.session.flush()
        elif kind == "CloseStream":
            self.session.finish()
            return False
        elif kind == "Configure":
            await self.socket.send({"type": "ConfigureFailure", "request_id": self.request_id,
                                    "code": "NOT_SUPPORTED", "message": "open a new connection"})  # fmt: skip
        elif kind != "KeepAlive":
            raise BadRequest(f"unknown message {str(kind)[:40]!r}", remedy="known: KeepAlive, Finalize, CloseStream")
        return True

    async def _tell(self) -> None:
        async for events in self.session.batches():
            for i, event in enumerate(events):
                await self._one(event, events[i + 1 :])
        created = datetime.datetime.now(datetime.timezone.utc)
        await self.socket.send(
            {"type": "Metadata", **metadata(self.request_id, self.model, self.session.fed_s, self.channels, created)}
        )
        await self.socket.close(GOING_AWAY if self.session.drained else 1000)
        if self.session.drained:
            raise Gone

    async def _one(self, event: SessionEvent, later: Sequence[SessionEvent]) -> None:
        if isinstance(event, Final):
            channel = event.segment.channel
            closed = any(isinstance(e, SpeechEnd) and e.channel == channel for e in later)
            asked = self.flushes > 0 and any(isinstance(e, Flushed) for e in later)
            await self.socket.send(self._results(event.segment, final=True, closed=closed, asked=asked))
        elif isinstance(event, Partial):
            now = Segment(event.text, event.start, max(event.start, self.session.done_s), channel=event.channel)
            await self.socket.send(self._results(now, final=False, closed=False, asked=False))
        elif isinstance(event, SpeechStart) and self.ask.vad_events:
            place = [event.channel, self.channels]
            await self.socket.send({"type": "SpeechStarted", "channel": place, "timestamp": round(event.time, 3)})
        elif isinstance(event, SpeechEnd) and self.ask.utterance_end:
            place, time = [event.channel, self.channels], round(event.time, 3)
            await self.socket.send({"type": "UtteranceEnd", "channel": place, "last_word_end": time})
        elif isinstance(event, Flushed):
            self.flushes = max(0, self.flushes - 1)

    def _results(self, segment: Segment, *, final: bool, closed: bool, asked: bool) -> dict[str, Any]:
        return {
            "type": "Results",
            "channel_index": [segment.channel, self.channels],
            "duration": round(segment.end - segment.start, 3),
            "start": round(segment.start, 3),
            "is_final": final,
            "speech_final": closed,
            "from_finalize": asked,
            "channel": {"alternatives": [alternative([segment])]},
            "metadata": {"request_id": self.request_id, **_model(self.model)},
        }


def _model(name: str) -> dict[str, Any]:
    info = {"name": name, "version": "1", "arch": "rechka"}
    return {"model_info": info, "model_uuid": name}


def metadata(request_id: str, model: str, duration: float, channels: int, created: datetime.datetime) -> dict[str, Any]:
    """What ends a stream, and stands at the head of a recording's answer."""
    return {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": "",
        "created": created.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "duration": round(duration, 3),
        "channels": channels,
        "models": [model],
        "model_info": {model: {"name": model, "version": "1", "arch": "rechka"}},
    }


def alternative(segments: Sequence[Segment]) -> dict[str, Any]:
    """The one alternative of some phrases."""
    words = [word for segment in segments for word in segment.words]
    sure = [word.confidence for word in words if word.confidence is not None]
    return {
        "transcript": " ".join(segment.text for segment in segments if segment.text),
        "confidence": round(sum(sure) / len(sure), 4) if sure else 0.0,
        "words": [_word(word) for word in words],
    }


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "confidence": 1.0 if word.confidence is None else round(word.confidence, 4),
        "punctuated_word": word.text,
    }


async def _recording(service: Service, request: Request, request_id: str) -> Response:
    principal = service.identify(request, "files")
    ask = _Ask(request.query_params)
    engine = service.engine(ask.model)
    if request.headers.get("content-type", "").startswith("application/json"):
        url = (await json_of(request)).get("url")
        if not isinstance(url, str):
            raise BadRequest("the body must be a recording, or JSON with its url")
        opened = service.fetched(url)
    else:
        opened = body_of(request)
    async with opened as file:
        source = file
        if ask.encoding is not None:
            source = await asyncio.to_thread(_raw, file, ask)
        options = SessionOptions(hotwords=ask.words, partials=False, bulk=True, min_silence_s=ask.pause_s)
        transcript = await service.transcribe(
            principal, source, model=ask.model, options=options, split=ask.multichannel
        )
    by_channel: dict[int, list[Segment]] = {0: []}
    for segment in transcript.segments:
        by_channel.setdefault(segment.channel, []).append(segment)
    channels = [{"alternatives": [alternative(part)]} for _, part in sorted(by_channel.items())]
    results: dict[str, Any] = {"channels": channels}
    if ask.utterances:
        results["utterances"] = [_utterance(segment) for segment in transcript.segments]
    created = datetime.datetime.now(datetime.timezone.utc)
    head = metadata(request_id, engine.asr.name, transcript.duration, len(channels), created)
    return JSONResponse({"metadata": head, "results": results})


def _raw(file: Any, ask: _Ask) -> Any:
    encoding = ENCODINGS[ask.encoding or "linear16"]
    if encoding == "f32le" or ask.channels > 1:
        raise BadRequest("a raw recording is mono linear16, mulaw or alaw", remedy="send a wav file")
    return open_source(file, encoding=encoding, encoding_rate=ask.rate)  # type: ignore[arg-type]  # checked above


def _utterance(segment: Segment) -> Mapping[str, Any]:
    found = alternative([segment])
    return {
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "confidence": found["confidence"],
        "channel": segment.channel,
        "transcript": found["transcript"],
        "words": found["words"],
        "id": new_id(),
    }
