"""Whisper on CTranslate2 with random weights: folders, the kernel, the command line. The text means nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ctranslate2")
pytest.importorskip("tokenizers")

import rechka
from rechka.cli.main import main
from rechka.decoding.whisper import Search, stamps
from rechka.errors import BadCard, BadModelFile, ModelNotFound, UsageError
from rechka.hub.card import Card
from rechka.hub.layouts import recognise
from rechka.models import whisper
from rechka.recognizers.whisper import WhisperAsr
from rechka.types import F32, Final, SpeechEnd, SpeechStart

TOY = Path(__file__).parents[1] / "data" / "whisper" / "toy"
RECORDING = Path(__file__).parents[2] / "examples" / "prompt.wav"
QUICK: dict[str, Any] = {"language": "ru", "temperatures": [0.0], "max_new": 24}


def files(folder: Path = TOY) -> dict[str, Path]:
    card = recognise(folder)
    assert card is not None
    return {role: folder / file.path for role, file in card.files.items()}


@pytest.fixture(scope="module")
def model() -> whisper.WhisperModel:
    return whisper.load(files(), QUICK, threads=1)


@pytest.fixture(scope="module")
def asr() -> WhisperAsr:
    found = rechka.load(TOY, threads=1)
    assert isinstance(found, WhisperAsr)
    return found.with_options(**QUICK)


def noise(seconds: float, seed: int = 0) -> F32:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


def test_a_folder_of_ctranslate2_is_a_model() -> None:
    card = recognise(TOY)
    assert card is not None
    assert (card.family, card.language, card.name) == ("whisper", "mul", "toy")
    assert Card.parse(card.to_toml()) == card


def test_special_tokens_are_those_of_the_tokenizer(model: whisper.WhisperModel) -> None:
    special = model.codec.special
    assert len(special.languages) == 99
    assert special.languages["ru"] == special.start + 5
    assert special.first_stamp == special.no_stamps + 1
    assert model.codec.decode([*model.codec.encode(" привет"), special.no_stamps, special.stamp(3)]) == " привет"
    assert model.codec.encode("<|endoftext|>да<|0.00|>") == model.codec.encode("да")  # nothing is smuggled in
    assert model.kernel.multilingual


def test_the_kernel_keeps_the_rules_of_stamps(model: whisper.WhisperModel) -> None:
    special = model.codec.special
    encoded = model.kernel.encode([noise(5.0, seed) for seed in range(6)])
    prompt = [special.start, special.languages["ru"], special.transcribe]
    for search in (Search(beam_size=1), Search(beam_size=3, max_new=60), Search(temperature=0.7, max_new=100)):
        for found in model.kernel.generate(encoded, [prompt] * 6, search):
            assert found.tokens
            assert stamps.violations(found.tokens, special) == []


def test_a_stamp_is_forced_where_stamps_are_likelier_than_any_text(model: whisper.WhisperModel) -> None:
    """The last rule of section 3.4, seen in the log-probabilities of every step."""
    kernel, special = model.kernel, model.codec.special
    assert isinstance(kernel, whisper.CTranslate2Kernel)
    prompt = [special.start, special.languages["ru"], special.transcribe]
    [found] = kernel._model.generate(
        kernel._view(kernel.encode([noise(5.0)])), [prompt], beam_size=1, max_length=120, return_logits_vocab=True
    )
    forced = 0
    for token, logits in zip(found.sequences_ids[0], found.logits[0], strict=False):
        values = np.asarray(logits, np.float64)
        mass = np.logaddexp.reduce(values[special.first_stamp :])
        if mass > values[: special.end].max():
            assert special.is_stamp(token)
            forced += 1
    assert forced > 3


@pytest.mark.parametrize("previous", [0, 30, 223])
def test_the_limit_of_tokens_is_noticed(model: whisper.WhisperModel, previous: int) -> None:
    special = model.codec.special
    encoded = model.kernel.encode([noise(5.0)])
    before = [special.previous, *[10] * previous] if previous else []
    prompt = [*before, special.start, special.languages["ru"], special.transcribe, special.no_stamps]
    for limit in (1, 7, 100, 224):
        [found] = model.kernel.generate(encoded, [prompt], Search(beam_size=1, max_new=limit))
        room = 448 - len(prompt) + 1
        assert len(found.tokens) == min(limit, room)  # these weights never end by themselves
        assert found.truncated
        assert found.logprob < 0.0
        assert 0.0 <= found.no_speech <= 1.0


def test_alignments_have_a_place_for_every_token(model: whisper.WhisperModel) -> None:
    special = model.codec.special
    encoded = model.kernel.encode([noise(5.0), noise(0.05), noise(30.0)])
    texts = [model.codec.encode(" привет, как дела?"), model.codec.encode(" да"), model.codec.encode(" мама " * 40)]
    start = [special.start, special.languages["ru"], special.transcribe]
    for text, frames, found in zip(texts, (500, 5, 3000), model.kernel.align(encoded, start, texts, (500, 0, 3000)),
                                   strict=True):  # fmt: skip
        assert len(found.frames) == len(text) + 1
        assert len(found.probs) == len(text)
        assert list(found.frames) == sorted(found.frames)
        assert all(0 <= frame <= max(1, frames // 2) for frame in found.frames)
        assert all(0.0 <= prob <= 1.0 for prob in found.probs)


def test_languages_have_probabilities(model: whisper.WhisperModel) -> None:
    [found] = model.kernel.detect_language(model.kernel.encode([noise(3.0)]))
    assert set(found) == set(model.codec.special.languages)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("mode", ["packed", "sequential", "chunked"])
def test_batches_change_nothing(asr: WhisperAsr, mode: str) -> None:
    audio = np.concatenate([noise(50.0, 1), np.zeros(16000, np.float32), noise(30.0, 2)])
    texts = []
    for batch in (1, 4):
        made = asr.with_options(mode=mode, batch_size=batch, vad="energy")
        transcript = made.transcribe((audio, 16000))
        texts.append([segment.to_dict() for segment in transcript.segments])
        times = [time for word in transcript.words for time in (word.start, word.end)]
        assert all(0.0 <= time <= 81.1 for time in times)
    assert texts[0]
    assert texts[0] == texts[1]


def test_live(asr: WhisperAsr) -> None:
    events = list(asr.stream(RECORDING))
    kinds = [type(event) for event in events]
    assert kinds[0] is SpeechStart
    assert kinds[-1] is SpeechEnd
    assert Final in kinds


def test_every_option_runs(asr: WhisperAsr) -> None:
    for options in (
        {"language": "", "languages": ["ru", "uk"]}, {"task": "translate"}, {"mode": "sequential", "prompt": "Привет."},
        {"temperatures": [0.0, 0.5]}, {"stamps": True}, {"hotwords": ["речка"]}, {"word_times": False},
        {"follow_language": True, "language": ""}, {"mode": "sequential", "guard_silence_s": 2.0},
        {"repetition_penalty": 1.2, "no_repeat_ngram": 3, "patience": 2.0, "length_penalty": 0.8, "beam_size": 2},
        {"suppress": [], "mode": "sequential"},
    ):  # fmt: skip
        transcript = asr.with_options(**options).transcribe(RECORDING, hotwords={"берег": 2.0})
        assert transcript.duration > 3.0
        assert transcript.language in ("ru", "uk", "mul") or not options.get("language", "x")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    card = recognise(TOY)
    assert card is not None
    folder = shutil.copytree(TOY, tmp_path / "toy")
    params = "".join(f"{key} = {json.dumps(value)}\n" for key, value in {**QUICK, "compute_type": "int8"}.items())
    (folder / "card.toml").write_text(card.to_toml() + f"\n[params]\n{params}")
    assert main(["transcribe", str(RECORDING), "--model", str(folder), "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["model"], result["language"]) == ("toy", "ru")
    assert result["segments"][0]["labels"]["compression_ratio"] > 0
    for form in ("srt", "txt", "ctm"):
        assert main(["transcribe", str(RECORDING), "--model", str(folder), "--format", form]) == 0
        assert capsys.readouterr().out.strip()


def test_options_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["transcribe", str(RECORDING), "--model", str(TOY), "--format", "json"]
    options = ["--set", "temperatures=[0]", "--set", "max_new=8", "--set", "mode=sequential"]
    assert main([*base, "--language", "uk", *options]) == 0
    assert json.loads(capsys.readouterr().out)["language"] == "uk"
    for wrong in (["--language", "xx"], ["--set", "tempo=3"], ["--set", "beam_size"], ["--set", "beam_size=0"],
                  ["--set", "task=" + "[" * 100_000]):  # fmt: skip
        assert main([*base, *wrong]) == 2
        assert "error [usage]" in capsys.readouterr().err
    assert main(["transcribe", str(RECORDING), "--model", "toy", "--set", "task=translate"]) == 2
    assert "has no options task" in " ".join(capsys.readouterr().err.split())
    assert main(["transcribe", str(RECORDING), "--model", "toy", "--language", "ru"]) == 0


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(TOY, tmp_path / "toy")
    (folder / name).unlink()
    with pytest.raises(ModelNotFound, match=name):
        rechka.load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.bin", b"", "something else"),
        ("model.bin", b"PK\x03\x04" + b"x" * 100, "no Whisper model"),
        ("model.bin", b"\x06\0\0\0\x10\0TransformerSpec\0" + b"\0" * 50, "TransformerSpec"),
        ("model.bin", b"\x06\0\0\0\x0c\0WhisperSpec\0\x03\0\0\0", "cannot load"),
        ("config.json", b"{", "cannot be read"),
        ("config.json", b"[]", "should hold an object"),
        ("tokenizer.json", b"{}", "cannot be read"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', "startoftranscript"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    folder = shutil.copytree(TOY, tmp_path / "toy")
    (folder / name).write_bytes(content)
    with pytest.raises(BadModelFile, match=message):
        rechka.load(folder)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_a_model_that_was_cut_off_is_told(tmp_path: Path, share: float) -> None:
    folder = shutil.copytree(TOY, tmp_path / "toy")
    whole = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadModelFile, match="cannot load"):
        rechka.load(folder)


def test_a_vocabulary_without_the_empty_token_is_told(tmp_path: Path) -> None:
    """CTranslate2 would take such a model for English only without a word, and write English for every language."""
    folder = shutil.copytree(TOY, tmp_path / "toy")
    tokens = json.loads((folder / "vocabulary.json").read_text())
    tokens[tokens.index("")] = "odd"
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    with pytest.raises(BadModelFile, match="English only"):
        rechka.load(folder)


def test_parameters_that_do_not_fit_are_told() -> None:
    for params in ({"tempo": 1}, {"compute_type": "int3"}, {"beam_size": 0}):
        with pytest.raises(BadCard):
            whisper.load(files(), params)
    with pytest.raises(UsageError, match="cannot compute in"):
        whisper.load(files(), {"compute_type": "float16"})  # CPUs of this kind do not
    with pytest.raises(UsageError, match="CUDA"):
        whisper.load(files(), {}, device="cuda")


def test_a_checkpoint_that_was_not_converted_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="rechka models convert"):
        rechka.load(tmp_path)


def test_whisper_needs_no_torch() -> None:
    code = (
        "import sys, rechka; from pathlib import Path\n"
        f"asr = rechka.load(Path({str(TOY)!r}), threads=1).with_options(temperatures=[0.0], max_new=8)\n"
        f"asr.transcribe({str(RECORDING)!r})\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "[]"


def test_whisper_as_the_second_pass(asr: WhisperAsr) -> None:
    """The first pass bears witness: what random weights make up is not believed, and its text stays."""
    from rechka.recognizers import two_pass
    from rechka.testing import say, toy_asr

    first = toy_asr()
    both = two_pass(first, asr)
    spoken = (say("бам бам"), 8000)
    transcript = both.transcribe(spoken)
    assert transcript.model == "toy+toy"
    assert transcript.text
    assert [segment.start for segment in transcript.segments] == [s.start for s in first.transcribe(spoken).segments]
