"""A client of the native protocol that survives lost connections: audio in, the server's messages out.

It keeps the audio that the server may still need, and after a lost connection opens a new one, to the same address,
that goes on where the old one was; no word is lost or told twice.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rechka.errors import HubUnreachable, MissingExtra, RechkaError, ServiceError, Unauthorized, UsageError

KEPT_S = 900.0
"""Audio kept for a new connection at most; longer phrases than this there are none."""
CLOSE_DRAINING, CLOSE_OVERLOAD = 1001, 1013
JOIN_S = 1.0
"""How long the end of a connection waits for whoever reads the source: one that gives nothing may do so for ever."""


def stream(
    url: str,
    audio: Iterable[bytes],
    *,
    sample_rate: int,
    channels: int = 1,
    key: str | None = None,
    model: str | None = None,
    hotwords: Mapping[str, float] | None = None,
    retries: int = 5,
    on_retry: Callable[[str, float], None] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[dict[str, Any]]:
    """Messages of the server as they come: ``partial``, ``final``, ``speech_start``, ``speech_end``, ``done``.

    Args:
        url: of the server, such as ``http://localhost:8080`` or ``wss://host/v1/stream``.
        audio: 16-bit little-endian packets, channels interleaved; read in a thread, as fast as the server takes them.
        sample_rate: of the audio.
        channels: of the audio.
        key: API key.
        model: of the server; None for its default.
        hotwords: words or phrases with their boosts.
        retries: connections that may fail one after the other.
        on_retry: told why, and after how many seconds it is tried again.
        sleep: waits.

    Raises:
        HubUnreachable: the server cannot be reached, or the connection is lost again and again.
        Unauthorized: the key is not accepted.
        ServiceError: the server refuses.
    """
    options: dict[str, Any] = {"type": "start", "sample_rate": sample_rate, "channels": channels}
    if model:
        options["model"] = model
    if hotwords:
        options["hotwords"] = dict(hotwords)
    tape = _Tape(audio, sample_rate * channels * 2)
    told = _Told()
    failures, wait = 0, 0.0
    try:
        while True:
            connection = _Connection(address(url), key, {**options, "start": tape.start}, tape)
            try:
                for message in connection.messages():
                    if "keep" in message:
                        tape.forget(float(message["keep"]))
                    if message["type"] == "cursor" or told.again(message):
                        continue
                    if message["type"] == "done":
                        yield message
                        return
                    if message["type"] not in ("ready", "going_away"):
                        yield message
                    failures = 0
                why, wait = "the connection was lost", 0.0
            except _Again as again:
                why, wait = again.why, again.wait_s
            finally:
                connection.close()
            tape.check()
            failures += 1
            if failures > retries:
                raise HubUnreachable(f"{url}: {why}", remedy="check the address, and that `rechka serve` runs there")
            wait = wait or min(10.0, 0.25 * 2**failures)
            if on_retry is not None:
                on_retry(why, wait)
            sleep(wait)
    finally:
        tape.close()


def address(url: str) -> str:
    """The WebSocket address of a server's native protocol.

    Raises:
        UsageError: no address of a server.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise UsageError(f"{url!r} is no address of a server", remedy="example: http://localhost:8080")
    path = parts.path if parts.path not in ("", "/") else "/v1/stream"
    return urlunsplit((schemes[parts.scheme], parts.netloc, path, parts.query, ""))


class _Again(Exception):
    """Try again."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.why, self.wait_s = why, wait_s


class _Told:
    """Which phrases were told: of several channels one may have to be heard again because of another."""

    def __init__(self) -> None:
        self._ends: dict[int, float] = {}

    def again(self, message: dict[str, Any]) -> bool:
        """Whether the message tells of audio whose text is known."""
        if message["type"] not in ("partial", "final", "refined", "speech_start", "speech_end"):
            return False
        channel, end = int(message["channel"]), self._ends.get(int(message["channel"]), 0.0)
        if message["type"] == "final":
            self._ends[channel] = max(end, float(message["end"]))
            return float(message["start"]) + float(message["end"]) < 2 * end
        return float(message.get("start", message.get("time", end))) < end and message["type"] != "refined"


class _Tape:
    """Audio that was read and may be needed again. One thread at a time plays it; another forgets."""

    def __init__(self, audio: Iterable[bytes], bytes_per_s: int) -> None:
        self._source = iter(audio)
        self._packets: deque[tuple[float, bytes]] = deque()
        self._per_s = bytes_per_s
        self._end = 0.0
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self.start = 0.0
        self.error: BaseException | None = None

    def play(self) -> Iterator[bytes]:
        """Everything that is kept, then what is read from the source."""
        with self._reading:
            with self._lock:
                kept = [self._after(begin, data) for begin, data in self._packets]
            yield from kept
            while True:
                try:
                    data = next(self._source, None)
                except BaseException as error:  # noqa: BLE001 - the source's error belongs to the caller's thread
                    self.error = error
                    return
                if data is None:
                    return
                with self._lock:
                    self._packets.append((self._end, data))
                    self._end += len(data) / self._per_s
                    while self._end - self._packets[0][0] > KEPT_S:
                        self._packets.popleft()
                yield data

    def forget(self, before: float) -> None:
        """Audio before this second is not needed any more."""
        with self._lock:
            self.start = max(self.start, before)
            while self._packets and self._packets[0][0] + len(self._packets[0][1]) / self._per_s <= self.start:
                self._packets.popleft()

    def check(self) -> None:
        """Raise what the source raised."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Let go of the source."""
        close = getattr(self._source, "close", None)
        if close is not None and self._reading.acquire(timeout=JOIN_S):
            try:
                close()
            finally:
                self._reading.release()

    def _after(self, begin: float, data: bytes) -> bytes:
        """The part of a packet from ``start`` on, in whole frames."""
        skip = max(0, round((self.start - begin) * self._per_s))
        return data[skip - skip % 8 :]


class _Connection:
    def __init__(self, url: str, key: str | None, start: dict[str, Any], tape: _Tape) -> None:
        self._url, self._key, self._start, self._tape = url, key, start, tape
        self._socket: Any = None
        self._stack = contextlib.ExitStack()
        self._thread: threading.Thread | None = None

    def messages(self) -> Iterator[dict[str, Any]]:
        try:
            from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
            from websockets.sync.client import connect
        except ModuleNotFoundError:
            raise MissingExtra("rechka stream needs websockets", remedy='pip install "rechka[server]"') from None
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            opening = connect(self._url, additional_headers=headers, max_size=1 << 22, compression=None)
            self._socket = self._stack.enter_context(opening)
            with contextlib.suppress(ConnectionClosed):  # why it was closed already stands in a message to be read
                self._socket.send(json.dumps(self._start))
        except InvalidStatus as error:
            status = error.response.status_code
            if status in (401, 403):
                raise Unauthorized(f"{self._url} refuses with status {status}", remedy="check the key") from None
            raise _Again(f"status {status}", 2.0 if status == 503 else 0.0) from None
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
            raise _Again(f"cannot connect ({error})") from None
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()
        try:
            for text in self._socket:
                message = json.loads(text)
                if message.get("type") == "error" and message.get("fatal"):
                    self._refused(message)
                yield message
        except ConnectionClosed:
            return

    def close(self) -> None:
        self._stack.close()
        if self._thread is not None:
            self._thread.join(JOIN_S)  # if it still waits for a packet, it keeps that for the next connection

    def _play(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            for data in self._tape.play():
                self._socket.send(data)
            if self._tape.error is None:
                self._socket.send('{"type":"finish"}')
            else:
                self._socket.close()
        except (ConnectionClosed, OSError):
            return  # the reader of messages notices it too, and connects again

    @staticmethod
    def _refused(message: dict[str, Any]) -> None:
        code, text = str(message.get("code")), str(message.get("message"))
        if code in ("service.overloaded", "service.draining", "service.idle"):
            raise _Again(text, float(message.get("retry_after", 0.0)))
        kinds: list[type[RechkaError]] = [Unauthorized, *ServiceError.__subclasses__()]
        kind = next((kind for kind in kinds if kind.code == code), ServiceError)
        raise kind(text, remedy=str(message.get("remedy", "")))
