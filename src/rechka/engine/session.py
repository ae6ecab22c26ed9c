"""One session: what a protocol adapter holds while a client speaks.

Everything here belongs to the event loop that started the engine and is called from there only; no call computes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rechka.engine.intake import Intake, Report, SessionEvent
from rechka.engine.options import WIDTHS, SessionOptions
from rechka.errors import AudioTooLong, StreamClosed, UsageError
from rechka.types import F32, Partial

if TYPE_CHECKING:
    from rechka.engine.engine import Engine

PIECE_S = 1.0
"""A longer packet is queued in pieces of this length, so that the inbox limit holds for it too."""


class Meter(Protocol):
    """Whoever counts what a session uses."""

    def audio(self, seconds: float) -> None:
        """So much audio comes, of all channels together; raising refuses it."""
        ...

    def end(self) -> None:
        """The session is over; called once."""
        ...


class Session:
    """A client's audio in, events out.

    Made by ``Engine.open``. The pattern of an adapter, with two tasks side by side::

        async with await engine.open(SessionOptions(sample_rate=8000)) as session:
            # task 1: bytes in
            async for packet in socket:
                await session.feed(packet)      # waits while the inbox is full: stop reading, and TCP stops the client
            session.finish()
            # task 2: events out
            async for event in session:         # SpeechStart, Partial, Final, Refined, SpeechEnd, Flushed
                await socket.send(...)          # ends after finish(), raises what made the session fail

    Leaving the ``async with`` block cancels what is not finished: queued audio is dropped, state is freed at once.

    Rules that adapters may rely on:

    - Times are seconds from the first sample (plus ``start_s``). Events of one channel come in order; each ``Final``
      follows its ``Partial`` events; the text of a ``Partial.stable`` is never taken back before its ``Final``.
    - A ``Partial`` that was not taken yet is replaced by the next one of its channel. Nothing else is ever dropped;
      while ``max_events`` wait, the session is not stepped, its inbox fills, and ``feed`` waits.
    - ``settle()`` waits until everything fed is recognised as far as it can be: for protocols with one reply to each
      message. ``take()`` then gives the events that are there, without waiting.
    - ``flush()`` ends open phrases now; a ``Flushed`` event follows the finals, and audio may go on.
    - ``drained`` is True if the server finished the session because it stops: say so (WebSocket 1001). Audio that comes
      then is dropped: the client could not know, and shall hear the last words rather than of an error.

    Attributes:
        id: for logs and messages.
        options: as given.
        rate: samples per second of what is fed.
        fed_s: seconds of audio accepted, of the longest channel, ``start_s`` included.
        drained: the engine ended it.
        watcher: told every event when it is there, whether or not the client takes it.
    """

    def __init__(self, engine: Engine, options: SessionOptions, intake: Intake, meter: Meter | None = None) -> None:
        self.id = secrets.token_hex(8)
        self.options = options
        self.rate = intake.rate
        self.drained = False
        self.watcher: Callable[[SessionEvent], None] | None = None
        self._engine = engine
        self._intake = intake
        self._meter = meter
        self._fed = [options.start_s] * options.channels
        self._done: tuple[float, ...] = (options.start_s,)
        self._outbox: deque[SessionEvent] = deque()
        self._finished = False
        self._over = False
        self._complete = False
        self._unsettled = False  # a step is due, or its report is under way
        self._under_way = 0  # reports that a worker has sent off
        self._error: Exception | None = None
        self._moved = asyncio.Event()  # something was delivered

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    @property
    def fed_s(self) -> float:
        """Seconds of audio accepted."""
        return max(self._fed)

    @property
    def done_s(self) -> float:
        """Seconds that every channel is recognised up to; audio before is never needed again, open phrases apart."""
        return min(self._done)

    @property
    def backlog_s(self) -> float:
        """Seconds of audio that wait, of the channel with most."""
        done = self._done if len(self._done) == len(self._fed) else (self.done_s,) * len(self._fed)
        return max(fed - have for fed, have in zip(self._fed, done, strict=True))

    @property
    def over(self) -> bool:
        """No event will come any more."""
        return self._over and not self._outbox

    @property
    def complete(self) -> bool:
        """The session came to its end with all that was fed; False too if it was cancelled or failed."""
        return self._complete

    @property
    def finished(self) -> bool:
        """``finish`` was called, or the session was cancelled or failed."""
        return self._finished

    async def feed(self, data: bytes | F32, *, channel: int | None = None) -> None:
        """Add audio; waits while the inbox is full.

        Args:
            data: bytes in the session's encoding, in packets of any size, odd ones too; or samples (n,), interleaved
                like the bytes, float in [-1, 1] or int16.
            channel: of the packet, for a session whose channels come in packets of their own.

        Raises:
            StreamClosed: after ``finish`` or ``cancel``.
            AudioTooLong: more than the engine's ``max_session_s``.
            UsageError: a channel that does not exist.
            RechkaError: what made the session fail; also NaN in samples, once they are reached.
        """
        self._check(channel)
        width = 1 if isinstance(data, np.ndarray) else WIDTHS[self.options.encoding]
        width *= self.options.channels if self.options.interleaved else 1
        piece = width * max(1, round(PIECE_S * self.rate))
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            await self._room()
            if self.drained:
                return
            self._accept(part, channel, len(part) / width / self.rate)

    def flush(self) -> None:
        """End open phrases now; ``Flushed`` comes after their finals."""
        if not self._finished:
            self._intake.mark(last=False)
            self._engine.offer(self)

    def finish(self) -> None:
        """No more audio will come; what was fed is recognised to its end. A second call does nothing."""
        if not self._finished:
            self._finished = True
            self._intake.mark(last=True)
            self._engine.offer(self)

    def cancel(self) -> None:
        """Forget everything now. A second call does nothing."""
        if not self._over:
            self._finished = self._over = True
            self._outbox.clear()
            self._moved.set()
            self._engine.forget(self, "cancelled")

    async def settle(self) -> None:
        """Wait until all that was fed is stepped as far as it can be, or the session is over."""
        while not self._over and self._unsettled:
            await self._wait()

    def take(self) -> list[SessionEvent]:
        """The events that are there.

        Raises:
            RechkaError: what made the session fail, once its events are taken.
        """
        if self._error is not None and not self._outbox:
            raise self._error
        events = list(self._outbox)
        self._outbox.clear()
        self._resume()
        return events

    async def batches(self) -> AsyncIterator[list[SessionEvent]]:
        """Like iterating over the session, but all events that are there come together, at least one."""
        while not self.over or self._error is not None:
            if events := self.take():
                yield events
            elif not self._over:
                await self._wait()

    def __aiter__(self) -> AsyncIterator[SessionEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[SessionEvent]:
        while True:
            while self._outbox:
                event = self._outbox.popleft()
                self._resume()
                yield event
            if self._over:
                if self._error is not None:
                    raise self._error
                return
            await self._wait()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _room(self) -> None:
        limit = self._engine.options.inbox_s
        if self.options.bulk:
            limit = min(limit, self._engine.options.bulk_s)
        while self.backlog_s >= limit and not self.drained:
            self._check(None, fed=True)
            await self._wait()
        self._check(None, fed=True)

    def _check(self, channel: int | None, *, fed: bool = False) -> None:
        if self._error is not None:
            raise self._error
        if self._finished and not self.drained:
            raise StreamClosed("audio came after the end of the session", remedy="open a new session")
        if fed:
            return
        if (channel is None) != self.options.interleaved and self.options.channels > 1:
            raise UsageError("packets name their channel exactly if the session's channels are not interleaved")
        if channel is not None and not 0 <= channel < self.options.channels:
            raise UsageError(f"channel must be from 0 to {self.options.channels - 1}, got {channel}")

    def _accept(self, part: bytes | F32, channel: int | None, seconds: float) -> None:
        limit = self._engine.options.max_session_s
        if limit is not None and self.fed_s - self.options.start_s + seconds > limit:
            raise AudioTooLong(
                f"the session is longer than the limit of {limit:g} s", remedy="open a new one, or raise the limit"
            )
        one = channel is not None and not self.options.interleaved
        if self._meter is not None:
            self._meter.audio(seconds if one else seconds * self.options.channels)
        for i in range(self.options.channels):
            if not one or i == channel:
                self._fed[i] += seconds
        self._intake.push(part, channel if one else None, seconds)
        self._engine.count_audio(seconds if one else seconds * self.options.channels)
        self._engine.offer(self)

    def _resume(self) -> None:
        if len(self._outbox) * 2 <= self._engine.options.max_events:
            self._intake.hold(False)
            if not self._over:
                self._engine.offer(self)

    def _end(self) -> None:
        if self._meter is not None:
            self._meter.end()

    def _deliver(self, report: Report) -> None:
        """What a worker found; the engine calls it in the loop."""
        if self._over:
            return
        for event in report.events:
            if self.watcher is not None:
                self.watcher(event)
            self._append(event)
        if len(self._outbox) >= self._engine.options.max_events:
            self._intake.hold(True)
        if report.done_s:
            self._done = report.done_s
        if report.error is not None or report.over:
            self._error = report.error
            self._complete = report.error is None
            self._finished = self._over = True
            self._engine.forget(self, "finished" if report.error is None else "failed")
        self._moved.set()

    def _append(self, event: SessionEvent) -> None:
        if isinstance(event, Partial):
            for i in range(len(self._outbox) - 1, -1, -1):
                before = self._outbox[i]
                if isinstance(before, Partial) and before.channel == event.channel:
                    self._outbox[i] = event
                    return
                if not isinstance(before, Partial):
                    break  # an older Partial belongs to another phrase, or something of another channel lies between
        self._outbox.append(event)
