"""Asterisk's chan_websocket, at ``/v1/asterisk``: text messages that control, binary ones with the channel's codec.

Asterisk connects (``websocket_client.conf``), sends MEDIA_START with the codec, in plain text or JSON, and then audio.
Nothing is sent back: commands would be taken for the call's own, and transcripts are told by ``Calls``. So its flow
control (MEDIA_XOFF, MEDIA_XON), which is about audio sent to the channel, needs no answer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket

from rechka.errors import BadRequest, RechkaError
from rechka.server.auth import owner_of
from rechka.server.live import Socket, guarded
from rechka.server.service import Service
from rechka.server.telephony.line import Line
from rechka.server.wire import loads

CODECS: Mapping[str, tuple[str, int]] = {
    "ulaw": ("mulaw", 8_000), "alaw": ("alaw", 8_000), "slin": ("s16le", 8_000), "slin12": ("s16le", 12_000),
    "slin16": ("s16le", 16_000), "slin24": ("s16le", 24_000), "slin32": ("s16le", 32_000),
    "slin44": ("s16le", 44_100), "slin48": ("s16le", 48_000), "slin96": ("s16le", 96_000),
    "slin192": ("s16le", 192_000),
}  # fmt: skip
"""Asterisk's names of formats -> encoding and samples per second. Signed linear is in the byte order of its machine."""
MAX_TEXT = 64 << 10
MAX_FIELDS = 100


@dataclass(frozen=True, slots=True)
class Control:
    """A control message.

    Attributes:
        event: its name.
        fields: texts; numbers are texts too, since the plain form has nothing else.
        variables: of the channel; the plain form has none.
    """

    event: str
    fields: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def parse_control(text: str) -> Control:
    """A control message in either form: ``EVENT name:value name:value`` or JSON with ``event``.

    Raises:
        BadRequest: neither.
    """
    if len(text) > MAX_TEXT:
        raise BadRequest(f"a control message has at most {MAX_TEXT} letters")
    if text.lstrip().startswith("{"):
        given = loads(text)
        variables = given.pop("channel_variables", None)
        fields = _texts(given)
        return Control(fields.pop("event", ""), fields, _texts(variables) if isinstance(variables, dict) else {})
    event, *rest = text.split() or [""]
    if not event.isascii() or not event.replace("_", "").isalpha():
        raise BadRequest("a control message begins with the name of an event")
    pairs = (part.partition(":") for part in rest[:MAX_FIELDS])
    return Control(event, {name: value for name, colon, value in pairs if colon})


def _texts(given: Mapping[Any, Any]) -> dict[str, str]:
    simple = (str, int, float)
    return {str(k): str(v) for k, v in list(given.items())[:MAX_FIELDS] if isinstance(v, simple)}


def secret_of(websocket: WebSocket) -> str | None:
    """The key, which ``websocket_client.conf`` can send as the password of basic authentication."""
    kind, _, encoded = websocket.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, ValueError):
        return None


async def serve(service: Service, websocket: WebSocket) -> None:
    """One channel of Asterisk."""
    socket = Socket(websocket, service)

    async def show(_: RechkaError) -> None:
        """The close code and its reason say it; Asterisk logs them."""

    async with guarded(socket, show):
        await socket.accept()
        principal = service.identify(websocket, "stream", secret=secret_of(websocket))
        control = await _first(socket)
        if control.fields.get("format", "") not in CODECS:
            wanted = ", ".join(CODECS)
            raise BadRequest(f"format must be one of {wanted}", remedy="name it in the dial string, such as c(ulaw)")
        encoding, rate = CODECS[control.fields["format"]]
        query = websocket.query_params
        name = query.get("call") or query.get("uuid") or control.fields.get("channel_id") or ""
        tracks = [query.get("track", "caller")]
        line = Line(service, *service.calls.join(name, "chan_websocket", owner_of(principal), tracks))
        try:
            line.call.remember({**control.variables, **control.fields, **query})
            session = await line.open(principal, sample_rate=rate, encoding=encoding)

            async def hear() -> None:
                while True:
                    message = await socket.receive()
                    if isinstance(message, bytes):
                        await session.feed(message)
                        continue
                    told = parse_control(message)
                    if told.event == "DTMF_END":
                        line.digit(told.fields.get("digit", "")[:1])
                    elif told.event == "MEDIA_START":
                        raise BadRequest("MEDIA_START came twice")

            await line.run(hear)
            await socket.close()
        finally:
            await line.close()


async def _first(socket: Socket) -> Control:
    message = await socket.receive()
    if isinstance(message, bytes):
        raise BadRequest("audio came before MEDIA_START")
    control = parse_control(message)
    if control.event != "MEDIA_START":
        raise BadRequest(f"the first message is MEDIA_START, got {control.event[:40]!r}")
    return control
