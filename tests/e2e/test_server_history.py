"""The history over HTTP: jobs and live sessions, search, forgetting, what is not kept."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("uvicorn", reason="the server extra is not installed")

from rechka.server.client import stream
from rechka.server.history import transcript_of
from rechka.testing import say
from rechka.testing.audio import wav_bytes
from rechka.testing.servers import serving
from rechka.testing.waiting import PATIENCE_S, wait_until
from rechka.types import Segment, Transcript, Word

WAYS = {"привет мир": "a.wav", "ёлка большая": "b.wav"}


def audio(text):
    return say(text, before_s=0.5, after_s=1.5)


def ask(server, method, path, data=None):
    request = urllib.request.Request(
        server.http + path, data=data, method=method, headers={"Content-Type": "audio/wav"}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE_S)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = answer.read()
        return answer.status, json.loads(body) if "json" in answer.headers.get("Content-Type", "") else body.decode()


def done(server, text, name="call.wav"):
    """A job that is done."""
    id = ask(server, "POST", f"/v1/jobs?name={urllib.parse.quote(name)}", wav_bytes(audio(text), 8000))[1]["id"]
    wait_until(lambda: ask(server, "GET", f"/v1/jobs/{id}")[1]["status"] == "done")
    return id


def lines(server, **query):
    return ask(server, "GET", f"/v1/history?{urllib.parse.urlencode(query)}")[1]["data"]


def speak(server, text, *, leave=False):
    """A live session; ``leave``: the client goes without a word."""
    pcm = (np.clip(audio(text), -1, 1) * 32767).astype("<i2").tobytes()
    packets = [pcm[i : i + 3200] for i in range(0, len(pcm), 3200)]
    for message in stream(server.http, packets, sample_rate=8000):
        if leave and message["type"] == "final":
            return


def make(tmp_path, **settings):
    return serving(data_dir=tmp_path, history="on", **settings)


def test_jobs_are_found_by_what_was_said(tmp_path):
    with make(tmp_path) as server:
        ids = {text: done(server, text, name) for text, name in WAYS.items()}
        assert [line["id"] for line in lines(server)] == [ids["ёлка большая"], ids["привет мир"]]
        (line,) = lines(server, q="ЕЛКИ большой")
        assert (line["id"], line["name"], line["kind"]) == (ids["ёлка большая"], "b.wav", "job")
        assert "".join(part["text"] for part in line["snippet"]) == "ёлка большая"
        assert [part["text"] for part in line["snippet"] if part["hit"]] == ["ёлка", "большая"]
        assert 0.3 < line["at"] < 0.7
        assert lines(server, q='"мир привет"') == []
        assert ask(server, "GET", "/v1/history?q=!!!")[0] == 400
        assert ask(server, "GET", f"/v1/history?q={'x' * 1001}")[0] == 400
        assert ask(server, "GET", "/v1/history?kind=odd")[0] == 400
        first = ask(server, "GET", "/v1/history?limit=1")[1]
        second = ask(server, "GET", f"/v1/history?limit=1&after={first['next']}")[1]
        assert [first["data"][0]["id"], second["data"][0]["id"]] == [ids["ёлка большая"], ids["привет мир"]]
        assert ask(server, "GET", f"/v1/history?after={second['next']}")[1] == {"data": [], "next": None}
        status, srt = ask(server, "GET", f"/v1/history/{ids['привет мир']}/result?format=srt")
        assert (status, "привет мир" in srt, " --> " in srt) == (200, True, True)


@pytest.mark.parametrize("place", ["jobs", "history"])
def test_deleting_it_in_one_place_deletes_it_in_both(tmp_path, place):
    with make(tmp_path) as server:
        id = done(server, "привет мир")
        assert ask(server, "DELETE", f"/v1/{place}/{id}")[0] == 204
        for path in (f"/v1/jobs/{id}", f"/v1/history/{id}", f"/v1/history/{id}/result"):
            assert ask(server, "GET", path)[0] == 404
        assert lines(server, q="мир") == []
        assert ask(server, "DELETE", f"/v1/history/{id}")[0] == 404


def test_live_sessions_are_remembered_however_they_end(tmp_path):
    with make(tmp_path, history_live=True) as server:
        speak(server, "привет мир")
        with contextlib.suppress(Exception):
            speak(server, "ёлка большая", leave=True)
        found = wait_until(lambda: len(all_ := lines(server, kind="live")) == 2 and all_)
        assert {line["id"][:5] for line in found} == {"live_"}
        (line,) = lines(server, q="елка", kind="live")
        body = ask(server, "GET", f"/v1/history/{line['id']}")[1]
        assert body["result"]["text"] == "ёлка большая"
        assert body["duration"] == body["result"]["duration"] > 1
        assert lines(server, kind="job") == []


@pytest.mark.parametrize(
    ("history", "live", "count"), [("off", True, 0), ("text-free", False, 0), ("text-free", True, 1)]
)
def test_live_sessions_without_texts_or_not_at_all(tmp_path, history, live, count):
    with serving(data_dir=tmp_path, history=history, history_live=live) as server:
        speak(server, "привет мир")
        wait_until(lambda: server.service.connections == 0)
        if history == "off":
            assert ask(server, "GET", "/v1/history")[0] == 404
        else:
            wait_until(lambda: len(lines(server)) >= count)
            assert [line["has_text"] for line in lines(server)] == [False] * count
    assert "привет" not in everything(tmp_path)


def test_a_history_without_texts_keeps_none(tmp_path):
    with serving(data_dir=tmp_path, history="text-free") as server:
        id = done(server, "привет мир", name="Иванов.wav")
        (line,) = lines(server)
        assert (line["id"], line["name"], line["has_text"], line["snippet"]) == (id, "", False, [])
        assert line["duration"] == 3.2
        assert lines(server, q="мир") == []
        assert ask(server, "GET", f"/v1/history/{id}")[1]["result"] is None
        assert ask(server, "GET", f"/v1/history/{id}/result")[0] == 409
        assert ask(server, "GET", f"/v1/jobs/{id}/result")[0] == 200  # until job_keep_h is over
        assert ask(server, "DELETE", f"/v1/jobs/{id}")[0] == 204
        assert "привет" not in everything(tmp_path)  # at once, not when the server ends
        assert "Иванов" not in everything(tmp_path)


def everything(folder):
    """All that the server left on the disk."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode(errors="ignore")


def test_what_is_older_than_allowed_is_forgotten(tmp_path):
    with make(tmp_path, history_days=1e-6, job_keep_h=1e-6) as server:
        id = done(server, "привет мир")

        def forgotten():
            server.call(server.service.jobs.purge())
            return lines(server) == []

        wait_until(forgotten)
        assert ask(server, "GET", f"/v1/jobs/{id}")[0] == 404
        assert "привет" not in everything(tmp_path)


def test_a_transcript_comes_back_from_its_json():
    words = (Word("да", 0.1, 0.2, 0.5), Word("нет", 0.3, 0.4))
    first = Transcript((Segment("да нет", 0.1, 0.4, words, "A", 1, {"mood": "x"}),), "ru", "toy", 1.5, truncated=True)
    again = transcript_of(json.loads(json.dumps({**first.to_dict(), "truncated": True})))
    assert again == first
