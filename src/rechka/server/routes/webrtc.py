"""WebRTC: ``POST /v1/webrtc`` takes an offer and gives the answer; words come on the data channel ``events``.

The messages are those of the native protocol (docs/server.md): ``ready``, ``partial``, ``final``, ``done``, ``error``;
the client may send ``flush`` and ``finish``. Its audio is one track, its data channel named ``events`` is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rechka.engine import Session, SessionOptions
from rechka.errors import BadRequest, IdleTimeout, MissingExtra, NoSuchThing, Overloaded, RechkaError, StreamFailed
from rechka.server.live import Gone
from rechka.server.service import Service
from rechka.server.uploads import json_of
from rechka.server.wire import dumps, event_dict, flag, hotwords, loads, number

if TYPE_CHECKING:
    from rechka.server.settings import Settings

log = logging.getLogger("rechka.server")

FIELDS = ("sdp", "type", "hotwords", "model", "partials", "pause")
LABEL = "events"
CODECS = {"opus": 48_000, "g722": 16_000, "pcma": 8_000, "pcmu": 8_000}
"""What is taken, best first -> samples per second after decoding. (An offer says 8000 for G.722, by an old mistake.)"""
MAX_SDP = 64 << 10
MAX_MEDIA, MAX_CANDIDATES = 8, 40
CONNECT_S = 30.0
SLACK_S, MAX_GAP_S = 0.06, 10.0
"""Lost packets are replaced by silence from the first on; a longer gap is a clock that jumped."""
MAX_TEXT = 4096
SENT_S = 10.0


def routes(service: Service) -> list[BaseRoute]:
    """``/v1/webrtc``."""
    peers: set[object] = set()
    service.metrics.gauge("rechka_webrtc_connections", "Open WebRTC connections.", lambda: len(peers))

    async def offer(request: Request) -> Response:
        principal = service.identify(request, "stream")
        if not service.settings.webrtc:
            raise NoSuchThing("this server takes no WebRTC", remedy="set webrtc")
        fields = await json_of(request)
        if unknown := set(fields) - set(FIELDS):
            raise BadRequest(f"unknown field {sorted(unknown)[0][:40]!r}", remedy=f"known: {', '.join(FIELDS)}")
        if fields.get("type") != "offer":
            raise BadRequest('type must be "offer"')
        codec, model = codec_of(fields.get("sdp")), fields.get("model")
        if not isinstance(model, (str, type(None))):
            raise BadRequest("model must be a text")
        pause = fields.get("pause")
        options = SessionOptions(
            sample_rate=CODECS[codec],
            hotwords=hotwords(fields.get("hotwords") or {}),
            partials=flag(fields.get("partials", True), "partials"),
            min_silence_s=None if pause is None else number(pause, "pause"),
        )
        if len(peers) >= service.settings.max_webrtc:
            raise Overloaded("too many WebRTC connections", remedy="try again soon", retry_after_s=5.0)
        engine = service.engine(model)
        place = object()
        peers.add(place)  # it is taken now, so that a crowd cannot slip in together
        try:
            session = await service.open(principal, options, model=model)
            peer = _Peer(service, session, engine.asr.name)
            try:
                answer = await peer.answer(fields["sdp"], codec)
            except BaseException:
                await peer.close()
                raise
        except BaseException:
            peers.discard(place)
            raise
        service.keep(peer.run()).add_done_callback(lambda _: peers.discard(place))
        return JSONResponse(
            {"sdp": answer, "type": "answer", "session": session.id, "model": engine.asr.name,
             "sample_rate": CODECS[codec]}
        )  # fmt: skip

    return [Route("/v1/webrtc", offer, methods=["POST"])]


def codec_of(sdp: Any) -> str:
    """The best codec of the audio that an offer sends.

    Raises:
        BadRequest: no offer, or one without audio that can be understood, or with too much of anything.
    """
    if not isinstance(sdp, str) or len(sdp) > MAX_SDP:
        raise BadRequest(f"sdp must be a text of at most {MAX_SDP} letters")
    lines = sdp.splitlines()
    if sum(line.startswith("m=") for line in lines) > MAX_MEDIA:
        raise BadRequest(f"an offer has at most {MAX_MEDIA} media")
    if sum(line.startswith("a=candidate:") for line in lines) > MAX_CANDIDATES:
        raise BadRequest(f"an offer has at most {MAX_CANDIDATES} candidates")
    audio, offered = 0, set()
    for line in lines:
        audio += line.startswith("m=audio ")
        if (found := re.fullmatch(r"a=rtpmap:\d{1,3} ([\w.-]{1,20})/\d+.*", line)) is not None and audio:
            offered.add(found[1].lower())
    if audio != 1:
        raise BadRequest(f"an offer has one audio track, got {audio}")
    best = next((codec for codec in CODECS if codec in offered), None)
    if best is None:
        raise BadRequest(f"the audio must be one of {', '.join(CODECS)}")
    return best


def ice(settings: Settings) -> Any:
    """aiortc's configuration; an empty list means none, while nothing would mean a public server."""
    from aiortc import RTCConfiguration, RTCIceServer

    found = []
    for url in settings.webrtc_ice:
        known = {"username": settings.webrtc_ice_user or None, "credential": settings.webrtc_ice_password or None}
        found.append(RTCIceServer(urls=url, **(known if url.startswith("turn") else {})))
    return RTCConfiguration(iceServers=found)


class _Peer:
    """One connection."""

    def __init__(self, service: Service, session: Session, model: str) -> None:
        try:
            from aiortc import RTCPeerConnection
        except ImportError:
            session.cancel()
            raise MissingExtra('WebRTC needs aiortc: pip install "rechka[webrtc]"') from None
        self.service, self.session, self.model = service, session, model
        self.connection = RTCPeerConnection(ice(service.settings))
        self.track: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.channel: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()
        self.connection.on("track", self._on_track)
        self.connection.on("datachannel", self._on_channel)
        self.connection.on("connectionstatechange", self._on_state)

    async def answer(self, sdp: str, codec: str) -> str:
        """The answer to an offer, with this machine's candidates.

        Raises:
            BadRequest: an offer that cannot be understood.
        """
        from aiortc import RTCRtpReceiver, RTCSessionDescription

        capable = RTCRtpReceiver.getCapabilities("audio").codecs
        try:
            await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            for transceiver in self.connection.getTransceivers():
                transceiver.direction = "recvonly" if transceiver.kind == "audio" else "inactive"
                if transceiver.kind == "audio":
                    wanted = [one for one in capable if one.mimeType.lower() == f"audio/{codec}"]
                    transceiver.setCodecPreferences(wanted)
            await self.connection.setLocalDescription(await self.connection.createAnswer())
        except Exception as error:  # the parser raises whatever a hostile line leads to
            log.debug("an offer was not understood", exc_info=error)
            raise BadRequest("the offer cannot be understood", remedy="send what createOffer gave") from None
        found: str = self.connection.localDescription.sdp
        return found

    async def run(self) -> None:
        """Until somebody leaves."""
        try:
            await self._talk()
        except Gone:
            pass
        except RechkaError as error:
            await self._fail(error)
        except Exception as error:
            log.error("a WebRTC connection failed", exc_info=error)
            await self._fail(StreamFailed("a fault ended the connection", remedy="report it with the server's log"))
        finally:
            await self.close()

    async def close(self) -> None:
        """Free everything."""
        self.session.cancel()
        await self.connection.close()

    async def _talk(self) -> None:
        try:
            track = await asyncio.wait_for(self.track, CONNECT_S)
            await asyncio.wait_for(self.channel, CONNECT_S)
        except asyncio.TimeoutError:
            raise IdleTimeout(f"no track and no data channel {LABEL!r} within {CONNECT_S:g} s") from None
        await self._say({"type": "ready", "protocol": 1, "session": self.session.id, "model": self.model,
                         "sample_rate": self.session.rate, "encoding": "s16le", "channels": 1,
                         "start": 0.0})  # fmt: skip
        tasks = [asyncio.ensure_future(one) for one in (self._hear(track), self._tell(), self.gone.wait())]
        hearing, telling, leaving = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                raise Gone
            if hearing.done():  # whatever ended it, what was heard is told
                self.session.finish()
                await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
                hearing.result()
            if telling.done():
                telling.result()
                await self._end()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self, track: Any) -> None:
        from aiortc import MediaStreamError

        idle, origin, fed = self.service.settings.idle_s, 0, 0
        while not self.session.finished:
            try:
                with anyio.fail_after(idle):  # wait_for, up to Python 3.11, loses a cancellation that meets a packet
                    frame = await track.recv()
            except TimeoutError:
                raise IdleTimeout(f"no audio came for {idle:g} s") from None
            except MediaStreamError:
                return
            samples = mono(frame)
            if frame.sample_rate != self.session.rate:
                raise StreamFailed(f"the audio has {frame.sample_rate} Hz, agreed on were {self.session.rate}")
            at = round(float(frame.pts * frame.time_base) * frame.sample_rate)
            origin = at - fed if fed == 0 else origin
            gap = at - origin - fed
            if not SLACK_S <= abs(gap) / frame.sample_rate <= MAX_GAP_S:
                if abs(gap) / frame.sample_rate > MAX_GAP_S:
                    origin = at - fed
                gap = 0
            if gap < 0:
                continue  # late: silence stands there already
            if gap:
                await self._feed(bytes(2 * gap))
            fed += gap + len(samples) // 2
            await self._feed(samples)

    async def _feed(self, data: bytes) -> None:
        if not self.session.finished:
            await self.session.feed(data)

    async def _tell(self) -> None:
        async for events in self.session.batches():
            for event in events:
                await self._say(event_dict(event))

    async def _end(self) -> None:
        if self.session.drained:
            where = {name: round(getattr(self.session, f"{name}_s"), 3) for name in ("fed", "done")}
            await self._say({"type": "going_away", "received": where["fed"], "done": where["done"],
                             "keep": where["done"]})  # fmt: skip
        else:
            await self._say({"type": "done", "duration": round(self.session.fed_s, 3)})
        await self._flushed()

    async def _fail(self, error: RechkaError) -> None:
        with contextlib.suppress(Gone):
            await self._say({"type": "error", "fatal": True, **error.to_dict()})
            await self._flushed()

    async def _say(self, message: dict[str, Any]) -> None:
        channel = self.channel.result() if self.channel.done() else None
        if channel is None or channel.readyState != "open":
            return
        if channel.bufferedAmount > 1 << 20:
            if message["type"] == "partial":
                return
            await self._flushed()
        with contextlib.suppress(ConnectionError):
            channel.send(dumps(message))

    async def _flushed(self) -> None:
        """Wait for the data channel to have sent what it was given."""
        channel, waited = self.channel.result() if self.channel.done() else None, 0.0
        while channel is not None and channel.readyState == "open" and channel.bufferedAmount:
            await asyncio.sleep(0.02)
            waited += 0.02
            if waited > SENT_S:
                raise Gone
        await asyncio.sleep(0.1)  # the last packet is on its way

    def _on_track(self, track: Any) -> None:
        if track.kind == "audio" and not self.track.done():
            self.track.set_result(track)

    def _on_channel(self, channel: Any) -> None:
        if channel.label == LABEL and not self.channel.done():
            channel.on("message", self._on_message)
            self.channel.set_result(channel)

    def _on_state(self) -> None:
        if self.connection.connectionState in ("failed", "closed"):
            self.gone.set()

    def _on_message(self, message: str | bytes) -> None:
        try:
            kind = loads(message).get("type") if len(message) <= MAX_TEXT else None
        except BadRequest:
            kind = None
        if kind == "flush":
            self.session.flush()
        elif kind == "finish":
            self.session.finish()


def mono(frame: Any) -> bytes:
    """A frame of aiortc, packed 16-bit samples of one or two channels, as bytes of one."""
    samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
    if samples.shape[1] == 1:
        return bytes(samples.astype("<i2").tobytes())
    return bytes((samples.astype("i4").sum(axis=1) // samples.shape[1]).astype("<i2").tobytes())
