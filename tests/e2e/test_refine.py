"""Two passes as users reach them: ``rechka.load(refine=...)`` and ``--refine``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

import rechka
from rechka.cli.listen import Screen
from rechka.cli.main import main
from rechka.testing import say
from rechka.types import Final, Partial, Refined, Segment, SpeechEnd, Word

CARD = """
name = "toy-phrases"
family = "toy"
language = "ru"
license = "Apache-2.0"

[params]
whole = true

[decoder]
kind = "greedy"

[segmenter]
vad = "energy"
max_phrase_s = 10.0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording, and an offline model as a folder."""
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    soundfile.write("call.wav", say("добрый день", before_s=0.5, after_s=1.0), 8000)
    Path("offline").mkdir()
    Path("offline/card.toml").write_text(CARD, encoding="utf-8")
    return tmp_path


def test_load(folder: Path) -> None:
    alone = rechka.load("./offline")
    assert alone.transcribe("call.wav").text == "добрый день"
    both = rechka.load("toy", refine="./offline")
    assert both.name == "toy+toy-phrases"
    assert both.transcribe("call.wav").text == "добрый день"
    with pytest.raises(rechka.RechkaError, match="no-such-model"):
        rechka.load("toy", refine="no-such-model")


@pytest.mark.parametrize("verb", [["transcribe", "call.wav"], ["listen", "--input", "call.wav"]])
def test_command_line(folder: Path, capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    assert main([*verb, "--model", "toy", "--refine", "./offline"]) == 0
    assert capsys.readouterr().out.count("добрый день") == 1


def test_an_offline_model_listens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Live text from a model that reads whole phrases."""
    assert main(["listen", "--input", "call.wav", "--model", "./offline", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "speech_start"
    assert kinds[-2:] == ["final", "speech_end"]
    assert [event["stable"] for event in events if event["event"] == "partial"][-1] in ("", "добрый")


def test_the_screen_prints_the_better_text(capsys: pytest.CaptureFixture[str]) -> None:
    def segment(text: str) -> Segment:
        return Segment(text, 0.0, 1.0, (Word(text, 0.0, 1.0),))

    screen = Screen(live=False, refined=True)
    events = [Final(segment("превет")), Refined(segment("Привет")), SpeechEnd(1.0)]
    events += [
        Final(segment("пока")),
        Partial("", "да", 1.0),
        Final(segment("шум")),
        Refined(segment("")),
        SpeechEnd(3.0),
    ]
    for event in events:
        screen.show(event)
    out = capsys.readouterr().out
    assert [line.split()[-1] for line in out.splitlines()] == ["Привет", "пока"]
    assert "превет" not in out
