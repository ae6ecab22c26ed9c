"""Keys, tokens, scopes, quotas, rates."""

import datetime
import hashlib
import os

import pytest

from rechka.errors import Forbidden, QuotaExceeded, Unauthorized, UsageError
from rechka.server.auth import Auth, require
from rechka.server.keys import new_key, read_keys


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def keys(tmp_path):
    return tmp_path / "keys.toml"


def write(path, **extra):
    """A file with one key, "secret"."""
    lines = ["[[key]]", 'name = "crm"', f'sha256 = "{hashlib.sha256(b"secret").hexdigest()}"']
    path.write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in extra.items())]) + "\n")


def test_without_a_file_everybody_may_everything():
    auth = Auth()
    principal = auth.principal(None, address="1.2.3.4")
    require(principal, "stream")
    require(principal, "metrics")
    assert principal.name == "address:1.2.3.4"


def test_a_new_key_is_known_by_its_hash_only(keys):
    key = new_key("crm", keys)
    assert key not in keys.read_text()
    assert keys.stat().st_mode & 0o077 == 0
    auth = Auth(keys)
    assert auth.principal(key, address="").name == "key:crm"
    with pytest.raises(UsageError, match="already"):
        new_key("crm", keys)
    new_key("second", keys)
    assert [k.name for k in read_keys(keys)] == ["crm", "second"]


@pytest.mark.parametrize("secret", [None, "", "wrong", "rt_abc.def", "rt_", "x" * 5000, "secret\n", "секрет"])
def test_no_key_or_a_wrong_one(keys, secret):
    write(keys)
    with pytest.raises(Unauthorized):
        Auth(keys).principal(secret, address="")


@pytest.mark.parametrize("wrong", ['scopes = [["stream"]]', "scopes = [{}]", "scopes = [1]"])
def test_scopes_that_are_no_texts_change_nothing(keys, wrong):
    write(keys)
    auth = Auth(keys)
    keys.write_text(keys.read_text() + wrong)
    with pytest.raises(UsageError, match="scopes"):
        read_keys(keys)
    assert auth.principal("secret", address="").name == "key:crm"


def test_expired(keys):
    clock = Clock()
    day = datetime.datetime.fromtimestamp(clock.now, datetime.timezone.utc).date()
    write(keys, expires=day + datetime.timedelta(days=1))
    auth = Auth(keys, now=clock)
    auth.principal("secret", address="")
    clock.now += 86400
    with pytest.raises(Unauthorized, match="expired"):
        auth.principal("secret", address="")


def test_scopes(keys):
    write(keys, scopes='["files"]')
    principal = Auth(keys).principal("secret", address="")
    require(principal, "files")
    with pytest.raises(Forbidden, match="stream"):
        require(principal, "stream")
    write(keys, scopes='["admin"]')
    require(Auth(keys).principal("secret", address=""), "metrics")


def test_a_revoked_key_is_refused_without_a_restart(keys):
    write(keys)
    auth = Auth(keys)
    auth.principal("secret", address="")
    keys.write_text("")
    os.utime(keys, ns=(1, 1))
    with pytest.raises(Unauthorized):
        auth.principal("secret", address="")


def test_a_key_that_is_revoked_while_the_file_is_read_is_refused_too(keys, monkeypatch):
    write(keys)
    auth = Auth(keys)

    def overtaken(path):
        monkeypatch.undo()
        found = read_keys(path)
        keys.write_text("")
        os.utime(keys, ns=(2, 2))
        return found

    monkeypatch.setattr("rechka.server.auth.read_keys", overtaken)
    os.utime(keys, ns=(1, 1))
    auth.principal("secret", address="")
    with pytest.raises(Unauthorized):
        auth.principal("secret", address="")


def test_a_file_that_became_wrong_changes_nothing_until_it_is_right_again(keys, caplog):
    write(keys)
    auth = Auth(keys)
    whole = keys.read_text()
    keys.write_text(whole[:-20])
    for _ in range(3):
        assert auth.principal("secret", address="").name == "key:crm"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    keys.write_text(whole.replace("crm", "shop"))
    assert auth.principal("secret", address="").name == "key:shop"


def test_a_key_in_an_address_is_refused_and_a_token_accepted(keys):
    clock = Clock()
    write(keys, scopes='["stream", "metrics"]')
    auth = Auth(keys, now=clock)
    with pytest.raises(Unauthorized, match="address"):
        auth.principal("secret", address="", query=True)
    holder = auth.principal("secret", address="")
    token, ends = auth.token(holder, 60, ("stream",))
    assert ends == clock.now + 60
    guest = auth.principal(token, address="", query=True)
    assert (guest.name, guest.scopes) == ("key:crm", ("stream",))
    for i in range(0, len(token), 7):
        broken = token[:i] + ("x" if token[i] != "x" else "y") + token[i + 1 :]
        with pytest.raises(Unauthorized):
            auth.principal(broken, address="", query=True)
    with pytest.raises(Unauthorized):
        Auth(keys, now=clock).principal(token, address="")  # another server's secret
    clock.now += 61
    with pytest.raises(Unauthorized, match="expired"):
        auth.principal(token, address="", query=True)


def test_a_token_ends_with_its_key_and_gives_no_more_than_it(keys):
    write(keys, scopes='["stream"]')
    auth = Auth(keys, secret="s")
    holder = auth.principal("secret", address="")
    with pytest.raises(Forbidden):
        auth.token(holder, 60, ("metrics",))
    token, _ = auth.token(holder, 10**9, ("stream",))
    keys.write_text("")
    os.utime(keys, ns=(1, 1))
    with pytest.raises(Unauthorized):
        auth.principal(token, address="")


def test_a_token_ends_with_its_key_though_a_new_one_has_its_name(keys):
    write(keys)
    auth = Auth(keys)
    token, _ = auth.token(auth.principal("secret", address=""), 60, ("stream",))
    auth.principal(token, address="")
    keys.write_text(keys.read_text().replace(hashlib.sha256(b"secret").hexdigest(), "0" * 64))
    os.utime(keys, ns=(1, 1))
    with pytest.raises(Unauthorized):
        auth.principal(token, address="")


def test_a_token_cannot_renew_itself(keys):
    clock = Clock()
    write(keys, scopes='["stream"]')
    auth = Auth(keys, now=clock)
    token, ends = auth.token(auth.principal("secret", address=""), 60, ("stream",))
    clock.now += 30
    guest = auth.principal(token, address="")
    assert auth.token(guest, 10, ("stream",))[1] == clock.now + 10
    again, later = auth.token(guest, 3600, ("stream",))
    assert later == ends
    clock.now += 31
    with pytest.raises(Unauthorized, match="expired"):
        auth.principal(again, address="")


def test_quota_of_streams_and_of_audio(keys):
    clock = Clock()
    write(keys, max_streams=1, audio_s_per_day=100)
    auth = Auth(keys, now=clock)
    principal = auth.principal("secret", address="")
    meter = auth.meter(principal)
    with pytest.raises(QuotaExceeded, match="1 streams"):
        auth.meter(principal)
    meter.audio(60)
    meter.end()
    meter.end()
    meter = auth.meter(principal)
    with pytest.raises(QuotaExceeded, match="100 s"):
        meter.audio(60)
    with pytest.raises(QuotaExceeded):
        auth.meter(principal)
    assert auth.usage(principal).streams == 0
    clock.now += 86400
    auth.meter(principal).audio(60)


def test_rates_refill():
    clock = Clock()
    auth = Auth(requests_per_minute=60, clock=clock)
    principal = auth.principal(None, address="a")
    for _ in range(10):
        auth.admit(principal)
    with pytest.raises(QuotaExceeded) as caught:
        auth.admit(principal)
    assert 0 < caught.value.retry_after_s <= 1
    auth.admit(auth.principal(None, address="b"))
    clock.now += 1
    auth.admit(principal)
    with pytest.raises(QuotaExceeded):
        auth.admit(principal)


def test_addresses_do_not_fill_the_memory():
    auth = Auth(requests_per_minute=60)
    for i in range(20_000):
        auth.count(str(i), 60)
    assert len(auth._buckets) <= 10_000


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "other = 1",
        "[[key]]\nname = 'a'",
        "[[key]]\nname = 'a'\nsha256 = 'zz'",
        f"[[key]]\nname = 'a'\nsha256 = '{'0' * 64}'\nscopes = ['all']",
        f"[[key]]\nname = 'a'\nsha256 = '{'0' * 64}'\nmax_streams = 'many'",
        f"[[key]]\nname = 'a'\nsha256 = '{'0' * 64}'\n" * 2,
    ],
)
def test_a_wrong_file_is_told(keys, text):
    keys.write_text(text)
    with pytest.raises(UsageError, match=r"keys\.toml"):
        Auth(keys)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        Auth(tmp_path / "none.toml")
