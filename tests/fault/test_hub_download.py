"""Pulling from a server that plays the Hub, and misbehaves."""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from rechka.errors import (
    ChecksumMismatch,
    DiskFull,
    HubError,
    HubForbidden,
    HubNotFound,
    HubUnreachable,
    Offline,
    UsageError,
)
from rechka.hub import download
from rechka.hub.card import Card, CardFile
from rechka.hub.download import pull
from rechka.hub.registry import Entry, Lock
from rechka.hub.remote import Hub
from rechka.testing.fake_hub import COMMIT, FakeHub, Fault
from rechka.testing.waiting import PATIENCE_S

MODEL = bytes(range(256)) * 3000  # 768 kB, three blocks
LM = b"lm" * 5000
SUM = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,hub.invalid")


@pytest.fixture
def server() -> FakeHub:
    with FakeHub(files={"model.onnx": MODEL, "kenlm.bin": LM}) as hub:
        yield hub  # type: ignore[misc]


def hub_of(server: FakeHub, **changes: object) -> Hub:
    return replace(Hub(server.endpoint, timeout_s=5.0, pauses_s=(0.0, 0.0, 0.0)), **changes)  # type: ignore[arg-type]


def entry_at(folder: Path, *, repo: str = "someone/something", revision: str = "", **model: object) -> Entry:
    files = {"model": CardFile("model.onnx", **model), "lm": CardFile("kenlm.bin", optional=True)}  # type: ignore[arg-type]
    card = Card("m", "tone", "ru", "MIT", repo=repo, revision=revision, files=files)
    return Entry(card, folder / "models" / "m", "built-in")


def parts(entry: Entry) -> list[Path]:
    return sorted(entry.folder.glob(".*.part"))


def test_required_files_come_and_are_recorded(server: FakeHub, tmp_path: Path) -> None:
    entry, told = entry_at(tmp_path), []
    done = pull(entry, hub=hub_of(server), progress=lambda *event: told.append(event))
    assert (done.fetched, done.kept, done.revision) == (("model",), (), COMMIT)
    assert entry.path("model").read_bytes() == MODEL
    assert entry.missing() == []
    assert list(entry.on_disk()) == ["model"]
    lock = entry.lock()
    assert lock is not None
    assert (lock.repo, lock.revision, lock.endpoint) == ("someone/something", COMMIT, server.endpoint)
    assert (lock.files["model"].size, lock.files["model"].sha256) == (len(MODEL), SUM)
    assert told[-1] == ("model", len(MODEL), len(MODEL))
    assert [event[1] for event in told] == sorted(event[1] for event in told)
    assert parts(entry) == []


def test_a_file_that_is_there_is_not_asked_for(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    pull(entry, hub=hub_of(server))
    server.seen.clear()
    done = pull(entry, hub=hub_of(server, offline=True))
    assert (done.fetched, done.kept, done.revision) == ((), ("model",), COMMIT)
    assert server.seen == []


def test_optional_files_come_later_from_the_same_commit(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    pull(entry, hub=hub_of(server))
    server.seen.clear()
    done = pull(entry, extra=["lm"], hub=hub_of(server))
    assert (done.fetched, done.kept) == (("lm",), ("model",))
    assert f"/resolve/{COMMIT}/kenlm.bin" in server.seen[0].path
    lock = entry.lock()
    assert lock is not None
    assert set(lock.files) == {"model", "lm"}


def test_update_fetches_only_what_differs(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    pull(entry, extra=["lm"], hub=hub_of(server))
    server.files["kenlm.bin"], server.commit = b"newer", "f" * 40
    assert pull(entry, extra=["lm"], hub=hub_of(server)).fetched == ()
    done = pull(entry, extra=["lm"], update=True, hub=hub_of(server))
    assert (done.fetched, done.kept, done.revision) == (("lm",), ("model",), "f" * 40)
    assert entry.path("lm").read_bytes() == b"newer"


def test_a_card_that_moves_to_another_revision_is_asked_again(server: FakeHub, tmp_path: Path) -> None:
    pull(entry_at(tmp_path), hub=hub_of(server))
    server.commit, server.files["model.onnx"] = "e" * 40, b"newer"
    moved = entry_at(tmp_path, revision="e" * 40)
    assert pull(moved, hub=hub_of(server)).fetched == ("model",)
    assert moved.path("model").read_bytes() == b"newer"


@pytest.mark.parametrize("large", [True, False])
def test_a_cut_is_resumed_within_one_pull(server: FakeHub, tmp_path: Path, large: bool) -> None:
    server.large = large
    server.faults = deque([Fault(cut=300_000), Fault(cut=300_000)])
    entry, told = entry_at(tmp_path), []
    pull(entry, hub=hub_of(server), progress=lambda role, done, total: told.append(done))
    assert entry.path("model").read_bytes() == MODEL
    assert [seen.range for seen in server.gets()] == ["", "bytes=300000-", "bytes=600000-"]
    assert told == sorted(told)


def test_a_cut_is_resumed_by_the_next_pull(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    server.faults = deque([Fault(cut=300_000), Fault(cut=0)])
    with pytest.raises(HubUnreachable, match="broke off after 300000 of 768000") as caught:
        pull(entry, hub=hub_of(server, pauses_s=(0.0,)))
    assert "is kept" in caught.value.remedy
    assert not entry.path("model").exists()
    assert [part.stat().st_size for part in parts(entry)] == [300_000]
    pull(entry, hub=hub_of(server))
    assert entry.path("model").read_bytes() == MODEL
    assert server.gets()[-1].range == "bytes=300000-"


def test_a_partial_file_of_another_version_is_not_continued(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    server.faults = deque([Fault(cut=300_000)])
    with pytest.raises(HubUnreachable):
        pull(entry, hub=hub_of(server, pauses_s=()))
    server.files["model.onnx"] = MODEL[::-1]
    pull(entry, hub=hub_of(server))
    assert entry.path("model").read_bytes() == MODEL[::-1]
    assert server.gets()[-1].range == ""
    assert parts(entry) == []


def test_a_damaged_partial_file_costs_one_more_download(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    server.faults = deque([Fault(cut=300_000)])
    with pytest.raises(HubUnreachable):
        pull(entry, hub=hub_of(server, pauses_s=()))
    parts(entry)[0].write_bytes(b"\0" * 300_000)
    pull(entry, hub=hub_of(server))
    assert entry.path("model").read_bytes() == MODEL
    assert [seen.range for seen in server.gets()] == ["", "bytes=300000-", ""]


def test_a_server_without_ranges_starts_over(server: FakeHub, tmp_path: Path) -> None:
    server.faults = deque([Fault(cut=300_000), Fault(ignore_range=True)])
    entry = entry_at(tmp_path)
    pull(entry, hub=hub_of(server))
    assert entry.path("model").read_bytes() == MODEL


def test_a_server_that_always_breaks_off_is_given_up(server: FakeHub, tmp_path: Path) -> None:
    server.faults = deque([Fault(cut=1000, ignore_range=True)] * 50)
    with pytest.raises(HubUnreachable):
        pull(entry_at(tmp_path), hub=hub_of(server))
    assert len(server.gets()) == 4  # the first, and one for each pause


@pytest.mark.parametrize("large", [True, False])
def test_wrong_bytes_are_thrown_away(server: FakeHub, tmp_path: Path, large: bool) -> None:
    server.large = large
    server.faults = deque([Fault(wrong=True)])
    entry = entry_at(tmp_path)
    with pytest.raises(ChecksumMismatch, match="instead of") as caught:
        pull(entry, hub=hub_of(server))
    assert caught.value.remedy
    assert not entry.path("model").exists()
    assert parts(entry) == []
    assert entry.lock() is None


def test_wrong_bytes_do_not_replace_a_good_file(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    pull(entry, hub=hub_of(server))
    server.files["model.onnx"] = MODEL[::-1]
    server.faults = deque([Fault(wrong=True)])
    with pytest.raises(ChecksumMismatch):
        pull(entry, update=True, hub=hub_of(server))
    assert entry.path("model").read_bytes() == MODEL


@pytest.mark.parametrize("said", [{"sha256": "a" * 64}, {"size": 5}])
def test_a_file_that_is_not_the_cards_is_not_even_downloaded(
    server: FakeHub, tmp_path: Path, said: dict[str, object]
) -> None:
    with pytest.raises(ChecksumMismatch, match="the card of 'm' says"):
        pull(entry_at(tmp_path, **said), hub=hub_of(server))
    assert server.gets() == []


def test_the_cards_sum_is_checked_where_the_mirror_tells_none(server: FakeHub, tmp_path: Path) -> None:
    server.hide_sums = True
    good = entry_at(tmp_path / "good", sha256=SUM)
    pull(good, hub=hub_of(server))
    assert good.path("model").read_bytes() == MODEL
    bad = entry_at(tmp_path / "bad", sha256="a" * 64)
    with pytest.raises(ChecksumMismatch, match="sha256"):
        pull(bad, hub=hub_of(server))
    assert not bad.path("model").exists()


def test_a_short_answer_is_noticed_where_the_mirror_tells_no_size(server: FakeHub, tmp_path: Path) -> None:
    server.hide_sums = True
    server.faults = deque([Fault(cut=300_000)])
    entry = entry_at(tmp_path)
    pull(entry, hub=hub_of(server))  # starts over: without a known length nothing is continued
    assert entry.path("model").read_bytes() == MODEL
    assert [seen.range for seen in server.gets()] == ["", ""]


@pytest.mark.parametrize(
    ("repo", "files", "said"),
    [
        ("someone/else", True, "no such repository"),
        ("someone/something", False, "no such file"),
    ],
)
def test_404(server: FakeHub, tmp_path: Path, repo: str, files: bool, said: str) -> None:
    if not files:
        server.files.clear()
    with pytest.raises(HubNotFound, match=said) as caught:
        pull(entry_at(tmp_path, repo=repo), hub=hub_of(server))
    assert caught.value.code == "hub.not_found"


def test_404_of_a_revision(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(HubNotFound, match="no such revision"):
        pull(entry_at(tmp_path, revision="v9"), hub=hub_of(server))


@pytest.mark.parametrize(("status", "code"), [(401, "GatedRepo"), (403, "GatedRepo"), (401, ""), (403, "")])
def test_gated(server: FakeHub, tmp_path: Path, status: int, code: str) -> None:
    server.head_faults = deque([Fault(status, code)])
    with pytest.raises(HubForbidden) as caught:
        pull(entry_at(tmp_path), hub=hub_of(server))
    assert "HF_TOKEN" in caught.value.remedy
    server.head_faults = deque([Fault(status, code)])
    with pytest.raises(HubForbidden, match=str(status)) as caught:
        pull(entry_at(tmp_path), hub=hub_of(server, token="hf_secret"))
    assert "has no access" in caught.value.remedy
    assert "hf_secret" not in str(caught.value)
    assert len(server.seen) == 2  # asking again would not help


def test_the_token_goes_to_the_hub_and_not_to_its_storage(server: FakeHub, tmp_path: Path) -> None:
    pull(entry_at(tmp_path), hub=hub_of(server, token="hf_secret"))
    at_hub = [seen.token for seen in server.seen if "/resolve/" in seen.path]
    assert at_hub == ["Bearer hf_secret", "Bearer hf_secret"]
    assert [seen.token for seen in server.gets()] == [""]
    assert "hf_secret" not in repr(hub_of(server, token="hf_secret"))


def test_a_renamed_repository_is_followed_with_the_token(server: FakeHub, tmp_path: Path) -> None:
    server.old_name = "someone/before"
    entry = entry_at(tmp_path, repo="someone/before")
    pull(entry, hub=hub_of(server, token="hf_secret"))
    assert entry.path("model").read_bytes() == MODEL
    assert [(seen.method, seen.token) for seen in server.seen if "/something/resolve/" in seen.path] == [
        ("HEAD", "Bearer hf_secret"),
        ("GET", "Bearer hf_secret"),
    ]
    assert [seen.token for seen in server.gets()] == [""]


def test_a_record_beside_a_card_in_a_folder_is_used(server: FakeHub, tmp_path: Path) -> None:
    entry = replace(entry_at(tmp_path), origin="folder")
    pull(entry, hub=hub_of(server))
    entry.path("model").write_bytes(b"short")
    assert pull(entry, hub=hub_of(server)).fetched == ("model",)


def test_silence_ends_in_a_time_out_and_what_came_is_kept(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    server.faults = deque([Fault(cut=300_000, stall=True)])
    with pytest.raises(HubUnreachable, match="did not answer in time"):
        pull(entry, hub=hub_of(server, timeout_s=0.3, pauses_s=()))
    assert 0 < parts(entry)[0].stat().st_size <= 300_000
    pull(entry, hub=hub_of(server))
    assert entry.path("model").read_bytes() == MODEL


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_server_error_that_passes(server: FakeHub, tmp_path: Path, status: int) -> None:
    server.head_faults = deque([Fault(status)])
    server.faults = deque([Fault(status), Fault(status)])
    entry = entry_at(tmp_path)
    pull(entry, hub=hub_of(server))
    assert entry.path("model").read_bytes() == MODEL


def test_a_server_error_that_stays(server: FakeHub, tmp_path: Path) -> None:
    server.faults = deque([Fault(503)] * 50)
    with pytest.raises(HubUnreachable, match="HTTP 503"):
        pull(entry_at(tmp_path), hub=hub_of(server))
    assert len(server.gets()) == 4


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(HubUnreachable, match="cannot be reached") as caught:
        pull(entry_at(tmp_path), hub=Hub(endpoint, pauses_s=(0.0,)))
    assert "HF_ENDPOINT" in caught.value.remedy


def test_an_unknown_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(HubUnreachable, match=r"hub\.invalid"):
        pull(entry_at(tmp_path), hub=Hub("http://hub.invalid", pauses_s=()))


def test_offline_asks_nobody(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(Offline) as caught:
        pull(entry_at(tmp_path), hub=hub_of(server, offline=True))
    assert "RECHKA_OFFLINE" in caught.value.remedy
    with pytest.raises(Offline):
        hub_of(server, offline=True).describe("someone/something", "main", "model.onnx")
    assert server.seen == []
    assert not (tmp_path / "models").exists()


def full_after(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes ``limit`` more bytes."""
    left = [limit]

    def write(file: IO[bytes], block: bytes) -> None:
        if len(block) > left[0]:
            file.write(block[: left[0]])
            left[0] = 0
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= len(block)
        file.write(block)

    monkeypatch.setattr(download, "_write", write)


def test_a_disk_that_fills_up(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_at(tmp_path)
    with monkeypatch.context() as patch:
        full_after(300_000, patch)
        with pytest.raises(DiskFull, match="No space left") as caught:
            pull(entry, hub=hub_of(server))
    assert "RECHKA_HOME" in caught.value.remedy
    assert not entry.path("model").exists()
    assert len(server.gets()) == 1
    pull(entry, hub=hub_of(server))
    assert server.gets()[-1].range == "bytes=300000-"
    assert entry.path("model").read_bytes() == MODEL


def test_a_disk_that_is_full_for_the_record_only(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_at(tmp_path)
    with monkeypatch.context() as patch:
        full_after(len(MODEL), patch)
        with pytest.raises(DiskFull):
            pull(entry, hub=hub_of(server))
    assert entry.lock() is None
    done = pull(entry, update=True, hub=hub_of(server))
    assert done.kept == ("model",)
    assert entry.lock() is not None


def test_a_disk_too_small_is_told_before_the_download(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DiskFull, match="room for 1000 bytes, 768000 are needed"):
        pull(entry_at(tmp_path), hub=hub_of(server))
    assert server.gets() == []


def test_a_folder_that_cannot_be_made(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(HubError) as caught:
        pull(entry_at(tmp_path), hub=hub_of(server))
    assert "RECHKA_HOME" in caught.value.remedy


def test_two_pulls_at_once_download_once(server: FakeHub, tmp_path: Path) -> None:
    started, go, waits = threading.Event(), threading.Event(), threading.Event()

    def gate() -> None:
        started.set()
        assert go.wait(PATIENCE_S)

    server.gate = gate
    outcomes: list[object] = []

    def run(waiting: threading.Event | None = None) -> None:
        told = waiting.set if waiting else None
        outcomes.append(pull(entry_at(tmp_path), hub=hub_of(server), waiting=told).fetched)

    threads = [threading.Thread(target=run), threading.Thread(target=run, args=(waits,))]
    threads[0].start()
    assert started.wait(PATIENCE_S)
    threads[1].start()
    assert waits.wait(PATIENCE_S)
    go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert outcomes == [("model",), ()]
    assert len(server.gets()) == 1
    assert entry_at(tmp_path).path("model").read_bytes() == MODEL


def test_a_lock_left_by_a_dead_pull_does_not_hold(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    entry.folder.mkdir(parents=True)
    (entry.folder / ".pull.lock").touch()
    pull(entry, hub=hub_of(server))
    assert entry.ready


def test_a_truncated_file_is_fetched_again(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    pull(entry, hub=hub_of(server))
    entry.path("model").write_bytes(MODEL[:1000])
    assert pull(entry, hub=hub_of(server)).fetched == ("model",)
    assert entry.path("model").read_bytes() == MODEL


def test_a_file_put_there_by_hand_is_adopted_if_it_is_right(server: FakeHub, tmp_path: Path) -> None:
    entry = entry_at(tmp_path)
    entry.folder.mkdir(parents=True)
    entry.path("model").write_bytes(MODEL)
    assert pull(entry, hub=hub_of(server, offline=True)).kept == ("model",)
    assert pull(entry, update=True, hub=hub_of(server)).kept == ("model",)
    assert server.gets() == []
    assert isinstance(entry.lock(), Lock)


def test_usage(server: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no repository"):
        pull(entry_at(tmp_path, repo=""), hub=hub_of(server))
    with pytest.raises(UsageError, match="no file 'vad'") as caught:
        pull(entry_at(tmp_path), extra=["vad"], hub=hub_of(server))
    assert "lm" in caught.value.remedy
