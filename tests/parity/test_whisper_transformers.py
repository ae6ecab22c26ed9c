"""Whisper with random weights through our parts and through transformers: features, encoder, text, languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ctranslate2")
pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from rechka.decoding.whisper import Search
from rechka.export.whisper import convert
from rechka.features.whisper import WhisperMel
from rechka.hub.layouts import recognise
from rechka.models import whisper
from rechka.testing.whisper import write_checkpoint
from rechka.types import F32


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> F32:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


AUDIO = [noise(3.0), noise(30.0, 1), noise(0.4, 2, 0.003)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, whisper.WhisperModel, Path]:
    folder = write_checkpoint(tmp_path_factory.mktemp("whisper") / "toy", width=32, layers=2, seed=4, scale=0.3)
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
    out = convert(folder, folder.parent / "out", "float32")
    card = recognise(out)
    assert card is not None
    ours = whisper.load({role: out / file.path for role, file in card.files.items()}, {}, threads=1)
    return theirs, ours, folder


@pytest.mark.parametrize("num_mels", [80, 128])
def test_features_of_each_window(num_mels: int) -> None:
    theirs = transformers.WhisperFeatureExtractor(feature_size=num_mels)
    expected = theirs(AUDIO, sampling_rate=16000, return_tensors="np").input_features
    for samples, features in zip(AUDIO, expected, strict=True):
        np.testing.assert_allclose(WhisperMel(num_mels)(samples), features, atol=1e-4)


def features(samples: F32) -> Any:
    return torch.from_numpy(WhisperMel()(samples)[None])


def test_encoder(models: tuple[Any, whisper.WhisperModel, Path]) -> None:
    theirs, ours, _ = models
    for samples in AUDIO:
        with torch.no_grad():
            expected = theirs.model.encoder(features(samples)).last_hidden_state[0].numpy()
        [found] = ours.kernel.encode([samples])
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("with_stamps", [False, True])
def test_greedy_text(models: tuple[Any, whisper.WhisperModel, Path], *, with_stamps: bool) -> None:
    theirs, ours, _ = models
    special = ours.codec.special
    prompt = [special.start, special.languages["ru"], special.transcribe, *([] if with_stamps else [special.no_stamps])]
    for samples in AUDIO:
        with torch.no_grad():
            expected = theirs.generate(
                features(samples), attention_mask=torch.ones(1, 3000), language="ru", task="transcribe", num_beams=1,
                return_timestamps=with_stamps, max_new_tokens=40, do_sample=False, return_dict_in_generate=False,
            )[0].tolist()  # fmt: skip
        expected = [token for token in expected if token not in prompt]
        [found] = ours.kernel.generate(ours.kernel.encode([samples]), [prompt], Search(beam_size=1, max_new=40))
        same = 0
        for a, b in zip(found.tokens, expected, strict=False):
            if a != b:
                break
            same += 1
        if with_stamps and same < 40:
            # transformers decodes anew behind the last pair of stamps that it keeps; up to there all is the same.
            assert same >= 4
            assert all(special.is_stamp(token) for token in expected[same - 2 : same]), (found.tokens, expected)
        else:
            assert same == 40, (found.tokens, expected)


def test_text_scored_by_alignment_and_languages(models: tuple[Any, whisper.WhisperModel, Path]) -> None:
    theirs, ours, _ = models
    special = ours.codec.special
    start = [special.start, special.languages["ru"], special.transcribe]
    text = ours.codec.encode(" мама мыла раму")
    encoded = ours.kernel.encode(AUDIO[:1])
    [found] = ours.kernel.align(encoded, start, [text], [300])
    ids = torch.tensor([[*start, special.no_stamps, *text]])
    with torch.no_grad():
        logits = theirs(input_features=features(AUDIO[0]), decoder_input_ids=ids).logits[0]
    # CTranslate2 takes the probability among text tokens only.
    expected = torch.softmax(logits[3:-1, : special.end], dim=-1)[
        torch.arange(1, 1 + len(text)) - 1, torch.tensor(text)
    ]
    np.testing.assert_allclose(found.probs, expected.numpy(), rtol=2e-2, atol=1e-6)

    with torch.no_grad():
        first = theirs(input_features=features(AUDIO[0]), decoder_input_ids=torch.tensor([[special.start]])).logits[
            0, -1
        ]
    codes = sorted(special.languages, key=lambda code: special.languages[code])
    probabilities = torch.softmax(first[[special.languages[code] for code in codes]], dim=0).numpy()
    [told] = ours.kernel.detect_language(encoded)
    np.testing.assert_allclose([told[code] for code in codes], probabilities, rtol=2e-2, atol=1e-6)


def test_our_conversion_is_that_of_ctranslate2(models: tuple[Any, whisper.WhisperModel, Path], tmp_path: Path) -> None:
    _, _, folder = models
    from ctranslate2.converters import TransformersConverter
    from tokenizers import Tokenizer

    # Their converter wants transformers' own tokenizer object; ours reads the file.
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(folder / "tokenizer.json")))
    converter = TransformersConverter(str(folder))
    converter.load_tokenizer = lambda *args, **kwargs: fast
    try:
        out = Path(converter.convert(str(tmp_path / "theirs")))
    except Exception as error:  # noqa: BLE001  their converter follows transformers' versions, and may lag
        pytest.skip(f"CTranslate2's converter does not take this version of transformers: {error}")
    assert (out / "model.bin").read_bytes() == (folder.parent / "out" / "model.bin").read_bytes()
