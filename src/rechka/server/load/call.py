"""One call: packets at the times of the plan, and every message with the time at which it was read."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from rechka.server.load.plan import Call

PATIENCE_S = 30.0
"""How long after its last packet a call waits for its last words, and for a packet to leave."""
OPEN_S = 30.0
BUSY = (429, 503)
REFUSALS = ("service.overloaded", "service.quota", "service.draining")


@dataclass(slots=True)
class Heard:
    """What became of a call.

    Attributes:
        call: as planned.
        began: when the speaker began, on this machine's monotonic clock.
        messages: time and content, in the order they came.
        outcome: done; refused; lost (broken off, or no last words in time); failed (an error of the server).
        why: what the server said, if it was not done.
        late_s: by how much a packet left late at worst although the connection was free: this machine is too slow to
            make so many calls.
        held_s: how long the connection did not take a packet, at worst: the server had stopped reading.
    """

    call: Call
    began: float
    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    outcome: str = "lost"
    why: str = ""
    late_s: float = 0.0
    held_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Manner:
    """How calls are made: the address of the native protocol, the key, what the start message asks for, packets."""

    url: str
    key: str | None
    options: dict[str, Any]
    packet_s: float
    jitter_s: float


async def make_call(call: Call, manner: Manner, epoch: float) -> Heard:
    """Make a call when its time comes; whatever goes wrong stands in the result.

    Args:
        call: from the plan.
        manner: of all calls.
        epoch: beginning of the plan on the monotonic clock.
    """
    heard = Heard(call, epoch + call.start_s)
    await _until(heard.began)
    headers = {"Authorization": f"Bearer {manner.key}"} if manner.key else {}
    try:
        async with connect(
            manner.url, additional_headers=headers, compression=None, open_timeout=OPEN_S, max_size=1 << 22,
            ping_interval=None, close_timeout=5, proxy=None,
        ) as socket:  # fmt: skip
            await _talk(socket, heard, manner)
    except InvalidStatus as error:
        status = error.response.status_code
        heard.outcome, heard.why = ("refused" if status in BUSY else "failed"), f"status {status}"
    except TimeoutError:
        heard.why = "no answer"
    except (OSError, InvalidHandshake, ConnectionClosed) as error:
        heard.why = heard.why or str(error) or type(error).__name__
    return heard


async def _talk(socket: ClientConnection, heard: Heard, manner: Manner) -> None:
    reader = asyncio.create_task(_listen(socket, heard))
    try:
        script = heard.call.script
        await _send(socket, json.dumps({"type": "start", "sample_rate": script.rate, **manner.options}))
        free = time.monotonic()
        for due, data in heard.call.packets(manner.packet_s, manner.jitter_s):
            now = await _until(heard.began + due)
            heard.late_s = max(heard.late_s, now - max(heard.began + due, free))
            await _send(socket, data)
            free = time.monotonic()
            heard.held_s = max(heard.held_s, free - now)
        await _send(socket, '{"type":"finish"}')
        await asyncio.wait_for(asyncio.shield(reader), PATIENCE_S)
    except ConnectionClosed:
        await reader  # it knows why
    except asyncio.TimeoutError:
        heard.why = f"no last words within {PATIENCE_S:g} s"
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _send(socket: ClientConnection, data: str | bytes) -> None:
    """Send; a server that stopped reading, or a network that is gone, would be waited for without an end."""
    try:
        with anyio.fail_after(PATIENCE_S):
            await socket.send(data)
    except TimeoutError:
        raise OSError(f"the server takes nothing for {PATIENCE_S:g} s") from None


async def _listen(socket: ClientConnection, heard: Heard) -> None:
    try:
        async for text in socket:
            message = json.loads(text)
            heard.messages.append((time.monotonic(), message))
            if message["type"] == "done":
                heard.outcome = "done"
                return
            if message["type"] == "error":
                heard.outcome = "refused" if message["code"].startswith(REFUSALS) else "failed"
                heard.why = str(message["message"])
        heard.why = heard.why or "closed before the last words"
    except ConnectionClosed as error:
        heard.why = heard.why or str(error)


async def _until(when: float) -> float:
    """Sleep; what time it is then."""
    await asyncio.sleep(max(0.0, when - time.monotonic()))
    return time.monotonic()
