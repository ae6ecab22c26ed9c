"""Twilio's Media Streams, at ``/v1/twilio``: JSON with 8 kHz mu-law in base64; both tracks of a call in one socket.

Twilio proves who it is by ``X-Twilio-Signature``, an HMAC-SHA1 of the address with the account's auth token. Without
such a token in the settings a key is asked for, which Twilio can only send as ``<Parameter name="token">``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.websockets import WebSocket

from rechka.errors import BadRequest, Forbidden, RechkaError, Unauthorized
from rechka.server.auth import Principal, owner_of
from rechka.server.live import Socket, guarded
from rechka.server.service import Service, credentials
from rechka.server.telephony.line import Line
from rechka.server.wire import integer, loads, retry_headers, status_of

RATE = 8_000
TRACKS = ("inbound", "outbound")
NAMES = {"inbound": "caller", "outbound": "agent"}
"""Twilio's tracks are seen from Twilio: ``inbound`` is what it receives from the caller."""
QUIET = b"\xff"
"""Silence in mu-law."""
SLACK = 2 * 160
"""Time stamps jitter; less than two packets is no gap."""
MAX_GAP_S = 300.0
MAX_TEXT = 256 << 10
"""Length of a message; a packet of 20 ms has 400 letters."""


@dataclass(frozen=True, slots=True)
class Start:
    """What the ``start`` message tells."""

    stream: str
    call: str
    tracks: tuple[str, ...]
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class Media:
    """A packet: track, number on its track if there is one, place in ms since the start, mu-law."""

    track: str
    chunk: int | None
    at_ms: int
    data: bytes


def parse_start(message: dict[str, Any]) -> Start:
    """The ``start`` message.

    Raises:
        BadRequest: no ids, tracks that nobody knows, or another encoding than mu-law of 8000 Hz.
    """
    start = _object(message.get("start"), "start")
    form = _object(start.get("mediaFormat", {}), "mediaFormat")
    told = (form.get("encoding", "audio/x-mulaw"), form.get("sampleRate", RATE), form.get("channels", 1))
    if told[0] != "audio/x-mulaw" or integer(told[1], "sampleRate") != RATE or integer(told[2], "channels") != 1:
        raise BadRequest(f"media are audio/x-mulaw of {RATE} Hz, got {str(told)[:80]}")
    tracks = start.get("tracks", ["inbound"])
    if not isinstance(tracks, list) or not 1 <= len(tracks) <= 2 or len({str(t) for t in tracks}) < len(tracks):
        raise BadRequest("tracks are inbound, outbound or both")
    if any(track not in TRACKS for track in tracks):
        raise BadRequest("tracks are inbound, outbound or both")
    stream, call = start.get("streamSid", message.get("streamSid")), start.get("callSid")
    parameters = _object(start.get("customParameters", {}), "customParameters")
    texts = {str(name): value for name, value in list(parameters.items())[:100] if isinstance(value, str)}
    return Start(str(stream or "")[:80], str(call or stream or ""), tuple(sorted(tracks)), texts)


def parse_media(message: dict[str, Any]) -> Media:
    """A ``media`` message.

    Raises:
        BadRequest: no base64, or numbers that are none.
    """
    media = _object(message.get("media"), "media")
    payload = media.get("payload")
    try:
        data = base64.b64decode(payload.encode("ascii") if isinstance(payload, str) else None, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error):
        raise BadRequest("the payload of media is base64") from None
    chunk = integer(media["chunk"], "chunk") if "chunk" in media else None
    at = integer(media.get("timestamp", 0), "timestamp")
    if at < 0:
        raise BadRequest(f"a timestamp is not below 0, got {at}")
    return Media(str(media.get("track", "inbound"))[:20], chunk, at, data)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object")
    return value


def signature(token: str, url: str) -> str:
    """``X-Twilio-Signature`` of a WebSocket's address, which has no parameters but those of its query."""
    return base64.b64encode(hmac.new(token.encode(), url.encode(), hashlib.sha1).digest()).decode()


def signed(token: str, given: str, urls: list[str]) -> bool:
    """Whether a signature is of one of the forms in which an address may have been written."""
    told = given.encode("utf-8", "replace")
    return any(hmac.compare_digest(signature(token, url).encode(), told) for url in urls)


def addresses(websocket: WebSocket, public_url: str) -> list[str]:
    """How Twilio may have written the address: with TLS or without it, with a slash at the end or without."""
    asked = urlsplit(str(websocket.url))
    host = urlsplit(public_url).netloc or asked.netloc
    base = urlsplit(public_url).path.rstrip("/")
    path = base + asked.path.rstrip("/")
    query = f"?{asked.query}" if asked.query else ""
    schemes = ("wss", "https", "ws", "http")
    return [f"{scheme}://{host}{path}{slash}{query}" for scheme in schemes for slash in ("", "/")]


class Place:
    """Where one track is: finds what came twice and what is missing."""

    def __init__(self) -> None:
        self._chunk: int | None = None
        self._samples = 0

    def take(self, media: Media) -> int | None:
        """Samples of silence to put before a packet; None if the packet came before.

        Raises:
            BadRequest: a gap that no call has.
        """
        if media.chunk is not None:
            if self._chunk is not None and media.chunk <= self._chunk:
                return None
            self._chunk = media.chunk
        gap = media.at_ms * RATE // 1000 - self._samples
        if gap > MAX_GAP_S * RATE:
            raise BadRequest(f"the timestamp jumps by {gap / RATE:.1f} s, at most {MAX_GAP_S:g} s may be missing")
        missing = gap if gap >= SLACK else 0
        self._samples += missing + len(media.data)
        return missing

    @property
    def samples(self) -> int:
        """So far, with what was missing."""
        return self._samples


async def serve(service: Service, websocket: WebSocket) -> None:
    """One stream of Twilio."""
    socket = Socket(websocket, service)
    token = service.settings.twilio_auth_token
    principal: Principal | None = None
    try:
        if token:
            given = websocket.headers.get("x-twilio-signature", "")
            if not signed(token, given, addresses(websocket, service.settings.public_url)):
                address = websocket.client.host if websocket.client else "local"
                service.auth.count(f"stranger:{address}", 60)
                raise Forbidden("X-Twilio-Signature does not fit", remedy="set twilio_auth_token and public_url")
            principal = Principal("twilio", ("stream",))
        elif service.auth.open or credentials(websocket)[0] is not None:
            principal = service.identify(websocket, "stream")
    except RechkaError as error:
        await socket.deny(status_of(error), {"error": error.to_dict()}, retry_headers(error))
        return

    async def show(_: RechkaError) -> None:
        """Twilio shows close codes in its debugger; it takes no messages that are not its own."""

    async with guarded(socket, show):
        await socket.accept()
        start = parse_start(await _started(socket))
        if principal is None:
            secret = start.parameters.get("token")
            if not secret:
                raise Unauthorized("a key is needed", remedy='<Parameter name="token"> in <Stream>')
            principal = service.identify(websocket, "stream", secret=secret)
        await _Stream(service, socket, start, principal).run()


async def _started(socket: Socket) -> dict[str, Any]:
    """The ``start`` message, after ``connected`` or without it."""
    for _ in range(2):
        message = _loaded(await socket.receive())
        if message.get("event") == "start":
            return message
        if message.get("event") != "connected":
            break
    raise BadRequest("a stream begins with connected and start")


def _loaded(message: str | bytes) -> dict[str, Any]:
    if len(message) > MAX_TEXT:
        raise BadRequest(f"a message has at most {MAX_TEXT} letters")
    return loads(message)


class _Stream:
    """After the start."""

    def __init__(self, service: Service, socket: Socket, start: Start, principal: Principal) -> None:
        self.socket, self.principal = socket, principal
        self.channels = {track: i for i, track in enumerate(start.tracks)}
        self.places = {track: Place() for track in start.tracks}
        names = [NAMES[track] for track in start.tracks]
        self.line = Line(service, *service.calls.join(start.call, "twilio", owner_of(principal), names))
        self.line.call.remember({**start.parameters, "streamSid": start.stream})

    async def run(self) -> None:
        try:
            await self.line.open(self.principal, sample_rate=RATE, encoding="mulaw")
            await self.line.run(self._hear)
            await self.socket.close()
        finally:
            await self.line.close()

    async def _hear(self) -> None:
        while True:
            message = _loaded(await self.socket.receive())
            event = message.get("event")
            if event == "media":
                await self._media(parse_media(message))
            elif event == "dtmf":
                told = _object(message.get("dtmf"), "dtmf")
                track = str(told.get("track", "")).removesuffix("_track")
                self.line.digit(str(told.get("digit", ""))[:1], self.channels.get(track, 0))
            elif event == "stop":
                return
            elif event == "start":
                raise BadRequest("start came twice")
            # Others, as mark, answer what was never sent.

    async def _media(self, media: Media) -> None:
        channel = self.channels.get(media.track)
        if channel is None:
            raise BadRequest(f"the stream has no track {media.track!r}")
        place = self.places[media.track]
        at = place.samples
        missing = place.take(media)
        if missing is None:
            return
        named = channel if len(self.channels) > 1 else None
        session = self.line.session
        assert session is not None
        if missing:
            self.line.gap(at / RATE, missing / RATE, channel)
            await session.feed(QUIET * missing, channel=named)
        await session.feed(media.data, channel=named)
