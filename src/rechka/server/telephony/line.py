"""One connection of a telephone system: audio in, words to the board of calls.

Telephones hang up by vanishing, so unlike a browser that left, a line is heard to its end: what came until then is
recognised and told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rechka.engine import Session, SessionOptions
from rechka.errors import Draining, RechkaError
from rechka.server.auth import Principal
from rechka.server.live import Gone
from rechka.server.service import Service
from rechka.server.telephony.calls import Call

FINISH_S = 30.0
"""How long the last words of a call are waited for; a model that needs longer is overloaded."""


class Line:
    """A session whose channels are tracks of a call. ``open`` makes it, ``close`` must follow.

    Attributes:
        call: that it belongs to.
        tracks: of the call, one for each channel of the session.
        session: gets the audio; its channels are those of the tracks.
    """

    def __init__(self, service: Service, call: Call, tracks: Sequence[int]) -> None:
        self.service, self.call, self.tracks = service, call, list(tracks)
        self.session: Session | None = None
        self.reason = "hangup"
        self._opened = asyncio.Event()

    async def open(
        self, principal: Principal, *, sample_rate: int, encoding: str = "s16le", interleaved: bool = False
    ) -> Session:
        """Open the session, as whoever announced the call wanted it.

        Args:
            principal: if nobody announced it.
            sample_rate, encoding: of the audio.
            interleaved: samples of the channels alternate, else each packet is of one.

        Raises:
            Overloaded, Draining, QuotaExceeded, NoSuchThing, UsageError.
            Unauthorized: whoever announced the call has lost the key since.
        """
        wish = self.call.wish
        if wish is not None:
            principal = wish.principal
            self.service.auth.recheck(principal)
        engine = self.service.engine(wish.model if wish else None)
        start = self.call.begin(engine.asr.name, engine.asr.language) if self.call.state == "open" else 0.0
        options = SessionOptions(
            sample_rate=sample_rate,
            encoding=encoding,
            channels=len(self.tracks),
            interleaved=interleaved or len(self.tracks) == 1,
            hotwords=wish.hotwords if wish else {},
            partials=wish.partials if wish else True,
            start_s=start,
        )
        self.session = await self.service.open(principal, options, model=wish.model if wish else None)
        if self.call.state == "expected":
            self.call.begin(engine.asr.name, engine.asr.language)
        self._opened.set()
        return self.session

    def digit(self, digit: str, channel: int = 0) -> None:
        """A key of the telephone was pressed; before any audio nobody can say when, so it is not told."""
        if self.session is not None:
            self.call.digit(digit, self.tracks[channel], self.session.fed_s)

    def gap(self, start: float, duration: float, channel: int = 0) -> None:
        """Audio was missing, and silence takes its place; seconds of the session."""
        assert self.session is not None
        self.call.gap(self.tracks[channel], self.session.options.start_s + start, duration)

    async def run(self, hear: Callable[[], Awaitable[Any]]) -> None:
        """Hear until the client stops, tell what is found, and then the rest of it.

        Args:
            hear: feeds the session, which it may open late; returns at a hangup.

        Raises:
            Gone: the client left without a word, which is a hangup too.
            Draining: the server ended the session because it stops.
            RechkaError: from either side; what was heard before is told first.
        """
        hearing = asyncio.ensure_future(hear())
        telling = asyncio.create_task(self._tell())
        try:
            await asyncio.wait({hearing, telling}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                if self.session is None:
                    telling.cancel()
                else:
                    self.session.finish()
                    await asyncio.wait({telling}, timeout=FINISH_S)
                hearing.result()
            if telling.done() and not telling.cancelled():
                telling.result()
            if self.session is not None and self.session.drained:
                raise Draining("the server stops", remedy="connect again")
        except Gone:
            raise
        except RechkaError as error:
            self.reason = error.code
            raise
        finally:
            for task in (hearing, telling):
                task.cancel()
            await asyncio.gather(hearing, telling, return_exceptions=True)

    async def close(self) -> None:
        """The end, also of the call if no other line of it is open."""
        seconds = 0.0
        if self.session is not None:
            seconds = self.session.fed_s
            self.session.cancel()
        leaving = self.service.calls.leave(self.call, self.tracks, seconds, self.reason)
        await asyncio.shield(self.service.keep(leaving))  # told even if the connection's task is cancelled

    async def _tell(self) -> None:
        await self._opened.wait()
        assert self.session is not None
        async for events in self.session.batches():
            for event in events:
                channel = event.segment.channel if hasattr(event, "segment") else getattr(event, "channel", 0)
                self.call.see(event, self.tracks[channel])
