"""``rechka bench serve`` against servers that do well, refuse, or are none."""

import itertools
import json

import pytest
import soundfile

from rechka.cli import bench_serve
from rechka.cli.main import main
from rechka.testing import say

pytest.importorskip("websockets", reason="the server extra is not installed")
serving = pytest.importorskip("rechka.testing.servers").serving


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("speech") / "a.wav"
    soundfile.write(path, say("привет мир", before_s=0.1, after_s=0.1), 8000)
    return str(path)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bench_serve, "SCRIPT_S", 4.0)


def bench(*args, capsys):
    code = main(["bench", "serve", *args])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_levels_of_a_server_elsewhere(recording, capsys):
    with serving() as server:
        args = ["--server", server.http, recording, "-n", "4", "-n", "6", "--seconds", "4", "--limit", "30", "--json"]
        code, out, _ = bench(*args, capsys=capsys)
    assert code == 0
    found = json.loads(out)
    assert [level["streams"] for level in found["levels"]] == [4, 6]
    assert found["most_streams"] is None
    for level in found["levels"]:
        assert level["holds"]
        assert set(level["calls"]) == {"done"}
        assert level["differing"] == 0
        for what in ("first_partial", "word", "final"):
            times = level["latency"][what]
            assert times["count"] > 0
            assert 0 <= times["p50"] <= times["p95"] <= times["p99"]
        assert level["latency"]["final"]["p50"] > 0.2  # the pause is a part of it
        inner = level["server"]
        assert inner["audio_s"] > 0
        assert inner["rtf"] > 0
        assert inner["loop_lag_s"]["p99"] is not None


def test_refusals_do_not_hold(recording, capsys):
    with serving(max_streams=1) as server:
        args = ["--server", server.http, recording, "-n", "3", "--seconds", "2", "--limit", "30", "--json"]
        code, out, err = bench(*args, capsys=capsys)
    (level,) = json.loads(out)["levels"]
    assert code == 0
    assert level["calls"]["refused"] > 0
    assert not level["holds"]
    assert any("in use" in why for why in level["why"])
    assert "refused" in err


def test_different_texts_for_equal_audio_do_not_hold(recording, capsys, monkeypatch):
    """A server that confuses its streams is found out."""
    from rechka.server.routes import native

    tell, count = native.event_dict, itertools.count()

    def confused(event):
        message = tell(event)
        return {**message, "text": "нет"} if message["type"] == "final" and next(count) % 5 == 3 else message

    monkeypatch.setattr(native, "event_dict", confused)
    with serving() as server:
        args = ["--server", server.http, recording, "-n", "8", "--seconds", "2", "--limit", "30", "--json"]
        _, out, err = bench(*args, capsys=capsys)
    (level,) = json.loads(out)["levels"]
    assert level["differing"] > 0
    assert not level["holds"]
    assert "differ" in err


def test_a_table_of_a_server_of_its_own(recording, capsys, monkeypatch):
    monkeypatch.setenv("RECHKA_WORKERS", "1")
    code, out, err = bench(recording, "-m", "toy", "-n", "2", "--seconds", "2", "--limit", "30", capsys=capsys)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["streams", "holds"]
    assert lines[1].split()[:2] == ["2", "yes"]


def test_what_cannot_be_measured_is_told(recording, capsys, tmp_path):
    code, out, err = bench("--server", "http://127.0.0.1:9", recording, "-n", "1", "--seconds", "1", capsys=capsys)
    assert (code, out) == (2, "")
    assert "no call got a final" in err
    code, _, err = bench(str(tmp_path / "none.wav"), "-n", "1", capsys=capsys)
    assert code == 3
    assert "audio.not_found" in err
    code, _, err = bench(recording, "-m", "no-such-model", "-n", "1", capsys=capsys)
    assert code == 4
    assert "did not start" in err
