"""``rechka.compat.tone`` against vectors of the original package, and its face: names, arguments, shapes, errors."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rechka.compat import tone
from rechka.compat.tone import (
    BeamSearchCTCDecoder,
    DecoderType,
    GreedyCTCDecoder,
    StreamingCTCModel,
    StreamingCTCPipeline,
    StreamingLogprobSplitter,
    TextPhrase,
)
from rechka.errors import RechkaError

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the original publishes it, with the small model of the golden vectors."""
    pytest.importorskip("onnx")
    from rechka.export.onnx import read_config
    from rechka.export.tone import build
    from rechka.nn.weights import read_weights

    config = read_config(DATA / "tone/mini_config.json")
    graph = build(
        read_weights(DATA / "tone/mini.safetensors"), config, form="published", precision="fp32", state="float32"
    )
    place = tmp_path_factory.mktemp("tone")
    (place / "model.onnx").write_bytes(graph.SerializeToString())
    shutil.copy(DATA / "tone/lm.arpa", place)
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> StreamingCTCModel:
    return StreamingCTCModel.from_local(folder / "model.onnx")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads((DATA / "tone/splitter_decoder.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def logprobs() -> np.ndarray:
    return np.load(DATA / "tone/splitter_logprobs.npz")["logprobs"]


def test_model_gives_the_log_probs_of_the_original(model: StreamingCTCModel) -> None:
    vectors = np.load(DATA / "tone/mini_streaming.npz")
    state = None
    for audio, wanted, after in zip(vectors["audio"], vectors["logprobs"], vectors["state_next"], strict=True):
        found, state = model.forward(audio.astype(np.int32)[:, :, None], state)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        np.testing.assert_allclose(state, after, atol=1e-4)


def split(logprobs: np.ndarray, chunk: int) -> list[tuple[int, tone.LogprobPhrase]]:
    splitter, state, phrases = StreamingLogprobSplitter(), None, []
    for first in range(0, len(logprobs), chunk):
        found, state = splitter.forward(logprobs[first : first + chunk], state, is_last=first + chunk >= len(logprobs))
        phrases += [(first // chunk, phrase) for phrase in found]
    return phrases


def test_splitter_and_decoders(golden: dict[str, Any], logprobs: np.ndarray) -> None:
    greedy, beam = GreedyCTCDecoder(), BeamSearchCTCDecoder.from_local(DATA / "tone/lm.arpa")
    found = split(logprobs, golden["chunk_frames"])
    for (chunk, phrase), wanted in zip(found[:4], golden["phrases"][:4], strict=True):
        assert (chunk, phrase.start_frame, phrase.end_frame) == (
            wanted["chunk"], wanted["start_frame"], wanted["end_frame"],
        )  # fmt: skip
        begin = wanted["start_frame"] - 3
        assert np.array_equal(phrase.logprobs, logprobs[begin : begin + wanted["n_logprobs"]])
        assert greedy.forward(phrase.logprobs) == wanted["greedy"]
        assert beam.forward(phrase.logprobs) == wanted["beam_lm"]


def test_a_long_phrase_is_cut_without_loss(golden: dict[str, Any], logprobs: np.ndarray) -> None:
    first, last = golden["phrases"][4], golden["phrases"][5]
    parts = [phrase for _, phrase in split(logprobs, golden["chunk_frames"])[4:]]
    assert len(parts) == 2
    whole = logprobs[first["start_frame"] - 3 : last["end_frame"] + 3]
    assert np.array_equal(np.concatenate([part.logprobs for part in parts]), whole)


@pytest.mark.parametrize("chunk", [1, 13, 4000])
def test_the_chunk_does_not_matter_to_the_splitter(chunk: int, golden: dict[str, Any], logprobs: np.ndarray) -> None:
    for (_, mine), (_, theirs) in zip(split(logprobs, chunk), split(logprobs, golden["chunk_frames"]), strict=True):
        assert (mine.start_frame, mine.end_frame) == (theirs.start_frame, theirs.end_frame)
        assert np.array_equal(mine.logprobs, theirs.logprobs)


class Scripted(StreamingCTCModel):
    """A model that answers with given log-probs, ten frames at a time, whatever it hears."""

    def __init__(self, logprobs: np.ndarray) -> None:
        self.logprobs = logprobs

    def forward(self, audio_chunk: np.ndarray, state: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        done = 0 if state is None else int(state[0])
        return self.logprobs[None, done : done + 10], np.array([done + 10])


def test_pipeline_times_are_those_of_the_original(golden: dict[str, Any], logprobs: np.ndarray) -> None:
    pipeline = StreamingCTCPipeline(Scripted(logprobs), StreamingLogprobSplitter(), GreedyCTCDecoder())
    count = len(logprobs) // golden["chunk_frames"]
    found = pipeline.forward_offline(np.zeros((count - 2) * 2400, np.int32))
    wanted = [
        TextPhrase(phrase["greedy"], phrase["start_time"], phrase["end_time"]) for phrase in golden["phrases"][:4]
    ]
    assert found[:4] == wanted
    state, streamed = None, []
    for _ in range(count - 1):
        phrases, state = pipeline.forward(np.zeros(2400, np.int32), state)
        streamed += phrases
    phrases, _ = pipeline.finalize(state)
    assert streamed + phrases == found


def test_online_and_offline_agree_on_a_recording(folder: Path) -> None:
    recording = DATA / "audio/speech.wav"
    pipeline = StreamingCTCPipeline.from_local(folder, decoder_type=DecoderType.GREEDY)
    audio = tone.read_audio(recording)
    state, streamed = None, []
    chunks = list(tone.read_stream_example_audio(recording))
    for chunk in chunks:
        assert chunk.shape == (2400,)
        phrases, state = pipeline.forward(chunk, state, is_last=chunk is chunks[-1])
        streamed += phrases
    assert streamed == pipeline.forward_offline(audio)


def test_beam_search_takes_the_language_model_of_the_folder(folder: Path) -> None:
    pipeline = StreamingCTCPipeline.from_local(folder)
    assert isinstance(pipeline.decoder, BeamSearchCTCDecoder)
    noise = np.random.default_rng(0).integers(-8000, 8000, 32000, dtype=np.int32)
    phrases = pipeline.forward_offline(noise)
    assert phrases, "random weights hear words in noise"
    assert all(isinstance(phrase, TextPhrase) for phrase in phrases)


def test_read_audio_keeps_every_16_bit_value(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    values = np.arange(-32768, 32768, dtype=np.int16)
    soundfile.write(tmp_path / "all.wav", values, 8000)
    found = tone.read_audio(tmp_path / "all.wav")
    assert found.dtype == np.int32
    assert np.array_equal(found, values)


CHUNK = np.zeros(2400, np.int32)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda p: p.forward([0] * 2400), TypeError),
        (lambda p: p.forward(CHUNK[:-1]), ValueError),
        (lambda p: p.forward(CHUNK.astype(np.float32)), ValueError),
        (lambda p: p.forward(CHUNK + 40000), ValueError),
        (lambda p: p.forward(CHUNK, "state"), TypeError),
        (lambda p: p.forward_offline("call.wav"), TypeError),
        (lambda p: p.forward_offline(np.zeros((2, 2400), np.int32)), ValueError),
        (lambda p: p.forward_offline(np.zeros(2400)), ValueError),
        (lambda p: p.model.forward(CHUNK[None, :, None], np.zeros((1, 7), np.float32)), ValueError),
        (lambda p: p.model.forward(CHUNK[None, :, None], 7), TypeError),
        (lambda p: p.logprob_splitter.forward(np.zeros((3, 34), np.float32)), ValueError),
        (lambda p: p.logprob_splitter.forward(np.zeros((3, 35), np.float32), {}), TypeError),
        (lambda p: p.decoder.forward(np.zeros((3, 35))), ValueError),
        (lambda p: StreamingCTCPipeline.from_local("nowhere"), FileNotFoundError),
        (lambda p: StreamingCTCPipeline.from_local("nowhere", decoder_type="greedy"), ValueError),
        (lambda p: BeamSearchCTCDecoder.from_local("nowhere/kenlm.bin"), FileNotFoundError),
        (lambda p: tone.read_example_audio(), FileNotFoundError),
        (lambda p: next(tone.read_stream_example_audio(long_audio=True)), FileNotFoundError),
        (lambda p: tone.read_audio("nowhere.wav"), FileNotFoundError),
    ],
)
def test_mistakes_are_the_errors_of_the_original_and_ours(folder: Path, call: Any, kind: type[Exception]) -> None:
    pipeline = StreamingCTCPipeline.from_local(folder, decoder_type=DecoderType.GREEDY)
    with pytest.raises(RechkaError) as caught:
        call(pipeline)
    assert isinstance(caught.value, kind)


def test_names_and_arguments() -> None:
    assert set(tone.__all__) == {
        "BeamSearchCTCDecoder", "DecoderType", "GreedyCTCDecoder", "LogprobPhrase", "StreamingCTCModel",
        "StreamingCTCPipeline", "StreamingLogprobSplitter", "TextPhrase", "read_audio", "read_example_audio",
        "read_stream_example_audio",
    }  # fmt: skip

    def arguments(function: Any) -> list[str]:
        return [name for name in inspect.signature(function).parameters if name != "self"]

    assert arguments(StreamingCTCPipeline.forward) == ["audio_chunk", "state", "is_last"]
    assert arguments(StreamingCTCPipeline.from_local) == ["dir_path", "decoder_type"]
    assert arguments(StreamingCTCPipeline) == ["model", "logprob_splitter", "decoder"]
    assert [kind.value for kind in DecoderType] == ["greedy", "beam_search"]
    assert (StreamingCTCPipeline.PADDING, StreamingCTCPipeline.CHUNK_SIZE) == (2400, 2400)
    assert (StreamingCTCModel.FRAME_SIZE, StreamingCTCModel.MEAN_TIME_BIAS) == (0.03, 0.33)
    assert (StreamingCTCModel.SAMPLE_RATE, StreamingCTCModel.STATE_SIZE) == (8000, 219729)


def test_from_hugging_face_pulls_what_it_needs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rechka.testing.fake_hub import FakeHub

    files = {"model.onnx": (folder / "model.onnx").read_bytes(), "kenlm.bin": (folder / "lm.arpa").read_bytes()}
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "RECHKA_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FakeHub(repo="t-tech/T-one", files=files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        StreamingCTCPipeline.from_hugging_face(decoder_type=DecoderType.GREEDY)
        assert not list(tmp_path.rglob("kenlm.bin"))
        StreamingCTCPipeline.from_hugging_face()
        StreamingCTCPipeline.download_from_hugging_face(tmp_path / "copy", only_acoustic=True)
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["model.onnx"]
    monkeypatch.setenv("RECHKA_OFFLINE", "1")
    assert isinstance(StreamingCTCPipeline.from_hugging_face().decoder, BeamSearchCTCDecoder)
