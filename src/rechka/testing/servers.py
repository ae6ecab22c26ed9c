"""A server on this machine in a thread, for tests with real clients over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rechka.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from rechka.recognizers import Asr
    from rechka.server.run import Server
    from rechka.server.service import Service


PATIENT = dict.fromkeys(("idle_s", "send_s", "header_s", "file_wait_s", "max_queue_age_s"), 3600.0)
"""A busy machine is no client that went to sleep, and no server under too much load: tests of these limits set them."""


def websocket_scope(path: str, query: bytes = b"") -> dict[str, Any]:
    """What an ASGI server says of a WebSocket to ``path``, for clients without a socket."""
    return {
        "type": "websocket", "path": path, "raw_path": path.encode(), "query_string": query, "state": {},
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "subprotocols": [], "scheme": "ws",
        "root_path": "", "extensions": {"websocket.http.response": {}},
    }  # fmt: skip


@dataclass(frozen=True)
class Running:
    """A running server."""

    port: int
    server: Server
    loop: asyncio.AbstractEventLoop

    @property
    def service(self) -> Service:
        """Belongs to the server's loop; looking at numbers is fine."""
        return self.server.service

    @property
    def http(self) -> str:
        """Address for requests."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """Address for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    def call(self, coroutine: Any, timeout: float = PATIENCE_S) -> Any:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def end_gently(self) -> None:
        """What SIGTERM does."""
        self.loop.call_soon_threadsafe(self.server.end_gently)


@contextmanager
def serving(models: Mapping[str, Asr] | None = None, **settings: Any) -> Iterator[Running]:
    """A server around the toy model, or other models; it is stopped at the end.

    Args:
        models: by name.
        settings: of ``Settings``; its limits of time are an hour unless they are given.
    """
    from rechka.server.run import Server, bind, make_service
    from rechka.server.settings import Settings
    from rechka.testing.toy import toy_asr

    chosen = Settings(**{"port": 0, "workers": 2, "max_wait_ms": 1.0, "requests_per_minute": 0, **PATIENT, **settings})
    chosen.check()
    listeners = bind(chosen)
    chosen = replace(chosen, port=listeners[0].getsockname()[1])
    made: dict[str, Any] = {}
    up = threading.Event()

    def run() -> None:
        async def main() -> None:
            server = Server(make_service(chosen, models or {"toy": toy_asr()}))
            made.update(server=server, loop=asyncio.get_running_loop())
            serving_ = asyncio.ensure_future(server.serve(listeners))
            while not server.listening and not serving_.done():
                await asyncio.sleep(0.01)
            up.set()
            await serving_

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - told to the test's thread
            made["error"] = error
        finally:
            up.set()

    thread = threading.Thread(target=run, name="rechka-server", daemon=True)
    thread.start()
    up.wait(PATIENCE_S)
    if "error" in made:
        raise made["error"]
    try:
        yield Running(chosen.port, made["server"], made["loop"])
    finally:
        made["server"].should_exit = True
        thread.join(PATIENCE_S)
