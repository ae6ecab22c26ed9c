"""FreeSWITCH's mod_audio_stream and mod_audio_fork, at ``/v1/freeswitch``: raw samples, and a text of the dialplan's.

They send 16-bit samples as they come, and text that the dialplan or the application chose; what they get back becomes
an event of FreeSWITCH, so here transcripts are told on the same socket too, in the native protocol's messages. What
makes this more than ``/v1/stream``: any first text is fine, and a hangup, which closes the socket without a word, does
not lose the last phrase (it is in the events of the call, and in the report).
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing

from starlette.datastructures import QueryParams
from starlette.websockets import WebSocket

from rechka.errors import BadRequest, RechkaError
from rechka.server.auth import owner_of
from rechka.server.live import Gone, Socket, guarded
from rechka.server.service import Service
from rechka.server.telephony.calls import Call
from rechka.server.telephony.line import Line
from rechka.server.wire import flag, integer, loads

MAX_TEXT = 64 << 10
STEREO = ("caller", "callee")
"""Of ``stereo``: the channel itself is left, whom it talks to is right."""


def parse_query(query: QueryParams) -> tuple[str, list[str], int]:
    """Name of the call, names of its tracks (one for each channel), samples per second.

    Raises:
        BadRequest: numbers that are none, or tracks that are not 1 or 2.
    """
    rate = integer(query.get("sample_rate", 8000), "sample_rate")
    channels = integer(query.get("channels", 1), "channels")
    given = query.get("tracks")
    tracks = given.split(",") if given else list(STEREO[:channels] if 1 <= channels <= 2 else ())
    if (
        not 1 <= len(tracks) <= 2
        or len(set(tracks)) < len(tracks)
        or (given and "channels" in query and len(tracks) != channels)
    ):
        raise BadRequest("channels is 1 (mono, mixed) or 2 (stereo), and tracks names each of them")
    return query.get("call") or str(uuid.uuid4()), tracks, rate


async def serve(service: Service, websocket: WebSocket) -> None:
    """One media bug."""
    socket = Socket(websocket, service)

    async def show(error: RechkaError) -> None:
        await socket.send({"type": "error", "fatal": True, **error.to_dict()})

    async with guarded(socket, show):
        await socket.accept()
        principal = service.identify(websocket, "stream")
        name, tracks, rate = parse_query(websocket.query_params)
        quiet = not flag(websocket.query_params.get("events", "true"), "events")
        line = Line(service, *service.calls.join(name, "freeswitch", owner_of(principal), tracks))
        telling: asyncio.Task[None] | None = None
        try:
            line.call.remember(dict(websocket.query_params))
            session = await line.open(principal, sample_rate=rate, interleaved=True)
            if not quiet:
                telling = asyncio.create_task(_tell(socket, line.call))

            async def hear() -> None:
                while True:
                    message = await socket.receive()
                    if isinstance(message, bytes):
                        await session.feed(message)
                    elif _finished(message, line.call):
                        return

            await line.run(hear)
        finally:
            await line.close()
            if telling is not None:
                await asyncio.wait({telling}, timeout=service.settings.send_s)
                telling.cancel()
        await socket.close()


def _finished(text: str, call: Call) -> bool:
    """Whether a text says that no more audio comes; others are the dialplan's own, and kept with the call."""
    if len(text) > MAX_TEXT:
        raise BadRequest(f"a text has at most {MAX_TEXT} letters")
    try:
        fields = loads(text)
    except BadRequest:
        call.remember({"metadata": text})
        return False
    if fields.get("type") == "finish":
        return True
    call.remember({name: str(value) for name, value in fields.items() if isinstance(value, (str, int, float))})
    return False


async def _tell(socket: Socket, call: Call) -> None:
    async with aclosing(call.listen()) as told:
        async for _, message in told:
            if message is None:
                continue
            try:
                await socket.send(message)
            except Gone:
                return
