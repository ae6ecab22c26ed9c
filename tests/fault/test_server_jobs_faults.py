"""Jobs when things go wrong: kill -9, SIGTERM, full disks, locked databases, lost leases, other machines' audio."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("uvicorn", reason="the server extra is not installed")

from rechka.cli.main import main
from rechka.server.jobs import spool as spool_module
from rechka.server.jobs.spool import Spool
from rechka.server.store.sqlite import SqliteStore
from rechka.testing import say
from rechka.testing.audio import wav_bytes
from rechka.testing.postgres import postgres, postgres_folder
from rechka.testing.servers import serving
from rechka.testing.waiting import wait_until

PHRASE = say("привет мир", before_s=0.5, after_s=1.5)
SHORT = wav_bytes(PHRASE, 8000)
REPEATS = 200
LONG = wav_bytes(np.tile(PHRASE, REPEATS), 8000)


def ask(base, method, path, data=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if data is not None:
        headers.setdefault("Content-Type", "audio/wav")
    request = urllib.request.Request(base + path, data=data, method=method, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = answer.read()
        return answer.status, answer.headers, json.loads(body) if body.startswith(b"{") else body.decode()


@contextlib.contextmanager
def process(folder, log, **settings):
    """A real `rechka serve`; its address and the process."""
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "rechka", "serve", "--model", "toy", "--port", "0", "--workers", "1",
               "--data-dir", str(folder), "--requests-per-minute", "0", *flags]  # fmt: skip
    with log.open("ab") as file:
        begin = file.tell()
        child = subprocess.Popen(command, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        found = wait_until(lambda: re.search(rb"http://[\d.]+:(\d+)", log.read_bytes()[begin:]) or child.poll())
        assert isinstance(found, re.Match), log.read_text("utf-8", "replace")
        base = f"http://127.0.0.1:{int(found[1])}"

        def ready():
            with contextlib.suppress(OSError):
                return ask(base, "GET", "/readyz")[0] == 200

        wait_until(ready)
        yield base, child
    finally:
        child.kill()
        child.wait()


def status(base, id, **who):
    return ask(base, "GET", f"/v1/jobs/{id}", **who)[2]


def test_kill_9_in_the_middle_of_a_job(tmp_path):
    """Nothing is lost, nothing is there twice: result, history, quota, queue, half an upload."""
    key = hashlib.sha256(b"crm").hexdigest()
    (tmp_path / "keys.toml").write_text(f'[[key]]\nname = "crm"\nsha256 = "{key}"\nscopes = ["jobs", "history"]\n')
    recording = wav_bytes(np.tile(PHRASE, 500), 8000)
    folder, log, who = tmp_path / "data", tmp_path / "log", {"X_API_Key": "crm"}
    settings = {"history": "on", "keys_file": tmp_path / "keys.toml"}
    with process(folder, log, **settings) as (base, child):
        ids = [ask(base, "POST", "/v1/jobs", recording, Idempotency_Key="first", **who)[2]["id"]]
        ids += [ask(base, "POST", "/v1/jobs", SHORT, **who)[2]["id"] for _ in range(2)]
        wait_until(lambda: status(base, ids[0], **who)["status"] == "running")
        host, port = base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(
                b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-API-Key: crm\r\nContent-Length: 99999\r\n\r\nRIFF"
            )
            wait_until(lambda: list((folder / "audio").glob("*.part")))
            before = status(base, ids[0], **who)
            child.send_signal(signal.SIGKILL)
            child.wait()
    assert before["status"] == "running", "the recording was too short for this machine"
    assert len(list((folder / "audio").iterdir())) == 4

    with process(folder, log, **settings) as (base, _):
        again = ask(base, "POST", "/v1/jobs", recording, Idempotency_Key="first", **who)
        assert (again[0], again[2]["id"]) == (200, ids[0])
        jobs = [wait_until(lambda id=id: (job := status(base, id, **who))["status"] == "done" and job) for id in ids]
        assert [job["attempts"] for job in jobs] == [2, 1, 1]
        assert jobs[0]["result"]["text"] == " ".join(["привет мир"] * 500)
        assert jobs[1]["result"]["text"] == "привет мир"
        history = ask(base, "GET", "/v1/history", **who)[2]["data"]
        assert sorted(line["id"] for line in history) == sorted(ids)
        assert list((folder / "audio").iterdir()) == []
        assert len(list((folder / "workers").iterdir())) == 1
    seconds = 502 * len(PHRASE) / 8000
    with contextlib.closing(sqlite3.connect(folder / "rechka.db")) as connection:
        assert connection.execute("SELECT sum(seconds) FROM used").fetchone()[0] == pytest.approx(seconds)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_sigterm_gives_a_job_back_and_it_is_no_attempt(tmp_path):
    with serving(data_dir=tmp_path, grace_s=0.01, workers=1) as server:
        id = ask(server.http, "POST", "/v1/jobs", LONG)[2]["id"]
        wait_until(lambda: status(server.http, id)["progress"] > 0)
        server.end_gently()
        wait_until(lambda: server.server.should_exit)
    with contextlib.closing(sqlite3.connect(tmp_path / "rechka.db")) as connection:
        assert connection.execute("SELECT state, attempts FROM jobs").fetchall() == [("queued", 0)]
    assert list((tmp_path / "workers").iterdir()) == []
    with serving(data_dir=tmp_path) as server:
        wait_until(lambda: status(server.http, id)["status"] == "done")
        assert status(server.http, id)["result"]["text"].count("мир") == REPEATS


def audio_of(server):
    return list((server.service.settings.data_dir / "audio").iterdir())


def test_a_full_disk_takes_nothing_in_and_leaves_nothing_behind(tmp_path, monkeypatch):
    with serving(data_dir=tmp_path) as server:
        for step in ("write", "keep"):

            def full(self, *_):
                raise spool_module._full(OSError(errno.ENOSPC, "No space left on device"))

            with monkeypatch.context() as patch:
                patch.setattr(spool_module.Writer, step, full)
                code, headers, body = ask(server.http, "POST", "/v1/jobs", SHORT)
            assert (code, body["error"]["code"]) == (507, "service.storage_full")
            assert int(headers["Retry-After"]) > 0
            assert audio_of(server) == []
        assert ask(server.http, "GET", "/v1/jobs")[2]["data"] == []
        assert ask(server.http, "POST", "/v1/jobs", SHORT)[0] == 202


def test_a_disk_that_is_really_full(tmp_path):
    """/dev/full says what a full disk says."""
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    spool = Spool(tmp_path, 1 << 30)
    writer = spool.begin("job_" + "0" * 32)
    writer._file.close()
    with open("/dev/full", "wb", buffering=0) as full:
        writer._file = full
        with pytest.raises(spool_module.StorageFull, match="No space left"):
            writer.write(b"x")
    writer.drop()
    assert list((tmp_path / "audio").iterdir()) == []
    spool.close()


def test_audio_that_comes_side_by_side_shares_the_room(tmp_path):
    spool = Spool(tmp_path, 3 << 20)
    one, two = (spool.begin(f"job_{letter * 32}") for letter in "ab")
    one.write(bytes(2 << 20))
    with pytest.raises(spool_module.StorageFull):
        two.write(bytes(2 << 20))
    two.write(bytes(1 << 20))
    one.drop()
    two.write(bytes(2 << 20))
    two.keep()
    with pytest.raises(spool_module.StorageFull):
        spool.begin("job_" + "c" * 32)
    spool.close()


def test_audio_of_jobs_is_bounded_together(tmp_path):
    with serving(data_dir=tmp_path, max_spool_mb=1, job_lease_s=5, max_jobs=50) as server:
        server.call(server.service.jobs.stop())  # nobody takes them away
        codes = [ask(server.http, "POST", "/v1/jobs", SHORT * 6)[0] for _ in range(5)]
        assert codes == [202, 202, 202, 507, 507]
        assert sum(path.stat().st_size for path in audio_of(server)) <= 1 << 20
        for job in ask(server.http, "GET", "/v1/jobs")[2]["data"]:
            assert ask(server.http, "DELETE", f"/v1/jobs/{job['id']}")[0] == 202
        assert audio_of(server) == []
        assert ask(server.http, "POST", "/v1/jobs", SHORT)[0] == 202


def test_a_locked_database_is_told_and_what_was_recognised_is_written_later(tmp_path, monkeypatch):
    monkeypatch.setattr("rechka.server.jobs.desk.PATIENCE_S", 0.05)
    monkeypatch.setattr("rechka.server.store.sqlite.BUSY_S", 0.05)
    monkeypatch.setattr(SqliteStore.__init__, "__kwdefaults__", {"busy_s": 0.05})
    with serving(data_dir=tmp_path, history="on") as server:
        id = ask(server.http, "POST", "/v1/jobs", LONG)[2]["id"]
        wait_until(lambda: status(server.http, id)["status"] == "running")
        locker = sqlite3.connect(tmp_path / "rechka.db", isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        for method, path, data in (("POST", "/v1/jobs", SHORT), ("DELETE", f"/v1/jobs/{id}", None)):
            code, headers, body = ask(server.http, method, path, data)
            assert (code, body["error"]["code"]) == (503, "service.storage_busy")
            assert int(headers["Retry-After"]) > 0
        assert len(audio_of(server)) == 1
        assert status(server.http, id)["status"] == "running"  # it can be read still
        wait_until(lambda: not server.service.engines["toy"].active)  # recognised, but it cannot be written
        assert status(server.http, id)["status"] == "running"
        locker.execute("ROLLBACK")
        locker.close()
        wait_until(lambda: status(server.http, id)["status"] == "done")
        assert [line["id"] for line in ask(server.http, "GET", "/v1/history")[2]["data"]] == [id]


def test_a_full_database_is_told_and_changes_nothing(tmp_path):
    with serving(data_dir=tmp_path) as server:
        store = server.service.jobs.store
        pages = store._connection.execute("PRAGMA page_count").fetchone()["page_count"]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        codes = set()
        for _ in range(40):
            code, _, body = ask(server.http, "POST", f"/v1/jobs?name={'x' * 200}", SHORT)
            codes.add((code, (body["error"] or {}).get("code")))
        assert (507, "service.storage_full") in codes
        assert codes <= {(202, None), (507, "service.storage_full")}
        store._connection.execute("PRAGMA max_page_count = 1000000")
        jobs = ask(server.http, "GET", "/v1/jobs?limit=100")[2]["data"]
        for job in jobs:
            wait_until(lambda id=job["id"]: status(server.http, id)["status"] == "done")
        assert audio_of(server) == []


def test_a_lost_lease_throws_the_result_away(tmp_path, monkeypatch):
    monkeypatch.setattr("rechka.server.jobs.runner.BEAT_S", 1000.0)
    with serving(data_dir=tmp_path, history="on", job_lease_s=3600, job_workers=1) as server:
        id = ask(server.http, "POST", "/v1/jobs", LONG)[2]["id"]
        wait_until(lambda: status(server.http, id)["status"] == "running")
        with contextlib.closing(sqlite3.connect(tmp_path / "rechka.db", timeout=20)) as connection, connection:
            changed = "UPDATE jobs SET worker = 'another-1', attempts = attempts + 1 WHERE state = 'running'"
            assert connection.execute(changed).rowcount == 1
        wait_until(lambda: not server.service.engines["toy"].active)
        time.sleep(0.2)
        job = status(server.http, id)
        assert (job["status"], job["attempts"]) == ("running", 2)  # as the other worker has it
        assert ask(server.http, "GET", "/v1/history")[2]["data"] == []
        assert len(audio_of(server)) == 1


def test_audio_that_no_job_needs_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "STRAY_S", -1.0)
    (tmp_path / "audio").mkdir(parents=True)
    (tmp_path / "workers").mkdir()
    stray, part, alien = (tmp_path / "audio" / name for name in ("job_" + "a" * 32, "dead.job_x.part", "notes.txt"))
    for path in (stray, part, alien):
        path.write_bytes(b"x")
    (tmp_path / "workers" / "dead").touch()
    with serving(data_dir=tmp_path):
        assert not stray.exists()
        assert not part.exists()
        assert alien.exists()


def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["serve", "--model", "toy", "--port", "0", "--data-dir", str(tmp_path / "file")]) == 1
    assert "cannot keep jobs" in capsys.readouterr().err


def test_two_servers_and_one_postgresql(tmp_path):
    """Each answers for all jobs; audio is recognised where it is; a killed server's jobs wait for its folder."""
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with postgres() as database:
        shared = {"database": database, "history": "on"}
        with serving(data_dir=tmp_path / "two", **shared) as two:
            with serving(data_dir=tmp_path / "one", grace_s=0.01, workers=1, **shared) as one:
                kept = ask(one.http, "POST", "/v1/jobs", LONG)[2]["id"]
                wait_until(lambda: status(one.http, kept)["status"] == "running")
                done = ask(two.http, "POST", "/v1/jobs", SHORT)[2]["id"]
                wait_until(lambda: status(one.http, done)["status"] == "done")
                one.end_gently()
                wait_until(lambda: one.server.should_exit)
            time.sleep(0.1)
            assert status(two.http, kept)["status"] == "queued"  # nobody else has its audio
            with serving(data_dir=tmp_path / "one", **shared) as one:
                wait_until(lambda: status(two.http, kept)["status"] == "done")
                query = "/v1/history?q=%D0%9C%D0%98%D0%A0%D0%90"  # МИРА
                lines = [ask(server.http, "GET", query)[2] for server in (one, two)]
                assert lines[0] == lines[1]
                assert {line["id"] for line in lines[0]["data"]} == {kept, done}
