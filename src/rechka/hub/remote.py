"""The Hugging Face Hub over HTTP, with the standard library: describe a file, open it at an offset.

Why not ``huggingface_hub``: as of 2.4 it throws the partial file away when a download fails, so a cut is not resumed by
the next run; it does not compare a download with its sha256; it reads its settings once, on import. What is left of it
for us is two requests, which follow below. One protocol, one code path, one dependency less.

The Hub's protocol, as far as it is used: ``HEAD {endpoint}/{repo}/resolve/{revision}/{path}`` answers, perhaps with a
redirect to a storage host, ``X-Repo-Commit`` (the commit), ``X-Linked-Etag`` (sha256 of a large file) or ``ETag``
(git's sha1 of a small one) and ``X-Linked-Size``. ``GET`` of the same address takes ``Range``. ``X-Error-Code`` tells
why an answer is an error.
"""

from __future__ import annotations

import http.client
import os
import platform
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, Any

from rechka import __version__
from rechka.errors import HubError, HubForbidden, HubNotFound, HubUnreachable, Offline, UsageError

ENDPOINT = "https://huggingface.co"
_TRUE = frozenset({"1", "true", "yes", "on"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


class Transient(HubUnreachable):
    """A failure that may pass: asked again, the Hub may answer. ``retry_after`` is what it asked for, in seconds."""

    def __init__(self, message: str, *, remedy: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the Hub says of a file.

    Attributes:
        url: where to get it; pinned to ``commit`` if that is known.
        commit: the commit that the revision stands for, or empty if the server does not tell.
        size: length in bytes, or None.
        sha256: of the content, or None if the server does not tell.
        git_sha1: git's blob hash of a small file, or None.
    """

    url: str
    commit: str
    size: int | None
    sha256: str | None
    git_sha1: str | None

    @property
    def identity(self) -> str:
        """Tells contents apart, so that no partial file is continued with another one's bytes; empty if unknown."""
        return (self.sha256 or self.git_sha1 or self.commit)[:16]


@dataclass(frozen=True, slots=True)
class Body:
    """An open download. ``start`` is the offset of its first byte: 0 if the server ignored the range."""

    url: str
    stream: IO[bytes]
    start: int
    total: int | None

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, empty at the end. A broken connection may look like an end: compare with ``total``.

        Raises:
            Transient: the connection broke or was silent for too long.
        """
        try:
            return self.stream.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self.url, error) from None


@dataclass(frozen=True, slots=True)
class Hub:
    """A Hub or a mirror of it, and how to behave towards it.

    Attributes:
        endpoint: address without a path; ``HF_ENDPOINT``.
        token: access token, or empty; ``HF_TOKEN``. Sent to the endpoint only, not where it redirects to.
        offline: refuse every request; ``RECHKA_OFFLINE`` or ``HF_HUB_OFFLINE``.
        timeout_s: longest silence of the server before a request counts as failed; ``HF_HUB_DOWNLOAD_TIMEOUT``.
        pauses_s: waits before each further attempt; as many attempts follow. Progress starts them anew.
    """

    endpoint: str = ENDPOINT
    token: str = field(default="", repr=False)
    offline: bool = False
    timeout_s: float = 30.0
    pauses_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)

    @classmethod
    def from_environment(cls, *, offline: bool | None = None) -> Hub:
        """The Hub as the environment sets it; ``offline`` overrides the variables.

        Raises:
            UsageError: a variable holds something that cannot be used.
        """
        endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or ENDPOINT
        parts = urllib.parse.urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"HF_ENDPOINT must be an http or https address, got {endpoint!r}")
        token = os.environ.get("HF_TOKEN", "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", token):
            raise UsageError("HF_TOKEN holds characters that no token has", remedy="copy the token again, on one line")
        seconds = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "").strip() or "30"
        if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", seconds) or float(seconds) == 0:
            raise UsageError(f"HF_HUB_DOWNLOAD_TIMEOUT must be a number of seconds above 0, got {seconds!r}")
        if offline is None:
            offline = is_offline()
        return cls(endpoint=endpoint, token=token, offline=offline, timeout_s=float(seconds))

    def url(self, repo: str, revision: str, path: str) -> str:
        """Address of a file."""
        where = f"{repo}/resolve/{urllib.parse.quote(revision, safe='')}/{path}"
        return f"{self.endpoint}/{urllib.parse.quote(where, safe='/%')}"

    def describe(self, repo: str, revision: str, path: str) -> RemoteFile:
        """What the Hub says of a file, without getting it.

        Raises:
            HubError: see ``_refusal``; ``Transient`` if it may pass.
        """
        with closing(self._request("HEAD", self.url(repo, revision, path))) as response:
            headers = response.headers
        etag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
        commit = headers.get("X-Repo-Commit", "")
        # The length of a redirect's own body says nothing of the file.
        size = headers.get("X-Linked-Size") or (headers.get("Content-Length") if response.status == 200 else None)
        commit = commit if _SHA1.fullmatch(commit) else ""
        return RemoteFile(
            url=self.url(repo, commit or revision, path),
            commit=commit,
            size=int(size) if size and size.isdigit() else None,
            sha256=etag if _SHA256.fullmatch(etag) else None,
            git_sha1=etag if _SHA1.fullmatch(etag) else None,
        )

    @contextmanager
    def open(self, url: str, start: int = 0) -> Iterator[Body]:
        """The content of ``url`` from byte ``start`` on, if the server can do that, else from 0.

        Raises:
            HubError: as ``describe``.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        with closing(self._request("GET", url, headers)) as response:
            length = response.headers.get("Content-Length", "")
            if response.status == 206:
                match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
                if match is None or int(match[1]) != start:
                    raise HubError(f"{url}: asked for bytes from {start} on, got another part of the file")
                yield Body(url, response, start, None if match[2] == "*" else int(match[2]))
            else:
                yield Body(url, response, 0, int(length) if length.isdigit() else None)

    def _request(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """The open response, to be closed by the caller."""
        if self.offline:
            raise Offline(
                f"{url} was not asked for, because the network is switched off",
                remedy="unset RECHKA_OFFLINE and HF_HUB_OFFLINE, or copy the model's folder here by hand",
            )
        request = urllib.request.Request(url, method=method, headers={**(headers or {}), **_FIXED_HEADERS})
        if self.token:
            # "Unredirected" headers do not travel to the storage host; _Redirects adds it again for the same origin.
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        try:
            return _opener().open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            if method == "HEAD" and error.code in _REDIRECT_CODES:
                return error  # a response in its own right: its headers are what was asked for
            with error:
                raise _refusal(error, url, bool(self.token)) from None
        except urllib.error.URLError as error:
            raise _unreachable(url, error.reason) from None
        except HubError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(url, error) from None


_FIXED_HEADERS = {
    "User-Agent": f"rechka/{__version__} python/{platform.python_version()}",
    "Accept-Encoding": "identity",  # a compressed body has other offsets and another length
}
_REDIRECT_CODES = (301, 302, 303, 307, 308)


def is_offline() -> bool:
    """True if ``RECHKA_OFFLINE`` or ``HF_HUB_OFFLINE`` switches the network off."""
    return any(os.environ.get(name, "").strip().lower() in _TRUE for name in ("RECHKA_OFFLINE", "HF_HUB_OFFLINE"))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, with three rules of ours.

    A HEAD stays on its host: the answer that names the storage host has the headers we want.
    The token goes along only to the same origin. What began encrypted stays encrypted.
    """

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # known to the library since Python 3.11 only

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
        if req.get_method() == "HEAD" and not same:
            return None
        if old.scheme == "https" and new.scheme != "https":
            raise HubError(f"{req.full_url} redirects to {new.scheme}://{new.netloc}, which is not encrypted")
        following = urllib.request.Request(
            newurl, method=req.get_method(), headers=dict(req.headers), unverifiable=True
        )
        if same and (token := req.unredirected_hdrs.get("Authorization")):
            following.add_unredirected_header("Authorization", token)
        return following


def _opener() -> urllib.request.OpenerDirector:
    """Only http and https, with the environment's proxies; ``build_opener`` would add file, ftp and data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _unreachable(url: str, reason: object) -> HubUnreachable:
    """No answer, or one that broke off."""
    host = urllib.parse.urlsplit(url).netloc
    if isinstance(reason, ssl.SSLCertVerificationError):
        return HubUnreachable(
            f"{host}: its certificate cannot be trusted ({reason.verify_message})",
            remedy="install your system's certificates, or set SSL_CERT_FILE if a proxy uses its own",
        )
    if isinstance(reason, TimeoutError):
        what = "did not answer in time"
    else:
        what = f"cannot be reached or broke off ({reason or type(reason).__name__})"
    return Transient(
        f"{host} {what}",
        remedy="check the network and run it again: what was downloaded is kept; HF_ENDPOINT names a mirror",
    )


def _refusal(error: urllib.error.HTTPError, url: str, with_token: bool) -> HubError:
    """The error that an HTTP status and the Hub's own code stand for."""
    headers: Message = error.headers
    code, said = headers.get("X-Error-Code", ""), _one_line(headers.get("X-Error-Message", ""))
    status = f"HTTP {error.code}" + (f": {said}" if said else "")
    if error.code in (408, 429) or error.code >= 500:
        wait = headers.get("Retry-After", "")
        return Transient(
            f"{url} answers {status}",
            remedy="try again later: what was downloaded is kept; HF_ENDPOINT names a mirror",
            retry_after=min(float(wait), 60.0) if wait.isdigit() else 0.0,
        )
    if code == "GatedRepo" or error.code in (401, 403):
        remedy = (
            "the token in HF_TOKEN has no access to it: ask for access on the repository's page, or use another token"
            if with_token
            else "open the repository's page, accept its terms, make a token there and set HF_TOKEN to it"
        )
        return HubForbidden(f"{url} is not for everyone or does not exist ({status})", remedy=remedy)
    if error.code == 404:
        what = {
            "RepoNotFound": "no such repository",
            "RevisionNotFound": "no such revision",
            "EntryNotFound": "no such file",
        }
        return HubNotFound(
            f"{url}: {what.get(code, 'nothing is there')} ({status})",
            remedy="compare the card's repo, revision and file paths with the repository's page",
        )
    return HubError(f"{url} answers {status}", remedy="if HF_ENDPOINT is set, check that it is a mirror of the Hub")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
