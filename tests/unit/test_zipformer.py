"""The zipformer family on graphs with random weights: folders as they are published, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import rechka
from rechka.backends.ort import OrtBackend
from rechka.errors import BadCard, BadModelFile, BadSamples, ModelNotFound
from rechka.hub.card import Card
from rechka.hub.layouts import icefall, recognise
from rechka.models import zipformer
from rechka.models.stateless import StatelessTransducer
from rechka.options import DecoderOptions
from rechka.testing.transducers import KINDS, PIECES, write_transducer
from rechka.types import F32

ROLES = ("encoder", "decoder", "joiner")


def opened(folder: Path, **params: Any) -> Any:
    card = recognise(folder)
    assert card is not None
    files = {role: folder / file.path for role, file in card.files.items()}
    return zipformer.load(files, params, threads=1)


def noise(seconds: float, seed: int = 0) -> F32:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(16000 * seconds))).astype(np.float32)


LAYOUTS = {
    "sherpa-onnx": {"names": "{}.onnx", "tokens": "tokens.txt"},
    "sherpa-onnx with epochs": {"names": "{}-epoch-99-avg-1-chunk-16-left-128.onnx", "tokens": "tokens.txt"},
    "sherpa-onnx int8": {"names": "{}.int8.onnx", "tokens": "tokens.txt"},
    "Vosk 5": {"names": "am-onnx/{}.onnx", "tokens": "lang/tokens.txt"},
    "Vosk 5, small": {"names": "am/{}.onnx", "tokens": "lang/tokens.txt"},
    "icefall": {"names": "exp/{}-epoch-30-avg-4.onnx", "tokens": "data/lang_bpe_500/tokens.txt"},
}


@pytest.mark.parametrize("kind", ["offline", "zipformer2"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_folders_are_recognised(tmp_path: Path, layout: str, kind: str) -> None:
    folder = write_transducer(tmp_path / "Vosk Model RU", kind, **LAYOUTS[layout])
    card = recognise(folder)
    assert card is not None
    assert (card.family, card.language, card.name) == ("zipformer", "ru", "vosk-model-ru")
    assert Card.parse(card.to_toml()) == card
    assert all((folder / file.path).is_file() for file in card.files.values())
    assert ("min_silence_s" in card.segmenter) == (kind != "offline")
    model = opened(folder)
    assert isinstance(model, zipformer.ZipformerModel if kind == "offline" else zipformer.StreamingZipformer)
    assert len(model.spec.tokens) == len(PIECES)  # without #0 and #1


def test_vosk_folder_with_everything_that_is_published(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "m", "offline", names="am-onnx/{}.onnx", tokens="lang/tokens.txt")
    write_transducer(folder, "offline", names="am-onnx/{}.int8.onnx", tokens="lang/tokens.txt")
    (folder / "am").mkdir()
    for name in ("am/jit_script.pt", "lang/bpe.model", "lang/unigram_500.vocab", "README.md", "decode.py"):
        (folder / name).write_bytes(b"not looked at")
    card = icefall(folder)
    assert card is not None
    assert {role: file.path for role, file in card.files.items()} == {
        **{role: f"am-onnx/{role}.onnx" for role in ROLES}, "tokens": "lang/tokens.txt"
    }  # fmt: skip
    small = icefall(folder, precision="int8")
    assert small is not None
    assert [small.files[role].path for role in ROLES] == [
        "am-onnx/encoder.int8.onnx", "am-onnx/decoder.onnx", "am-onnx/joiner.int8.onnx"
    ]  # fmt: skip


@pytest.mark.parametrize("missing", [*ROLES, "tokens"])
@pytest.mark.parametrize("layout", ["Vosk 5", "sherpa-onnx"])
def test_an_incomplete_folder_names_what_is_missing(tmp_path: Path, layout: str, missing: str) -> None:
    folder = write_transducer(tmp_path / "m", "offline", **LAYOUTS[layout])
    path = LAYOUTS[layout]["tokens"] if missing == "tokens" else LAYOUTS[layout]["names"].format(missing)
    (folder / path).unlink()
    with pytest.raises(ModelNotFound) as caught:
        rechka.load(folder)
    assert Path(path).name in str(caught.value)


def test_other_folders_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"")
    (tmp_path / "decoder.onnx").write_bytes(b"")
    assert icefall(tmp_path) is None
    (tmp_path / "am").mkdir()
    (tmp_path / "am" / "final.mdl").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="Kaldi model of Vosk before version 5"):
        rechka.load(tmp_path)


def test_vosk_folder_without_its_onnx_part(tmp_path: Path) -> None:
    (tmp_path / "am").mkdir()
    (tmp_path / "am" / "jit_script.pt").write_bytes(b"")
    with pytest.raises(ModelNotFound, match=r"am-onnx.encoder\.onnx"):
        rechka.load(tmp_path)


@pytest.mark.parametrize("kind", ["zipformer2", "zipformer"])
def test_a_stream_is_transcribed_with_words_and_times(tmp_path: Path, kind: str) -> None:
    asr = rechka.load(write_transducer(tmp_path / "m", kind, blank=10.0), threads=1)
    audio = np.concatenate([noise(3.0), np.zeros(8000, np.float32)])
    result = asr.transcribe((audio, 16000))
    assert result.words
    assert result.text == " ".join(word.text for word in result.words)
    times = [time for word in result.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= result.duration
    assert all(0 <= word.confidence <= 1 for word in result.words if word.confidence is not None)


def test_hotwords_make_a_word_likelier(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "m", "zipformer2", blank=10.0)
    asr = rechka.load(folder, threads=1, decoder=DecoderOptions(kind="beam", beam_width=8, token_min_logp=-30.0))
    audio = (noise(3.0), 16000)
    plain = asr.transcribe(audio).text
    word = "бама"
    assert word not in plain
    assert word in asr.transcribe(audio, hotwords={word: 60.0}).text


def test_short_phrases_are_padded(tmp_path: Path) -> None:
    model = opened(write_transducer(tmp_path / "m", "offline"))
    frames, _ = model.step([noise(0.01)[:n] for n in (0, 1, 100, 160)], [0] * 4)
    assert [len(piece) for piece in frames] == [2] * 4


@pytest.mark.parametrize("kind", ["offline", "zipformer2"])
@pytest.mark.parametrize(
    "samples",
    [np.full(7320, np.nan, np.float32), np.full(7320, 3e4, np.float32), np.zeros((2, 7320), np.float32)],
    ids=["nan", "integers", "two channels"],
)
def test_what_is_no_audio_is_refused(tmp_path: Path, kind: str, samples: F32) -> None:
    model = opened(write_transducer(tmp_path / "m", kind))
    with pytest.raises(BadSamples):
        model.step([samples], [model.initial_state()])


def test_a_part_of_a_chunk_is_refused(tmp_path: Path) -> None:
    model = opened(write_transducer(tmp_path / "m", "zipformer2"))
    with pytest.raises(BadSamples, match="7320"):
        model.step([np.zeros(7319, np.float32)], [model.initial_state()])


def test_lag_moves_words(tmp_path: Path) -> None:
    assert opened(write_transducer(tmp_path / "m", "zipformer2"), lag_ms=200).spec.lag == 3200


@pytest.mark.parametrize("params", [{"lag_ms": "much"}, {"lag_ms": -1}, {"lag": 3}])
def test_parameters_are_checked(tmp_path: Path, params: dict[str, Any]) -> None:
    with pytest.raises(BadCard):
        opened(write_transducer(tmp_path / "m", "offline"), **params)


def test_a_card_without_a_role_is_refused(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "m", "offline")
    with pytest.raises(BadCard, match="'joiner' and 'tokens'"):
        zipformer.load({role: folder / f"{role}.onnx" for role in ("encoder", "decoder")}, {})


def edited(path: Path, change: Any) -> None:
    import onnx

    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def without(key: str) -> Any:
    def change(model: Any) -> None:
        kept = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)

    return change


def with_value(key: str, value: str) -> Any:
    def change(model: Any) -> None:
        without(key)(model)
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value

    return change


def dropped_output(model: Any) -> None:
    del model.graph.output[1]


@pytest.mark.parametrize(
    ("role", "change", "told"),
    [
        ("encoder", without("decode_chunk_len"), "decode_chunk_len"),
        ("encoder", with_value("T", "-5"), "tell T"),
        ("encoder", with_value("T", "46"), "reads 45 frames"),
        ("encoder", with_value("decode_chunk_len", "40"), "expected 10"),
        ("encoder", with_value("feature", "whisper"), "whisper"),
        ("encoder", dropped_output, "must come back"),
        ("decoder", with_value("context_size", "3"), "context_size"),
    ],
)
def test_graphs_that_do_not_fit_are_told_when_they_are_loaded(
    tmp_path: Path, role: str, change: Any, told: str
) -> None:
    folder = write_transducer(tmp_path / "m", "zipformer2")
    edited(folder / f"{role}.onnx", change)
    with pytest.raises(BadModelFile, match=told):
        opened(folder)


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "m", "zipformer2", width=16)
    write_transducer(tmp_path / "other", "zipformer2", width=20)
    (folder / "encoder.onnx").write_bytes((tmp_path / "other" / "encoder.onnx").read_bytes())
    with pytest.raises(BadModelFile, match="frames of 20, the joiner reads 16"):
        opened(folder)


@pytest.mark.parametrize("text", ["<blk> 0\nа 1\n", "а 0\n<blk> 1\n", "", "<blk>\n", "\x00"])
def test_token_tables_that_do_not_fit_are_refused(tmp_path: Path, text: str) -> None:
    folder = write_transducer(tmp_path / "m", "offline")
    (folder / "tokens.txt").write_text(text, encoding="utf-8")
    with pytest.raises(BadModelFile):
        opened(folder)


def test_exchanged_decoder_and_joiner_are_refused(tmp_path: Path) -> None:
    folder = write_transducer(tmp_path / "m", "offline")
    with pytest.raises(BadModelFile, match="exchanged"):
        StatelessTransducer(OrtBackend(folder / "joiner.onnx"), OrtBackend(folder / "decoder.onnx"))


@pytest.mark.parametrize("kind", KINDS)
def test_unk_and_blank_are_never_emitted(tmp_path: Path, kind: str) -> None:
    model = opened(write_transducer(tmp_path / "m", kind))
    assert model.transducer.skips == (0, 2)
    assert model.spec.tokens.text([1, 3]).strip() == PIECES[3].replace("\u2581", "")  # <sos/eos> has no letters
