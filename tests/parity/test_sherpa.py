"""The same files in sherpa-onnx and in rechka: tokens and times must be equal. Needs sherpa-onnx, which runs apart."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
if importlib.util.find_spec("sherpa_onnx") is None:
    pytest.skip("sherpa-onnx is not installed", allow_module_level=True)

from rechka.decoding import build_decoder
from rechka.features import kaldi
from rechka.models import tone, zipformer
from rechka.options import DecoderOptions
from rechka.protocols import Decoder
from rechka.testing.transducers import KINDS, write_transducer
from rechka.types import F32, LogProbs

WORKER = Path(__file__).with_name("sherpa_worker.py")
METHODS = {
    "greedy_search": DecoderOptions(kind="greedy"),
    # sherpa-onnx prunes by number only.
    "modified_beam_search": DecoderOptions(
        kind="beam", beam_width=4, beam_prune_logp=-1e9, token_min_logp=-1e9, length_norm=True
    ),
}
SECONDS = (4.0, 2.3, 6.1)


def sweep(seconds: float, seed: int, rate: int = 16000) -> F32:
    """A tone that goes up and down in loudness and pitch, in noise."""
    time = np.arange(round(seconds * rate)) / rate
    loud = 0.3 * np.abs(np.sin(2 * np.pi * 1.3 * time))
    tone_ = loud * np.sin(2 * np.pi * (300 + 200 * np.sin(3 * time)) * time)
    return (tone_ + 0.05 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def sherpa(jobs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What sherpa-onnx makes of the jobs."""
    done = subprocess.run(
        [sys.executable, str(WORKER)], input=json.dumps(jobs), capture_output=True, text=True, timeout=300, check=False
    )
    assert "RESULT" in done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout.rpartition("RESULT")[2])


def save(folder: Path, samples: list[NDArray[np.float32]], name: str) -> list[str]:
    paths = [str(folder / f"{name}{i}.npy") for i in range(len(samples))]
    for path, values in zip(paths, samples, strict=True):
        np.save(path, values)
    return paths


@pytest.fixture(scope="module")
def transducers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """(kind, method) -> folder, audio, sherpa's results."""
    folder = tmp_path_factory.mktemp("sherpa")
    audio = [sweep(seconds, seed) for seed, seconds in enumerate(SECONDS)]
    paths = save(folder, audio, "audio")
    keys, jobs = [], []
    for kind in KINDS:
        model = write_transducer(folder / kind, kind, blank=10.0)
        for method in METHODS:
            keys.append((kind, method))
            job = "offline" if kind == "offline" else "online"
            jobs.append({"kind": job, "folder": str(model), "method": method, "audio": paths})
    return {key: (folder / key[0], audio, result) for key, result in zip(keys, sherpa(jobs), strict=True)}


def as_far_as_sherpa(samples: F32, model: zipformer.StreamingZipformer) -> F32:
    """The chunks that sherpa-onnx decodes of a finished stream: all that end before the last frame."""
    chunk, shift = model.spec.chunk, model.spec.shift
    assert chunk is not None
    assert shift is not None
    length = (chunk - kaldi.REACH) // kaldi.HOP + 1
    chunks = -(-(kaldi.num_frames(len(samples)) - length) // (shift // kaldi.HOP))
    return samples[: chunk + (chunks - 1) * shift]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_transducer_tokens_and_times(transducers: Any, kind: str, method: str) -> None:
    folder, audio, golden = transducers[kind, method]
    files = {role: folder / f"{role}.onnx" for role in ("encoder", "decoder", "joiner")}
    model = zipformer.load({**files, "tokens": folder / "tokens.txt"}, {}, threads=1)
    if isinstance(model, zipformer.StreamingZipformer):
        audio = [as_far_as_sherpa(samples, model) for samples in audio]
    frames, _ = model.step(audio, [model.initial_state() for _ in audio])
    assert model.spec.tokens is not None
    decoder: Decoder[Any] = build_decoder(model.spec.tokens, METHODS[method], transducer=model.transducer)
    for beam, theirs in zip(decoder.advance([decoder.begin() for _ in frames], frames), golden, strict=True):
        best = decoder.best(beam)
        assert len(best.tokens) > 5
        assert [model.spec.tokens.symbols[token] for token in best.tokens] == [
            token.replace("\u2581", " ") for token in theirs["tokens"]
        ]
        np.testing.assert_allclose(np.array(best.frames) * 0.04, theirs["timestamps"], atol=1e-3)
        assert model.spec.tokens.text(best.tokens).split() == theirs["text"].split()


def test_t_one_text(tmp_path: Path) -> None:
    """Our export of T-one, read by sherpa-onnx, which leaves the last chunk out."""
    from rechka.export.onnx import read_config
    from rechka.export.tone import build, tokens_text
    from rechka.nn.weights import read_weights

    data = Path(__file__).parents[1] / "data" / "tone"
    graph = build(
        read_weights(data / "mini.safetensors"), read_config(data / "mini_config.json"), form="published",
        precision="fp32", state="float16",
    )  # fmt: skip
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    (tmp_path / "tokens.txt").write_text(tokens_text(), encoding="utf-8")
    chunks = 15
    samples = sweep(chunks * 0.3, 5, tone.SAMPLE_RATE)
    job = {
        "kind": "t_one", "folder": str(tmp_path), "audio": save(tmp_path, [samples], "tone"), "rate": tone.SAMPLE_RATE
    }  # fmt: skip
    ((theirs,),) = sherpa([job])
    model = tone.load({"model": tmp_path / "model.onnx"}, {}, threads=1)
    # It cuts samples off to integers where we round.
    heard = np.trunc(samples[: (chunks - 1) * tone.CHUNK] * tone.SCALE) / tone.SCALE
    frames, _ = model.step([heard.astype(np.float32)], [model.initial_state()])
    decoder: Decoder[Any] = build_decoder(tone.TOKENS, DecoderOptions(kind="greedy"))
    (beam,) = decoder.advance([decoder.begin()], frames)
    text = tone.TOKENS.text(decoder.best(beam).tokens)
    assert len(text) > 5
    assert text == theirs["text"]


DATA = Path(__file__).parents[1] / "data" / "gigaam"


def as_sherpa_hears(samples: F32) -> F32:
    """GigaAM features (T, 64) of sherpa-onnx, which are not GigaAM's.

    Its offline streams keep Kaldi's pre-emphasis and its transform of 512 points, whatever its recogniser sets.
    """
    knf = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.remove_dc_offset = False
    options.frame_opts.window_type = "hann"
    options.mel_opts.num_bins = 64
    options.mel_opts.low_freq, options.mel_opts.high_freq = 0, 8000
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, samples.tolist())
    bank.input_finished()
    return np.array([bank.get_frame(i) for i in range(bank.num_frames_ready)], np.float32)


def test_gigaam_ctc_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Our export of GigaAM v2 CTC, read by sherpa-onnx: from the same features comes the same text."""
    safetensors = pytest.importorskip("safetensors.numpy")
    pytest.importorskip("torch")
    from rechka.cli.main import main
    from rechka.features.gigaam import log_mel
    from rechka.hub.registry import find
    from rechka.models import gigaam

    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(DATA / "v2_ctc" / "config.json", source)
    front = log_mel(400, center=True)
    tables = {"spectrogram.window": front.window, "mel_scale.fb": front.fb}
    weights = safetensors.load_file(DATA / "v2_ctc" / "model.safetensors")
    weights |= {f"preprocessor.featurizer.0.{name}": np.ascontiguousarray(value) for name, value in tables.items()}
    safetensors.save_file(weights, source / "model.safetensors")
    folder = tmp_path / "model"
    assert main(["models", "convert", str(source), "--out", str(folder)]) == 0, capsys.readouterr().err

    audio = []
    for name in "ab":
        with wave.open(str(DATA / f"{name}.wav")) as file:
            audio.append(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768)
    (golden,) = sherpa([{"kind": "nemo_ctc", "folder": str(folder), "audio": save(tmp_path, audio, "audio")}])
    entry = find(folder)
    model = gigaam.load(entry.on_disk(), entry.card.params, threads=1)
    assert isinstance(model, gigaam.GigaAm)
    assert model.spec.tokens is not None
    decoder: Decoder[Any] = build_decoder(model.spec.tokens, DecoderOptions(kind="greedy"))
    for samples, theirs in zip(audio, golden, strict=True):
        features = as_sherpa_hears(samples)
        (values,) = model.graph([features])
        # It counts T // 4 frames, one less than there are where T is no multiple of four.
        (beam,) = decoder.advance([decoder.begin()], [LogProbs(values[: len(features) // 4])])
        text = model.spec.tokens.text(decoder.best(beam).tokens)
        assert len(text) > 5
        assert text.strip() == theirs["text"].strip()
