"""Who may do what: holders of keys, scopes, quotas, short-lived tokens, request rates."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rechka.errors import Forbidden, QuotaExceeded, Unauthorized, UsageError
from rechka.server.keys import SCOPES, Key, read_keys

log = logging.getLogger("rechka.server")

TOKEN_PREFIX = "rt_"
MAX_TOKEN_S = 3600
MAX_SECRET_LENGTH = 1000
MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever a request comes from: the holder of a key, or an address where no keys are needed.

    Attributes:
        name: for logs and rates.
        scopes: of ``SCOPES``.
        key: of the holder.
        ends: of the token that it came with, seconds since 1970; None for a key.
    """

    name: str
    scopes: tuple[str, ...]
    key: Key | None = None
    ends: int | None = None

    def may(self, scope: str) -> bool:
        """Whether it has a scope."""
        return scope in self.scopes or "admin" in self.scopes


class Usage:
    """What one principal uses now and has used today. Kept in memory; with ``data_dir`` in the store too."""

    def __init__(self, today: Callable[[], datetime.date]) -> None:
        self._today = today
        self.streams = 0
        self.day = today()
        self.audio_s = 0.0

    def add(self, seconds: float) -> float:
        """Count audio; seconds used today."""
        if self._today() != self.day:
            self.day, self.audio_s = self._today(), 0.0
        self.audio_s += seconds
        return self.audio_s


class Meter:
    """Counts one session for its principal; the engine calls it."""

    def __init__(self, principal: Principal, usage: Usage) -> None:
        self._key, self._usage = principal.key, usage
        limit = None if self._key is None else self._key.max_streams
        if limit is not None and usage.streams >= limit:
            raise QuotaExceeded(
                f"the key has {limit} streams, and all are open", remedy="close one first", retry_after_s=5.0
            )
        usage.streams += 1
        self._open = True
        self.audio(0.0)

    def audio(self, seconds: float) -> None:
        """Audio came.

        Raises:
            QuotaExceeded: more than the key has for today.
        """
        used = self._usage.add(seconds)
        limit = None if self._key is None else self._key.audio_s_per_day
        if limit is not None and used > limit:
            self.end()
            raise QuotaExceeded(
                f"the key has used its {limit:g} s of audio for today", remedy="try again tomorrow (UTC)",
                retry_after_s=_until_midnight(),
            )  # fmt: skip

    def end(self) -> None:
        """The session is over."""
        if self._open:
            self._open = False
            self._usage.streams -= 1


class Auth:
    """Keys, tokens and rates of one server.

    Args:
        keys_file: TOML with ``[[key]]`` tables; None: everybody may do everything.
        secret: signs tokens; empty for a random one.
        requests_per_minute: of one principal; 0 for no limit.
        clock: seconds, monotonic, for rates.
        now: seconds since 1970, for tokens and days.

    Raises:
        UsageError: a keys file that cannot be read.
    """

    def __init__(
        self,
        keys_file: Path | None = None,
        *,
        secret: str = "",
        requests_per_minute: int = 0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.keys_file = keys_file
        self._secret = secret.encode() or secrets.token_bytes(32)
        self._per_minute = requests_per_minute
        self._clock, self._now = clock, now
        self._keys: dict[str, Key] = {}
        self._stamp: tuple[int, int] | None = None
        self._usage: dict[str, Usage] = {}
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._load()

    @property
    def open(self) -> bool:
        """Nobody needs a key."""
        return self.keys_file is None

    def principal(self, secret: str | None, *, address: str, query: bool = False) -> Principal:
        """Whose secret this is.

        Args:
            secret: key or token, None if there was none.
            address: of the client.
            query: the secret was part of the address that was asked for, and so may be in somebody's log: only tokens.

        Raises:
            Unauthorized: no key where one is needed, or an unknown or expired one.
        """
        if self.open:
            return Principal(f"address:{address}", SCOPES)
        if not secret:
            raise Unauthorized(
                "an API key is needed", remedy="send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        if len(secret) > MAX_SECRET_LENGTH:
            raise Unauthorized("the API key is not known", remedy="check it, or ask for another")
        if secret.startswith(TOKEN_PREFIX):
            return self._by_token(secret)
        if query:
            raise Unauthorized(
                "a key may not be part of an address, only a short-lived token may",
                remedy="get a token with POST /v1/token, or send the key in a header",
            )
        self._reload()
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self._keys.values():  # all of them, each in constant time
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return self._holder(found)

    def recheck(self, principal: Principal) -> None:
        """Ask again, for what was asked for some time ago.

        Raises:
            Unauthorized: the key is gone or expired.
        """
        if principal.key is not None:
            self._reload()
            key = self._keys.get(principal.key.name)
            self._holder(key if _mark(key) == _mark(principal.key) else None)

    def token(self, principal: Principal, seconds: int, scopes: tuple[str, ...]) -> tuple[str, int]:
        """A short-lived token for a principal, and when it ends (seconds since 1970). It carries no more scopes than
        its maker has, and ends no later than the token that its maker came with: else a token could renew itself.

        Raises:
            Forbidden: a scope that the principal lacks.
        """
        for scope in scopes:
            require(principal, scope)
        ends = int(self._now()) + max(1, min(seconds, MAX_TOKEN_S))
        if principal.ends is not None:
            ends = min(ends, principal.ends)
        claims = {"name": owner_of(principal), "key": _mark(principal.key), "ends": ends, "scopes": scopes}
        text = json.dumps(claims, ensure_ascii=False, separators=(",", ":"))
        body = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return f"{TOKEN_PREFIX}{body}.{self._signature(body)}", ends

    def meter(self, principal: Principal) -> Meter:
        """A place for one session.

        Raises:
            QuotaExceeded: the key has no more streams, or no more audio for today.
        """
        usage = self.usage(principal)
        return Meter(principal, usage)

    def usage(self, principal: Principal) -> Usage:
        """What a principal has used; addresses are not kept apart."""
        name = "" if principal.key is None else principal.key.name
        return self._usage.setdefault(name, Usage(self.today))

    def usages(self) -> Mapping[str, Usage]:
        """What every key has used, by name."""
        return dict(self._usage)

    def recall(self, name: str, seconds: float) -> None:
        """A key has used so much more today, elsewhere or before a restart."""
        self._usage.setdefault(name, Usage(self.today)).add(seconds)

    def key(self, name: str) -> Key | None:
        """The key of a name, if there is one still."""
        self._reload()
        return self._keys.get(name)

    def admit(self, principal: Principal) -> None:
        """Count a request.

        Raises:
            QuotaExceeded: too many per minute.
        """
        limit = self._per_minute
        if principal.key is not None and principal.key.requests_per_minute is not None:
            limit = principal.key.requests_per_minute
        self.count(principal.name, limit)

    def count(self, name: str, limit: int) -> None:
        """A token bucket for ``name``, with room for the requests of ten seconds, at least for ten.

        Raises:
            QuotaExceeded: it is empty.
        """
        if limit <= 0:
            return
        now = self._clock()
        size = max(10.0, limit / 6)
        left, since = self._buckets.pop(name, (size, now))
        left = min(size, left + (now - since) * limit / 60)
        good = left >= 1
        self._buckets[name] = (left - 1 if good else left, now)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not good:
            raise QuotaExceeded(
                f"more than {limit} requests per minute", remedy="slow down", retry_after_s=(1 - left) * 60 / limit
            )

    def today(self) -> datetime.date:
        """The day in UTC, on which quotas count."""
        return datetime.datetime.fromtimestamp(self._now(), datetime.timezone.utc).date()

    def _by_token(self, token: str) -> Principal:
        body, _, signature = token[len(TOKEN_PREFIX) :].partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(body).encode()):
            raise Unauthorized("the token is not known", remedy="get a new one with POST /v1/token")
        try:
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error):
            raise Unauthorized("the token is damaged", remedy="get a new one with POST /v1/token") from None
        if claims["ends"] <= self._now():
            raise Unauthorized("the token has expired", remedy="get a new one with POST /v1/token")
        self._reload()
        key = self._keys.get(claims["name"])
        # A token does not outlive its key, though a new one has its name: so a stolen key is replaced.
        holder = self._holder(key if _mark(key) == claims.get("key") else None)
        scopes = tuple(scope for scope in claims["scopes"] if holder.may(scope))
        return Principal(holder.name, scopes, holder.key, claims["ends"])

    def _signature(self, body: str) -> str:
        return hmac.new(self._secret, body.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    def _holder(self, key: Key | None) -> Principal:
        if key is None:
            raise Unauthorized("the API key is not known", remedy="check it, or ask for another")
        if key.expires is not None and self.today() >= key.expires:
            raise Unauthorized("the API key has expired", remedy="ask for another")
        return Principal(f"key:{key.name}", key.scopes, key)

    def _reload(self) -> None:
        """Take in changes of the file, so that a key can be revoked without a restart."""
        if self.keys_file is None:
            return
        stamp = _stamp(self.keys_file)
        if stamp in (None, self._stamp):  # None: it is being replaced; what was read before holds
            return
        try:
            self._load()
        except UsageError as error:
            # Half written, or a mistake: no reason to refuse every caller, and it is told once.
            self._stamp = stamp
            log.error("the keys of before stay in force: %s", error)

    def _load(self) -> None:
        if self.keys_file is not None:
            stamp = _stamp(self.keys_file)  # before it is read: what changes meanwhile is read the next time
            self._keys = {key.name: key for key in read_keys(self.keys_file)}
            self._stamp = stamp


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _mark(key: Key | None) -> str:
    """What tells a key from others that had its name; it gives nothing away."""
    return "" if key is None else key.sha256[:16]


def owner_of(principal: Principal) -> str:
    """Under which name things are kept for a principal; all that need no key share one, which is empty."""
    return "" if principal.key is None else principal.key.name


def require(principal: Principal, scope: str) -> None:
    """A request needs this scope.

    Raises:
        Forbidden: the principal lacks it.
    """
    if not principal.may(scope):
        raise Forbidden(
            f"the key has the scopes {', '.join(principal.scopes) or 'none'}, this needs {scope}",
            remedy="use another key",
        )


def _until_midnight() -> float:
    now = datetime.datetime.now(datetime.timezone.utc)
    following = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (following - now).total_seconds()
