"""Torch checkpoints as NumPy arrays, without torch and without running anything that is in them.

The format is that of ``torch.save`` since version 1.6: a zip archive of a pickle and one uncompressed member per block
of numbers. Half precision of either kind is widened to float32, which keeps every value.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile, ModelNotFound
from rechka.hub.pickles import BadPickle, Global, Made, plain, read_pickle

Array = NDArray[Any]

MAX_MEMBERS = 100_000
_MAX_DIMENSIONS = 8
_KINDS = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""NumPy's letters for torch's blocks; bfloat16 has none and is taken as its bits."""


@dataclass(frozen=True, slots=True)
class Block:
    """A run of numbers in the archive: member, torch's name of the kind, how many."""

    key: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that was not read yet."""

    block: Block
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchFile:
    """An opened checkpoint; a context manager.

    Args:
        path: of the file.
    Raises:
        ModelNotFound: no such file.
        BadModelFile: not a checkpoint, a damaged one, or one that asks for code to be run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelNotFound(f"no checkpoint at {self.path}", remedy="check the path")
        try:
            self._size = self.path.stat().st_size
            self._zip = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
            raise self._bad(
                f"is no torch checkpoint: {error}",
                "download it again; one from before torch 1.6 has to be loaded and saved with a newer torch first",
            ) from None
        try:
            self._open()
        except BaseException:
            self._zip.close()
            raise

    def _open(self) -> None:
        names = self._zip.namelist()
        if len(names) > MAX_MEMBERS:
            raise self._bad(f"has {len(names)} members, more than {MAX_MEMBERS}")
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise self._bad("is a zip archive, but no torch checkpoint", "give the file that torch.save wrote")
        self._prefix = pickles[0].removesuffix("data.pkl")
        order = self._member("byteorder") if f"{self._prefix}byteorder" in names else b"little"
        self._order = ">" if order.strip() == b"big" else "<"  # NumPy's mark
        try:
            self.root = read_pickle(self._member("data.pkl"), call=self._call, refer=_block)
        except BadPickle as error:
            raise self._bad(str(error), "get the checkpoint from its publisher, or as .safetensors") from None

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @property
    def keys(self) -> tuple[str, ...]:
        """Names at the top of the checkpoint; none if it holds no dictionary."""
        root = self._table()
        return tuple(str(key) for key in root)

    def section(self, name: str) -> Any:
        """What is under a name, as plain values and ``Stored`` tensors; None if there is nothing.

        Raises:
            BadModelFile: nested too deeply.
        """
        try:
            return plain(self._table().get(name))
        except BadPickle as error:
            raise self._bad(str(error)) from None

    def tensors(self, name: str | None = None) -> dict[str, Stored]:
        """The tensors under a name, or at the top."""
        found = self._table() if name is None else self.section(name)
        if not isinstance(found, dict):
            return {}
        return {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Stored)}

    def read(self, tensors: Mapping[str, Stored]) -> dict[str, Array]:
        """Numbers of the tensors: float32, or integers and booleans as they are.

        Raises:
            BadModelFile: a block that is missing, damaged or too short, or tensors that claim more than the file holds.
        """
        claimed = sum(math.prod(tensor.shape) for tensor in tensors.values())
        if claimed > 2 * self._size:
            raise self._bad(f"claims {claimed} numbers in {self._size} bytes")
        by_block: dict[Block, list[str]] = {}
        for name, tensor in tensors.items():
            by_block.setdefault(tensor.block, []).append(name)
        arrays: dict[str, Array] = {}
        for block, names in by_block.items():
            numbers = self._numbers(block)
            for name in names:
                arrays[name] = self._array(name, tensors[name], numbers)
        return {name: arrays[name] for name in tensors}

    def _array(self, name: str, tensor: Stored, numbers: Array) -> Array:
        count = math.prod(tensor.shape)
        reach = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        if (count and reach >= len(numbers)) or count > len(numbers):
            raise self._bad(f"gives {name} the shape {list(tensor.shape)} in a block of {len(numbers)} numbers")
        if not count:
            return np.zeros(tensor.shape, _widened(numbers[:0], tensor.block.kind).dtype)
        steps = tuple(step * numbers.itemsize for step in tensor.strides)
        view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
        return _widened(view, tensor.block.kind)

    def _numbers(self, block: Block) -> Array:
        dtype = np.dtype(self._order + _KINDS[block.kind])
        data = self._member(f"data/{block.key}", size=block.size * dtype.itemsize)
        return np.frombuffer(data, dtype)

    def _member(self, name: str, size: int | None = None) -> bytes:
        """A member's bytes, checked by their sum. Only uncompressed ones are read: none is larger than the file."""
        try:
            info = self._zip.getinfo(self._prefix + name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > self._size:
                raise self._bad(f"has a compressed member {name}, which torch never writes")
            if size is not None and info.file_size != size:
                raise self._bad(f"has {info.file_size} bytes in {name}, and {size} belong there")
            return self._zip.read(info)
        except KeyError:
            raise self._bad(f"lacks the member {name}", "the file may be damaged; download it again") from None
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, struct.error) as error:
            if isinstance(error, BadModelFile):
                raise
            raise self._bad(f"is damaged at {name}: {error}", "download it again") from None

    def _table(self) -> dict[Any, Any]:
        root = self.root
        if isinstance(root, Made):
            root = root.items
        return root if isinstance(root, dict) else {}

    def _call(self, of: Global, args: tuple[Any, ...]) -> Any:
        """Tensors as ``Stored``; everything else stays unmade."""
        if of.name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _stored(args)
        if of.name == "_rebuild_parameter" and args and isinstance(args[0], Stored):
            return args[0]
        if of.name == "_rebuild_from_type_v2" and len(args) > 2 and isinstance(args[0], Global):
            inner = args[0].name in ("_rebuild_tensor", "_rebuild_tensor_v2") and isinstance(args[2], tuple)
            return _stored(args[2]) if inner else Made(of, args)
        return Made(of, args)

    def _bad(self, what: str, remedy: str = "") -> BadModelFile:
        return BadModelFile(f"{self.path} {what}", remedy=remedy)


def _block(reference: Any) -> Block:
    """A reference to a block: ``("storage", kind, member, device, size)``."""
    if isinstance(reference, tuple) and len(reference) >= 5:
        tag, kind, key, _, size = reference[:5]
        good = tag == "storage" and isinstance(kind, Global) and isinstance(key, str) and _natural(size)
        if good and kind.name in _KINDS and key.isascii() and key.isalnum():
            return Block(key, kind.name, size)
    raise BadPickle("refers to a block of numbers in a way that is not torch's")


def _stored(args: tuple[Any, ...]) -> Stored:
    if len(args) >= 4:
        block, offset, shape, strides = args[:4]
        lists = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
        good = isinstance(block, Block) and lists and len(shape) <= _MAX_DIMENSIONS
        if good and all(map(_natural, (offset, *shape, *strides))):
            return Stored(block, offset, shape, strides)
    raise BadPickle("describes a tensor in a way that is not torch's")


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _widened(values: Array, kind: str) -> Array:
    """A copy in rows: floating point numbers as float32."""
    if kind == "BFloat16Storage":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if values.dtype.kind == "f":
        return np.array(values, np.float32, order="C")
    return np.array(values, values.dtype.newbyteorder("="), order="C")
