"""Telephone systems in software: recordings replayed as Asterisk and Twilio send them, paced like calls or not.

Also a load tool: ``python -m rechka.testing.telephony twilio call.wav --calls 20 --pace 1`` makes so many calls at once
and prints what was said in each.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rechka.types import F32

PACKET_S = 0.02
AUDIOSOCKET_KINDS = {8_000: 0x10, 12_000: 0x11, 16_000: 0x12, 24_000: 0x13, 32_000: 0x14, 44_100: 0x15, 48_000: 0x16}
CODECS = {
    "ulaw": ("ULAW", 8_000), "alaw": ("ALAW", 8_000), "slin": ("PCM_16", 8_000), "slin16": ("PCM_16", 16_000),
    "slin48": ("PCM_16", 48_000),
}  # fmt: skip
"""Names as Asterisk has them -> soundfile's name, samples per second."""


def encoded(samples: F32, codec: str) -> bytes:
    """Samples in [-1, 1] at the codec's rate as bytes of it."""
    import soundfile

    file = io.BytesIO()
    kind, rate = CODECS[codec]
    soundfile.write(file, np.clip(samples, -1, 1), rate, format="RAW", subtype=kind, endian="LITTLE")
    return file.getvalue()


def packets(data: bytes, size: int) -> Iterator[bytes]:
    """Pieces of a size; the last one may be shorter."""
    return (data[start : start + size] for start in range(0, len(data), size))


class Pace:
    """Waits so that packets go out ``speed`` times as fast as they were spoken; 0 for as fast as can be."""

    def __init__(self, speed: float = 0.0) -> None:
        self._speed, self._began, self._sent = speed, time.monotonic(), 0.0

    async def after(self, seconds: float = PACKET_S) -> None:
        """A packet of so many seconds was sent."""
        self._sent += seconds
        if self._speed > 0:
            await asyncio.sleep(max(0.0, self._began + self._sent / self._speed - time.monotonic()))


async def audiosocket(
    host: str,
    port: int,
    pcm: bytes,
    *,
    id: str | None = None,
    rate: int = 8_000,
    speed: float = 0.0,
    digits: str = "",
    hang_up: bool = True,
) -> str:
    """A leg as Asterisk sends it: UUID, packets of 20 ms, DTMF in the middle, hangup or just the end of the connection.

    Args:
        host, port: of the server.
        pcm: 16-bit little-endian mono.
        id: UUID of the leg; None for a new one.
        rate: one of ``AUDIOSOCKET_KINDS``.
        speed: see ``Pace``.
        digits: to press.
        hang_up: with a message.

    Returns:
        The UUID.
    """
    call, kind = uuid.UUID(id) if id else uuid.uuid4(), AUDIOSOCKET_KINDS[rate]
    reader, writer = await asyncio.open_connection(host, port)
    try:
        with contextlib.suppress(OSError):  # the server hung up first; the end of what is sent says so in its own way
            writer.write(b"\x01\x00\x10" + call.bytes)
            pace, pieces = Pace(speed), list(packets(pcm, round(PACKET_S * rate) * 2))
            for i, piece in enumerate(pieces):
                writer.write(bytes((kind,)) + len(piece).to_bytes(2, "big") + piece)
                await writer.drain()
                await pace.after()
                if i == len(pieces) // 2:
                    writer.write(b"".join(b"\x03\x00\x01" + digit.encode("ascii") for digit in digits))
            if hang_up:
                writer.write(b"\x00\x00\x00")
            writer.write_eof()
            while await reader.read(4096):
                pass
    finally:
        writer.close()
    return str(call)


async def chan_websocket(
    url: str,
    data: bytes,
    *,
    codec: str = "ulaw",
    call: str | None = None,
    track: str | None = None,
    plain: bool = False,
    speed: float = 0.0,
    digits: str = "",
    headers: Mapping[str, str] | None = None,
) -> str:
    """A channel of Asterisk's chan_websocket.

    Args:
        url: of the server, ``ws://HOST:PORT``.
        data: in the codec.
        codec: one of ``CODECS``.
        call: name of the call, as ``v(call=NAME)`` gives it; None for a new one.
        track: of the call.
        plain: control messages in plain text, else JSON.
        speed: see ``Pace``.
        digits: to press.
        headers: of the handshake.

    Returns:
        The name of the call.
    """
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    call, size = call or str(uuid.uuid4()), round(PACKET_S * CODECS[codec][1])
    size *= 2 if codec.startswith("slin") else 1
    fields = {"connection_id": "rechka", "channel": "WebSocket/rechka/0x1", "channel_id": "1761245643.1",
              "format": codec, "optimal_frame_size": size, "ptime": 20}  # fmt: skip

    def control(event: str, told: Mapping[str, Any]) -> str:
        if plain:
            return " ".join([event, *(f"{name}:{value}" for name, value in told.items())])
        return json.dumps({"event": event, **told})

    query = f"call={call}" + (f"&track={track}" if track else "")
    address, media = f"{url}/v1/asterisk?{query}", [Subprotocol("media")]
    async with connect(address, subprotocols=media, additional_headers=headers, compression=None) as socket:
        await socket.send(control("MEDIA_START", fields if plain else {**fields, "channel_variables": {"LANG": "ru"}}))
        pace, pieces = Pace(speed), list(packets(data, size))
        for i, piece in enumerate(pieces):
            await socket.send(piece)
            await pace.after()
            if i == len(pieces) // 2:
                for digit in digits:
                    await socket.send(control("DTMF_END", {"digit": digit, "channel_id": "1761245643.1"}))
    return call


def twilio_messages(
    tracks: Mapping[str, bytes], *, call: str, parameters: Mapping[str, str] | None = None, lost: Iterable[int] = ()
) -> Iterator[dict[str, Any]]:
    """Messages of a stream: connected, start, media of both tracks in turns, stop.

    Args:
        tracks: ``inbound``, ``outbound`` -> mu-law of 8000 Hz.
        call: its callSid.
        parameters: custom ones.
        lost: numbers of packets that do not arrive, from 0.
    """
    stream = "MZ" + uuid.uuid4().hex
    yield {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    start = {"streamSid": stream, "accountSid": "AC0", "callSid": call, "tracks": list(tracks), "mediaFormat": form,
             "customParameters": dict(parameters or {})}  # fmt: skip
    yield {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": stream}
    pieces = {name: list(packets(data, 160)) for name, data in tracks.items()}
    number, missing = 1, set(lost)
    for i in range(max((len(rows) for rows in pieces.values()), default=0)):
        for name, rows in pieces.items():
            if i < len(rows) and i not in missing:
                number += 1
                media = {"track": name, "chunk": str(i + 1), "timestamp": str(i * 20),
                         "payload": base64.b64encode(rows[i]).decode()}  # fmt: skip
                yield {"event": "media", "sequenceNumber": str(number), "media": media, "streamSid": stream}
    yield {"event": "stop", "sequenceNumber": str(number + 1), "streamSid": stream,
           "stop": {"accountSid": "AC0", "callSid": call}}  # fmt: skip


async def twilio(
    url: str,
    tracks: Mapping[str, bytes],
    *,
    call: str | None = None,
    parameters: Mapping[str, str] | None = None,
    token: str | None = None,
    speed: float = 0.0,
    lost: Iterable[int] = (),
) -> str:
    """A stream of Twilio; see ``twilio_messages``.

    Args:
        url: of the server, ``ws://HOST:PORT``.
        tracks: as there.
        call: its callSid; None for a new one.
        parameters: custom ones.
        token: auth token that signs the address.
        speed: see ``Pace``.
        lost: as there.

    Returns:
        The callSid.
    """
    from websockets.asyncio.client import connect

    from rechka.server.telephony.twilio import signature

    call, address = call or "CA" + uuid.uuid4().hex, f"{url}/v1/twilio"
    headers = {"X-Twilio-Signature": signature(token, address)} if token else None
    async with connect(address, additional_headers=headers, compression=None) as socket:
        pace = Pace(speed)
        for message in twilio_messages(tracks, call=call, parameters=parameters, lost=lost):
            await socket.send(json.dumps(message))
            if message["event"] == "media":
                await pace.after(PACKET_S / len(tracks))
        await socket.wait_closed()
    return call


async def told(url: str, call: str, *, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """All events of a call until its end, partials too.

    Args:
        url: of the server, ``ws://HOST:PORT``.
        call: its name.
        headers: of the handshake.
    """
    from websockets.asyncio.client import connect

    async with connect(f"{url}/v1/calls/{call}/events", additional_headers=headers, compression=None) as socket:
        return [json.loads(text) async for text in socket]


async def _call(options: argparse.Namespace, samples: F32) -> str:
    url = f"ws://{options.host}:{options.port}"
    if options.protocol == "audiosocket":
        pcm = encoded(samples, "slin")
        call = await audiosocket(options.host, options.audiosocket_port, pcm, speed=options.pace)
    elif options.protocol == "chan_websocket":
        call = await chan_websocket(url, encoded(samples, "ulaw"), speed=options.pace)
    else:
        call = await twilio(url, {"inbound": encoded(samples, "ulaw")}, token=options.token, speed=options.pace)
    events = await told(url, call)
    return str(events[-1]["transcript"]["text"])


async def _calls(options: argparse.Namespace, samples: F32) -> int:
    began = time.monotonic()
    found = await asyncio.gather(*(_call(options, samples) for _ in range(options.calls)), return_exceptions=True)
    for one in found:
        print(f"failed: {one!r}" if isinstance(one, BaseException) else one)
    seconds, failed = time.monotonic() - began, sum(isinstance(one, BaseException) for one in found)
    print(f"{options.calls} calls of {len(samples) / 8000:.1f} s in {seconds:.1f} s, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The load tool; 1 if a call failed."""
    import rechka

    parser = argparse.ArgumentParser(prog="python -m rechka.testing.telephony", description="Make calls.")
    parser.add_argument("protocol", choices=("audiosocket", "chan_websocket", "twilio"))
    parser.add_argument("recording", help="the caller")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="of the server (default: %(default)s)")
    parser.add_argument("--audiosocket-port", type=int, default=9092, help="(default: %(default)s)")
    parser.add_argument("--calls", type=int, default=1, help="at the same time (default: %(default)s)")
    parser.add_argument("--pace", type=float, default=1.0, help="1 as spoken, 0 as fast as can be (default: 1)")
    parser.add_argument("--token", help="Twilio's auth token")
    options = parser.parse_args(arguments)
    source = rechka.open_source(options.recording, sample_rate=8_000)
    samples = np.concatenate([chunk[0].samples for chunk in source])
    return asyncio.run(_calls(options, samples))


if __name__ == "__main__":
    sys.exit(main())
