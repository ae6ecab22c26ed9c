"""The board of calls: which are expected, which go on, what was said, and who wants to know."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rechka.engine import SessionEvent
from rechka.errors import BadRequest, Conflict, NoSuchThing, Overloaded
from rechka.recognizers.asr import refined
from rechka.recognizers.dialogue import dialogue
from rechka.server.auth import Principal, owner_of
from rechka.server.telephony.report import Reporter
from rechka.server.wire import event_dict
from rechka.types import Final, Partial, Refined, Segment, SpeechEnd, SpeechStart, Transcript

if TYPE_CHECKING:
    from rechka.server.settings import Settings

MAX_TRACKS = 8
MAX_EVENTS = 20_000
"""Events of a call that are kept for those who listen later; beyond, only finals are."""
MAX_DTMF = 500
EXPECTED_S = 600.0
"""How long an announced call is waited for."""
MAX_PARAMETERS, MAX_NAME, MAX_VALUE = 40, 80, 500
SECRETS = frozenset(("token", "api_key", "access_token", "key"))
NAME = re.compile(r"[\w.@:+-]{1,80}")
"""Names of calls and tracks, as they may stand in an address."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What whoever announced a call wants of its recognition."""

    principal: Principal
    model: str | None = None
    hotwords: Mapping[str, float] = field(default_factory=dict)
    partials: bool = True


class Call:
    """One call: tracks, what is said on them, and those who listen.

    Attributes:
        id: of the call, unique on this server.
        protocol: that brings its audio.
        owner: of the key, see ``owner_of``; empty if whoever brought it needs none.
        tracks: names, in the order of the channels of its transcript.
        legs: UUID of each track of a call that was announced.
        wish: of whoever announced it.
        parameters: that the telephone system sent along.
        state: ``expected``, ``open`` or ``ended``.
        result: after its end.
    """

    def __init__(self, id: str, protocol: str, owner: str, tracks: Sequence[str], wish: Wish | None = None) -> None:
        self.id, self.protocol, self.owner, self.wish = id, protocol, owner, wish
        self.tracks = list(tracks)
        self.legs: list[str] = []
        self.parameters: dict[str, str] = {}
        self.state = "expected"
        self.started = time.time()
        self.result: dict[str, Any] | None = None
        self.touched = time.monotonic()
        self.open_tracks: set[int] = set()
        self._model = self._language = ""
        self._began = 0.0
        self._duration = 0.0
        self._log: list[dict[str, Any]] = []
        self._partials: dict[int, dict[str, Any]] = {}
        self._segments: list[Segment] = []
        self._digits = 0
        self._news = asyncio.Event()

    def remember(self, parameters: Mapping[str, str]) -> None:
        """Keep what the telephone system sent along, as far as it is no secret and not too much."""
        for name, value in parameters.items():
            if len(self.parameters) < MAX_PARAMETERS and name not in SECRETS and len(name) <= MAX_NAME:
                self.parameters[name] = value[:MAX_VALUE]

    def begin(self, model: str, language: str) -> float:
        """Audio comes; seconds since it came first."""
        if self.state == "expected":
            self.state, self.started, self._began = "open", time.time(), time.monotonic()
            self._model, self._language = model, language
            self._tell({"type": "call_start", "call": self.id, "protocol": self.protocol, "tracks": self.tracks,
                        "parameters": self.parameters})  # fmt: skip
        return time.monotonic() - self._began

    def see(self, event: SessionEvent, track: int) -> None:
        """Something was found on a track."""
        if isinstance(event, (Final, Refined)):
            segment = replace(event.segment, channel=track, speaker=self.tracks[track])
            event = replace(event, segment=segment)
            if isinstance(event, Final):
                self._segments.append(segment)
                self._partials.pop(track, None)
            else:
                self._segments = refined(self._segments, segment)
        elif isinstance(event, (Partial, SpeechStart, SpeechEnd)):
            event = replace(event, channel=track)
        message = {**event_dict(event), "track": self.tracks[track]}
        if isinstance(event, Partial):
            self._partials[track] = message
            self._wake()
        elif isinstance(event, (Final, Refined)) or len(self._log) < MAX_EVENTS:
            self._tell(message)

    def digit(self, digit: str, track: int, seconds: float) -> None:
        """A key of the telephone was pressed."""
        self._digits += 1
        if self._digits <= MAX_DTMF:
            self._tell({"type": "dtmf", "digit": digit[:1], "time": round(seconds, 3), "track": self.tracks[track]})

    def gap(self, track: int, start: float, duration: float) -> None:
        """Audio was lost on its way and silence put in its place."""
        if len(self._log) < MAX_EVENTS:
            self._tell({"type": "gap", "time": round(start, 3), "duration": round(duration, 3),
                        "track": self.tracks[track]})  # fmt: skip

    def leave(self, tracks: Sequence[int], seconds: float) -> None:
        """No more audio of some tracks, which had so much, from the beginning of the call."""
        self.open_tracks.difference_update(tracks)
        self._duration = max(self._duration, seconds)

    async def end(self, reason: str) -> None:
        """The last track is gone: make the dialogue and tell it."""
        self.state, self.touched = "ended", time.monotonic()
        ordered = tuple(sorted(self._segments, key=lambda segment: (segment.start, segment.channel)))
        transcript = Transcript(ordered, language=self._language, model=self._model, duration=self._duration)
        if len(self.tracks) > 1:
            transcript = await asyncio.to_thread(dialogue, transcript)
        self.result = transcript.to_dict()
        self._tell({"type": "call_end", "call": self.id, "reason": reason, "duration": round(self._duration, 3),
                    "transcript": self.result})  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The call for those who ask."""
        legs = {"legs": dict(zip(self.tracks, self.legs, strict=True))} if self.legs else {}
        return {
            "call": self.id,
            "protocol": self.protocol,
            "state": self.state,
            "tracks": list(self.tracks),
            **legs,
            "started": round(self.started, 3),
            "parameters": self.parameters,
            "transcript": self.result,
        }

    async def listen(
        self, after: int = 0, *, idle_s: float = 15.0
    ) -> AsyncGenerator[tuple[int, dict[str, Any] | None], None]:
        """Everything that is told, from the beginning or after the event of a number, until the call ends.

        Yields:
            The number of the last event so far, and a message; None as message if nothing happened for ``idle_s``.
            A partial that was not taken yet is replaced by the next one of its track.
        """
        at, shown = max(0, after), dict[int, dict[str, Any]]()
        while True:
            news = self._news
            while at < len(self._log):
                at += 1
                yield at, self._log[at - 1]
            for track, partial in list(self._partials.items()):
                if shown.get(track) is not partial:
                    shown[track] = partial
                    yield at, partial
            if self.result is not None and at >= len(self._log):
                return
            if news is self._news:
                try:
                    await asyncio.wait_for(news.wait(), idle_s)
                except asyncio.TimeoutError:
                    yield at, None

    def _tell(self, message: dict[str, Any]) -> None:
        self._log.append(message)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Calls:
    """All calls of a server.

    Args:
        settings: limits, and who is told of ends.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._calls: dict[str, Call] = {}
        self._legs: dict[str, tuple[Call, int]] = {}
        self._reporter = Reporter(settings)

    @property
    def active(self) -> int:
        """Calls whose audio comes now."""
        return sum(call.state == "open" for call in self._calls.values())

    def announce(self, wish: Wish, tracks: Sequence[str]) -> Call:
        """A call that will come over AudioSocket, each track with a UUID of its own.

        Raises:
            BadRequest: names that cannot be.
            Overloaded: too many calls.
        """
        if not 1 <= len(tracks) <= MAX_TRACKS or len(set(tracks)) != len(tracks):
            raise BadRequest(f"tracks must be 1 to {MAX_TRACKS} different names")
        for name in tracks:
            named(name, "track")
        call = Call(str(uuid.uuid4()), "audiosocket", owner_of(wish.principal), tracks, wish)
        call.legs = [call.id, *(str(uuid.uuid4()) for _ in tracks[1:])]
        self._add(call)
        self._legs.update({leg: (call, i) for i, leg in enumerate(call.legs)})
        return call

    def expected(self, leg: str) -> tuple[Call, int] | None:
        """The announced call and the track of a UUID, which is the caller's until ``leave``; None: not announced.

        Raises:
            Conflict: it has audio already, or the call is over.
        """
        self._purge()
        found = self._legs.get(leg)
        if found is not None and (found[0].state == "ended" or found[1] in found[0].open_tracks):
            raise Conflict("this leg of the call is connected already, or the call is over")
        if found is not None:
            found[0].open_tracks.add(found[1])
        return found

    def join(self, id: str, protocol: str, owner: str, tracks: Sequence[str]) -> tuple[Call, list[int]]:
        """A call that was not announced, new or with more tracks if it goes on; and the places of the tracks, which are
        the caller's until ``leave``.

        Raises:
            Conflict: a track is open already, or the call is somebody else's.
            BadRequest: names that cannot be.
            Overloaded: too many calls.
        """
        named(id, "call")
        for name in tracks:
            named(name, "track")
        call = self._calls.get(id)
        if call is not None and (call.protocol != protocol or call.owner != owner or call.legs):
            raise Conflict("another call has this name", remedy="name calls by a UUID")
        if call is None or call.state == "ended":
            call = Call(id, protocol, owner, tracks)
            self._add(call)
            call.open_tracks.update(range(len(tracks)))
            return call, list(range(len(tracks)))
        fresh = [name for name in tracks if name not in call.tracks]
        if len(call.tracks) + len(fresh) > MAX_TRACKS:
            raise Conflict(f"a call has at most {MAX_TRACKS} tracks")
        names = [*call.tracks, *fresh]
        places = [names.index(name) for name in tracks]
        if call.open_tracks.intersection(places):
            raise Conflict("a track of this name is connected already", remedy="name the tracks of a call apart")
        call.tracks += fresh
        call.open_tracks.update(places)
        return call, places

    def get(self, id: str, principal: Principal) -> Call:
        """A call for somebody who asks: its owner, ``admin``; ``history`` for calls that nobody owns.

        Raises:
            NoSuchThing: there is none, or it is somebody else's.
        """
        self._purge()
        call = self._calls.get(id) or self._legs.get(id, (None,))[0]
        if call is None or not self._may(call, principal):
            raise NoSuchThing(f"no call is named {id[:80]!r}", remedy="it may be over for long, or another key's")
        return call

    def list(self, principal: Principal) -> list[Call]:
        """All calls that somebody may see, latest first."""
        self._purge()
        return [call for call in reversed(list(self._calls.values())) if self._may(call, principal)]

    async def leave(self, call: Call, tracks: Sequence[int], seconds: float, reason: str) -> None:
        """Whoever brought some tracks is gone. After the last one the call is over, and the webhook is told soon; a
        call that never had audio and that nobody announced is forgotten."""
        call.leave(tracks, seconds)
        if call.open_tracks:
            return
        if call.state == "open":
            await call.end(reason)
            self._reporter.report(call.id, call.to_dict())
        elif not call.legs and self._calls.get(call.id) is call:
            self._forget(call.id)

    async def settle(self, seconds: float) -> None:
        """Wait until open calls have ended and were reported, but not for ever."""
        until = time.monotonic() + seconds
        while self._unreported and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self._reporter.settle(max(0.0, until - time.monotonic()))

    async def close(self) -> None:
        """Stop telling the webhook."""
        await self._reporter.close()

    @property
    def _unreported(self) -> bool:
        """A call is open, or its dialogue is being made, without which there is no report."""
        return any(call.state != "expected" and call.result is None for call in self._calls.values())

    def _add(self, call: Call) -> None:
        self._purge()
        if len(self._calls) >= self._settings.max_calls:
            ended = next((id for id, old in self._calls.items() if old.state == "ended"), None)
            if ended is None:
                raise Overloaded("too many calls", remedy="try again soon", retry_after_s=10.0)
            self._forget(ended)
        self._calls.pop(call.id, None)  # a new call of the same name stands at the end
        self._calls[call.id] = call

    def _purge(self) -> None:
        now, kept = time.monotonic(), self._settings.call_keep_s
        limits = {"expected": EXPECTED_S, "ended": kept}
        old = [id for id, call in self._calls.items() if now - call.touched > limits.get(call.state, float("inf"))]
        for id in old:
            self._forget(id)

    def _forget(self, id: str) -> None:
        for leg in self._calls.pop(id).legs:
            self._legs.pop(leg, None)

    def _may(self, call: Call, principal: Principal) -> bool:
        if principal.may("admin"):
            return True
        return call.owner == owner_of(principal) if call.owner else principal.key is None or principal.may("history")


def named(text: Any, what: str) -> str:
    """A name of a call or a track.

    Raises:
        BadRequest: too long, or letters that an address does not have.
    """
    if not isinstance(text, str) or not NAME.fullmatch(text):
        raise BadRequest(f"the name of a {what} has 1 to 80 letters, digits or . _ @ : + -, got {str(text)[:40]!r}")
    return text
