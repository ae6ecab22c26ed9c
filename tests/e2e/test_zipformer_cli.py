"""A folder as alphacep publishes it for Vosk 5, from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from rechka.cli.main import main
from rechka.testing.transducers import write_transducer

RECORDING = Path(__file__).parents[2] / "examples" / "prompt.wav"


@pytest.mark.parametrize("kind", ["offline", "zipformer2"])
def test_transcribe_with_a_vosk_folder(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    folder = write_transducer(tmp_path / "vosk", kind, blank=10.0, names="am-onnx/{}.onnx", tokens="lang/tokens.txt")
    assert main(["transcribe", str(RECORDING), "--model", str(folder), "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "vosk"
    assert len(result["text"].split()) > 3
    words = [word for segment in result["segments"] for word in segment["words"]]
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)

    assert main(["transcribe", str(RECORDING), "--model", str(folder), "--hotword", "бама:20"]) == 0
    capsys.readouterr()

    shutil.move(folder / "lang" / "tokens.txt", tmp_path)
    assert main(["transcribe", str(RECORDING), "--model", str(folder)]) == 3
    assert "tokens.txt does not exist" in " ".join(capsys.readouterr().err.split())
