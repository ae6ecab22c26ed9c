"""GigaAM's exported graphs against the golden vectors, alone, in batches and in 8 bits; and sherpa-onnx reads them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

from rechka.backends.onnx_file import summarise
from rechka.backends.ort import OrtBackend
from rechka.decoding import CtcGreedy, TransducerGreedy
from rechka.errors import BadModelFile, UsageError
from rechka.export import gigaam as export
from rechka.export.convert import convert
from rechka.export.source import read_source
from rechka.hub.card import Card
from rechka.models import gigaam
from rechka.nn.gigaam_config import GigaAmConfig, completed, unprefixed

GOLDEN = Path(__file__).parents[1] / "data" / "gigaam"
MODELS = ("v1_ctc", "v2_ctc", "v2_rnnt", "v3_ctc", "v3_e2e_ctc", "v3_e2e_rnnt", "v3_ssl", "emo")
ENCODED, LOGPROBS = 1e-3, 5e-3
"""Tolerances of the golden set."""


def samples(name: str) -> np.ndarray:
    with wave.open(str(GOLDEN / f"{name}.wav")) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return data.astype(np.float32) / np.float32(32768)


AUDIO = {wav: samples(wav) for wav in "ab"}


class Case:
    """A golden model in a folder that our converter made, with both precisions."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.card = convert(read_source(GOLDEN / name), folder, int8=True)
        self.task = self.card.params["task"]
        self.role = "model" if self.task in ("ctc", "emo") else "encoder"
        with np.load(GOLDEN / name / "expected.npz") as arrays:
            self.expected = dict(arrays)
        self.cases = json.loads((GOLDEN / name / "expected.json").read_text("utf-8"))["cases"]
        self.exact = self.load(f"{self.role}_fp32")
        self.rough = self.load(self.role)

    def load(self, role: str):
        files = {key: self.folder / file.path for key, file in self.card.files.items()}
        return gigaam.load({**files, self.role: files[role]}, self.card.params, threads=1)


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("models") / request.param)


def test_frames_alone_and_in_a_batch(case):
    if case.task == "emo":
        pytest.skip("gives labels")
    key, tolerance = ("log_probs", LOGPROBS) if case.task == "ctc" else ("encoded", ENCODED)
    together, _ = case.exact.step(list(AUDIO.values()), [0, 0])
    assert case.exact.graph.mix == "any"
    for frames, (wav, audio) in zip(together, AUDIO.items(), strict=True):
        wanted = case.expected[f"{wav}.{key}"]
        wanted = wanted if case.task == "ctc" else wanted.T
        assert frames.values.shape == wanted.shape
        assert np.abs(frames.values - wanted).max() < tolerance
        (alone,), _ = case.exact.step([audio], [0])
        assert np.abs(frames.values - alone.values).max() < 1e-4


def test_texts(case):
    if case.task not in ("ctc", "rnnt"):
        pytest.skip("gives no text")
    model, tokens = case.exact, case.exact.spec.tokens
    greedy = CtcGreedy(tokens) if case.task == "ctc" else TransducerGreedy(model.transducer, tokens)
    together, _ = model.step(list(AUDIO.values()), [0, 0])
    beams = greedy.advance([greedy.begin(), greedy.begin()], together)
    for wav, beam in zip("ab", beams, strict=True):
        found = greedy.best(beam)
        assert list(found.tokens) == case.cases[wav]["token_ids"]
        assert tokens.text(found.tokens).removeprefix(" " if tokens.pieces else "") == case.cases[wav]["text"]


def test_emotion(case):
    if case.task != "emo":
        pytest.skip("gives no labels")
    for model, tolerance in ((case.exact, 1e-4), (case.rough, 0.05)):
        for wav, found in zip("ab", model.labels(list(AUDIO.values())), strict=True):
            assert found["emotion"] == pytest.approx(case.cases[wav]["probs"], abs=tolerance)
            assert model.labels([AUDIO[wav]])[0]["emotion"] == pytest.approx(found["emotion"], abs=1e-3)


def test_8_bits_stay_close_and_do_not_depend_on_company(case):
    if case.task == "emo":
        pytest.skip("gives labels")
    exact, _ = case.exact.step(list(AUDIO.values()), [0, 0])
    rough, _ = case.rough.step(list(AUDIO.values()), [0, 0])
    for one, other in zip(exact, rough, strict=True):
        if case.task == "ctc":
            assert np.abs(np.exp(one.values) - np.exp(other.values)).max() < 0.3
            assert (one.values.argmax(axis=1) == other.values.argmax(axis=1)).mean() > 0.85
        else:
            assert np.sqrt(np.mean((one.values - other.values) ** 2)) < 0.1 * np.sqrt(np.mean(one.values**2))
    # Not through the model, which runs item by item when a graph leaks: here the graph itself is asked.
    backend = OrtBackend(case.folder / case.card.files[case.role].path, threads=1)
    features = np.random.default_rng(0).normal(-8, 4, (2, 64, 90)).astype(np.float32)
    features[0, :, 41:] = 100.0  # what must not be heard
    lengths = np.array([41, 90])
    names = list(backend.inputs)
    both = backend.run({names[0]: features, names[1]: lengths})[backend.outputs[0]]
    alone = backend.run({names[0]: features[:1, :, :41], names[1]: lengths[:1]})[backend.outputs[0]]
    axis = 0 if case.task == "ctc" else 1
    count = alone.shape[axis + 1]
    assert np.abs(both[0].take(range(count), axis) - alone[0]).max() < 0.05 * max(1.0, np.abs(alone).max())


def test_names_and_sizes_are_the_published_ones(case):
    graph = case.card.files.get(f"{case.role}_fp32").path
    backend = OrtBackend(case.folder / graph, threads=1)
    first, lengths = ("audio_signal", "length") if case.role == "encoder" else ("features", "feature_lengths")
    assert dict(backend.inputs) == {
        first: ((None, 64, None), np.dtype(np.float32)),
        lengths: ((None,), np.dtype(np.int64)),
    }
    outputs = {"ctc": ("log_probs", "encoded_lengths"), "emo": ("probs",)}
    assert backend.outputs == outputs.get(case.task, ("encoded", "encoded_len"))
    assert backend.metadata["is_giga_am"] == "1"
    assert backend.metadata["subsampling_factor"] == "4"
    if case.task == "rnnt":
        decoder, joiner = (OrtBackend(case.folder / f"{part}.onnx", threads=1) for part in ("decoder", "joiner"))
        hidden = int(backend.metadata["pred_hidden"])
        state = ((1, None, hidden), np.dtype(np.float32))
        assert dict(decoder.inputs) == {"x": ((None, 1), np.dtype(np.int64)), "hi": state, "ci": state}
        assert decoder.outputs == ("dec", "ho", "co")
        assert list(joiner.inputs) == ["enc", "dec"]
        assert joiner.outputs == ("joint",)


def test_the_front_end_is_that_of_the_checkpoint(case):
    arrays = read_source(GOLDEN / case.name).arrays
    with np.load(case.folder / "frontend.npz") as tables:
        assert np.array_equal(tables["window"], arrays["preprocessor.featurizer.0.spectrogram.window"])
        assert np.array_equal(tables["fb"], arrays["preprocessor.featurizer.0.mel_scale.fb"])


def test_longer_than_any_table(case):
    """The reference breaks off at 5000 frames; here positions are computed, so only memory limits the length."""
    if case.name not in ("v1_ctc", "v3_ctc"):
        pytest.skip("two kinds of positions are enough")
    frames = 4 * 1500 + 1
    backend = OrtBackend(case.folder / "model.onnx", threads=1)
    features = np.random.default_rng(0).normal(-8, 4, (1, 64, frames)).astype(np.float32)
    out = backend.run({"features": features, "feature_lengths": np.array([frames])})
    assert out["log_probs"].shape[1] == out["encoded_lengths"][0] == 1501
    assert np.isfinite(out["log_probs"]).all()


def source(name: str):
    found = read_source(GOLDEN / name)
    config = GigaAmConfig.from_published(found.config)
    return completed(unprefixed(found.arrays), config), config


def test_weights_beyond_two_gigabytes_lie_beside_the_graph(tmp_path, monkeypatch):
    weights, config = source("v3_ctc")
    monkeypatch.setattr(export, "LARGEST_FILE", 1000)
    monkeypatch.setattr("rechka.export.gigaam_graph.LARGE", 1000)
    written = export.export_gigaam(weights, config, tmp_path)
    assert written.files == {"model": "model.onnx", "model_data": "model.onnx.data"}
    assert (tmp_path / "model.onnx.data").stat().st_size > 50_000
    features = {"features": np.zeros((1, 64, 50), np.float32), "feature_lengths": np.array([50])}
    beside = OrtBackend(tmp_path / "model.onnx", threads=1).run(features)["log_probs"]
    monkeypatch.undo()
    export.export_gigaam(weights, config, tmp_path)
    assert np.array_equal(beside, OrtBackend(tmp_path / "model.onnx", threads=1).run(features)["log_probs"])


@pytest.mark.parametrize(("name", "place"), [("v3_ctc", "model"), ("v3_ssl", "encoder"), ("emo", "model")])
def test_a_graph_that_says_something_else_is_not_written(tmp_path, monkeypatch, name, place):
    weights, config = source(name)
    changed = {**weights, "encoder.layers.1.norm_out.bias": weights["encoder.layers.1.norm_out.bias"] + 0.3}
    build = export.build_main
    monkeypatch.setattr(export, "build_main", lambda given, *rest, **more: build(changed, *rest, **more))
    with pytest.raises(BadModelFile, match=f"{place}.onnx was not written, for it does not say what torch says"):
        export.export_gigaam(weights, config, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["build_decoder", "build_joiner"])
def test_a_wrong_search_is_not_written(tmp_path, monkeypatch, part):
    weights, config = source("v2_rnnt")
    changed = {name: array * 1.2 if name.startswith("head") else array for name, array in weights.items()}
    build = getattr(export, part)
    monkeypatch.setattr(export, part, lambda given, *rest: build(changed, *rest))
    with pytest.raises(BadModelFile, match="not written"):
        export.export_gigaam(weights, config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_precision(tmp_path):
    weights, config = source("v3_ctc")
    with pytest.raises(UsageError, match="fp32, int8"):
        export.export_gigaam(weights, config, tmp_path, precision="int4")


def test_predictors_of_several_layers(tmp_path):
    """None is published, but the configuration has the number."""
    weights, config = source("v2_rnnt")
    deeper = {name.replace("_l0", "_l1"): array[..., ::-1] for name, array in weights.items() if "_l0" in name}
    config = GigaAmConfig(**{**config.to_dict(), "pred_layers": 2})
    export.export_gigaam({**weights, **deeper}, config, tmp_path)  # compares with torch
    assert OrtBackend(tmp_path / "decoder.onnx", threads=1).inputs["hi"][0] == (2, None, 20)


@pytest.mark.skipif(importlib.util.find_spec("sherpa_onnx") is None, reason="sherpa-onnx is not installed")
def test_sherpa_onnx_reads_our_ctc_files(tmp_path):
    """sherpa-onnx, with its own front end for GigaAM, finds the text that our graph has for those features."""
    knf = pytest.importorskip("kaldi_native_fbank")
    paths = []
    for wav, audio in AUDIO.items():
        paths.append(str(tmp_path / f"{wav}.npy"))
        np.save(paths[-1], audio)
    folders = [tmp_path / name for name in ("v1_ctc", "v2_ctc", "v3_ctc")]
    for folder in folders:
        convert(read_source(GOLDEN / folder.name), folder)
    jobs = [{"kind": "nemo_ctc", "folder": str(folder), "audio": paths} for folder in folders]
    worker = Path(__file__).with_name("sherpa_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker)], input=json.dumps(jobs), capture_output=True, text=True, timeout=300, check=False
    )
    assert "RESULT" in done.stdout, done.stderr[-2000:]
    for folder, results in zip(folders, json.loads(done.stdout.rpartition("RESULT")[2]), strict=True):
        card = Card.read(folder / "card.toml")
        files = {role: folder / file.path for role, file in card.files.items()}
        model = gigaam.load(files, card.params, threads=1)
        tokens = model.spec.tokens
        for audio, result in zip(AUDIO.values(), results, strict=True):
            features = sherpas_features(knf, audio)
            best = model.graph([features])[0].argmax(axis=1)[: len(features) // 4]  # it rounds down, losing a frame
            kept = [int(t) for t, before in zip(best, [-1, *best[:-1]], strict=True) if t not in (before, tokens.blank)]
            assert len(kept) > 3
            assert result["text"].strip() == tokens.text(kept).strip()


def sherpas_features(knf, audio: np.ndarray) -> np.ndarray:
    """(T, 64) as sherpa-onnx 2.0.1 was found to compute them: pre-emphasised windows of 25 ms for every GigaAM."""
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.frame_opts.remove_dc_offset = False
    options.frame_opts.preemph_coeff = 0.97
    options.frame_opts.window_type = "hann"
    options.frame_opts.round_to_power_of_two = True
    options.mel_opts.num_bins = 64
    options.mel_opts.low_freq = 0.0
    options.mel_opts.high_freq = 8000.0
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, audio.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)]).astype(np.float32)


def test_weights_are_summarised_like_others(case):
    """The shape of the first convolution tells which front end the graph belongs to."""
    if case.task == "emo":
        pytest.skip("like v1")
    from rechka.models.gigaam_graphs import front_of

    assert front_of(summarise(case.folder / case.card.files[case.role].path).weights) is case.card.params["center"]
