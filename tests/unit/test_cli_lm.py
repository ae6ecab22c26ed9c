"""``rechka lm``: a model from a user's sentences, and its weight tuned on recordings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rechka.cli.main import main
from rechka.decoding.lm import load_lm

PROMPT = Path(__file__).parents[2] / "examples" / "prompt.wav"
SENTENCES = ["Оплатите счёт за интернет!", "оплатите счёт за свет", "у меня всё хорошо", "у вас 5 рублей", "hello там"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "calls.txt"
    path.write_text("\n".join(SENTENCES) + "\n", "utf-8")
    return path


def test_builds_every_format_and_tells_what_was_left_out(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = []
    for name in ("lm.rlm", "lm.arpa", "lm.arpa.gz"):
        out = texts.with_name(name)
        assert main(["lm", "build", str(texts), "--out", str(out), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["unspellable"], told["excluded"]) == (2, 0)
        assert told["ngrams"][0] == 3 + 9
        models.append(load_lm(out))
    for model in models:
        assert "счет" in model
        assert "рублей" not in model
        likely, _ = model.score(model.score(model.score(model.start(), "оплатите")[1], "счет")[1], "за")
        unlikely, _ = model.score(model.score(model.score(model.start(), "оплатите")[1], "счет")[1], "хорошо")
        assert likely > unlikely + 1
    scores = [model.score(model.start(), "оплатите")[0] for model in models]
    assert scores == pytest.approx([scores[0]] * 3, abs=0.02)


def test_times_make_a_text_heavier(texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.txt"
    other.write_text("у нас дождь\nу нас снег\n", "utf-8")
    found = []
    for heavy in (str(other), f"{other}:20"):
        out = tmp_path / "lm.rlm"
        assert main(["lm", "build", str(texts), heavy, "--out", str(out)]) == 0
        model = load_lm(out)
        found.append(model.score(model.start(), "у")[0])
    assert found[1] > found[0] + 0.2
    capsys.readouterr()


def test_sentences_of_the_test_are_not_trained_on(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test.txt"
    test.write_text("у меня все хорошо\n", "utf-8")
    assert main(["lm", "build", str(texts), "--out", str(tmp_path / "lm.arpa"), "--test", str(test), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["excluded"] == 1
    assert told["test"][str(test)]["unknown_rate"] == 1.0
    assert "хорошо" not in load_lm(tmp_path / "lm.arpa")


def test_prunes_to_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = "абвгдежзик"
    lines = [" ".join(a + b + c for c in letters[:4]) for a in letters for b in letters]
    (tmp_path / "t.txt").write_text("\n".join(lines), "utf-8")
    assert main(["lm", "build", str(tmp_path / "t.txt"), "--out", str(tmp_path / "a.rlm"), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)["ngrams"]
    args = ["lm", "build", str(tmp_path / "t.txt"), "--out", str(tmp_path / "b.rlm"), "--max-mb", "0.1", "--json"]
    assert main(args) == 0
    assert json.loads(capsys.readouterr().out)["ngrams"] == whole  # it fits already


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["lm", "build", "missing.txt", "--out", "lm.rlm"], 3, "missing.txt"),
        (["lm", "build", "TEXTS", "--out", "lm.bin"], 2, "--out ends in"),
        (["lm", "build", "TEXTS:0", "--out", "lm.rlm"], 2, "at least once"),
        (["lm", "build", "TEXTS:9999999999999999", "--out", "lm.rlm"], 2, "at least once"),
        (["lm", "build", "TEXTS:" + "9" * 5000, "--out", "lm.rlm"], 2, "at least once"),
        (["lm", "build", "TEXTS:²", "--out", "lm.rlm"], 3, "²"),
        (["lm", "build", "TEXTS", "--out", "lm.rlm", "--max-mb", "inf"], 2, "--max-mb"),
        (["lm", "tune", "missing.jsonl", "--model", "rechka-mini"], 3, "missing.jsonl"),
        (["lm", "tune", "missing.jsonl", "--model", "toy"], 3, "no language model"),
    ],
)
def test_mistakes_are_told(
    args: list[str],
    code: int,
    told: str,
    texts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(texts.parent)
    assert main([arg.replace("TEXTS", texts.name) for arg in args]) == code
    assert told in capsys.readouterr().err


def test_tune_finds_that_the_language_model_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "dev.jsonl"
    text = PROMPT.with_suffix(".txt").read_text("utf-8").strip()
    manifest.write_text(json.dumps({"audio_filepath": str(PROMPT), "text": text}), "utf-8")
    args = ["lm", "tune", str(manifest), "-m", "rechka-mini", "--threads", "1", "--alpha", "0.5", "--beta", "1"]
    assert main([*args, "--beta", "60", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["best"] == {"alpha": 0.5, "beta": 1.0}
    wers = {row["beta"]: row["wer"] for row in told["tried"]}
    assert wers[1.0] == 0.0
    assert wers[60.0] > 0.5
    assert main(args) == 0
    assert capsys.readouterr().out.endswith("[decoder]\nalpha = 0.5\nbeta = 1\n")
