"""The OpenVINO backend: the same answers as ONNX Runtime, its errors, who chooses it."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs rechka[export]")
pytest.importorskip("openvino", reason="needs rechka[openvino]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from rechka.backends import cpu_engine, open_backend  # noqa: E402
from rechka.backends.openvino import MAX_SHAPES, OpenVinoBackend, cache_folder, trim_cache  # noqa: E402
from rechka.backends.ort import OrtBackend  # noqa: E402
from rechka.errors import BadModelFile, ModelNotFound, UsageError  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RECHKA_BACKEND", raising=False)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """y = x W, (n, 8) to (n, 4), with a metadata text."""
    weight = np.random.default_rng(1).standard_normal((8, 4)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    helper.set_model_props(model, {"who": "test"})
    path = tmp_path / "product.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def rows(count: int) -> Any:
    return np.random.default_rng(count).standard_normal((count, 8)).astype(np.float32)


@pytest.mark.parametrize("fixed", [True, False])
def test_says_what_onnx_runtime_says(graph: Path, fixed: bool) -> None:
    ours, theirs = OpenVinoBackend(graph, threads=1, fixed_shapes=fixed), OrtBackend(graph, threads=1)
    assert ours.inputs == theirs.inputs
    assert ours.outputs == theirs.outputs
    assert ours.metadata == theirs.metadata == {"who": "test"}
    for count in range(1, MAX_SHAPES + 3):  # more shapes than are kept
        feeds = {"x": rows(count)}
        np.testing.assert_allclose(ours.run(feeds)["y"], theirs.run(feeds)["y"], atol=1e-5)


def test_an_answer_outlives_the_next_run(graph: Path) -> None:
    backend = OpenVinoBackend(graph, threads=1)
    first = backend.run({"x": rows(3)})["y"]
    kept = first.copy()
    backend.run({"x": rows(3) + 1})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("fixed", [True, False])
def test_a_workspace_is_the_requests_own_memory(graph: Path, fixed: bool) -> None:
    backend = OpenVinoBackend(graph, threads=1, fixed_shapes=fixed)
    for count in (3, 5, 3):
        with backend.workspace({"x": (count, 8)}) as (feeds, compute):
            assert feeds["x"].shape == (count, 8)
            for scale in (1, 2):
                feeds["x"][:] = scale * rows(count)
                found = compute()["y"].copy()
                np.testing.assert_array_equal(found, backend.run({"x": scale * rows(count)})["y"])


def test_a_workspace_does_not_write_where_a_caller_has_read(graph: Path) -> None:
    backend = OpenVinoBackend(graph, threads=1)
    given = rows(3)
    for _ in range(8):  # every request once
        backend.run({"x": given})
        with backend.workspace({"x": (3, 8)}) as (feeds, _):
            feeds["x"][:] = 7
    np.testing.assert_array_equal(given, rows(3))


def test_many_threads_may_run_at_once(graph: Path) -> None:
    backend = OpenVinoBackend(graph, threads=1)
    expected = [backend.run({"x": rows(5) * i})["y"] for i in range(8)]
    wrong: list[int] = []

    def work(i: int) -> None:
        answers = [backend.run({"x": rows(5) * i})["y"] for _ in range(20)]
        wrong.extend(i for answer in answers if not np.array_equal(answer, expected[i]))

    threads = [Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "feeds",
    [{}, {"z": rows(1)}, {"x": rows(1)[:, :7]}, {"x": rows(1).astype(np.float64)}, {"x": rows(1)[0]}],
    ids=["none", "name", "shape", "dtype", "rank"],
)
def test_wrong_feeds_are_told(graph: Path, feeds: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"the graph takes x float32\[None, 8\]; got"):
        OpenVinoBackend(graph, threads=1).run(feeds)


def test_files_that_are_none(tmp_path: Path, graph: Path) -> None:
    with pytest.raises(ModelNotFound):
        OpenVinoBackend(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(graph.read_bytes()[:-40])
    with pytest.raises(BadModelFile):
        OpenVinoBackend(broken).run({"x": rows(1)})
    with pytest.raises(UsageError, match="at least 1"):
        OpenVinoBackend(graph, threads=0)


def test_who_chooses_it(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"model": graph}
    both = ("openvino", "onnxruntime")
    assert cpu_engine() == "onnxruntime"
    assert cpu_engine(both) == "openvino"
    assert isinstance(open_backend(files), OrtBackend)
    assert isinstance(open_backend(files, engines=both), OpenVinoBackend)
    monkeypatch.setenv("RECHKA_BACKEND", "onnxruntime")
    assert isinstance(open_backend(files, engines=both), OrtBackend)
    monkeypatch.setenv("RECHKA_BACKEND", "openvino")
    forced = open_backend(files)
    assert isinstance(forced, OpenVinoBackend)
    assert not forced.fixed_shapes
    monkeypatch.setenv("RECHKA_BACKEND", "abacus")
    with pytest.raises(UsageError, match="RECHKA_BACKEND must be one of onnxruntime, openvino, got 'abacus'"):
        open_backend(files)


def test_without_openvino_the_next_engine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rechka.backends.openvino.is_installed", lambda: False)
    assert cpu_engine(("openvino", "onnxruntime")) == "onnxruntime"


def test_the_cache_follows_the_base_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache/rechka/openvino"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache/rechka/openvino"


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / f"{name}.blob").write_bytes(bytes(100))
        os.utime(tmp_path / f"{name}.blob", (1e9 - age, 1e9 - age))
    (tmp_path / "other.txt").write_bytes(bytes(1000))
    trim_cache(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 4
    trim_cache(tmp_path, 200)
    assert {path.name for path in tmp_path.iterdir()} == {"new.blob", "middle.blob", "other.txt"}
    trim_cache(tmp_path / "missing", 0)
