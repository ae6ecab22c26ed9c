"""Home Assistant's Wyoming protocol: recognition over plain TCP, without keys or encryption.

A message is a line of JSON, then ``data_length`` bytes of JSON that are merged over its ``data``, then
``payload_length`` bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import anyio

from rechka import __version__
from rechka.engine import Session, SessionOptions
from rechka.errors import BadRequest, IdleTimeout, Overloaded, RechkaError, StreamFailed
from rechka.server.auth import Principal
from rechka.server.service import Service
from rechka.server.wire import dumps, hotwords, integer, loads
from rechka.types import Final

log = logging.getLogger("rechka.server")

MAX_LINE = 64 << 10
MAX_DATA = 256 << 10
WAIT_S = 600.0
"""Between two transcripts a client may keep silent for so long; longer, and nobody may be there any more."""
HOME = "https://github.com/rhasspy/wyoming"


async def start(service: Service) -> asyncio.Server:
    """Listen on the port of the settings."""
    settings = service.settings

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service.connections += 1
        try:
            if service.connections > settings.max_connections:
                raise Overloaded("too many connections")
            await _Client(service, reader, writer).run()
        except RechkaError as error:
            await _bye(writer, error)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError, asyncio.TimeoutError):
            log.debug("a Wyoming client left")
        except Exception as error:
            log.exception("a Wyoming connection failed")
            await _bye(writer, StreamFailed(type(error).__name__))
        finally:
            service.connections -= 1
            writer.close()

    return await asyncio.start_server(meet, settings.host, settings.wyoming_port, limit=MAX_LINE)


async def _bye(writer: asyncio.StreamWriter, error: RechkaError) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError, asyncio.TimeoutError):
        writer.write(_frame("error", {"text": error.message, "code": error.code}))
        await asyncio.wait_for(writer.drain(), 5)


def _frame(kind: str, data: dict[str, Any] | None = None) -> bytes:
    body = dumps(data).encode() if data else b""
    head: dict[str, Any] = {"type": kind, "version": __version__}
    if body:
        head["data_length"] = len(body)
    return dumps(head).encode() + b"\n" + body


class _Client:
    """One connection; it may ask for one transcript after the other."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.service, self.reader, self.writer = service, reader, writer
        peer = writer.get_extra_info("peername")
        self.principal = Principal(f"wyoming:{peer[0] if peer else 'local'}", ("stream",))
        self.words: dict[str, float] = {}
        self.session: Session | None = None
        self.texts: list[str] = []

    async def run(self) -> None:
        try:
            while (message := await self._read()) is not None:
                await self._hear(*message)
        finally:
            if self.session is not None:
                self.session.cancel()

    async def _read(self) -> tuple[str, dict[str, Any], bytes] | None:
        """Kind, data and payload of the next message; None at the end."""
        idle = self.service.settings.idle_s
        try:
            # wait_for, up to Python 3.11, loses a cancellation that comes together with a message.
            with anyio.fail_after(idle if self.session else max(idle, WAIT_S)):
                line = await self.reader.readline()
            if not line:
                return None
            head = loads(line)
            size = self._size(head, "data_length", MAX_DATA)
            data = head.get("data") or {}
            if not isinstance(data, dict):
                raise BadRequest(f"data must be an object, got {str(data)[:20]!r}")
            if size:
                with anyio.fail_after(idle):
                    data = {**data, **loads(await self.reader.readexactly(size))}
            size = self._size(head, "payload_length", self.service.settings.max_message_kb << 10)
            with anyio.fail_after(idle):
                payload = await self.reader.readexactly(size)
        except TimeoutError:
            raise IdleTimeout(f"nothing came for {idle:g} s") from None
        except ValueError as error:  # a line beyond the limit; BadRequest is one too
            raise error if isinstance(error, RechkaError) else BadRequest("the line is too long") from None
        return str(head.get("type")), data, payload

    @staticmethod
    def _size(head: dict[str, Any], name: str, most: int) -> int:
        size = integer(head.get(name) or 0, name)
        if not 0 <= size <= most:
            raise BadRequest(f"{name} must be from 0 to {most}, got {size}")
        return size

    async def _hear(self, kind: str, data: dict[str, Any], payload: bytes) -> None:
        if kind == "describe":
            await self._send("info", self._info())
        elif kind == "ping":
            await self._send("pong", {"text": data["text"]} if isinstance(data.get("text"), str) else None)
        elif kind == "transcribe":
            named = [data.get(name) or [] for name in ("transcript_names", "transcript_terms")]
            self.words = hotwords([word for part in named if isinstance(part, list) for word in part])
        elif kind == "audio-start":
            await self._start(data)
        elif kind == "audio-chunk":
            session = self.session or await self._start(data)
            await session.feed(payload)
            await self._tell(session.take())
        elif kind == "audio-stop":
            await self._stop()
        # Others belong to services that this one is not; Wyoming's rule is to let them pass.

    async def _start(self, data: dict[str, Any]) -> Session:
        if self.session is not None:
            self.session.cancel()
        if integer(data.get("width", 2), "width") != 2:
            raise BadRequest(f"samples must have 2 bytes, got {str(data.get('width'))[:20]}")
        channels = integer(data.get("channels", 1), "channels")
        options = SessionOptions(
            sample_rate=integer(data.get("rate", 16000), "rate"),
            channels=channels,
            mix=channels > 1,
            hotwords=self.words,
            partials=False,
        )
        self.texts = []
        self.session = await self.service.open(self.principal, options)
        return self.session

    async def _stop(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.finish()
            async for events in session.batches():
                await self._tell(events)
        if self.texts:
            await self._send("transcript-stop")
        language = self.service.engine().asr.language
        await self._send("transcript", {"text": " ".join(self.texts), "language": language})  # also if it is empty
        self.texts = []

    async def _tell(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Final) and event.segment.text:
                if not self.texts:
                    await self._send("transcript-start")
                await self._send("transcript-chunk", {"text": (" " if self.texts else "") + event.segment.text})
                self.texts.append(event.segment.text)

    async def _send(self, kind: str, data: dict[str, Any] | None = None) -> None:
        self.writer.write(_frame(kind, data))
        await asyncio.wait_for(self.writer.drain(), self.service.settings.send_s)

    def _info(self) -> dict[str, Any]:
        origin = {"attribution": {"name": "rechka", "url": HOME}, "installed": True, "version": __version__}
        models = [
            {"name": name, "description": name, "languages": [engine.asr.language], **origin}
            for name, engine in self.service.engines.items()
        ]
        program = {
            "name": "rechka",
            "description": "Russian speech recognition",
            **origin,
            "models": models,
            "supports_transcript_streaming": True,
            "requires_external_vad": False,
            "prefers_auto_gain_enabled": False,
            "prefers_noise_reduction_enabled": False,
        }
        empty: dict[str, list[Any]] = {kind: [] for kind in ("tts", "handle", "intent", "wake", "mic", "snd")}
        return {"asr": [program], **empty}
