"""Models on an inference server, a fake and a real one: the same numbers as here; and what they are served from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("onnx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import rechka
from rechka.backends.ort import OrtBackend
from rechka.backends.triton import TritonBackend
from rechka.cli.main import main
from rechka.errors import BadModelFile, RemoteFailed, UsageError
from rechka.export.convert import convert
from rechka.export.source import read_source
from rechka.export.triton import TritonOptions
from rechka.models.tone import CHUNK, ToneModel
from rechka.models.tone_sequence import SequenceTone
from rechka.testing.kserve import FakeModel, kserve
from rechka.testing.triton import environment, triton

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def tone_folder(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    shutil.copy(DATA / "tone" / "mini.safetensors", source / "model.safetensors")
    shutil.copy(DATA / "tone" / "mini_config.json", source / "config.json")
    folder = source.parent / "mini-tone"
    convert(read_source(source), folder, name="mini-tone")
    return folder


@pytest.fixture(scope="module")
def rnnt_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mini-rnnt"
    convert(read_source(DATA / "gigaam" / "v2_rnnt"), folder, name="mini-rnnt")
    return folder


def signals(*chunks: int) -> list[np.ndarray]:
    return [np.random.default_rng(n).normal(0, 0.1, n * CHUNK).astype(np.float32) for n in chunks]


def same_as_here(remote, folder: Path, tolerance: float = 0.0) -> None:
    """Two steps of three streams that bring different amounts of audio."""
    local = ToneModel(OrtBackend(folder / "model.onnx", threads=1))
    states = [[model.initial_state() for _ in range(3)] for model in (remote, local)]
    for chunks in ((1, 3, 2), (2, 1, 1)):
        audio = signals(*chunks)
        found = []
        for i, model in enumerate((remote, local)):
            frames, states[i] = model.step(audio, states[i])
            found.append(frames)
        for ours, theirs in zip(*found, strict=True):
            assert ours.start == theirs.start
            np.testing.assert_allclose(ours.values, theirs.values, atol=tolerance)


def test_a_model_whose_state_the_client_carries(tone_folder):
    model = FakeModel(OrtBackend(tone_folder / "model.onnx", threads=1), max_batch=2, parameters={"language": "ru"})
    with kserve({"mini-tone": model}) as address:
        backend = TritonBackend(address, "mini-tone")
        assert backend.metadata == {"language": "ru"}
        same_as_here(ToneModel(backend), tone_folder, 1e-5)
        assert {len(request["shapes"]) for request in model.requests} == {2}
        assert max(request["shapes"]["signal"][0] for request in model.requests) == 2  # three streams in two requests


def test_a_model_whose_state_the_server_keeps(tone_folder):
    model = FakeModel(OrtBackend(tone_folder / "model.onnx", threads=1), max_batch=1, sequences=True)
    with kserve({"mini-tone": model}) as address:
        same_as_here(SequenceTone(TritonBackend(address, "mini-tone")), tone_folder, 1e-5)
    assert all(set(request["shapes"]) == {"signal"} for request in model.requests)
    assert len(model.states) == 3
    assert sum(bool(request.get("sequence_start")) for request in model.requests) == 3


def test_a_step_that_fails_for_one_stream_may_be_asked_for_again(tone_folder):
    model = FakeModel(OrtBackend(tone_folder / "model.onnx", threads=1), max_batch=1, sequences=True)
    audio = signals(1, 2)
    local = ToneModel(OrtBackend(tone_folder / "model.onnx", threads=1))
    expected, _ = local.step(audio, [local.initial_state(), local.initial_state()])
    with kserve({"m": model}) as address:
        remote = SequenceTone(TritonBackend(address, "m"))
        states = [remote.initial_state(), remote.initial_state()]
        model.fail_at = {1}
        with pytest.raises(RemoteFailed, match="out of order"):
            remote.step(audio, states)
        found, _ = remote.step(audio, states)
    assert len(model.requests) == 3  # the stream that had been served was not fed twice
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)


def test_a_transducer_by_name(rnnt_folder, tmp_path, capsys):
    graphs = {
        f"mini-rnnt-{role}": FakeModel(OrtBackend(rnnt_folder / f"{role}.onnx", threads=1))
        for role in ("encoder", "decoder", "joiner")
    }
    audio = str(DATA / "gigaam" / "a.wav")
    here = rechka.load(rnnt_folder, threads=1).transcribe(audio)
    with kserve(graphs) as address:
        assert rechka.load(rnnt_folder, device=f"triton://{address}").transcribe(audio).to_dict() == here.to_dict()
        command = ["transcribe", audio, "--model", str(rnnt_folder), "--format", "txt", "--device"]
        assert main([*command, f"triton://{address}"]) == 0
        assert capsys.readouterr().out.split() == here.text.split()
        assert main([*command, f"triton://{address}/other"]) == 3
        assert "unknown model other-encoder" in capsys.readouterr().err
        assert main([*command, "tpu"]) == 2
    assert all(model.requests for model in graphs.values())


def test_a_server_that_is_not_there(rnnt_folder, capsys):
    command = ["transcribe", str(DATA / "gigaam" / "a.wav"), "--model", str(rnnt_folder), "--device"]
    assert main([*command, "triton://127.0.0.1:9"]) == 3
    assert "check that the server runs there" in capsys.readouterr().err
    with pytest.raises(UsageError, match="triton://HOST:PORT/NAME"):
        TritonBackend("", "x")


def test_wrong_models(tone_folder, rnnt_folder):
    graph = OrtBackend(rnnt_folder / "joiner.onnx", threads=1)
    with kserve({"m": FakeModel(graph)}) as address:
        backend = TritonBackend(address, "m")
        with pytest.raises(BadModelFile, match="should map signal to logprobs"):
            SequenceTone(backend)
        with pytest.raises(UsageError, match="takes enc"):
            backend.run({"enc": np.zeros((1, 3), np.int32)})


@pytest.mark.parametrize(
    "arguments", [[], ["--sequences"], ["--engine", "python", "--sequences"], ["--max-batch", "4"]]
)
def test_repository_of_t_one(tone_folder, tmp_path, capsys, arguments):
    repository = tmp_path / "repository"
    assert main(["export", str(tone_folder), "--to", "triton", "--out", str(repository), *arguments]) == 0
    assert capsys.readouterr().out == "mini-tone\n"
    parsed = parse(repository / "mini-tone" / "config.pbtxt")
    sequences, python = "--sequences" in arguments, "python" in arguments
    assert parsed.max_batch_size == (4 if "4" in arguments else 16)
    assert [one.name for one in parsed.input] == (["signal"] if sequences else ["signal", "state"])
    assert [one.name for one in parsed.output] == (["logprobs"] if sequences else ["logprobs", "state_next"])
    assert list(parsed.input[0].dims) == [-1, 1]
    assert (parsed.backend, parsed.platform) == (("python", "") if python else ("", "onnxruntime_onnx"))
    assert (repository / "mini-tone" / "1" / "model.onnx").read_bytes() == (tone_folder / "model.onnx").read_bytes()
    assert (repository / "mini-tone" / "1" / "model.py").exists() == python
    batching = parsed.sequence_batching
    if sequences and not python:
        (state,) = batching.state
        assert (state.input_name, state.output_name) == ("state", "state_next")
        assert state.initial_state[0].zero_data
        assert list(state.dims) == list(state.initial_state[0].dims) == [9841]
    elif not sequences:
        assert parsed.dynamic_batching.max_queue_delay_microseconds == 10_000
        assert [one.batch_size for one in parsed.model_warmup] == [1, parsed.max_batch_size]
        assert set(parsed.model_warmup[0].inputs) == {"signal", "state"}
    assert batching.max_sequence_idle_microseconds == (60_000_000 if sequences else 0)


def test_repository_of_gigaam(rnnt_folder, tmp_path, capsys):
    repository = tmp_path / "repository"
    assert main(["export", str(rnnt_folder), "--to", "triton", "-o", str(repository)]) == 0
    assert capsys.readouterr().out.split() == ["mini-rnnt-encoder", "mini-rnnt-decoder", "mini-rnnt-joiner"]
    for name in ("encoder", "decoder", "joiner"):
        parsed = parse(repository / f"mini-rnnt-{name}" / "config.pbtxt")
        assert parsed.max_batch_size == 0
        graph = OrtBackend(rnnt_folder / f"{name}.onnx", threads=1)
        assert {one.name: [None if size < 0 else size for size in one.dims] for one in parsed.input} == {
            key: list(shape) for key, (shape, _) in graph.inputs.items()
        }
    assert main(["export", str(rnnt_folder), "--to", "triton", "-o", str(tmp_path / "x"), "--sequences"]) == 2
    assert main(["export", "toy", "--to", "triton", "-o", str(tmp_path / "x")]) == 3
    assert main(["export", str(rnnt_folder), "--to", "triton", "-o", str(repository)]) == 2  # it is there already
    assert not (tmp_path / "x").exists()


def test_repository_of_tensorrt(tone_folder, tmp_path, capsys):
    repository = tmp_path / "repository"
    command = ["export", str(tone_folder), "--to", "tensorrt", "--out", str(repository)]
    assert main(command) == 2
    assert "TensorRT runs on a GPU" in capsys.readouterr().err
    assert main([*command, "--device", "cuda"]) == 0
    folder = repository / "mini-tone"
    assert parse(folder / "config.pbtxt").platform == "tensorrt_plan"
    script = (folder / "build_engine.sh").read_text("utf-8")
    # The flags that are published for T-one, less those of the benchmark.
    assert "--minShapes=signal:1x2400x1,state:1x9841 " in script
    assert "--optShapes=signal:16x2400x1,state:16x9841 " in script
    assert "--maxShapes=signal:16x2400x1,state:16x9841 " in script
    assert "--stronglyTyped --builderOptimizationLevel=5" in script
    assert json.loads((repository / "rechka.json").read_text("utf-8"))["engine"] == "tensorrt"


def test_options_that_make_no_sense():
    for wrong in ({"engine": "x"}, {"device": "tpu"}, {"max_batch": 0}, {"instances": 0}):
        with pytest.raises(UsageError):
            TritonOptions(**wrong)


def parse(path: Path):
    """A configuration as Triton reads it."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text("utf-8"), model_config_pb2.ModelConfig())


@pytest.mark.skipif(environment() is None, reason="RECHKA_TRITON names no environment with nvidia-pytriton")
@pytest.mark.parametrize("sequences", [False, True], ids=["states here", "states there"])
def test_a_real_triton(tone_folder, tmp_path, capsys, sequences):
    repository, work = tmp_path / "repository", tmp_path / "work"
    work.mkdir()
    more = ["--sequences"] if sequences else []
    command = ["export", str(tone_folder), "--to", "triton", "--engine", "python", "--out", str(repository)]
    assert main([*command, *more]) == 0
    with triton(repository, work) as address:
        backend = TritonBackend(address, "mini-tone")
        same_as_here(SequenceTone(backend) if sequences else ToneModel(backend), tone_folder, 1e-5)
        audio = str(DATA / "gigaam" / "a.wav")
        there = rechka.load(tone_folder, device=f"triton://{address}").transcribe(audio)
    assert there.to_dict() == rechka.load(tone_folder, threads=1).transcribe(audio).to_dict()
