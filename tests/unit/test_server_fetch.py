"""Addresses that clients name: what is not public is never connected to, however it is written."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("h11", reason="the server extra is not installed")
import h11

from rechka.errors import BadRequest, FetchFailed, Forbidden, TooLarge
from rechka.server import fetch, webhooks
from rechka.server.fetch import Fetcher, Guard, is_public, parse
from rechka.server.store import Delivery
from rechka.server.webhooks import Webhooks, sign, verify
from rechka.testing.waiting import PATIENCE_S, ends_when_cancelled

LOCAL = "127.0.0.0/8"

REFUSED = [
    # loopback, in all its forms
    *("http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/"),
    *("http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/", "http://127.0.0.1./", "http://0/"),
    *("http://0.0.0.0/", "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://127.0.0.01/"),
    *("http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://１２７.0.0.1/", "http://127.255.255.254/"),
    # IPv4 inside of IPv6: mapped, compatible, NAT64, 6to4, Teredo
    *("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://[::ffff:10.0.0.1]/"),
    *("http://[64:ff9b::7f00:1]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::a00:1]/"),
    *("http://[2002:7f00:1::]/", "http://[2001:0:7f00:1::]/", "http://[::ffff:0:127.0.0.1]/"),
    # private, shared, link-local, metadata, multicast, broadcast, reserved, documentation
    *("http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/", "http://100.64.0.1/"),
    *("http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/", "http://100.100.100.200/"),
    *("http://168.63.129.16/", "http://192.0.0.192/", "http://[fd00:ec2::254]/", "http://[fe80::1]/"),
    *("http://[fe80::1%25eth0]/", "http://[fc00::1]/", "http://[ff02::1]/", "http://[fec0::1]/"),
    *("http://224.0.0.1/", "http://255.255.255.255/", "http://240.0.0.1/", "http://198.18.0.1/", "http://192.0.2.1/"),
    *("http://[2001:db8::1]/", "http://[100::1]/", "http://2852039166/", "http://0xa9fea9fe/"),
    # other schemes, other tricks of writing
    *("ftp://example.org/", "file:///etc/passwd", "gopher://example.org/", "data:,x", "//example.org/", "example.org"),
    *("http://user@127.0.0.1/", "http://example.org@127.0.0.1/", "http://127.0.0.1#@example.org/", "http:///x"),
    *("http://example.org\\@127.0.0.1/", "http://exa mple.org/", "http://example.org/\r\nX: y", "http://256.1.1.1/"),
    *("http://example.org:22/", "http://example.org:0/", "http://example.org:99999/", "http://example.org:x/"),
    *("http://1.2.3/", "http://1.2.3.4.5/", "http://0x/", "http://[::1", "http://-x.org/", "http://a..b/", "http://"),
    *("http://[127.0.0.1]/", "http://[v1.x]/", f"http://{'a' * 64}.org/", f"http://x/{'a' * 5000}", "", "http://%31/"),
]


@pytest.mark.parametrize("url", REFUSED)
def test_refused_by_its_form(url):
    async def resolver(host, port):
        raise AssertionError(f"{host} was asked for")

    with pytest.raises((BadRequest, Forbidden)):
        Guard(resolver=resolver).examine(url)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://example.org", "example.org", 80, "/"),
        ("https://Example.ORG.:8443/a%20b?x=1&y=2#z", "example.org", 8443, "/a%20b?x=1&y=2"),
        ("http://пример.рф/файл.wav", "xn--e1afmkfd.xn--p1ai", 80, "/%D1%84%D0%B0%D0%B9%D0%BB.wav"),
        ("http://93.184.216.34/", "93.184.216.34", 80, "/"),
        ("http://[2606:2800:220:1:248:1893:25c8:1946]/", "2606:2800:220:1:248:1893:25c8:1946", 80, "/"),
        ("https://my_bucket.s3.example.org/x", "my_bucket.s3.example.org", 443, "/x"),
    ],
)
def test_taken(url, host, port, path):
    target = Guard().examine(url)
    assert (target.host, target.port, target.path) == (host, port, path)


@given(st.text(max_size=60) | st.from_regex(r"https?://[\w.:\[\]@%/-]{0,40}", fullmatch=True))
def test_any_text_is_refused_politely_or_plain(url):
    try:
        target = parse(url)
    except BadRequest:
        return
    assert target.scheme in ("http", "https")
    assert target.path.isascii()
    assert target.path.isprintable()
    assert re.fullmatch(r"[a-z0-9_.-]+|[0-9a-f:.]+", target.host)


@given(st.ip_addresses(v=4))
def test_public_means_at_least_what_python_calls_global(address):
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=6))
def test_no_address_of_another_network_in_disguise_is_public(address):
    if is_public(address):
        assert address.is_global
        assert (address.ipv4_mapped, address.sixtofour, address.teredo) == (None, None, None)


class Site:
    """A server on this machine that answers as it is told."""

    def __init__(self):
        self.asked = []
        self.answers = {}
        self.tasks = []

    async def serve(self, reader, writer):
        self.tasks.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.split(" ", 2)
            length = int((re.search(r"(?i)content-length: (\d+)", head) or [0, 0])[1])
            body = await reader.readexactly(length)
            self.asked.append((method, path, head, body))
            answer = self.answers.get(path, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def with_site(use, *, names=None, networks=(LOCAL,), hosts=(), **limits):
    """Run ``use(site, fetcher, base)``; ``names`` says where hosts are, as a list of answers, one for each question."""

    async def main():
        site = Site()
        server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        questions = {name: iter(answers) for name, answers in (names or {}).items()}

        async def resolver(host, port):
            return next(questions[host])

        guard = Guard(hosts, networks, resolver if names else None)
        fetcher = Fetcher(guard, **{"max_bytes": 1000, "seconds": 10.0, **limits})
        async with server:
            await asyncio.wait_for(use(site, fetcher, f"http://127.0.0.1:{port}", port), PATIENCE_S)
            await asyncio.gather(*site.tasks)

    asyncio.run(main())


def ok(body, headers=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def leads(where):
    return f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()


async def read(fetcher, url):
    async with fetcher(url) as file:
        return file.read()


def test_a_recording_comes_whatever_it_is_called():
    async def use(site, fetcher, base, port):
        site.answers["/a?x=1"] = ok(b"RIFF", b"Content-Type: text/html\r\n")
        site.answers["/chunked"] = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
        )
        site.answers["/old"] = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
        assert await read(fetcher, f"{base}/a?x=1") == b"RIFF"
        assert await read(fetcher, f"{base}/chunked") == b"abcd"
        assert await read(fetcher, f"{base}/old") == b"until the end"
        assert f"\r\nHost: 127.0.0.1:{port}\r\n" in site.asked[0][2]

    with_site(use)


def test_without_the_setting_this_machine_is_not_reached():
    async def use(site, fetcher, base, port):
        with pytest.raises(Forbidden):
            await read(fetcher, f"{base}/")
        assert site.asked == []

    with_site(use, networks=())


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fe80::1%eth0",
     "fd00:ec2::254", "100.64.0.1", "224.0.0.1", "0.0.0.0", "2002:7f00:1::"],
)  # fmt: skip
def test_a_name_that_is_not_in_the_public_network(address):
    async def use(site, fetcher, base, port):
        with pytest.raises(Forbidden) as caught:
            await read(fetcher, f"http://inner.example:{port}/")
        assert address not in str(caught.value)  # or clients could draw a map
        with pytest.raises(Forbidden):  # nor if a public one stands before it
            await read(fetcher, f"http://both.example:{port}/")
        assert site.asked == []

    names = {"inner.example": [[address]], "both.example": [["93.184.216.34", address]]}
    with_site(use, names=names, networks=())


def test_a_name_is_asked_once_and_the_connection_goes_where_it_said():
    """DNS rebinding: the second answer would be another machine; nobody asks for it."""

    async def use(site, fetcher, base, port):
        site.answers["/"] = ok(b"first")
        assert await read(fetcher, f"http://turning.example:{port}/") == b"first"
        assert f"\r\nHost: turning.example:{port}\r\n" in site.asked[0][2]

    with_site(use, names={"turning.example": [["127.0.0.1"]]})  # a second question would raise StopIteration


def test_redirects_are_examined_like_the_first_address():
    async def use(site, fetcher, base, port):
        site.answers["/far"] = leads(f"http://other.example:{port}/there")
        site.answers["/near"] = leads("/there")
        site.answers["/there"] = ok(b"found")
        site.answers["/round"] = leads("/round")
        start = f"http://start.example:{port}"
        assert await read(fetcher, f"{start}/near") == b"found"
        assert await read(fetcher, f"{start}/far") == b"found"
        with pytest.raises(FetchFailed, match="more than 5"):
            await read(fetcher, f"{start}/round")
        for inner in ("http://169.254.169.254/", f"http://inner.example:{port}/", "file:///etc/passwd",
                      "http://[::ffff:10.0.0.1]/", "http://2130706433/"):  # fmt: skip
            site.answers["/in"] = leads(inner)
            count = len(site.asked)
            with pytest.raises((Forbidden, BadRequest)):
                await read(fetcher, f"{start}/in")
            assert len(site.asked) == count + 1

    home = [["127.0.0.1"]] * 40
    with_site(use, names={"start.example": home, "other.example": home, "inner.example": [["192.168.0.1"]]})


@pytest.mark.parametrize("where", ["http://[", "//[x"])
def test_a_redirect_that_is_no_address(where):
    async def use(site, fetcher, base, port):
        site.answers["/"] = leads(where)
        with pytest.raises(BadRequest):
            await read(fetcher, f"{base}/")

    with_site(use)


def test_a_redirect_in_letters_that_are_not_latin():
    async def use(site, fetcher, base, port):
        site.answers["/"] = leads("/Запись.wav")
        site.answers["/%D0%97%D0%B0%D0%BF%D0%B8%D1%81%D1%8C.wav"] = ok(b"found")
        assert await read(fetcher, f"{base}/") == b"found"
        site.answers["/"] = leads("/").replace(b"Location: /", b"Location: /\xe9.wav")
        site.answers["/%C3%A9.wav"] = ok(b"old")
        assert await read(fetcher, f"{base}/") == b"old"

    with_site(use)


def test_lookups_that_take_long_hold_nothing_else_up(monkeypatch):
    """Who asks for names chooses whose servers answer, or do not."""
    let_go = threading.Event()

    def ask(*args, **named):
        let_go.wait(PATIENCE_S)
        raise OSError

    async def main():
        asking = [asyncio.ensure_future(fetch._resolve(f"{i}.example", 80)) for i in range(64)]
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 20)
        finally:
            let_go.set()
            await asyncio.gather(*asking, return_exceptions=True)

    monkeypatch.setattr("socket.getaddrinfo", ask)
    assert asyncio.run(main()) == "free"


def test_only_hosts_of_the_list():
    async def use(site, fetcher, base, port):
        site.answers["/"] = ok(b"x")
        site.answers["/out"] = leads(f"http://bad.example:{port}/")
        assert await read(fetcher, f"http://good.example:{port}/") == b"x"
        assert await read(fetcher, f"http://a.cdn.example:{port}/") == b"x"
        for url in ("bad.example", "cdn.example", "notgood.example", "good.example.bad.example", "127.0.0.1"):
            with pytest.raises(Forbidden):
                await read(fetcher, f"http://{url}:{port}/")
        with pytest.raises(Forbidden):
            await read(fetcher, f"http://good.example:{port}/out")

    home = [["127.0.0.1"]] * 9
    names = {"good.example": home, "a.cdn.example": home, "bad.example": home}
    with_site(use, names=names, hosts=("Good.example", ".cdn.example"))


def test_too_large_by_its_header_or_by_what_comes():
    async def endless(writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 500)
            await writer.drain()

    async def use(site, fetcher, base, port):
        site.answers["/said"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"
        site.answers["/endless"] = endless
        site.answers["/fits"] = ok(b"x" * 1000)
        assert len(await read(fetcher, f"{base}/fits")) == 1000
        for path in ("said", "endless"):
            with pytest.raises(TooLarge):
                await read(fetcher, f"{base}/{path}")

    with_site(use)


def test_too_slow_however_slowly():
    async def drip(writer):
        for byte in b"HTTP/1.1 200 OK\r\n" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    async def use(site, fetcher, base, port):
        site.answers["/drip"] = drip
        with pytest.raises(FetchFailed, match="within") as caught:
            await read(fetcher, f"{base}/drip")
        assert caught.value.retry_after_s

    with_site(use, seconds=0.3)


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 206 Part\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", True),
        (b"SSH-2.0-OpenSSH\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, False),
        (b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", False),
    ],
)
def test_answers_that_are_none(answer, again):
    async def use(site, fetcher, base, port):
        site.answers["/"] = answer
        with pytest.raises(FetchFailed) as caught:
            await read(fetcher, f"{base}/")
        if again:
            assert caught.value.retry_after_s
        else:
            assert caught.value.retry_after_s is None

    with_site(use)


def test_nobody_is_there_or_known():
    async def use(site, fetcher, base, port):
        with pytest.raises(FetchFailed, match="no connection"):
            await read(fetcher, "http://gone.example:1024/")
        with pytest.raises(FetchFailed, match="not known"):
            await read(fetcher, f"http://unknown.example:{port}/")

    with_site(use, names={"gone.example": [["127.0.0.1"]], "unknown.example": [[]]})


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def use(site, fetcher, base, port):
        site.answers["/"] = ok(b"x")
        assert await read(fetcher, f"{base}/") == b"x"

    with_site(use)


# Callbacks


def test_signatures_fit_their_secret_their_body_and_their_time():
    header = sign("s", b"body", 1000)
    assert verify("s", header, b"body", now=1200)
    assert not verify("t", header, b"body", now=1000)
    assert not verify("s", header, b"Body", now=1000)
    assert not verify("s", header, b"body", now=1400)
    assert not verify("s", header, b"body", now=600)
    for wrong in ("", "t=1000", "v1=x", header.replace("1000", "1001"), "t=١,v1=x", header + "x", "=,="):
        assert not verify("s", wrong, b"body", now=1000)


def test_a_callback_is_signed_and_tried_again_with_growing_waits():
    async def use(site, fetcher, base, port):
        site.answers["/ok"] = b"HTTP/1.1 204 Thanks\r\n\r\n"
        site.answers["/gone"] = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
        site.answers["/moved"] = leads("/ok")
        hooks = Webhooks(fetcher.guard, "secret")
        told = Delivery("news_1", "job_1", f"{base}/ok", '{"type":"job.done"}', attempts=1)
        assert await hooks.send(told) is None
        method, _, head, body = site.asked[0]
        assert (method, body) == ("POST", b'{"type":"job.done"}')
        assert "X-Rechka-Delivery: news_1" in head
        assert verify("secret", re.search(r"X-Rechka-Signature: (\S+)", head)[1], body)
        assert await hooks.send(Delivery("n", "j", f"{base}/gone", "{}", 1)) is None
        waits = [await hooks.send(Delivery("n", "j", f"{base}/lost", "{}", i)) for i in range(1, 9)]
        assert waits == [*webhooks.BACKOFF_S, None]
        count = len(site.asked)
        assert await hooks.send(Delivery("n", "j", f"{base}/moved", "{}", 1)) == webhooks.BACKOFF_S[0]
        assert len(site.asked) == count + 1  # a redirect is not followed

    with_site(use)


def test_a_callback_to_the_inside_is_never_sent():
    async def use(site, fetcher, base, port):
        assert await Webhooks(fetcher.guard, "s").send(Delivery("n", "j", f"{base}/ok", "{}", 1)) is None
        assert site.asked == []

    with_site(use, networks=())


@given(st.binary(max_size=300))
def test_whatever_a_server_answers_is_an_error_of_ours_or_a_reply(data):
    """The parser alone, so that thousands of answers take no sockets."""

    async def main():
        reader = asyncio.StreamReader()
        reader.feed_data(b"HTTP/1.1 200 OK\r\n" + data)
        reader.feed_eof()
        connection = fetch.h11.Connection(fetch.h11.CLIENT)
        connection.send(fetch.h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        connection.send(fetch.h11.EndOfMessage())
        with contextlib.suppress(FetchFailed, fetch.h11.RemoteProtocolError):  # what Fetcher makes FetchFailed of
            if isinstance(await fetch._event(connection, reader), fetch.h11.Response):
                return b"".join([piece async for piece in fetch._body(connection, reader)])
        return None

    body = asyncio.run(main())
    assert body is None or len(body) <= len(data)


def test_networks_may_be_named_both_ways():
    guard = Guard(networks=["10.1.0.0/16", "fd00::/8"])
    guard.examine("http://10.1.2.3/")
    guard.examine("http://[fd00::5]/")
    with pytest.raises(Forbidden):
        guard.examine("http://10.2.0.1/")
    assert ipaddress.ip_address("10.1.2.3") not in fetch.NOT_PUBLIC_6[0]


@pytest.mark.parametrize("turns", range(6))
def test_a_cancellation_is_not_lost_among_the_bytes(turns):
    """A recording comes in thousands of pieces, and a limit of time or the server's end may meet any of them."""

    async def main():
        reader = asyncio.StreamReader()
        event = fetch._event(h11.Connection(h11.CLIENT), reader)
        return await ends_when_cancelled(event, reader, b"HTTP/1.1 200 OK\r\n", turns)

    assert asyncio.run(main())
