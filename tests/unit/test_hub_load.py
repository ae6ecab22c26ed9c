"""``rechka.load``: which model, how it is put together, and what is said when it is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from rechka.decoding import CtcBeam, CtcGreedy
from rechka.errors import BadCard, ChecksumMismatch, MissingExtra, ModelError, ModelNotFound, UsageError
from rechka.hub import load as loading
from rechka.hub import registry
from rechka.hub.card import Card, CardFile
from rechka.hub.load import choose, load
from rechka.hub.registry import EMBEDDED, PREFERRED, Lock, Locked, find
from rechka.models import toy
from rechka.options import DecoderOptions
from rechka.testing import say, toy_asr
from rechka.testing.fake_hub import FakeHub

TEXT = "проверка связи"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("RECHKA_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def without_embedded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package whose folder holds the built-in cards and nothing else."""
    package = tmp_path / "package"
    (package / "cards").mkdir(parents=True)
    for card in (Path(registry.__file__).parent / "cards").glob("*.toml"):
        (package / "cards" / card.name).write_bytes(card.read_bytes())
    monkeypatch.setattr(registry, "_PACKAGE", package)


def embed(tmp_path: Path, name: str = EMBEDDED) -> None:
    """Put the toy in the embedded model's place."""
    folder = tmp_path / "package" / "embedded"
    folder.mkdir()
    (folder / "card.toml").write_text(Card(name, "toy", "ru", "MIT").to_toml(), "utf-8")


def test_the_toy_hears_its_text() -> None:
    asr = load("toy")
    assert (asr.name, asr.language, asr.note) == ("toy", "ru", "")
    assert asr.transcribe((say(TEXT, after_s=1.0), 8000)).text == TEXT


@pytest.mark.usefixtures("without_embedded")
def test_by_default_the_embedded_model_with_a_note(tmp_path: Path) -> None:
    embed(tmp_path)
    asr = load()
    assert asr.name == EMBEDDED
    assert "rechka models pull t-one" in asr.note


@pytest.mark.usefixtures("without_embedded")
def test_by_default_t_one_if_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(tmp_path)
    entry = find(PREFERRED)
    entry.folder.mkdir(parents=True)
    entry.path("model").touch()
    assert choose() == (entry, "")
    asked: list[Any] = []
    monkeypatch.setattr(loading, "put_together", lambda entry, **_: asked.append(entry) or toy_asr())
    assert load().note == ""
    assert asked == [entry]


@pytest.mark.usefixtures("without_embedded")
def test_without_any_model_it_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        load()
    assert str(cache / "models" / "t-one" / "model.onnx") in caught.value.message
    assert "rechka models pull t-one" in caught.value.remedy


def test_a_model_that_is_not_on_disk_is_not_pulled_silently() -> None:
    with pytest.raises(ModelNotFound, match="'t-one' is not on disk") as caught:
        load("t-one")
    assert "rechka models pull t-one" in caught.value.remedy
    assert "embedded" in caught.value.remedy


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="ONNX Runtime has CUDA here")
def test_on_a_gpu_without_the_weights_the_command_that_brings_them_is_told(cache: Path) -> None:
    entry = find("t-one")
    entry.folder.mkdir(parents=True)
    entry.path("model").touch()
    with pytest.raises(MissingExtra, match="CUDA") as caught:
        load("t-one", device="cuda")
    assert "rechka models pull t-one --with weights" in caught.value.remedy
    entry.path("weights").touch()
    with pytest.raises((MissingExtra, ModelError, UsageError)) as other:
        load("t-one", device="cuda")
    assert "--with weights" not in other.value.remedy


def card_at(folder: Path, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    card = Card(**{"name": "mine", "family": "toy", "language": "ru", "license": "MIT", **more})
    (folder / "card.toml").write_text(card.to_toml(), "utf-8")
    return folder


def test_a_folder_with_a_missing_file(tmp_path: Path) -> None:
    folder = card_at(tmp_path / "m", files={"model": CardFile("model.onnx")}, repo="a/b")
    with pytest.raises(ModelNotFound, match=r"model\.onnx does not exist") as caught:
        load(folder)
    assert "pull" not in caught.value.remedy  # a folder is the user's own


def test_with_offline_false_what_is_missing_is_pulled(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub(repo="a/b", files={"model.onnx": b"weights"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("RECHKA_OFFLINE", "1")
        (cache / "cards").mkdir(parents=True)
        card = Card("mine", "toy", "ru", "MIT", repo="a/b", files={"model": CardFile("model.onnx")})
        (cache / "cards" / "mine.toml").write_text(card.to_toml(), "utf-8")
        for offline in (None, True):
            with pytest.raises(ModelNotFound):
                load("mine", offline=offline)
        assert hub.seen == []
        assert load("mine", offline=False).name == "mine"
        assert load("mine").name == "mine"


def test_a_truncated_file_is_told_by_its_size(tmp_path: Path, cache: Path) -> None:
    folder = card_at(tmp_path / "m", files={"model": CardFile("model.onnx", size=10)})
    (folder / "model.onnx").write_bytes(b"short")
    with pytest.raises(ChecksumMismatch, match="5 bytes, expected 10"):
        load(folder)

    entry = find("t-one")
    entry.folder.mkdir(parents=True)
    entry.path("model").write_bytes(b"short")
    lock = Lock("t-tech/T-one", "", "c" * 40, "x", {"model": Locked("model.onnx", 10, "d" * 64)})
    (entry.folder / "lock.json").write_text(lock.to_json(), "utf-8")
    with pytest.raises(ChecksumMismatch) as caught:
        load("t-one")
    assert "rechka models pull t-one --update" in caught.value.remedy


def test_parameters_and_segmenter_settings_of_the_card_arrive(tmp_path: Path) -> None:
    folder = card_at(tmp_path / "m", params={"lag": 0, "pad": 0}, segmenter={"min_silence_s": 0.3})
    asr = load(folder)
    assert (asr.spec.lag, asr.spec.pad) == (0, 0)
    twice = np.tile(say(TEXT, after_s=0.45), 2)
    segments = asr.transcribe((twice, 8000)).segments
    assert [segment.text for segment in segments] == [TEXT, TEXT]
    bad = card_at(tmp_path / "bad", params={"size": 1})
    with pytest.raises(BadCard, match="size"):
        load(bad)


@pytest.mark.parametrize(
    ("lm", "stated", "given", "kind", "reads_lm"),
    [
        (False, {}, None, "auto", False),
        (True, {}, None, "auto", True),
        (True, {"kind": "greedy"}, None, "greedy", False),
        (False, {"kind": "beam"}, None, "beam", False),
        (False, {"alpha": 0.7}, None, "auto", False),
        (True, {"alpha": 0.7}, None, "auto", True),
        (True, {"alpha": 0.7}, DecoderOptions(alpha=0.1), "beam", True),
        (True, {}, DecoderOptions(kind="greedy"), "greedy", False),
    ],
)
def test_which_decoder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lm: bool,
    stated: dict[str, Any],
    given: DecoderOptions | None,
    kind: str,
    reads_lm: bool,
) -> None:
    import rechka.decoding.lm

    seen: list[Any] = []
    build = rechka.decoding.build_decoder
    monkeypatch.setattr(rechka.decoding.lm, "load_lm", lambda path: f"lm of {path.name}")

    def remember(tokens: Any, options: DecoderOptions, *, lm: Any = None, transducer: Any = None) -> Any:
        seen.append((options, lm))
        return build(tokens, replace(options, kind="greedy"))

    monkeypatch.setattr(rechka.decoding, "build_decoder", remember)
    folder = card_at(tmp_path / "m", files={"lm": CardFile("lm.rlm", optional=True)}, decoder=stated)
    if lm:
        (folder / "lm.rlm").touch()
    load(folder, decoder=given)
    options, used = seen[0]
    assert options.kind == kind
    assert used == ("lm of lm.rlm" if reads_lm else None)
    assert options.alpha == (given.alpha if given else stated.get("alpha", DecoderOptions().alpha))


def test_hotwords_turn_the_beam_on_where_there_is_no_language_model(tmp_path: Path) -> None:
    asr = load(card_at(tmp_path / "m"))
    factory = asr.recognizer.decoder_factory
    assert isinstance(factory(None), CtcGreedy)
    assert isinstance(factory({"связи": 5.0}), CtcBeam)


def test_the_family_gets_files_and_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    original = toy.load

    def spy(files: Any, params: Any, **more: Any) -> Any:
        seen.update(files=dict(files), **more)
        return original({}, params)

    monkeypatch.setattr(toy, "load", spy)
    folder = card_at(tmp_path / "m", files={"model": CardFile("a/m.onnx"), "extra": CardFile("x", optional=True)})
    (folder / "a").mkdir()
    (folder / "a" / "m.onnx").touch()
    load(folder, device="cuda", threads=3)
    assert seen == {"files": {"model": folder / "a" / "m.onnx"}, "device": "cuda", "threads": 3}
