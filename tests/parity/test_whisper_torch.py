"""Whisper in torch with an assistant: the same answers as CTranslate2's kernel, the same text with and without help."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ctranslate2")
pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from rechka.decoding.whisper import Search, WhisperOptions
from rechka.errors import BadModelFile, IncompatibleParts, ModelNotFound, UsageError
from rechka.export.whisper import convert
from rechka.hub.layouts import recognise
from rechka.models import whisper
from rechka.nn.whisper import begins, load
from rechka.recognizers.whisper import WhisperAsr, WhisperRecognizer
from rechka.testing.whisper import write_checkpoint
from rechka.types import F32


def noise(seconds: float, seed: int = 0) -> F32:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


AUDIO = [noise(3.0), noise(12.0, 1)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("whisper")
    return (
        write_checkpoint(base / "large", width=32, layers=2, seed=4, scale=0.3),
        write_checkpoint(base / "small", width=16, layers=1, seed=5, scale=0.3),
    )


@pytest.fixture(scope="module")
def kernels(folders: tuple[Path, Path]) -> tuple[Any, Any, whisper.BpeCodec]:
    out = convert(folders[0], folders[0].parent / "out", "float32")
    card = recognise(out)
    assert card is not None
    files = {role: out / file.path for role, file in card.files.items()}
    model = load(folders[0])
    assert isinstance(model.codec, whisper.BpeCodec)
    return model.kernel, whisper.load(files, {}, threads=1).kernel, model.codec


def head(codec: whisper.BpeCodec, *, stamps: bool = False) -> list[int]:
    special = codec.special
    return [
        special.start, special.languages["ru"], special.transcribe, *([] if stamps else [special.no_stamps])
    ]  # fmt: skip


@pytest.mark.parametrize("stamps", [False, True])
def test_greedy_text_is_that_of_ctranslate2(kernels: tuple[Any, Any, whisper.BpeCodec], *, stamps: bool) -> None:
    ours, other, codec = kernels
    prompts = [head(codec, stamps=stamps)] * 2
    search = Search(beam_size=1, max_new=30)
    found = ours.generate(ours.encode(AUDIO), prompts, search)
    expected = other.generate(other.encode(AUDIO), prompts, search)
    for one, told in zip(found, expected, strict=True):
        assert one.tokens == told.tokens
        assert one.truncated == told.truncated
        assert one.no_speech == pytest.approx(told.no_speech, rel=2e-2, abs=1e-6)
        assert one.logprob == pytest.approx(told.logprob, rel=2e-2, abs=1e-2)


def test_languages_and_alignment_are_those_of_ctranslate2(kernels: tuple[Any, Any, whisper.BpeCodec]) -> None:
    ours, other, codec = kernels
    a, b = ours.encode(AUDIO), other.encode(AUDIO)
    for one, told in zip(ours.detect_language(a), other.detect_language(b), strict=True):
        np.testing.assert_allclose([one[code] for code in told], list(told.values()), rtol=2e-2, atol=1e-6)
    texts = [codec.encode(" мама мыла раму"), codec.encode(" папа читал газету")]
    frames = [300, 1200]
    found = ours.align(a, head(codec)[:3], texts, frames)
    expected = other.align(b, head(codec)[:3], texts, frames)
    for one, told in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.probs, told.probs, rtol=2e-2, atol=1e-6)
        assert len(one.frames) == len(told.frames)
        assert np.median(np.abs(np.subtract(one.frames, told.frames))) <= 2


@pytest.mark.parametrize("stamps", [False, True])
def test_an_assistant_changes_nothing_of_the_text(folders: tuple[Path, Path], *, stamps: bool) -> None:
    alone, helped = load(folders[0]), load(folders[0], assistant=folders[1])
    assert helped.options.beam_size == 1
    codec: Any = helped.codec
    search = Search(beam_size=1, max_new=30)
    prompts = [head(codec, stamps=stamps)] * 2
    expected = alone.kernel.generate(alone.kernel.encode(AUDIO), prompts, search)
    asked: list[int] = []
    forward = helped.kernel.assistant.forward  # type: ignore[attr-defined]

    @functools.wraps(forward)  # transformers looks at the signature
    def counted(*args: Any, **more: Any) -> Any:
        asked.append(1)
        return forward(*args, **more)

    helped.kernel.assistant.forward = counted  # type: ignore[attr-defined]
    found = helped.kernel.generate(helped.kernel.encode(AUDIO), prompts, search)
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    np.testing.assert_allclose([one.logprob for one in found], [one.logprob for one in expected], rtol=1e-3)
    assert asked


def test_a_good_assistant_saves_steps_of_the_model(folders: tuple[Path, Path]) -> None:
    """The best there is: the model itself."""

    def steps(**more: Any) -> int:
        model = load(folders[0], **more)
        network: Any = model.kernel.network  # type: ignore[attr-defined]
        encoded = model.kernel.encode(AUDIO[:1])
        count = 0
        forward = network.forward

        @functools.wraps(forward)
        def counted(*args: Any, **inner: Any) -> Any:
            nonlocal count
            count += 1
            return forward(*args, **inner)

        network.forward = counted
        model.kernel.generate(encoded, [head(model.codec)], Search(beam_size=1, max_new=40))  # type: ignore[arg-type]
        return count

    assert steps(assistant=folders[0]) < 0.5 * steps()


def test_sampling_and_beams_run_without_the_assistant(folders: tuple[Path, Path]) -> None:
    model = load(folders[0], assistant=folders[1])
    encoded, prompts = model.kernel.encode(AUDIO), [head(model.codec)] * 2  # type: ignore[arg-type]
    for search in (Search(temperature=0.8, best_of=2, max_new=10), Search(beam_size=3, max_new=10)):
        found = model.kernel.generate(encoded, prompts, search)
        assert [len(one.tokens) for one in found] == [10, 10]
        assert all(-1000 < one.logprob < 0 for one in found)


def test_it_transcribes_like_any_whisper(folders: tuple[Path, Path]) -> None:
    model = load(
        folders[0], assistant=folders[1],
        options=WhisperOptions(language="ru", mode="sequential", vad="none", temperatures=(0.0,), max_new=20),
    )  # fmt: skip
    asr = WhisperAsr(WhisperRecognizer(model), name="assisted", language="ru")
    found = asr.transcribe((noise(5.0), 16000))
    assert found.duration == pytest.approx(5.0)
    assert all(segment.labels["temperature"] == 0.0 for segment in found.segments)


def test_the_cheapest_path_begins_each_row() -> None:
    cost = np.ones((3, 9), np.float32)
    for row, columns in enumerate([(0, 3), (3, 5), (5, 9)]):
        cost[row, slice(*columns)] = -1.0
    assert begins(cost) == [0, 3, 5]
    assert begins(np.zeros((2, 1), np.float32)) == [0, 0]


def test_what_does_not_fit_is_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"tokenizer\.json"):
        load(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA"):
            load(folders[0], device="cuda")
    broken = write_checkpoint(tmp_path / "broken", width=16, layers=1)
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(BadModelFile, match="cannot load"):
        load(broken)
    other = write_checkpoint(tmp_path / "other", width=16, layers=1)
    text = (other / "tokenizer.json").read_text().replace("<|su|>", "<|xx|>")
    (other / "tokenizer.json").write_text(text)
    with pytest.raises(IncompatibleParts, match="other tokens"):
        load(folders[0], assistant=other)
