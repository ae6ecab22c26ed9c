"""Callbacks: what a ``callback_url`` is told when a job ends, signed, and told again until somebody listens.

The header ``X-Rechka-Signature: t=SECONDS,v1=HEX`` holds an HMAC-SHA256 of ``SECONDS.BODY`` with ``webhook_secret``;
``verify`` is what a receiver needs. A receiver may be told twice, so it looks at ``X-Rechka-Delivery``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import ssl
import time
from typing import Any

from rechka.errors import FetchFailed, RechkaError
from rechka.server.fetch import Guard, request
from rechka.server.store.records import Delivery

log = logging.getLogger("rechka.server")

BACKOFF_S = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0, 43200.0)
"""Waits between tries; after the last one nobody tries again."""
SEND_S = 20.0
TOLERANCE_S = 300.0
GONE = (410,)


def sign(secret: str, body: bytes, at: int) -> str:
    """The value of ``X-Rechka-Signature``."""
    mac = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


def verify(
    secret: str, header: str, body: bytes, *, now: float | None = None, tolerance_s: float = TOLERANCE_S
) -> bool:
    """Whether a callback is ours and fresh; for receivers.

    Args:
        secret: ``webhook_secret`` of the server.
        header: ``X-Rechka-Signature``.
        body: as it came, not parsed and written again.
        now: seconds since 1970.
        tolerance_s: age that is accepted, so that nobody can send an old one again.
    """
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    stamp = parts.get("t", "")
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        return False
    fresh = abs((time.time() if now is None else now) - int(stamp)) <= tolerance_s
    return fresh and hmac.compare_digest(sign(secret, body, int(stamp)).encode(), header.encode())


class Webhooks:
    """Sends callbacks.

    Args:
        guard: says where to.
        secret: signs.
        tls: for tests.
    """

    def __init__(self, guard: Guard, secret: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.guard = guard
        self._secret, self._tls = secret, tls

    async def send(self, delivery: Delivery) -> float | None:
        """Tell it once; seconds until the next try, None if it was told or nobody will try again."""
        try:
            status = await asyncio.wait_for(self._post(delivery), SEND_S)
        except asyncio.TimeoutError:
            outcome: Any = f"no answer within {SEND_S:g} s"
        except FetchFailed as error:
            outcome = error.message
        except RechkaError as error:  # not allowed, and so never
            log.warning("callback of job %s given up: %s", delivery.job, error.message)
            return None
        else:
            if 200 <= status < 300:
                return None
            if status in GONE:
                log.info("callback of job %s: the receiver wants no more", delivery.job)
                return None
            outcome = f"status {status}"
        if delivery.attempts > len(BACKOFF_S):
            log.warning("callback of job %s given up after %d tries: %s", delivery.job, delivery.attempts, outcome)
            return None
        wait = BACKOFF_S[delivery.attempts - 1]
        log.info("callback of job %s: %s; again in %g s", delivery.job, outcome, wait)
        return wait

    async def _post(self, delivery: Delivery) -> int:
        body = delivery.body.encode()
        headers = [
            ("Content-Type", "application/json"),
            ("X-Rechka-Delivery", delivery.id),
            ("X-Rechka-Signature", sign(self._secret, body, int(time.time()))),
        ]
        target = self.guard.examine(delivery.url)
        async with request(self.guard, target, method="POST", headers=headers, body=body, tls=self._tls) as reply:
            return reply.status
