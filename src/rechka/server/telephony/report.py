"""Tells ``call_webhook`` what was said in a call, and tells it again until it answers.

Signed as other callbacks are (``rechka.server.webhooks``). What waits is kept in memory: a restart forgets it; for
transcripts that may not be lost there is the history.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any

import anyio

from rechka.errors import FetchFailed, RechkaError
from rechka.server.fetch import Guard, request
from rechka.server.webhooks import SEND_S, sign
from rechka.server.wire import dumps

if TYPE_CHECKING:
    from rechka.server.settings import Settings

log = logging.getLogger("rechka.server")

BACKOFF_S = (1.0, 5.0, 30.0, 120.0, 600.0)
MAX_WAITING = 1000
ANYWHERE = ("0.0.0.0/0", "::/0")
"""The address comes from the settings, not from a client, so it may well be in the own network."""


class Reporter:
    """Sends reports side by side.

    Args:
        settings: with ``call_webhook`` and ``webhook_secret``.
    """

    def __init__(self, settings: Settings) -> None:
        self._url, self._secret = settings.call_webhook, settings.webhook_secret
        self._guard = Guard((), ANYWHERE)
        self._tasks: set[asyncio.Task[None]] = set()

    def report(self, call: str, body: dict[str, Any]) -> None:
        """Send it soon, if there is somebody to send it to."""
        if not self._url:
            return
        if len(self._tasks) >= MAX_WAITING:
            log.warning("the report of call %s is dropped: %d others wait", call, len(self._tasks))
            return
        task = asyncio.create_task(self._send(call, dumps(body).encode()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self, seconds: float) -> None:
        """Wait until all are sent, but not for ever."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def close(self) -> None:
        """Send no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, call: str, body: bytes) -> None:
        delivery = secrets.token_hex(12)
        for wait in (*BACKOFF_S, None):
            try:
                # wait_for, up to Python 3.11, loses a cancellation that meets the answer.
                with anyio.fail_after(SEND_S):
                    status = await self._post(body, delivery)
                if 200 <= status < 300 or status == 410:
                    return
                outcome = f"status {status}"
            except TimeoutError:
                outcome = f"no answer within {SEND_S:g} s"
            except FetchFailed as error:
                outcome = error.message
            except RechkaError as error:
                log.warning("report of call %s given up: %s", call, error.message)
                return
            if wait is not None:
                log.info("report of call %s: %s; again in %g s", call, outcome, wait)
                await asyncio.sleep(wait)
        log.warning("report of call %s given up: %s", call, outcome)

    async def _post(self, body: bytes, delivery: str) -> int:
        headers = [("Content-Type", "application/json"), ("X-Rechka-Delivery", delivery)]
        if self._secret:
            headers.append(("X-Rechka-Signature", sign(self._secret, body, int(time.time()))))
        target = self._guard.examine(self._url)
        async with request(self._guard, target, method="POST", headers=headers, body=body) as reply:
            return reply.status
