"""Jobs over HTTP: taking in, results, cancelling, retrying, idempotency, keys, quotas, callbacks, addresses."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("uvicorn", reason="the server extra is not installed")

from rechka.formats import FORMATS
from rechka.server.webhooks import verify
from rechka.testing import say
from rechka.testing.audio import wav_bytes
from rechka.testing.servers import serving
from rechka.testing.waiting import PATIENCE_S, wait_until

SPEECH = wav_bytes(say("привет мир", before_s=0.5, after_s=1.5), 8000)
LEGS = [np.resize(say(word, before_s=before, after_s=3.0), 24000) for word, before in (("да", 0.2), ("нет", 1.2))]
DIALOGUE = wav_bytes(np.stack(LEGS, 1), 8000)
LONG = wav_bytes(np.tile(say("привет мир", before_s=0.5, after_s=1.5), 150), 8000)
PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def ask(server, method, path, data=None, **headers):
    """Status, headers, and body as JSON where it is JSON."""
    if isinstance(data, dict):
        data, headers = json.dumps(data).encode(), {"Content-Type": "application/json", **headers}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if data is not None:
        headers.setdefault("Content-Type", "audio/wav")
    request = urllib.request.Request(server.http + path, data=data, method=method, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE_S)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = answer.read()
        kind = answer.headers.get("Content-Type", "")
        return answer.status, answer.headers, json.loads(body) if kind.startswith("application/json") else body.decode()


def end_of(server, id, **headers):
    """The job when it has ended."""

    def ended():
        job = ask(server, "GET", f"/v1/jobs/{id}", **headers)[2]
        return job if job["status"] not in ("queued", "running") else None

    return wait_until(ended)


def form(**parts):
    """A multipart body; bytes are a file."""
    body = b""
    for name, value in parts.items():
        file = '; filename="../../etc/договор.wav"\r\nContent-Type: audio/wav' if isinstance(value, bytes) else ""
        value = value if isinstance(value, bytes) else value.encode()
        body += f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"
    return body + b"--x--\r\n", "multipart/form-data; boundary=x"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(data_dir=tmp_path_factory.mktemp("data"), history="on", job_workers=2) as running:
        yield running


def audio_of(server):
    return sorted(path.name for path in (server.service.settings.data_dir / "audio").iterdir())


def test_a_recording_becomes_a_job_and_then_a_text(server):
    status, headers, job = ask(server, "POST", "/v1/jobs?name=call.wav", SPEECH)
    assert (status, job["status"], job["source"], job["size"]) == (202, "queued", "upload", len(SPEECH))
    assert headers["Location"] == f"/v1/jobs/{job['id']}"
    done = end_of(server, job["id"])
    assert (done["status"], done["progress"], done["name"], done["attempts"]) == ("done", 1.0, "call.wav", 1)
    assert done["result"]["text"] == "привет мир"
    assert done["duration"] == done["result"]["duration"]
    listed = ask(server, "GET", "/v1/jobs?status=done&limit=1")[2]
    assert [one["id"] for one in listed["data"]] == [job["id"]]
    assert "result" not in listed["data"][0]
    assert audio_of(server) == []


def test_the_result_in_every_format(server):
    job = ask(server, "POST", "/v1/jobs", SPEECH)[2]
    end_of(server, job["id"])
    for name in FORMATS:
        status, headers, body = ask(server, "GET", f"/v1/jobs/{job['id']}/result?format={name}")
        assert status == 200
        assert "привет" in (body["text"] if name == "json" else body)
    assert headers["Content-Type"].startswith("text/plain")
    assert ask(server, "GET", f"/v1/jobs/{job['id']}/result?format=doc")[0] == 400


def test_a_form_with_options_and_a_name_from_elsewhere(server):
    body, kind = form(file=DIALOGUE, channels="split", pause="0.4")
    status, _, job = ask(server, "POST", "/v1/jobs", body, Content_Type=kind)
    assert (status, job["name"], job["channels"], job["pause"]) == (202, "договор.wav", "split", 0.4)
    done = end_of(server, job["id"])
    assert {(s["channel"], s["text"]) for s in done["result"]["segments"]} == {(0, "да"), (1, "нет")}


def test_marks_and_capitals(server):
    body, kind = form(file=SPEECH, punctuate="true")
    asked = [
        ask(server, "POST", "/v1/jobs?punctuate=1", SPEECH),
        ask(server, "POST", "/v1/jobs", body, Content_Type=kind),
    ]
    for status, _, job in asked:
        assert (status, job["punctuate"]) == (202, True)
        result = end_of(server, job["id"])["result"]
        assert result["text"][0] == "П"
        assert result["text"][-1] in ".?!"
        assert result["text"].lower().split()[0].strip(",.!") == "привет"
    assert end_of(server, ask(server, "POST", "/v1/jobs", SPEECH)[2]["id"])["result"]["text"] == "привет мир"


@pytest.mark.parametrize(
    ("path", "data", "status", "said"),
    [
        ("?model=nobody", SPEECH, 404, "nobody"),
        ("?channels=both", SPEECH, 400, "mix or split"),
        ("?pause=-1", SPEECH, 400, "min_silence_s"),
        ("?punctuate=perhaps", SPEECH, 400, "true or false"),
        ("?colour=red", SPEECH, 400, "colour"),
        ("?hotwords={", SPEECH, 400, "JSON"),
        ("", b"", 400, "empty"),
        ("", {}, 400, "no url"),
        ("", {"url": 5}, 400, "no url"),
        ("", {"url": "http://example.org/"}, 403, "fetches no addresses"),
        ("?callback_url=http://example.org/", SPEECH, 403, "calls no addresses"),
    ],
)
def test_what_cannot_be(server, path, data, status, said):
    found, _, body = ask(server, "POST", f"/v1/jobs{path}", data)
    assert (found, said in body["error"]["message"]) == (status, True), body
    assert audio_of(server) == []


def test_options_that_the_model_does_not_take_fail_and_hotwords_come_both_ways(server):
    for data in ("hotwords=нет:3&hotwords=да", 'hotwords={"нет":3,"да":5}'):
        job = ask(server, "POST", f"/v1/jobs?{urllib.parse.quote(data, safe='=&')}", SPEECH)[2]
        assert job["hotwords"] == {"нет": 3.0, "да": 5.0}
        assert end_of(server, job["id"])["error"]["code"] == "usage"  # the toy is greedy
    assert audio_of(server) == []


def test_what_is_no_audio_fails_and_its_audio_is_gone(server):
    job = ask(server, "POST", "/v1/jobs", b"<html>")[2]
    failed = end_of(server, job["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "audio.not_audio")
    assert str(server.service.settings.data_dir) not in json.dumps(failed)
    assert audio_of(server) == []
    status, _, body = ask(server, "POST", f"/v1/jobs/{job['id']}/retry")
    assert (status, body["error"]["code"]) == (409, "service.conflict")
    status, _, body = ask(server, "GET", f"/v1/jobs/{job['id']}/result")
    assert (status, body["error"]["code"]) == (409, "service.conflict")


def test_the_same_key_makes_one_job(server):
    first = ask(server, "POST", "/v1/jobs", SPEECH, Idempotency_Key="order 1")
    again = ask(server, "POST", "/v1/jobs", SPEECH, Idempotency_Key="order 1")
    assert (first[0], again[0]) == (202, 200)
    assert again[1]["Idempotent-Replayed"] == "true"
    assert first[2]["id"] == again[2]["id"]
    status, _, body = ask(server, "POST", "/v1/jobs", DIALOGUE, Idempotency_Key="order 1")
    assert (status, body["error"]["code"]) == (409, "service.conflict")
    assert ask(server, "POST", "/v1/jobs?channels=split", SPEECH, Idempotency_Key="order 1")[0] == 409
    assert ask(server, "POST", "/v1/jobs", SPEECH, Idempotency_Key="x" * 256)[0] == 400
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(server, "POST", "/v1/jobs", SPEECH, Idempotency_Key="two")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len({answer[2]["id"] for answer in found}) == 1
    assert sorted(answer[0] for answer in found) == [200] * 5 + [202]
    end_of(server, found[0][2]["id"])
    end_of(server, first[2]["id"])
    assert audio_of(server) == []


def test_cancelling_forgetting_and_what_is_not_there(tmp_path):
    with serving(data_dir=tmp_path / "d", job_workers=1) as server:
        running = ask(server, "POST", "/v1/jobs", LONG)[2]
        waiting = ask(server, "POST", "/v1/jobs", SPEECH)[2]
        status, _, job = ask(server, "DELETE", f"/v1/jobs/{waiting['id']}")
        assert (status, job["status"]) == (202, "cancelled")
        assert ask(server, "DELETE", f"/v1/jobs/{running['id']}")[0] == 202
        assert end_of(server, running["id"])["status"] == "cancelled"
        wait_until(lambda: audio_of(server) == [])
        assert ask(server, "POST", f"/v1/jobs/{waiting['id']}/retry")[0] == 409
        for job in (running, waiting):
            assert ask(server, "DELETE", f"/v1/jobs/{job['id']}")[0] == 204
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/result"), ("POST", "/retry")):
            assert ask(server, method, f"/v1/jobs/{running['id']}{path}")[0] == 404
        assert ask(server, "GET", "/v1/jobs")[2] == {"data": [], "next": None}
        assert ask(server, "GET", "/v1/jobs?limit=101")[0] == 400
        assert ask(server, "GET", "/v1/jobs?status=odd")[0] == 400


def test_progress_is_told(tmp_path):
    with serving(data_dir=tmp_path, job_workers=1) as server:
        job = ask(server, "POST", "/v1/jobs", LONG)[2]
        seen = set()
        while (now := ask(server, "GET", f"/v1/jobs/{job['id']}")[2])["status"] in ("queued", "running"):
            seen.add(now["progress"])
        assert now["status"] == "done"
        assert any(0 < progress < 1 for progress in seen), seen
        numbers = ask(server, "GET", "/metrics")[2]
        assert 'rechka_jobs_ended_total{state="done"} 1' in numbers
        assert job["id"] not in numbers
        assert "/v1/jobs/{id}" in numbers


def test_without_a_folder_there_are_no_jobs():
    with serving() as server:
        status, _, body = ask(server, "POST", "/v1/jobs", SPEECH)
        assert (status, body["error"]["code"]) == (404, "service.not_found")
        assert "data_dir" in body["error"]["remedy"]
        assert ask(server, "GET", "/v1/history")[0] == 404


# Keys


def keys(path, **entries):
    """A keys file; every key is its holder's name."""
    lines = []
    for name, fields in entries.items():
        lines += ["[[key]]", f'name = "{name}"', f'sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"', *fields]
    path.write_text("\n".join(lines) + "\n")
    return path


def scopes(*names):
    return f"scopes = {json.dumps(names)}"


def test_a_key_sees_its_own_and_an_admin_sees_all(tmp_path):
    file = keys(
        tmp_path / "keys.toml", one=[scopes("jobs", "history")], two=[scopes("jobs", "history")],
        boss=[scopes("admin")], live=[scopes("stream")],
    )  # fmt: skip
    with serving(data_dir=tmp_path / "d", history="on", keys_file=file) as server:
        one, two, boss = ({"X_API_Key": name} for name in ("one", "two", "boss"))
        ids = {}
        for name, who in (("one", one), ("two", two)):
            ids[name] = ask(server, "POST", "/v1/jobs", SPEECH, Idempotency_Key="same", **who)[2]["id"]
            end_of(server, ids[name], **who)
        assert ids["one"] != ids["two"]
        for path in ("/v1/jobs", "/v1/history", "/v1/history?q=мир".replace("мир", urllib.parse.quote("мир"))):
            assert [job["id"] for job in ask(server, "GET", path, **one)[2]["data"]] == [ids["one"]]
            assert {job["id"] for job in ask(server, "GET", path, **boss)[2]["data"]} == set(ids.values())
        assert ask(server, "GET", "/v1/jobs", **boss)[2]["data"][0]["owner"] == "two"
        assert "owner" not in ask(server, "GET", "/v1/jobs", **one)[2]["data"][0]
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/result"), ("POST", "/retry")):
            assert ask(server, method, f"/v1/jobs/{ids['one']}{path}", **two)[0] == 404
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/result")):
            assert ask(server, method, f"/v1/history/{ids['one']}{path}", **two)[0] == 404
        assert ask(server, "GET", f"/v1/jobs/{ids['one']}", **one)[2]["status"] == "done"
        assert ask(server, "DELETE", f"/v1/jobs/{ids['one']}", **boss)[0] == 204
        assert ask(server, "GET", "/v1/jobs", X_API_Key="live")[0] == 403
        assert ask(server, "GET", "/v1/history", X_API_Key="live")[0] == 403
        assert ask(server, "GET", "/v1/jobs")[0] == 401


def test_used_quota_outlives_the_server_and_jobs_count_once(tmp_path):
    limits = [scopes("jobs", "files"), "audio_s_per_day = 8"]
    settings = {"data_dir": tmp_path / "d", "keys_file": keys(tmp_path / "keys.toml", crm=limits)}
    crm = {"X_API_Key": "crm"}
    body, kind = form(file=SPEECH)
    with serving(**settings) as server:
        job = ask(server, "POST", "/v1/jobs", SPEECH, **crm)[2]
        assert end_of(server, job["id"], **crm)["duration"] == 3.2
        assert ask(server, "POST", "/v1/audio/transcriptions", body, Content_Type=kind, **crm)[0] == 200
    with serving(**settings) as server:
        assert server.service.auth.usages()["crm"].audio_s == pytest.approx(6.4)
        job = ask(server, "POST", "/v1/jobs", SPEECH, **crm)[2]  # there is some left, but not enough
        failed = end_of(server, job["id"], **crm)
        assert (failed["status"], failed["error"]["code"]) == ("failed", "service.quota")
        assert server.service.auth.usages()["crm"].audio_s == pytest.approx(6.4)
        status, _, answer = ask(server, "POST", "/v1/audio/transcriptions", body, Content_Type=kind, **crm)
        assert (status, answer["error"]["code"]) == (429, "service.quota")
        again = ask(server, "POST", f"/v1/jobs/{job['id']}/retry", **crm)  # its audio is kept
        assert again[0] == 202


def test_a_key_cannot_fill_the_queue(tmp_path):
    file = keys(tmp_path / "keys.toml", one=[scopes("jobs")], two=[scopes("jobs")])
    with serving(data_dir=tmp_path / "d", keys_file=file, max_jobs_per_key=2, job_workers=1) as server:
        for _ in range(2):
            assert ask(server, "POST", "/v1/jobs", LONG, X_API_Key="one")[0] == 202
        status, headers, body = ask(server, "POST", "/v1/jobs", LONG, X_API_Key="one")
        assert (status, body["error"]["code"]) == (503, "service.overloaded")
        assert int(headers["Retry-After"]) > 0
        assert len(audio_of(server)) == 2
        assert ask(server, "POST", "/v1/jobs", SPEECH, X_API_Key="two")[0] == 202


# Callbacks and addresses


@contextlib.contextmanager
def site(answers=None):
    """A web server here; what it was asked."""
    asked = []
    answers = answers or {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, dict(self.headers), body))
            status, content = answers.get(self.path, (200, b""))
            if isinstance(content, list):
                status, content = content.pop(0) if content else (200, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


INSIDE = {"private_networks": ("127.0.0.0/8",)}


def test_the_end_of_a_job_is_told_signed_and_again_if_need_be(tmp_path, monkeypatch):
    monkeypatch.setattr("rechka.server.webhooks.BACKOFF_S", (0.05, 0.05))
    monkeypatch.setattr("rechka.server.jobs.manager.POLL_S", 0.05)
    settings = {"data_dir": tmp_path, "webhooks": True, "webhook_secret": "hush", **INSIDE}
    with site({"/told?x=1": (0, [(500, b""), (302, b""), (200, b"")])}) as (home, asked), serving(**settings) as server:
        callback = urllib.parse.quote(f"{home}/told?x=1", safe="")
        job = ask(server, "POST", f"/v1/jobs?callback_url={callback}", SPEECH)[2]
        assert job["callback_url"] == f"{home}/told"
        wait_until(lambda: len(asked) == 3)
        for _, _, headers, body in asked:
            assert verify("hush", headers["X-Rechka-Signature"], body)
            assert headers["X-Rechka-Delivery"] == asked[0][2]["X-Rechka-Delivery"]
        told = json.loads(asked[-1][3])
        assert (told["type"], told["job"]["id"], told["job"]["status"]) == ("job.done", job["id"], "done")
        assert "result" not in told["job"]  # texts go to those who have a key
        bad = ask(server, "POST", f"/v1/jobs?callback_url={callback}", b"noise")[2]
        wait_until(lambda: len(asked) == 4)
        told = json.loads(asked[-1][3])
        assert (told["type"], told["job"]["error"]["code"]) == ("job.failed", "audio.not_audio")
        assert told["job"]["id"] == bad["id"]
        time.sleep(0.2)
        assert len(asked) == 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/", "http://[::1]/", "http://169.254.169.254/", "file:///x"])
def test_callbacks_and_recordings_are_not_on_the_inside(tmp_path, url):
    settings = {"data_dir": tmp_path, "webhooks": True, "webhook_secret": "hush", "fetch": True}
    with serving(**settings) as server:
        for path, data in ((f"?callback_url={urllib.parse.quote(url, safe='')}", SPEECH), ("", {"url": url})):
            status, _, body = ask(server, "POST", f"/v1/jobs{path}", data)
            assert status in (400, 403), body
        assert audio_of(server) == []
        listen = ask(server, "POST", "/v1/listen", {"url": url})
        assert listen[0] in (400, 403)


def test_recordings_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("rechka.server.jobs.runner.FETCH_RETRY_S", 0.01)
    monkeypatch.setattr("rechka.server.jobs.runner.POLL_S", 0.05)
    answers = {"/a.wav?sign=secret": (200, SPEECH), "/later": (0, [(503, b""), (200, SPEECH)]), "/gone": (404, b"")}
    settings = {"data_dir": tmp_path, "fetch": True, "fetch_hosts": ("127.0.0.1",), **INSIDE}
    with site(answers) as (home, _), serving(**settings) as server:
        job = ask(server, "POST", "/v1/jobs", {"url": f"{home}/a.wav?sign=secret", "channels": "mix"})[2]
        done = end_of(server, job["id"])
        assert (done["source"], done["url"], done["result"]["text"]) == ("url", f"{home}/a.wav", "привет мир")
        later = end_of(server, ask(server, "POST", "/v1/jobs", {"url": f"{home}/later"})[2]["id"])
        assert (later["status"], later["attempts"]) == ("done", 2)
        gone = end_of(server, ask(server, "POST", "/v1/jobs", {"url": f"{home}/gone"})[2]["id"])
        assert (gone["status"], gone["error"]["code"], gone["attempts"]) == ("failed", "service.fetch", 1)
        answers["/gone"] = (200, SPEECH)
        assert ask(server, "POST", f"/v1/jobs/{gone['id']}/retry")[0] == 202
        assert end_of(server, gone["id"])["status"] == "done"
        listen = ask(server, "POST", "/v1/listen", {"url": f"{home}/a.wav?sign=secret"})  # the same for Deepgram's
        assert listen[2]["results"]["channels"][0]["alternatives"][0]["transcript"] == "привет мир"
        assert ask(server, "POST", "/v1/jobs", {"url": "http://127.0.0.2/"})[0] == 403


# The page of the documentation


def shape(value):
    """What must be the same: names, types; of lists the first item."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
        return "time"
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def documented():
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"<!-- (\w+) (\S+) -->\n```json\n(.*?)```", text, re.S)
    return {f"{method} {path}": json.loads(body) for method, path, body in found}


def test_answers_are_those_of_the_page(tmp_path):
    settings = {"data_dir": tmp_path, "history": "on", "webhooks": True, "webhook_secret": "s", **INSIDE}
    shown = documented()
    with site() as (home, asked), serving(**settings) as server:
        query = f"name=call.wav&pause=0.6&callback_url={urllib.parse.quote(home)}/told"
        said = {"POST /v1/jobs": ask(server, "POST", f"/v1/jobs?{query}", SPEECH)[2]}
        id = said["POST /v1/jobs"]["id"]
        end_of(server, id)
        said["GET /v1/jobs/{id}"] = ask(server, "GET", f"/v1/jobs/{id}")[2]
        said["GET /v1/jobs"] = ask(server, "GET", "/v1/jobs?limit=1")[2]
        said["GET /v1/history"] = ask(server, "GET", f"/v1/history?limit=1&q={urllib.parse.quote('миру')}")[2]
        said["GET /v1/history/{id}"] = ask(server, "GET", f"/v1/history/{id}")[2]
        said["ERROR /v1/jobs"] = ask(server, "GET", "/v1/jobs/job_0")[2]
        wait_until(lambda: asked)
        said["CALLBACK /told"] = json.loads(asked[0][3])
    assert {name: shape(body) for name, body in said.items()} == {name: shape(body) for name, body in shown.items()}
    assert shown["GET /v1/history"]["data"][0]["snippet"] == said["GET /v1/history"]["data"][0]["snippet"]
    assert shown["GET /v1/jobs/{id}"]["result"] == said["GET /v1/jobs/{id}"]["result"]
