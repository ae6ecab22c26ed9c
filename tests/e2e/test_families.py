"""A folder of every family through ``rechka transcribe``, whole and with each of its files missing in turn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

from rechka.cli.main import main
from rechka.export.convert import convert
from rechka.export.source import read_source
from rechka.testing.transducers import write_transducer

DATA = Path(__file__).parents[1] / "data"
AUDIO = DATA / "gigaam" / "a.wav"
OPTIONAL = {"card.toml", "config.json", "model.safetensors", "v3_vocab.txt"}
"""What a folder can do without: there for training, or known when it is absent."""


def gigaam(case: str) -> Callable[[Path], None]:
    return lambda folder: void(convert(read_source(DATA / "gigaam" / case), folder))


def community(case: str, **names: str) -> Callable[[Path], None]:
    """The graphs under the names that GigaAM's own export and onnx-asr give them, with no card."""

    def write(folder: Path) -> None:
        made = folder.with_name(f"{folder.name}-made")
        gigaam(case)(made)
        folder.mkdir()
        for old, new in names.items():
            shutil.copy(made / old.replace("_", "."), folder / new)

    return write


def t_one(folder: Path) -> None:
    source = folder.with_name("source")
    source.mkdir()
    shutil.copy(DATA / "tone" / "mini.safetensors", source / "model.safetensors")
    shutil.copy(DATA / "tone" / "mini_config.json", source / "config.json")
    assert main(["models", "convert", str(source), "--out", str(folder)]) == 0


def zipformer(kind: str, **names: str) -> Callable[[Path], None]:
    return lambda folder: void(write_transducer(folder, kind, blank=10.0, **names))


def whisper(folder: Path) -> None:
    pytest.importorskip("ctranslate2")
    from rechka.testing.whisper import write_whisper

    write_whisper(folder)


def void(_: object) -> None:
    """Drop a value."""


FAMILIES: dict[str, Callable[[Path], None]] = {
    "t-one": t_one,
    **{f"gigaam-{case}": gigaam(case) for case in ("v1_ctc", "v2_rnnt", "v3_e2e_ctc", "v3_e2e_rnnt", "emo")},
    "gigaam-community-ctc": community("v3_ctc", model_onnx="v3_ctc.onnx", tokens_txt="v3_vocab.txt"),
    "gigaam-community-rnnt": community(
        "v3_e2e_rnnt",
        encoder_onnx="v3_e2e_rnnt_encoder.onnx",
        decoder_onnx="v3_e2e_rnnt_decoder.onnx",
        joiner_onnx="v3_e2e_rnnt_joint.onnx",
        tokens_txt="v3_e2e_rnnt_vocab.txt",
    ),
    "zipformer-offline": zipformer("offline"),
    "zipformer-streaming": zipformer("zipformer2"),
    "vosk": zipformer("offline", names="am-onnx/{}.onnx", tokens="lang/tokens.txt"),
    "whisper": whisper,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_the_family(
    tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "model"
    FAMILIES[family](folder)
    capsys.readouterr()

    def transcribe() -> tuple[int, str, str]:
        code = main(["transcribe", str(AUDIO), "--model", str(folder), "--format", "json"])
        printed = capsys.readouterr()
        return code, printed.out, " ".join(printed.err.split())

    code, out, err = transcribe()
    assert code == 0, err
    assert json.loads(out)["duration"] > 1

    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in OPTIONAL)
    assert files
    for path in files:
        aside = path.rename(tmp_path / path.name)
        code, out, err = transcribe()
        assert (code, out) == (3, ""), (path.name, err)
        assert path.name in err, (path.name, err)
        aside.rename(path)
    assert transcribe()[0] == 0
