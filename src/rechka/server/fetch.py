"""Recordings and callbacks at addresses that clients name: guarded HTTP, so that no client reaches what is not public.

A name is resolved once, every address that it has must be public, and the connection goes to one of these addresses, so
that a name that changes its mind (DNS rebinding) changes nothing. Redirects pass the same examination. Proxies of the
environment are not used: they would resolve names again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, TypeAlias
from urllib.parse import urljoin, urlsplit

import anyio
import h11

from rechka.errors import BadRequest, FetchFailed, Forbidden, StorageFull, TooLarge

MAX_URL = 4096
MAX_REDIRECTS = 5
MAX_ADDRESSES = 8
CONNECT_S = 10.0
IDLE_S = 30.0
"""A server that sends nothing for so long is given up."""
PIECE = 1 << 16
HEADER_BYTES = 64 << 10
RETRY_S = 30.0
REDIRECTS = (301, 302, 303, 307, 308)
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
LOW_PORTS = (80, 443)
"""Other ports below 1024 belong to protocols that an HTTP request could be meant to confuse."""

LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
QUAD = re.compile(r"(0|[1-9][0-9]{0,2})(\.(0|[1-9][0-9]{0,2})){3}")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver: TypeAlias = Callable[[str, int], Awaitable[list[str]]]

NOT_PUBLIC_4: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("168.63.129.16/32",),  # Azure's host, public by its number only
    )
)
"""IANA's special-purpose registry, RFC 6890 and later: private, shared, loopback, link-local with the metadata services
of clouds, documentation, benchmarks, multicast, reserved."""
PUBLIC_6: Network = ipaddress.ip_network("2000::/3")
NOT_PUBLIC_6: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
"""Teredo and 6to4 carry an IPv4 address inside. What lies outside of 2000::/3 is not public in any case: loopback,
IPv4-mapped and -compatible addresses, NAT64 (64:ff9b::/96), unique local, link-local, site-local, multicast."""


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public network, and to nothing else in disguise."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    return address in PUBLIC_6 and not any(address in network for network in NOT_PUBLIC_6)


@dataclass(frozen=True, slots=True)
class Target:
    """An address that passed the examination of its form."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def default_port(self) -> bool:
        """Whether the port goes without saying."""
        return self.port == (443 if self.scheme == "https" else 80)

    @property
    def authority(self) -> str:
        """For the header ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.default_port else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """All of it."""
        return f"{self.scheme}://{self.authority}{self.path}"


def parse(url: str) -> Target:
    """The parts of an address, in the one form in which everybody reads it alike.

    Raises:
        BadRequest: not http or https, or written so that two programs could understand it differently: a user name,
            an IPv4 address that is not four plain numbers, control characters, backslashes.
    """
    if len(url) > MAX_URL or not url.isprintable() or set(url) & set(' \\"<>^`{|}'):
        raise BadRequest(f"an address has at most {MAX_URL} letters and no spaces or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRequest(f"the address cannot be read: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise BadRequest(f"an address begins with http:// or https://, got {parts.scheme[:20]!r}")
    if "@" in parts.netloc:
        raise BadRequest("an address must not hold a user name or password")
    port = (443 if parts.scheme == "https" else 80) if port is None else port
    if port == 0 or (port < 1024 and port not in LOW_PORTS):
        raise BadRequest(f"port {port} is not one of a web server", remedy="use 80, 443, or one from 1024 on")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, _host(parts.netloc, parts.hostname or ""), port, _ascii(path))


def _host(netloc: str, host: str) -> str:
    """A host in its plain form."""
    if netloc.startswith("["):
        try:
            if "%" not in host:  # a zone, which Python takes
                return str(ipaddress.IPv6Address(host))
            raise ValueError
        except ValueError:
            raise BadRequest(f"{host[:80]!r} is no IPv6 address") from None
    try:
        plain = host.encode("idna").decode().lower() if not host.isascii() else host.lower()
    except UnicodeError:
        raise BadRequest(f"{host[:80]!r} is no host name") from None
    plain = plain.removesuffix(".")
    labels = plain.split(".")
    if NUMBER.fullmatch(labels[-1]):  # 2130706433, 0x7f.1, 127.1, 0177.0.0.1 and their like
        if not QUAD.fullmatch(plain) or any(int(label) > 255 for label in labels):
            raise BadRequest(f"{host[:80]!r} is no IPv4 address of four plain numbers")
        return plain
    if len(plain) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        raise BadRequest(f"{host[:80]!r} is no host name")
    return plain


def _letters(header: str) -> str:
    """A header's text, which many servers write in UTF-8 although it is read as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _ascii(path: str) -> str:
    return "".join(c if c.isascii() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in path)


class Guard:
    """Which addresses may be connected to.

    Args:
        hosts: names that are allowed, ``.example.org`` for all below it; empty for all.
        networks: that are allowed although they are not public.
        resolver: (host, port) to numeric addresses; by default the system's.
    """

    def __init__(
        self, hosts: Collection[str] = (), networks: Iterable[str] = (), resolver: Resolver | None = None
    ) -> None:
        self._hosts = tuple(host.lower().rstrip(".") for host in hosts)
        self._networks = tuple(ipaddress.ip_network(text) for text in networks)
        self._resolver = resolver or _resolve

    def examine(self, url: str) -> Target:
        """What can be said without asking anybody.

        Raises:
            BadRequest: not the form of an address.
            Forbidden: a host that is not allowed, or a number that is not public.
        """
        target = parse(url)
        if self._hosts and not any(_below(target.host, host) for host in self._hosts):
            raise Forbidden(f"the host {target.host[:80]!r} is not one that this server may use")
        with contextlib.suppress(ValueError):
            self._allow(target, ipaddress.ip_address(target.host))
        return target

    async def addresses(self, target: Target) -> list[str]:
        """Where a target is, asked once.

        Raises:
            Forbidden: one of its addresses is not public.
            FetchFailed: it has none.
        """
        try:
            found = [str(ipaddress.ip_address(target.host))]
        except ValueError:
            try:
                found = await asyncio.wait_for(self._resolver(target.host, target.port), CONNECT_S)
            except (OSError, UnicodeError, asyncio.TimeoutError):
                found = []
        if not found:
            raise FetchFailed(f"the host {target.host[:80]!r} is not known", retry_after_s=RETRY_S)
        for text in found:
            # All of them: a name with one private address among public ones is no accident.
            self._allow(target, ipaddress.ip_address(text.partition("%")[0]), scoped="%" in text)
        return found[:MAX_ADDRESSES]

    def _allow(self, target: Target, address: Address, *, scoped: bool = False) -> None:
        if any(address in network for network in self._networks):
            return
        if scoped or not is_public(address):
            # Not which address: the answer would be a map of the inner network.
            raise Forbidden(
                f"the host {target.host[:80]!r} is not in the public network",
                remedy="upload the recording, or have private_networks set",
            )


def _below(host: str, allowed: str) -> bool:
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed


_RESOLVERS = ThreadPoolExecutor(8, thread_name_prefix="rechka-resolve")
"""Of their own: a name whose server never answers holds its thread for long, and files are read and written in the
loop's."""


async def _resolve(host: str, port: int) -> list[str]:
    asking = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVERS, asking)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Reply:
    """The beginning of an answer, and its body to come."""

    status: int
    headers: dict[str, str]
    body: AsyncIterator[bytes]


@contextlib.asynccontextmanager
async def request(
    guard: Guard,
    target: Target,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Reply]:
    """One HTTP/1.1 exchange with an examined target; limits on the whole time are the caller's.

    Raises:
        Forbidden: the target is not public.
        FetchFailed: no connection, or an answer that is no HTTP.
    """
    reader, writer = await _connect(guard, target, tls)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_BYTES)
        fields = [("Host", target.authority), ("User-Agent", "rechka"), ("Accept-Encoding", "identity"), *headers]
        if body:
            fields.append(("Content-Length", str(len(body))))
        fields.append(("Connection", "close"))
        data = connection.send(h11.Request(method=method, target=target.path, headers=fields)) or b""
        if body:
            data += connection.send(h11.Data(data=body)) or b""
        data += connection.send(h11.EndOfMessage()) or b""
        writer.write(data)
        await writer.drain()
        while True:
            event = await _event(connection, reader)
            if isinstance(event, h11.Response):
                break
            if not isinstance(event, h11.InformationalResponse):
                raise FetchFailed("the answer ended before it began", retry_after_s=RETRY_S)
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in event.headers}
        yield Reply(event.status_code, found, _body(connection, reader))
    except h11.ProtocolError as error:
        raise FetchFailed(f"the answer is no HTTP: {error}") from None
    except (OSError, ssl.SSLError) as error:
        raise FetchFailed(f"the connection broke: {_why(error)}", retry_after_s=RETRY_S) from None
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), 1.0)


async def _connect(
    guard: Guard, target: Target, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = (tls or ssl.create_default_context()) if target.scheme == "https" else None
    last: Exception | None = None
    for address in await guard.addresses(target):
        try:
            connecting = asyncio.open_connection(
                address,
                target.port,
                ssl=context,
                server_hostname=target.host if context else None,
                limit=PIECE,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                flags=socket.AI_NUMERICHOST,
            )
            return await asyncio.wait_for(connecting, CONNECT_S)
        except (OSError, ssl.SSLError, asyncio.TimeoutError) as error:  # noqa: PERF203
            last = error
    raise FetchFailed(f"no connection to {target.host[:80]}: {_why(last)}", retry_after_s=RETRY_S)


def _why(error: Exception | None) -> str:
    """Of an error of the system, without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, asyncio.TimeoutError):
        return "it takes too long"
    return getattr(error, "strerror", None) or type(error).__name__


async def _event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        try:
            with anyio.fail_after(IDLE_S):  # wait_for, up to Python 3.11, loses a cancellation that comes with the data
                data = await reader.read(PIECE)
        except TimeoutError:
            raise FetchFailed(f"nothing came for {IDLE_S:g} s", retry_after_s=RETRY_S) from None
        connection.receive_data(data)
        if not data:
            try:
                return connection.next_event()
            except h11.RemoteProtocolError:
                raise FetchFailed("the answer broke off", retry_after_s=RETRY_S) from None
    return event


async def _body(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while not isinstance(event := await _event(connection, reader), h11.EndOfMessage):
        if not isinstance(event, h11.Data):
            raise FetchFailed("the answer broke off", retry_after_s=RETRY_S)
        yield bytes(event.data)


class Fetcher:
    """Gets recordings: ``async with fetcher(url) as file``. What the other side says about their type is not asked.

    Args:
        guard: says where from.
        max_bytes: of one.
        seconds: for one, redirects included.
        tls: for tests.
    """

    def __init__(self, guard: Guard, *, max_bytes: int, seconds: float, tls: ssl.SSLContext | None = None) -> None:
        self.guard = guard
        self._max_bytes, self._seconds, self._tls = max_bytes, seconds, tls

    @contextlib.asynccontextmanager
    async def __call__(self, url: str) -> AsyncIterator[IO[bytes]]:
        """A recording as a file without a name, gone at the end.

        Raises:
            BadRequest, Forbidden: an address that is not fetched from.
            FetchFailed: it gives nothing; ``retry_after_s`` is set if it may later.
            TooLarge: more than is allowed.
        """
        with tempfile.TemporaryFile() as file:
            try:
                await asyncio.wait_for(self._follow(url, file), self._seconds)
            except asyncio.TimeoutError:
                raise FetchFailed(
                    f"the recording did not come within {self._seconds:g} s", retry_after_s=RETRY_S
                ) from None
            file.seek(0)
            yield file

    async def _follow(self, url: str, file: IO[bytes]) -> None:
        target = self.guard.examine(url)
        for _ in range(MAX_REDIRECTS + 1):
            async with request(self.guard, target, headers=[("Accept", "*/*")], tls=self._tls) as reply:
                if reply.status not in REDIRECTS:
                    await self._save(reply, file)
                    return
                try:
                    where = urljoin(target.url, _letters(reply.headers.get("location", "")))
                except ValueError as error:
                    raise BadRequest(f"the address leads to one that cannot be read: {error}") from None
            following = self.guard.examine(where.partition("#")[0])
            if target.scheme == "https" and following.scheme == "http":
                raise Forbidden("the address leads from https to http")
            target = following
        raise FetchFailed(f"the address leads to another more than {MAX_REDIRECTS} times")

    async def _save(self, reply: Reply, file: IO[bytes]) -> None:
        if reply.status != 200:
            again = RETRY_S if reply.status in TEMPORARY else None
            raise FetchFailed(f"the address answers with status {reply.status}", retry_after_s=again)
        if reply.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise FetchFailed("the answer is compressed although that was not asked for")
        length = reply.headers.get("content-length", "0")
        left = self._max_bytes
        loop = asyncio.get_running_loop()
        if int(length) > left:  # h11 has seen to it that it is a number
            self._too_large()
        async for piece in reply.body:
            left -= len(piece)
            if left < 0:
                self._too_large()
            try:
                await loop.run_in_executor(None, file.write, piece)
            except OSError as error:
                raise StorageFull(f"no room for the recording: {error.strerror}", retry_after_s=RETRY_S) from None

    def _too_large(self) -> None:
        raise TooLarge(f"the recording is larger than {self._max_bytes >> 20} MiB", remedy="cut it")
