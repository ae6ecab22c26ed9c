"""``rechka.compat.gigaam`` against vectors of the original package, and its face: names, arguments, shapes, errors."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rechka.compat import gigaam, gigaam_models
from rechka.compat.gigaam import GigaAM, GigaAMASR, GigaAMEmo, format_time, load_audio, load_model
from rechka.errors import HubError, IncompatibleParts, MissingExtra, RechkaError

pytest.importorskip("torch", reason="the golden checkpoints are converted with it")
pytest.importorskip("onnx")
pytest.importorskip("safetensors")
from rechka.export.convert import convert
from rechka.export.source import read_source
from rechka.segmentation.longform import LongformOptions

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "gigaam"
ASR = ("v1_ctc", "v2_ctc", "v2_rnnt", "v3_ctc", "v3_e2e_ctc", "v3_e2e_rnnt")
Opened = Callable[[str], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Golden models by name, each converted once."""
    root = tmp_path_factory.mktemp("gigaam")

    @lru_cache(None)
    def converted(name: str) -> Path:
        out = root / name
        convert(read_source(GOLDEN / name), out, name=f"gigaam-{name.replace('_', '-')}")
        return out

    return converted


@pytest.fixture(scope="module")
def opened(folder: Callable[[str], Path]) -> Opened:
    return lru_cache(None)(lambda name: load_model(folder(name), device="cpu"))


def cases(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name / "expected.json").read_text("utf-8"))["cases"]


def vectors(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name / "expected.npz") as file:
        return dict(file)


def check_words(found: list[gigaam.Word], wanted: list[list[Any]], offset: float = 0.0, within: float = 1e-6) -> None:
    assert [word.text for word in found] == [text for text, _, _ in wanted]
    for word, (_, start, end) in zip(found, wanted, strict=True):
        assert (word.start, word.end) == pytest.approx((start + offset, end + offset), abs=within)


@pytest.mark.parametrize("name", ASR)
def test_transcribe(opened: Opened, name: str) -> None:
    model = opened(name)
    assert type(model) is GigaAMASR
    for wav, case in cases(name).items():
        result = model.transcribe(str(GOLDEN / f"{wav}.wav"))
        assert (result.text, str(result), result.words) == (case["text"], case["text"], None)
        timed = model.transcribe(GOLDEN / f"{wav}.wav", word_timestamps=True)
        assert timed.text == case["text"]
        check_words(timed.words, case["words"])


def test_emotion(opened: Opened) -> None:
    model = opened("emo")
    assert type(model) is GigaAMEmo
    for wav, case in cases("emo").items():
        found = model.get_probs(GOLDEN / f"{wav}.wav")
        assert list(found) == ["angry", "sad", "neutral", "positive"]
        assert found == pytest.approx(case["probs"], abs=1e-4)
    with pytest.raises(IncompatibleParts):
        model.embed_audio(GOLDEN / "a.wav")


@pytest.mark.parametrize("name", ["v3_ssl", "v2_rnnt"])
def test_embeddings_and_forward(opened: Opened, name: str) -> None:
    model, wanted = opened(name), vectors(name)
    for wav in "ab":
        encoded, lengths = model.embed_audio(GOLDEN / f"{wav}.wav")
        assert (encoded.dtype, lengths.dtype, lengths.tolist()) == (np.float32, np.int32, [encoded.shape[2]])
        assert np.abs(encoded[0] - wanted[f"{wav}.encoded"]).max() < 1e-3
        samples, size = model.prepare_wav(GOLDEN / f"{wav}.wav")
        assert samples.shape == (1, int(size[0]))
        assert np.array_equal(model.forward(samples, size)[0], encoded)
    wavs = [load_audio(GOLDEN / f"{wav}.wav") for wav in "ab"]
    lengths = np.array([len(wav) for wav in wavs])
    batch = np.stack([np.pad(wav, (0, lengths.max() - len(wav))) for wav in wavs])
    encoded, counts = model.forward(batch, lengths)
    for row, wav in enumerate("ab"):  # each item what it is alone; the original's batch is not so in v1 and v2
        assert np.abs(encoded[row, :, : counts[row]] - wanted[f"{wav}.encoded"]).max() < 1e-3
        assert not encoded[row, :, counts[row] :].any()
    if name.startswith("v3"):
        valid = wanted["batch.a.encoded_valid"]
        assert np.abs(encoded[0, :, : counts[0]] - valid).max() < 1e-3
    with pytest.raises(ValueError, match="lengths"):
        model.forward(batch[0], lengths)
    with pytest.raises(ValueError, match="lengths"):
        model.forward(batch, lengths + 1)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("name", ["v3_ctc", "v2_rnnt"])
def test_longform_chunks_and_times(opened: Opened, name: str, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recordings one behind the other; the spans are given, so the chunks are the rule's."""
    a, b = (load_audio(GOLDEN / f"{wav}.wav") for wav in "ab")
    start, end = len(a) / 16000, (len(a) + len(b)) / 16000
    monkeypatch.setattr(gigaam, "_speech", lambda wav: [(0.0, start), (start, end)])
    limits = {"max_duration": 2.0, "min_duration": 1.0}
    result = opened(name).transcribe_longform(
        (np.concatenate([a, b]), 16000), word_timestamps=True, fr_batch_size=batch_size, **limits
    )
    wanted = cases(name)
    assert [(s.start, s.end) for s in result] == [(0.0, start), (start, end)]
    assert [s.text for s in result.segments] == [wanted["a"]["text"], wanted["b"]["text"]]
    assert result.text == str(result) == f"{wanted['a']['text']} {wanted['b']['text']}"
    assert (len(result), result.has_word_timestamps) == (2, True)
    check_words(result.segments[0].words, wanted["a"]["words"], within=6e-4)
    check_words(result.segments[1].words, wanted["b"]["words"], start, within=6e-4)
    assert result.words == result.segments[0].words + result.segments[1].words
    assert all(word.start == round(word.start, 3) for word in result.words)
    bare = opened(name).transcribe_longform((np.concatenate([a, b]), 16000), **limits)
    assert bare.segments[0].words is None
    assert (bare.words, bare.has_word_timestamps, bare.text) == ([], False, result.text)


@pytest.mark.parametrize(
    "case", json.loads((DATA / "longform/segmentation.json").read_text("utf-8")), ids=lambda case: case["name"]
)
def test_longform_cuts_as_the_original(case: dict[str, Any], opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("v3_ctc")
    lengths: list[int] = []
    monkeypatch.setattr(gigaam, "_speech", lambda wav: case["spans"])
    monkeypatch.setattr(gigaam, "load_audio", lambda wav: np.zeros(round(case["total_s"] * 16000), np.float32))

    def decode(self: Any, audio: list[np.ndarray], words: bool) -> list[tuple[str, None]]:
        lengths.extend(len(wav) for wav in audio)
        return [("", None) for _ in audio]

    monkeypatch.setattr(GigaAMASR, "_decode", decode)
    result = model.transcribe_longform("any.wav", **case["params"])
    assert [(s.start, s.end) for s in result] == [tuple(pair) for pair in case["boundaries"]]
    assert lengths == case["lengths_samples"]


def test_longform_finds_speech_by_itself(opened: Opened) -> None:
    speech = load_audio(DATA / "audio/speech.wav")
    silence = np.zeros(32000, np.float32)
    result = opened("v3_ctc").transcribe_longform((np.concatenate([silence, speech, silence]), 16000))
    assert len(result) > 0
    assert all(1.5 < s.start < s.end < 2.5 + len(speech) / 16000 for s in result)
    assert len(opened("v3_ctc").transcribe_longform((silence, 16000))) == 0


@pytest.mark.parametrize(("seconds", "text"), json.loads((GOLDEN / "misc.json").read_text("utf-8"))["format_time"])
def test_format_time(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize("name", ["v3_ctc", "v2_rnnt", "v3_e2e_rnnt", "v3_ssl", "emo"])
def test_to_onnx_writes_the_names_of_the_original(opened: Opened, name: str, tmp_path: Path) -> None:
    opened(name).to_onnx(dir_path=tmp_path / "onnx", dtype=np.float32)
    kind = name.rpartition("_")[2]
    parts = {"rnnt": ("_encoder", "_decoder", "_joint"), "ssl": ("_encoder",)}.get(kind, ("",))
    names = {path.name for path in (tmp_path / "onnx").iterdir()}
    assert {f"{name}{part}.onnx" for part in parts} <= names
    again = load_model(tmp_path / "onnx", device="cpu")
    assert type(again) is type(opened(name))
    if type(again) is GigaAMASR:
        assert again.transcribe(GOLDEN / "a.wav").text == cases(name)["a"]["text"]
    with pytest.raises(ValueError, match="float32"):
        opened(name).to_onnx(tmp_path, dtype="torch.float16")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECHKA_OFFLINE", "1")
    return tmp_path


def test_a_checkpoint_is_converted_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = json.loads((GOLDEN / "tiny_v3_ctc.expected.json").read_text("utf-8"))
    root = home / "downloads"
    root.mkdir()
    shutil.copy(GOLDEN / "tiny_v3_ctc.ckpt", root / "v3_ctc.ckpt")
    texts = {load_model("v3_ctc", download_root=root, device="cpu").transcribe(GOLDEN / "a.wav").text}
    texts.add(load_model(root / "v3_ctc.ckpt", device="cpu").transcribe(GOLDEN / "a.wav").text)
    monkeypatch.setattr(gigaam_models, "_convert", None)  # from here on nothing may be converted
    texts.add(load_model("ctc", device="cpu").transcribe(GOLDEN / "a.wav").text)
    texts.add(load_model(root / "v3_ctc.ckpt", device="cpu").transcribe(GOLDEN / "a.wav").text)
    assert texts == {wanted["a"]["text"]}


def test_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Model 'v9_ctc' not found; available are ctc"):
        load_model("v9_ctc")
    for name in (*gigaam_models.NAMES, *gigaam_models.SHORT):
        with pytest.raises(HubError):  # every name has a card; nothing is here, and the network is off
            load_model(name, device="cpu")
    monkeypatch.setattr(gigaam_models, "find_spec", lambda module: None)
    with pytest.raises(MissingExtra, match="v1_ctc is published as a checkpoint only"):
        load_model("v1_ctc", device="cpu")


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda m: m.transcribe((np.zeros(25 * 16000 + 1, np.float32), 16000)), ValueError),
        (lambda m: m.transcribe("nowhere.wav"), FileNotFoundError),
        (lambda m: m.transcribe((np.zeros(0, np.float32), 16000)), ValueError),
        (lambda m: m.transcribe_longform(GOLDEN / "a.wav", vad_backend="silero"), ValueError),
        (lambda m: m.transcribe_longform(GOLDEN / "a.wav", fr_batch_size=0), ValueError),
        (lambda m: m.transcribe_longform(GOLDEN / "a.wav", max_duration=-1.0), ValueError),
        (lambda m: m.embed_audio(GOLDEN / "a.wav"), ValueError),
        (lambda m: load_model(DATA / "audio"), FileNotFoundError),
        (lambda m: load_model(GOLDEN / "misc.json"), ValueError),
    ],
)
def test_mistakes(opened: Opened, home: Path, call: Callable[[Any], Any], kind: type[Exception]) -> None:
    with pytest.raises(RechkaError) as caught:
        call(opened("v3_ctc"))
    assert isinstance(caught.value, kind)


def test_short_and_silent_audio_has_no_cliff(opened: Opened) -> None:
    for size in (1, 200, 319, 320):
        for name in ("v2_ctc", "v3_ctc"):
            assert isinstance(opened(name).transcribe((np.zeros(size, np.float32), 16000)).text, str)


def test_arguments_are_the_original_s() -> None:
    def arguments(function: Any) -> list[str]:
        return [name for name in inspect.signature(function).parameters if name != "self"]

    assert arguments(load_model) == ["model_name", "fp16_encoder", "use_flash", "device", "download_root"]
    assert arguments(GigaAMASR.transcribe) == ["wav_file", "word_timestamps"]
    assert arguments(GigaAMASR.transcribe_longform) == [
        "wav_file", "word_timestamps", "fr_batch_size", "fr_num_workers", "kwargs",
    ]  # fmt: skip
    assert arguments(GigaAM.forward) == ["features", "feature_lengths"]
    assert arguments(GigaAM.to_onnx) == ["dir_path", "dtype"]
    assert arguments(GigaAM.embed_audio) == arguments(GigaAMEmo.get_probs) == ["wav_file"]
    assert arguments(load_audio) == ["audio_path", "sample_rate"]
    assert (LongformOptions().max_s, LongformOptions().min_s, LongformOptions().limit_s) == (22.0, 15.0, 30.0)
