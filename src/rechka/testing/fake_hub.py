"""A server on this machine that plays the Hugging Face Hub, with faults on demand."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True, slots=True)
class Fault:
    """How one answer goes wrong.

    Attributes:
        status: answered instead of the file, with ``code`` as ``X-Error-Code``; 0 for the file.
        cut: the connection breaks after so many bytes of the body.
        stall: instead of the body's rest after ``cut`` bytes, silence until the server stops.
        ignore_range: the whole file is sent although a part was asked for.
        wrong: other bytes of the same length are sent.
    """

    status: int = 0
    code: str = ""
    cut: int | None = None
    stall: bool = False
    ignore_range: bool = False
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came."""

    method: str
    path: str
    range: str
    token: str


@dataclass
class FakeHub:
    """Serves one repository; a context manager. Large files redirect to a second port, as the Hub does.

    Attributes:
        repo: ``owner/name``.
        old_name: an earlier name of it, which redirects to the new one; or empty.
        files: path -> content.
        large: paths kept in large-file storage (told by sha256); the others by git's sha1.
        faults: used up in order, one for each GET of a content; ``head_faults`` one for each HEAD.
        hide_sums: tell neither sums nor sizes nor commit, like a plain mirror.
        seen: the requests, in order.
        gate: called before a content is sent, so that a test can hold a download.
    """

    repo: str = "someone/something"
    old_name: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    large: bool = True
    faults: deque[Fault] = field(default_factory=deque)
    head_faults: deque[Fault] = field(default_factory=deque)
    hide_sums: bool = False
    commit: str = COMMIT
    seen: list[Seen] = field(default_factory=list)
    gate: Callable[[], None] | None = None

    def __enter__(self) -> FakeHub:
        self._stop = threading.Event()
        self._servers = [_serve(self, storage=False), _serve(self, storage=True)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        """Address for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def storage(self) -> str:
        """Address of the second port, another origin."""
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def gets(self) -> list[Seen]:
        """Requests for contents, where they were answered."""
        marker = "/content/" if self.large else "/resolve/"
        return [seen for seen in self.seen if seen.method == "GET" and marker in seen.path]


def _serve(hub: FakeHub, *, storage: bool) -> ThreadingHTTPServer:
    class Handler(_Handler):
        pass

    Handler.hub, Handler.storage = hub, storage
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    storage: bool

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_HEAD(self) -> None:
        self._note()
        fault = self.hub.head_faults.popleft() if self.hub.head_faults else Fault()
        if fault.status:
            self._refuse(fault)
        elif (content := self._find()) is not None:
            self._resolve(content)

    def do_GET(self) -> None:
        self._note()
        content = self._find()
        if content is None:
            return
        if self.storage or not self.hub.large:
            self._content(content)
        else:
            self._resolve(content)

    def _note(self) -> None:
        headers = self.headers
        token = headers.get("Authorization", "")
        self.hub.seen.append(Seen(self.command, self.path, headers.get("Range", ""), token))

    def _find(self) -> bytes | None:
        """The content that the address names; an error is answered here."""
        path = unquote(urlsplit(self.path).path)
        if self.storage:
            return self.hub.files[path.removeprefix("/content/")]
        if self.hub.old_name and path.startswith(f"/{self.hub.old_name}/"):
            self.send_response(307)
            self.send_header("Location", self.path.replace(self.hub.old_name, self.hub.repo, 1))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        prefix = f"/{self.hub.repo}/resolve/"
        if not path.startswith(prefix):
            self._refuse(Fault(404, "RepoNotFound"))
            return None
        revision, _, name = path.removeprefix(prefix).partition("/")
        if revision not in ("main", self.hub.commit):
            self._refuse(Fault(404, "RevisionNotFound"))
        elif name not in self.hub.files:
            self._refuse(Fault(404, "EntryNotFound"))
        else:
            return self.hub.files[name]
        return None

    def _refuse(self, fault: Fault) -> None:
        self.send_response(fault.status)
        if fault.code:
            self.send_header("X-Error-Code", fault.code)
            self.send_header("X-Error-Message", "as the test wants it")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _resolve(self, content: bytes) -> None:
        """The Hub's own answer: what it knows of the file, and where a large one is."""
        name = unquote(urlsplit(self.path).path).split("/resolve/")[1].partition("/")[2]
        self.send_response(302 if self.hub.large else 200)
        if not self.hub.hide_sums:
            self.send_header("X-Repo-Commit", self.hub.commit)
            if self.hub.large:
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
            else:
                blob = b"blob %d\0" % len(content) + content
                self.send_header("ETag", f'"{hashlib.sha1(blob, usedforsecurity=False).hexdigest()}"')
        if self.hub.large:
            self.send_header("Location", f"{self.hub.storage}/content/{name}")
            self.send_header("Content-Length", "0")
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def _content(self, content: bytes) -> None:
        fault = self.hub.faults.popleft() if self.hub.faults else Fault()
        if fault.status:
            self._refuse(fault)
            return
        if fault.wrong:
            content = bytes(byte ^ 1 for byte in content)
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and not fault.ignore_range else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.hub.gate is not None:
            self.hub.gate()
        part = content[start:] if fault.cut is None else content[start : start + fault.cut]
        self.wfile.write(part)
        if fault.stall:
            self.wfile.flush()
            self.hub._stop.wait()
