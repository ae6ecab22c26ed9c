"""Whisper checkpoints of transformers converted for CTranslate2: what comes out, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ctranslate2")
pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

from safetensors.numpy import load_file, save_file

import rechka
from rechka.decoding.whisper import Search
from rechka.errors import BadModelFile, ModelNotFound, OutputError, UsageError
from rechka.export.whisper import convert, is_whisper, read
from rechka.hub.card import Card
from rechka.models import whisper
from rechka.testing.whisper import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("whisper") / "Whisper Small RU", width=16, layers=1, scale=0.6)


def load(folder: Path) -> whisper.WhisperModel:
    card = Card.read(folder / "card.toml")
    return whisper.load({role: folder / file.path for role, file in card.files.items()}, card.params, threads=1)


def tokens(model: whisper.WhisperModel) -> Any:
    special = model.codec.special
    audio = (0.1 * np.random.default_rng(0).standard_normal(48000)).astype(np.float32)
    prompt = [special.start, special.languages["ru"], special.transcribe, special.no_stamps]
    return model.kernel.generate(model.kernel.encode([audio]), [prompt], Search(beam_size=1, max_new=20))


def test_a_checkpoint_becomes_a_model(checkpoint: Path, tmp_path: Path) -> None:
    assert is_whisper(checkpoint)
    out = convert(checkpoint, tmp_path / "out", "float32")
    card = Card.read(out / "card.toml")
    assert (card.name, card.family) == ("whisper-small-ru", "whisper")
    assert all(file.sha256 and file.size == (out / file.path).stat().st_size for file in card.files.values())
    config = json.loads((out / "config.json").read_text())
    assert len(config["lang_ids"]) == 99
    assert config["alignment_heads"] == [[0, 0], [0, 1]]
    asr = rechka.load(out, threads=1)
    assert asr.name == "whisper-small-ru"


@pytest.mark.parametrize("quantization", ["int8", "float16", "int8_float32"])
def test_fewer_bits_make_smaller_files(checkpoint: Path, tmp_path: Path, quantization: str) -> None:
    full = convert(checkpoint, tmp_path / "full", "float32")
    small = convert(checkpoint, tmp_path / "small", quantization, name="Мал small")
    assert (small / "model.bin").stat().st_size < 0.8 * (full / "model.bin").stat().st_size
    assert tokens(load(small))[0].tokens
    assert Card.read(small / "card.toml").name == "small"


def test_all_layouts_of_weights_are_read(checkpoint: Path, tmp_path: Path) -> None:
    expected = tokens(load(convert(checkpoint, tmp_path / "whole", "float32")))
    weights = load_file(checkpoint / "model.safetensors")

    def variant(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("config.json", "generation_config.json", "tokenizer.json"):
            (folder / file).write_bytes((checkpoint / file).read_bytes())
        return folder

    inner = variant("inner")  # the inner model saved alone
    save_file({key.removeprefix("model."): value for key, value in weights.items()}, inner / "model.safetensors")
    sharded = variant("sharded")
    names = sorted(weights)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({key: weights[key] for key in part}, sharded / f"model-{number}.safetensors")
    table = {key: f"model-{i % 2}.safetensors" for i, key in enumerate(names)}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    for folder in (inner, sharded):
        assert tokens(load(convert(folder, tmp_path / f"{folder.name}-out", "float32"))) == expected


def test_half_precision_of_either_kind_is_read(checkpoint: Path, tmp_path: Path) -> None:
    """bfloat16 by hand: the upper half of each float32."""
    entries, data = {}, b""
    weights = {"a": np.array([[1.5, -2.0]], np.float32), "b": np.array([0.1, 3.0], np.float32)}
    for name, kind in (("a", "BF16"), ("b", "F16")):
        array = weights[name]
        raw = (array.view("<u4") >> 16).astype("<u2").tobytes() if kind == "BF16" else array.astype("<f2").tobytes()
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps(entries).encode()
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / file).write_bytes((checkpoint / file).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    found = read(tmp_path).weights
    np.testing.assert_array_equal(found["a"], weights["a"])
    np.testing.assert_allclose(found["b"], weights["b"], rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("config.json", None, ModelNotFound, "config.json"),
        ("tokenizer.json", None, ModelNotFound, "tokenizer.json"),
        ("model.safetensors", None, ModelNotFound, "no weights"),
        ("config.json", b'{"model_type": "bert"}', BadModelFile, "'bert', not whisper"),
        ("config.json", b"[1]", BadModelFile, "should hold an object"),
        ("config.json", b'{"model_type": "whisper"}', BadModelFile, "encoder_layers"),
        ("tokenizer.json", b"{}", BadModelFile, "cannot be read"),
        ("model.safetensors", b"", BadModelFile, "cannot be read"),
        ("model.safetensors", b"\xff" * 64, BadModelFile, "cannot be read"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", BadModelFile, "no weights model"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../x"}}', BadModelFile, "outside"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}', ModelNotFound, "gone"),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, name: str, content: bytes | None, error: type[Exception], message: str
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for file in checkpoint.iterdir():
        os.link(file, folder / file.name)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(error, match=message):
        convert(folder, tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_folder_in_use_is_not_touched(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        convert(checkpoint, tmp_path)
    with pytest.raises(UsageError, match="quantization"):
        convert(checkpoint, tmp_path / "out", "int2")
