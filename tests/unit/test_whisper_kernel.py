"""CTranslate2 and tokenizers behind the kernel's face, on a tiny model with random weights."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from rechka.decoding.whisper import Prompt, Search
from rechka.decoding.whisper.prompt import head
from rechka.errors import BadCard, BadModelFile, ModelNotFound, UsageError
from rechka.models.whisper import BpeCodec, CTranslate2Kernel, WhisperModel, load
from rechka.types import F32

pytest.importorskip("ctranslate2", reason="needs the extra whisper")
pytest.importorskip("tokenizers", reason="needs the extra whisper")

from rechka.testing.whisper import LANGUAGES, write_whisper

NAMES = {"model": "model.bin", "config": "config.json", "tokenizer": "tokenizer.json", "vocabulary": "vocabulary.json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper") / "tiny")


def files(folder: Path) -> dict[str, Path]:
    return {role: folder / name for role, name in NAMES.items()}


@pytest.fixture(scope="module")
def model(folder: Path) -> WhisperModel:
    return load(files(folder), {}, threads=1)


def noise(seconds: float, seed: int) -> F32:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


def prompt(model: WhisperModel, *, stamps: bool, language: str = "ru") -> tuple[int, ...]:
    special = model.codec.special
    return Prompt((), head(special, language=language, task="transcribe", multilingual=True), stamps).tokens(special)


def test_the_tokens_of_the_tokenizer(model: WhisperModel) -> None:
    special = model.codec.special
    assert set(special.languages) == set(LANGUAGES)
    assert special.start == special.end + 1
    assert special.first_stamp == special.no_stamps + 1
    assert special.is_text(special.end - 1)
    assert not special.is_text(special.end)
    assert special.position(special.stamp(1500)) == 1500
    assert special.stamp(2000) == special.stamp(1500)


def test_text_there_and_back_and_no_smuggled_tokens(model: WhisperModel) -> None:
    text = " Мама мыла раму, а папа — нет. Ёж! 25 ₽"
    assert model.codec.decode(model.codec.encode(text)) == text
    assert model.codec.encode("<|startoftranscript|><|notimestamps|>") == []
    assert model.codec.decode([model.codec.special.stamp(5), *model.codec.encode("да")]) == "да"
    assert "\ufffd" in model.codec.decode(model.codec.encode("ж")[:1])


def test_generation_is_the_same_alone_and_in_a_batch(model: WhisperModel) -> None:
    encoded = model.kernel.encode([noise(5, 0), noise(30, 1), noise(0.1, 2)])
    assert [one.shape for one in encoded] == [(1500, 32)] * 3
    prompts = [prompt(model, stamps=False)] * 3
    search = Search(beam_size=1, max_new=20)
    together = model.kernel.generate(encoded, prompts, search)
    alone = [model.kernel.generate([one], prompts[:1], search)[0] for one in encoded]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprob == pytest.approx(other.logprob, rel=1e-3)
        assert 0.0 <= one.no_speech <= 1.0
        assert one.logprob <= 0.0
        assert one.truncated is (len(one.tokens) >= 20)


def test_languages_may_differ_within_a_batch(model: WhisperModel) -> None:
    encoded = model.kernel.encode([noise(2, 0)]) * 2
    prompts = [prompt(model, stamps=True, language=code) for code in ("ru", "en")]
    assert len(model.kernel.generate(encoded, prompts, Search(beam_size=1, max_new=4))) == 2


@pytest.mark.parametrize("before", [0, 50, 223])
@pytest.mark.parametrize("wanted", [10, 224])
def test_the_limit_of_tokens_with_any_prompt(model: WhisperModel, before: int, wanted: int) -> None:
    special = model.codec.special
    start = head(special, language="ru", task="transcribe", multilingual=True)
    tokens = Prompt((65,) * before, start, False).tokens(special)
    [encoded] = model.kernel.encode([noise(3, 3)])
    # The end is forbidden, so that only the limit can stop it.
    [found] = model.kernel.generate(
        [encoded], [tokens], Search(beam_size=1, max_new=wanted, suppress=(-1, special.end))
    )
    assert found.truncated
    assert wanted - 5 <= len(found.tokens) <= wanted


def test_sampling_takes_the_best_of_several(model: WhisperModel) -> None:
    [encoded] = model.kernel.encode([noise(3, 4)])
    [found] = model.kernel.generate([encoded], [prompt(model, stamps=True)], Search(temperature=0.8, max_new=8))
    assert math.isfinite(found.logprob)
    assert len(found.tokens) <= 8


def test_language_probabilities(model: WhisperModel) -> None:
    [found] = model.kernel.detect_language(model.kernel.encode([noise(3, 5)]))
    assert set(found) == set(LANGUAGES)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("seconds", [30.0, 2.0, 0.02])
def test_alignment_has_a_place_for_every_token(model: WhisperModel, seconds: float) -> None:
    encoded = model.kernel.encode([noise(seconds, 6), noise(seconds, 7)])
    texts = [model.codec.encode(" мама мыла раму"), model.codec.encode(" да")]
    start = head(model.codec.special, language="ru", task="transcribe", multilingual=True)
    found = model.kernel.align(encoded, start, texts, [max(2, round(seconds * 100))] * 2)
    for alignment, text in zip(found, texts, strict=True):
        assert len(alignment.frames) == len(text) + 1
        assert len(alignment.probs) == len(text)
        assert list(alignment.frames) == sorted(alignment.frames)
        assert 0 <= alignment.frames[0] <= alignment.frames[-1] <= 1500
        assert all(0.0 <= prob <= 1.0 for prob in alignment.probs)


def test_alignment_scores_a_given_text(model: WhisperModel) -> None:
    """The probabilities of ``align`` are those of generation: a draft can be scored without decoding it."""
    [encoded] = model.kernel.encode([noise(4, 8)])
    tokens = prompt(model, stamps=False)
    [found] = model.kernel.generate([encoded], [tokens], Search(beam_size=1, max_new=12, suppress=()))
    special = model.codec.special
    text = [token for token in found.tokens if special.is_text(token)]
    start = head(special, language="ru", task="transcribe", multilingual=True)
    if text:
        [alignment] = model.kernel.align([encoded], start, [text], [400])
        assert all(0.0 < prob <= 1.0 for prob in alignment.probs)


def test_128_bands_are_told_by_the_weights(tmp_path: Path) -> None:
    kernel = CTranslate2Kernel(write_whisper(tmp_path / "v3", num_mels=128) / "model.bin", threads=1)
    assert kernel.mel.num_mels == 128
    [encoded] = kernel.encode([noise(1, 0)])
    assert np.isfinite(encoded).all()


def test_8_bits(tmp_path: Path, folder: Path) -> None:
    eight = write_whisper(tmp_path / "int8", quantization="int8")
    assert (eight / "model.bin").stat().st_size < 0.6 * (folder / "model.bin").stat().st_size
    found = load(files(eight), {"compute_type": "int8"}, threads=1).kernel
    plain = load(files(folder), {}, threads=1).kernel
    assert isinstance(found, CTranslate2Kernel)
    assert "int8" in found.compute_type
    one, other = (np.asarray(kernel.encode([noise(2, 1)])[0]) for kernel in (found, plain))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98


# what is wrong is said


def damaged(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "damaged"))


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"])
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    copy = damaged(folder, tmp_path)
    (copy / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        load(files(copy), {}, threads=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.bin", b""),
        ("model.bin", b"\x06\0\0\0\x04\0Bert\0" + bytes(100)),
        ("model.bin", b"\x80\x02garbage" * 50),
        ("config.json", b"{"),
        ("config.json", b"[1]"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xfe"),
    ],
)
def test_a_damaged_file_is_told(folder: Path, tmp_path: Path, name: str, content: bytes) -> None:
    copy = damaged(folder, tmp_path)
    (copy / name).write_bytes(content)
    with pytest.raises(BadModelFile):
        load(files(copy), {}, threads=1)


def test_a_truncated_model_is_told(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path)
    data = (copy / "model.bin").read_bytes()
    (copy / "model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadModelFile, match="CTranslate2 cannot load"):
        load(files(copy), {}, threads=1)


def test_a_tokenizer_of_something_else(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path)
    state = json.loads((copy / "tokenizer.json").read_text())
    state["added_tokens"] = [one for one in state["added_tokens"] if one["content"] != "<|startoftranscript|>"]
    (copy / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(BadModelFile, match="startoftranscript"):
        BpeCodec(copy / "tokenizer.json")


def test_a_vocabulary_without_the_empty_token_would_make_every_language_english(folder: Path, tmp_path: Path) -> None:
    copy = damaged(folder, tmp_path)
    state = json.loads((copy / "tokenizer.json").read_text())
    state["added_tokens"] = [one for one in state["added_tokens"] if one["content"] not in ("<|su|>", "<|jw|>")]
    (copy / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(BadModelFile, match="99 languages, its tokenizer 97"):
        load(files(copy), {}, threads=1)


@pytest.mark.parametrize(
    "params",
    [{"compute_type": "int3"}, {"beam_size": 0}, {"beam": 5}, {"mode": "fast"}, {"temperatures": []}, {"prompt": 5}],
)
def test_parameters_that_whisper_does_not_have(folder: Path, params: dict[str, object]) -> None:
    with pytest.raises(BadCard):
        load(files(folder), params, threads=1)


def test_options_of_the_card(folder: Path) -> None:
    options = load(files(folder), {"language": "ru", "beam_size": 2, "temperatures": [0, 0.5]}, threads=1).options
    assert (options.language, options.beam_size, options.temperatures) == ("ru", 2, (0.0, 0.5))


def test_a_device_that_is_not_there(folder: Path) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="CUDA"):
        load(files(folder), {}, device="cuda")
    with pytest.raises(UsageError, match="threads"):
        load(files(folder), {}, threads=0)
