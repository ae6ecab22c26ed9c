"""The store, on SQLite and on a real PostgreSQL: the same calls, the same answers."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import threading
import time

import pytest

from rechka.errors import Overloaded, StorageBusy, StorageFull, UsageError
from rechka.server.store import Delivery, Entry, Job, Outcome, open_store
from rechka.server.store.records import Limits
from rechka.server.store.words import Marker, fold, parse, stem, stems
from rechka.testing.postgres import postgres, postgres_folder
from rechka.testing.waiting import PATIENCE_S

LIMITS = Limits(100, 50)
OPTIONS = {"channels": "mix", "hotwords": {}, "pause": None}
ERROR = {"code": "service.failed", "message": "it died", "remedy": ""}


@pytest.fixture(scope="module")
def server():
    if postgres_folder() is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """Opens the same store as often as one likes."""
    address = ""
    if request.param == "postgresql":
        import psycopg

        server = request.getfixturevalue("server")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        address = server
    opened = []

    def open_it():
        opened.append(open_store(tmp_path, address))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(database):
    return database()


def job(number, **changes):
    fields = {"owner": "crm", "state": "queued", "created": 1000.0 + number, "ready": 0.0, "model": "toy"}
    return Job(**{**fields, "id": f"job_{number}", "options": OPTIONS, "spool": "here", **changes})


def claim(store, worker="here-1", *, models=("toy",), spool="here", lease_s=60.0):
    return store.claim(worker, models=models, spool=spool, lease_s=lease_s)


def transcript(text, start=0.0):
    words = [{"word": w, "start": start, "end": start + 1, "confidence": None} for w in text.split()]
    segment = {"start": start, "end": start + 1, "text": text, "channel": 0, "speaker": None, "words": words,
               "labels": {}}  # fmt: skip
    return {"model": "toy", "language": "ru", "duration": 1.0, "text": text, "segments": [segment], "truncated": False}


def entry(id, text=None, owner="crm", created=1.0, kind="job"):
    return Entry(id, owner, kind, created, 1.0, "toy", "n", None if text is None else transcript(text))


def test_a_job_goes_its_way(store):
    first = store.add(job(1, size=5, callback="https://x/"), LIMITS)
    assert store.job("job_1", "crm") == first
    assert (store.job("job_1", "other"), store.job("job_1", None)) == (None, first)
    mine = claim(store)
    assert (mine.state, mine.attempts, mine.worker) == ("running", 1, "here-1")
    assert claim(store) is None
    assert store.beat(mine, progress=0.5, lease_s=60) == "run"
    assert store.job("job_1", "crm").progress == 0.5
    outcome = Outcome(
        "done", result=transcript("привет"), duration=1.0, used_s=2.5, day="2026-01-02",
        entry=entry("job_1", "привет"), delivery=Delivery("d1", "job_1", "https://x/", "{}"),
    )  # fmt: skip
    assert store.finish(mine, outcome)
    done = store.job("job_1", "crm")
    assert (done.state, done.progress, done.duration) == ("done", 1.0, 1.0)
    assert store.result("job_1")["text"] == "привет"
    assert store.entry("job_1", "crm").text == "привет"
    assert store.use("2026-01-02", {}) == {"crm": 2.5}
    assert store.due(lease_s=10, attempts=3).id == "d1"
    assert store.counts() == {"queued": 0, "running": 0, "done": 1, "failed": 0, "cancelled": 0}


def test_whoever_lost_a_job_writes_nothing(store):
    store.add(job(1), LIMITS)
    old = claim(store, "here-1", lease_s=-1)
    assert store.overdue(3, ERROR, lambda job: None) == []
    new = claim(store, "here-2")
    assert new.attempts == 2
    outcome = Outcome("done", result=transcript("x"), used_s=1.0, day="2026-01-02", entry=entry("job_1", "x"))
    assert not store.finish(old, outcome)
    assert store.beat(old, progress=0.9, lease_s=60) == "lost"
    assert not store.release(old, delay_s=0, counted=True)
    assert store.entry("job_1", None) is None
    assert store.use("2026-01-02", {}) == {}
    assert store.finish(new, outcome)
    assert not store.finish(new, outcome)  # nor twice
    assert store.use("2026-01-02", {}) == {"crm": 1.0}


def test_workers_of_many_connections_never_take_the_same_job(database):
    first = database()
    for number in range(40):
        first.add(job(number), LIMITS)
    taken, stores = [], [database() for _ in range(4)]

    def work(store, name):
        while len(taken) < 40:
            with contextlib.suppress(StorageBusy):  # a slow disk, and four that write
                if (found := claim(store, name)) is not None:
                    taken.append(found.id)

    threads = [threading.Thread(target=work, args=(one, f"here-{i}")) for i, one in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(taken) == sorted(f"job_{number}" for number in range(40))


def test_the_oldest_first_but_every_key_in_its_turn(store):
    for number, owner in enumerate(["a", "a", "a", "b"]):
        store.add(job(number, owner=owner), LIMITS)
    assert [claim(store).id for _ in range(4)] == ["job_0", "job_3", "job_1", "job_2"]


def test_only_jobs_that_can_be_run_here_are_taken(store):
    store.add(job(1, model="other"), LIMITS)
    store.add(job(2, spool="there"), LIMITS)
    store.add(job(3, ready=time.time() + 100), LIMITS)
    assert claim(store) is None
    store.add(job(4, spool="", url="https://x/"), LIMITS)
    assert claim(store).id == "job_4"


def test_a_job_that_is_begun_too_often_has_failed_and_its_callback_knows(store):
    store.add(job(1, callback="https://x/"), LIMITS)
    for attempt in (1, 2):
        assert claim(store, lease_s=-1).attempts == attempt
        failed = store.overdue(2, ERROR, lambda job: Delivery("d", job.id, job.callback, "{}"))
    assert [one.id for one in failed] == ["job_1"]
    assert store.job("job_1", "crm").error == ERROR
    assert store.due(lease_s=1, attempts=2).id == "d"
    assert store.retry("job_1", "crm", LIMITS)
    again = store.job("job_1", "crm")
    assert (again.state, again.attempts, again.error) == ("queued", 0, None)
    assert not store.retry("job_1", "crm", LIMITS)


def test_jobs_of_a_dead_worker_and_released_ones_wait_again(store):
    store.add(job(1), LIMITS)
    claim(store, "here-1")
    assert store.abandon("here-2") == 0
    assert store.abandon("here-1") == 1
    mine = claim(store, "here-2")
    assert mine.attempts == 2
    assert store.release(mine, delay_s=0, counted=False)
    assert claim(store, "here-3").attempts == 2


def test_the_same_idempotency_key_finds_the_same_job(store):
    first = store.add(job(1, key="k", digest="d"), LIMITS)
    assert store.add(job(2, key="k", digest="d"), LIMITS) == first
    assert store.add(job(3, key="k", owner="other"), LIMITS).id == "job_3"
    assert store.add(job(4), LIMITS).id == "job_4"
    assert store.add(job(5), LIMITS).id == "job_5"


def test_no_more_jobs_than_allowed(store):
    store.add(job(1), Limits(3, 1))
    with pytest.raises(Overloaded, match="1 jobs"):
        store.add(job(2), Limits(3, 1))
    store.add(job(2, owner="b"), Limits(3, 1))
    store.add(job(3, owner="c"), Limits(3, 1))
    with pytest.raises(Overloaded, match="3 jobs"):
        store.add(job(4, owner="d"), Limits(3, 1))


def test_cancel_and_delete(store):
    for number in (1, 2, 3):
        store.add(job(number), LIMITS)
    running = claim(store)
    assert store.cancel("job_2", "other") is None
    assert store.cancel("job_2", "crm").state == "cancelled"
    assert store.cancel("job_1", "crm").stop
    assert store.beat(running, progress=0, lease_s=60) == "stop"
    assert not store.delete("job_3", "crm")  # it waits
    assert not store.delete("job_2", "other")
    assert store.finish(running, Outcome("done", result=transcript("x"), entry=entry("job_1", "тайна")))
    assert store.delete("job_1", "crm")
    assert store.entry("job_1", None) is None
    assert store.entries(None, terms=parse("тайна"), kind=None, after=None, limit=9) == []


def test_a_name_with_a_character_that_a_database_may_not_know_is_just_not_found(store):
    store.add(job(1), LIMITS)
    assert store.job("job_1\0", None) is None
    assert store.entry("\0", None) is None
    assert store.entries(None, terms=[], kind=None, after="\0", limit=9) == []
    assert store.cancel("job_1\0", "crm") is None
    assert store.job("job_1", "crm").state == "queued"


def test_pages_of_jobs(store):
    for number in range(5):
        store.add(job(number, owner="a" if number % 2 else "b"), LIMITS)
    page = store.jobs(None, state=None, after=None, limit=2)
    assert [one.id for one in page] == ["job_4", "job_3"]
    assert [one.id for one in store.jobs(None, state="queued", after="job_3", limit=9)] == ["job_2", "job_1", "job_0"]
    assert [one.id for one in store.jobs("a", state=None, after=None, limit=9)] == ["job_3", "job_1"]
    assert store.jobs(None, state="done", after=None, limit=9) == []


def test_which_audio_is_needed(store):
    for number in (1, 2, 3):
        store.add(job(number), LIMITS)
    store.cancel("job_2", None)
    store.finish(claim(store), Outcome("failed", error=ERROR))
    assert store.known(["job_1", "job_2", "job_3", "job_4"]) == {"job_1", "job_3"}


def test_callbacks_come_again_until_told_or_given_up(store):
    store.tell(Delivery("d", "job_1", "https://x/", "{}"))
    first = store.due(lease_s=-1, attempts=3)
    assert first.attempts == 1
    assert store.due(lease_s=60, attempts=3).attempts == 2
    assert store.due(lease_s=60, attempts=3) is None
    store.told("d", retry_s=0.0)
    assert store.due(lease_s=-1, attempts=3).attempts == 3
    assert store.due(lease_s=60, attempts=3) is None  # given up
    store.tell(Delivery("e", "job_1", "https://x/", "{}"))
    store.told("e", retry_s=None)
    assert store.due(lease_s=60, attempts=3) is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("договор", ["e1", "e2"]),
        ("договорами", ["e1", "e2"]),
        ("ДОГОВОР подписать", ["e1"]),
        ("еще", ["e3"]),
        ("ещё ёлки", ["e3"]),
        ("зелёный", ["e3"]),
        ('"зелёные ёлки"', ["e3"]),
        ('"ёлки зелёные"', []),
        ("договори", ["e1", "e2"]),
        ("елк*", ["e3"]),
        ("не", ["e2"]),
        ("12", ["e2"]),
        ("й", []),
        ("' OR 1=1 --", []),
        ('не" AND "', []),
    ],
)
def test_search_in_russian(store, query, found):
    store.remember(entry("e1", "Мы подписали договоры вчера.", created=1))
    store.remember(entry("e2", "Договор 12 не оплачен", created=2))
    store.remember(entry("e3", "Ещё зелёные ёлки", created=3))
    store.remember(entry("e4", "Договор чужой", owner="other", created=4))
    store.remember(entry("e5", None, created=5))
    lines = store.entries("crm", terms=parse(query), kind=None, after=None, limit=9)
    assert sorted(line.id for line in lines) == found


def test_pages_of_the_history_and_forgetting(store):
    for number in range(4):
        kind = "live" if number % 2 else "job"
        store.remember(entry(f"e{number}", f"слово номер {number}", created=float(number), kind=kind))
    page = store.entries("crm", terms=[], kind=None, after=None, limit=2)
    assert [line.id for line in page] == ["e3", "e2"]
    rest = store.entries("crm", terms=parse("слова"), kind=None, after="e2", limit=9)
    assert [line.id for line in rest] == ["e1", "e0"]
    assert [line.id for line in store.entries(None, terms=[], kind="live", after=None, limit=9)] == ["e3", "e1"]
    assert not store.delete("e3", "other")
    assert store.delete("e3", "crm")
    store.remember(entry("e2", "другое", created=2.0))  # written again, it is there once
    assert store.purge(jobs_before=0, entries_before=1.5).entries == 2
    assert [line.id for line in store.entries(None, terms=[], kind=None, after=None, limit=9)] == ["e2"]
    assert store.entries(None, terms=parse("слово"), kind=None, after=None, limit=9) == []


def test_old_jobs_are_forgotten_and_young_ones_are_not(store):
    for number in (1, 2, 3):
        store.add(job(number), LIMITS)
    store.finish(claim(store), Outcome("done", result=transcript("x")))
    store.cancel("job_2", None)
    assert store.purge(jobs_before=store.now() - 100, entries_before=0).jobs == []
    assert sorted(store.purge(jobs_before=store.now() + 1, entries_before=0).jobs) == ["job_1", "job_2"]
    assert store.job("job_3", None) is not None


def test_used_quota_adds_up(database):
    one, two = database(), database()
    assert one.use("2026-01-02", {"a": 1.0, "b": 2.0}) == {"a": 1.0, "b": 2.0}
    assert two.use("2026-01-02", {"a": 0.5}) == {"a": 1.5, "b": 2.0}
    assert two.use("2026-01-03", {}) == {}


def test_what_is_kept_outlives_the_store(database):
    first = database()
    kept = first.add(job(1, key="k", url="https://x/?y=%s"), LIMITS)
    assert database().job("job_1", "crm") == kept


def test_tables_of_a_newer_rechka_are_left_alone(tmp_path):
    open_store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "rechka.db")
    with connection:
        connection.execute("UPDATE meta SET version = 99")
    connection.close()
    with pytest.raises(UsageError, match="newer rechka"):
        open_store(tmp_path)


def test_a_locked_and_a_full_database_say_so_and_change_nothing(tmp_path):
    from rechka.server.store.sqlite import SqliteStore

    store = SqliteStore(tmp_path / "a.db", busy_s=0.05)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageBusy) as caught:
        store.add(job(1), LIMITS)
    assert caught.value.retry_after_s
    other.execute("ROLLBACK")
    pages = other.execute("PRAGMA page_count").fetchone()[0]
    other.close()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageFull):
        store.add(job(1, name="x" * 100_000), LIMITS)
    assert store.counts()["queued"] == 0
    store.add(job(2), LIMITS)
    store.close()


def test_a_lost_server_is_storage_that_is_busy_and_it_comes_back(server):
    store = open_store(None, server)
    store._connection.close()
    store.counts()
    pid = store._connection.info.backend_pid
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(StorageBusy) as caught:
        store.counts()
    assert server not in str(caught.value)
    store.counts()
    store.close()


WORDS = """важнейшие важный вагоны ваша вежливость верен верующий видевшая влюбленный возвращаясь говоривший делавшись
договорами единственнейшей ежедневный ёлка заканчивается звонишь зеленью изменённый имевшимися историями клиенту
красивейшую лётчиками маминых молодость насмеявшись обязанностей осень ответственность перезвоните платежом
поговорить подписавшись позвонившему пользующихся понимающих прочитанная разговаривают ростовский сделайте скоростью
смешнейший станциях странностью уважаемые уехавши участвующий хвастливость хозяев холоднейшими честность шёл щенки
объявленья явственно ял я ее и ещё в вшивый нн ость ейше съесть мышь рожь длинна длинно"""


def test_stems_are_those_of_postgresql(server):
    import psycopg

    words = [fold(word) for word in WORDS.split()]
    with psycopg.connect(server) as connection:
        rows = connection.execute(
            "SELECT w, coalesce((ts_lexize('russian_stem', w))[1], w) FROM unnest(%s::text[]) w", [words]
        ).fetchall()
    stops = {"ее", "еще", "и", "в", "я"}  # which it leaves out, and we do not
    assert {word: stem(word) for word in words if word not in stops} == {
        word: found for word, found in rows if word not in stops
    }


def test_snippets_show_hits_as_parts():
    marker = Marker(parse("мира"))
    text = "начало " * 40 + "весь <b>мир</b> здесь " + "конец " * 40
    parts = marker.snippet(text)
    assert [part["text"] for part in parts if part["hit"]] == ["мир"]
    joined = "".join(part["text"] for part in parts)
    assert joined.startswith("… ")
    assert joined.endswith(" …")
    assert joined[2:-2] in text
    assert marker.place({**transcript("привет мир", 2.5)}) == (2.5, "привет мир")
    assert Marker(()).snippet("коротко") == [{"text": "коротко", "hit": False}]
    assert Marker(()).snippet("") == []


def test_texts_of_any_length_are_bounded():
    assert len(set(stems(" ".join(f"с{i}" for i in range(50_000))))) == 40_000
    assert len(stems("а" * 1000)[0]) <= 60
    assert len(parse("а " * 1000)) == 20
    assert dataclasses.astuple(parse("слов*")[0]) == (("слов",), True)
