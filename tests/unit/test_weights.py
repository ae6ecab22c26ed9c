"""Checkpoints: both formats, with and without prefix, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rechka.errors import BadModelFile, ModelNotFound
from rechka.nn.weights import check_names, read_weights, recipe_weights

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.count": np.array(3, np.int64)}


def same(found: dict[str, Any]) -> bool:
    return found.keys() == ARRAYS.keys() and all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)


@pytest.mark.parametrize("prefix", ["", "tone."])
def test_safetensors_with_and_without_prefix(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.save_file({prefix + name: array for name, array in ARRAYS.items()}, path)
    assert same(read_weights(path))


def test_a_prefix_that_not_all_names_carry_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.save_file({"tone.a": ARRAYS["a.weight"], "b": ARRAYS["a.weight"]}, path)
    assert read_weights(path).keys() == {"tone.a", "b"}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "tone."])
def test_torch_checkpoints(wrapper: str | None, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    tensors = {prefix + name: torch.from_numpy(np.array(array)) for name, array in ARRAYS.items()}
    torch.save(tensors if wrapper is None else {wrapper: tensors, "epoch": 3}, path)
    assert same(read_weights(path))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.save_file({"a": np.ones(2, np.float16)}, path)
    assert read_weights(path)["a"].dtype == np.float32
    torch.save({"a": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt")["a"].dtype == np.float32


class Payload:
    """What an attacker would put into a checkpoint."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("owned-by-a-checkpoint"),))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Payload()}, tmp_path / "model.pt")
    with pytest.raises(BadModelFile, match="no torch checkpoint of plain weights"):
        read_weights(tmp_path / "model.pt")
    assert not (tmp_path / "owned-by-a-checkpoint").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04broken"])
def test_damaged_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadModelFile):
        read_weights(tmp_path / name)


def test_other_contents(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        read_weights(tmp_path / "absent.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BadModelFile, match="dictionary"):
        read_weights(tmp_path / "list.pt")
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    with pytest.raises(BadModelFile, match="no weights"):
        read_weights(tmp_path / "empty.pt")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": (2,)}, "lacks b"),
        ({"a": (2,), "b": (3,), "c": (1,)}, "unknown c"),
        ({"a": (2,), "b": (4,)}, r"b is \(4,\), not \(3,\)"),
    ],
)
def test_names_and_shapes_are_checked(found: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(BadModelFile, match=message):
        check_names({k: np.zeros(v) for k, v in found.items()}, {"a": (2,), "b": (3,)}, what="the file")


def test_recipe_depends_on_name_and_seed_only() -> None:
    shapes = {"x.weight": (3, 4), "x.running_var": (5,), "x.num_batches_tracked": ()}
    one, two = recipe_weights(shapes, 1), recipe_weights(dict(reversed(shapes.items())), 1)
    for name in shapes:
        np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(one["x.weight"], recipe_weights(shapes, 2)["x.weight"])
    assert (one["x.running_var"] > 0).all()
    assert one["x.num_batches_tracked"].dtype == np.int64
