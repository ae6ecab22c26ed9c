"""The ONNX Runtime backend: names, threads, errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from rechka.backends.ort import OrtBackend, default_threads
from rechka.errors import BadModelFile, MissingExtra, ModelNotFound, UsageError

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def graph() -> bytes:
    """y = x + x, z = cast(x) for x float32 [n, 2]."""
    from onnx import TensorProto, helper

    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Add", ["x", "x"], ["y"]),
                helper.make_node("Cast", ["x"], ["z"], to=TensorProto.INT64),
            ],
            "double",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2]),
                helper.make_tensor_value_info("z", TensorProto.INT64, ["n", 2]),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    helper.set_model_props(model, {"family": "double"})
    return model.SerializeToString()


def test_names_shapes_and_metadata(graph: bytes) -> None:
    backend = OrtBackend(graph, threads=1)
    assert dict(backend.inputs) == {"x": ((None, 2), np.dtype(np.float32))}
    assert backend.outputs == ("y", "z")
    assert backend.metadata["family"] == "double"
    assert backend.threads == 1


def test_run_gives_all_outputs_by_name(graph: bytes, tmp_path: Path) -> None:
    path = tmp_path / "double.onnx"
    path.write_bytes(graph)
    out = OrtBackend(path).run({"x": np.array([[1.5, 2.0]], np.float32)})
    np.testing.assert_array_equal(out["y"], [[3, 4]])
    np.testing.assert_array_equal(out["z"], [[1, 2]])


def test_many_threads_share_one_backend(graph: bytes) -> None:
    backend = OrtBackend(graph, threads=1)

    def work(i: int) -> bool:
        x = np.full((i % 7 + 1, 2), i, np.float32)
        return bool(np.array_equal(backend.run({"x": x})["y"], 2 * x))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(200)))


def test_default_thread_count_is_small_and_positive() -> None:
    assert 1 <= default_threads() <= 4


def test_missing_file_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nothing\.onnx"):
        OrtBackend(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08" + bytes(50)])
def test_damaged_file_is_a_bad_model_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    for model in (path, content):
        with pytest.raises(BadModelFile, match="cannot load"):
            OrtBackend(model)


def test_truncated_file_is_a_bad_model_file(graph: bytes) -> None:
    with pytest.raises(BadModelFile):
        OrtBackend(graph[: len(graph) // 2])


def test_wrong_feed_says_what_was_expected(graph: bytes) -> None:
    backend = OrtBackend(graph)
    for feed in ({"x": np.zeros((1, 3), np.float32)}, {"x": np.zeros((1, 2))}, {"w": np.zeros((1, 2), np.float32)}):
        with pytest.raises(UsageError, match="the graph takes x float32"):
            backend.run(feed)


def test_bad_device_and_threads(graph: bytes) -> None:
    with pytest.raises(UsageError, match="device"):
        OrtBackend(graph, device="tpu")
    with pytest.raises(UsageError, match="threads"):
        OrtBackend(graph, threads=0)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="a CUDA build")
def test_cuda_on_a_cpu_build_names_the_remedy(graph: bytes) -> None:
    with pytest.raises(MissingExtra, match="onnxruntime-gpu"):
        OrtBackend(graph, device="cuda")
