"""Asterisk's AudioSocket: TCP, Asterisk connects, each connection is one leg of a call and begins with its UUID.

A frame is its kind (one byte), the length of its payload (two bytes, big-endian), the payload. Audio is 16-bit
little-endian mono; its kind tells the rate. The protocol knows no keys: a leg is let in because its UUID was announced
(``POST /v1/calls``) or is in ``audiosocket_ids``, or because of where it comes from.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import ipaddress
import logging
import uuid

import anyio

from rechka.errors import BadRequest, Draining, Forbidden, IdleTimeout, Overloaded, RechkaError, Unauthorized
from rechka.server.auth import Principal
from rechka.server.live import Gone
from rechka.server.service import Service
from rechka.server.telephony.line import Line

log = logging.getLogger("rechka.server")

HEAD = 3
HANGUP, ID, SILENCE, DTMF, ERROR = 0x00, 0x01, 0x02, 0x03, 0xFF
RATES = {
    0x10: 8_000, 0x11: 12_000, 0x12: 16_000, 0x13: 24_000, 0x14: 32_000, 0x15: 44_100, 0x16: 48_000, 0x17: 96_000,
    0x18: 192_000,
}  # fmt: skip
"""Kinds of audio -> samples per second."""
ERRORS = {0x01: "hangup", 0x02: "a frame could not be forwarded", 0x04: "no memory"}
FIRST_S = 10.0
"""Time for the UUID, which Asterisk sends at once."""
SILENCE_S = 0.02
"""Of a frame of silence, which early versions sent."""


async def start(service: Service) -> asyncio.Server:
    """Listen on the port of the settings."""
    settings = service.settings
    peers = tuple(ipaddress.ip_network(text) for text in settings.audiosocket_peers)

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        service.connections += 1
        peer = writer.get_extra_info("peername")
        address = str(peer[0]).partition("%")[0] if peer else "local"
        try:
            if service.connections > settings.max_connections:
                raise Overloaded("too many connections")
            if peers and not any(ipaddress.ip_address(address) in network for network in peers):
                raise Forbidden("the address is not one of audiosocket_peers")
            await _Leg(service, reader, address, trusted=bool(peers)).run()
        except RechkaError as error:
            level = logging.INFO if isinstance(error, Draining) else logging.WARNING
            log.log(level, "AudioSocket from %s ended: %s [%s]", address, error.message, error.code)
            service.requests.add(1, "audiosocket", error.code)
            await _hang_up(writer)
        except (ConnectionError, Gone):
            service.requests.add(1, "audiosocket", "ok")
        except Exception:
            log.exception("an AudioSocket connection failed")
            service.requests.add(1, "audiosocket", "service.failed")
        else:
            service.requests.add(1, "audiosocket", "ok")
        finally:
            service.connections -= 1
            writer.close()

    return await asyncio.start_server(meet, settings.host, settings.audiosocket_port)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """The only thing that can be said: this leg is over."""
    with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
        writer.write(frame(HANGUP))
        await asyncio.wait_for(writer.drain(), 5)


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame; at most 65535 bytes of payload."""
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


def parse_head(head: bytes) -> tuple[int, int]:
    """Kind and length of the payload that follows.

    Raises:
        BadRequest: a kind that nobody knows, or a length that it cannot have.
    """
    kind, length = head[0], int.from_bytes(head[1:HEAD], "big")
    known = {HANGUP: (0, 255), ID: (16, 16), SILENCE: (0, 65535), DTMF: (1, 1), ERROR: (0, 255)}
    least, most = known.get(kind, (0, 65535) if kind in RATES else (1, 0))
    if not least <= length <= most:
        raise BadRequest(f"AudioSocket has no frame of kind 0x{kind:02x} with {length} bytes")
    return kind, length


class _Leg:
    """One connection."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, address: str, *, trusted: bool) -> None:
        self.service, self.reader, self.address, self.trusted = service, reader, address, trusted

    async def run(self) -> None:
        kind, payload = await self._read(FIRST_S)
        if kind == HANGUP:
            return
        if kind != ID:
            raise BadRequest(f"the first frame holds the UUID, got kind 0x{kind:02x}")
        line = self._line(str(uuid.UUID(bytes=payload)))
        try:
            await line.run(lambda: self._hear(line))
        finally:
            await line.close()

    def _line(self, id: str) -> Line:
        calls = self.service.calls
        if (found := calls.expected(id)) is not None:
            return Line(self.service, found[0], [found[1]])
        allowed = self.service.settings.audiosocket_ids
        if allowed and not any(fnmatch.fnmatchcase(id, pattern.lower()) for pattern in allowed):
            raise Unauthorized("the UUID is neither announced nor one of audiosocket_ids")
        if not allowed and not self.trusted and not self.service.auth.open:
            raise Unauthorized("the UUID was not announced", remedy="POST /v1/calls, or set audiosocket_ids or _peers")
        return Line(self.service, *calls.join(id, "audiosocket", "", ["caller"]))

    async def _hear(self, line: Line) -> None:
        idle = self.service.settings.idle_s
        principal = Principal(f"audiosocket:{self.address}", ("stream",))
        audio: int | None = None
        while True:
            kind, payload = await self._read(idle)
            if kind == HANGUP:
                return
            if kind == ERROR:
                code = payload[0] if payload else 0
                names = [name for bit, name in ERRORS.items() if code & bit] or [f"0x{code:02x}"]
                log.info("AudioSocket from %s: Asterisk reports %s", self.address, ", ".join(names))
                return
            if kind == DTMF:
                digit = chr(payload[0])
                if digit in "0123456789*#ABCDabcd":
                    line.digit(digit.upper())
            elif kind in RATES:
                if audio is None:
                    audio = kind
                    await line.open(principal, sample_rate=RATES[kind])
                if kind != audio:
                    raise BadRequest(f"the rate changed from {RATES[audio]} to {RATES[kind]} Hz within a call")
                assert line.session is not None
                await line.session.feed(payload)
            elif kind == SILENCE and line.session is not None:
                await line.session.feed(bytes(2 * round(SILENCE_S * line.session.rate)))
            elif kind == ID:
                raise BadRequest("the UUID came twice")

    async def _read(self, idle_s: float) -> tuple[int, bytes]:
        try:
            with anyio.fail_after(idle_s):
                kind, length = parse_head(await self.reader.readexactly(HEAD))
                return kind, await self.reader.readexactly(length)
        except TimeoutError:
            raise IdleTimeout(f"nothing came for {idle_s:g} s", remedy="send silence too") from None
        except asyncio.IncompleteReadError:
            raise Gone from None
