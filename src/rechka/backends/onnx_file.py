"""What an ONNX file says of itself, read without loading its weights: names, metadata, shapes of the weights.

A few fields of the protocol buffers (onnx.proto3) are read with seeks, so a file of a gigabyte costs some kilobytes.
The file may come from anywhere: every length is checked against what is left, and nesting and counts are bounded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rechka.errors import BadModelFile, ModelNotFound

_MAX_FIELDS = 1_000_000
_MAX_TEXT = 1 << 16
# Field numbers of onnx.proto3.
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_WEIGHT, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_DIMS, _TENSOR_NAME = 1, 8
_VALUE_NAME = 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass(frozen=True, slots=True)
class OnnxSummary:
    """Names and shapes of a graph.

    Attributes:
        inputs, outputs: names in order; old files list weights among the inputs, they are left out here.
        metadata: key-value texts.
        weights: name -> shape of every stored tensor.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def summarise(path: Path) -> OnnxSummary:
    """The summary of a file.

    Raises:
        ModelNotFound: no such file.
        BadModelFile: not an ONNX file, or a damaged one.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file).model(os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise ModelNotFound(f"no model file at {path}", remedy="check the path, or pull the model again") from None
    except (OSError, ValueError) as error:
        raise BadModelFile(f"{path} is no ONNX file: {error}", remedy="it may be damaged; get it again") from None


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_FIELDS

    def model(self, size: int) -> OnnxSummary:
        inputs: list[str] = []
        outputs: list[str] = []
        metadata: dict[str, str] = {}
        weights: dict[str, tuple[int, ...]] = {}
        found = False
        for number, end in self._messages(size):
            if number == _MODEL_METADATA:
                texts = self._texts(end, (_ENTRY_KEY, _ENTRY_VALUE))
                metadata[texts.get(_ENTRY_KEY, "")] = texts.get(_ENTRY_VALUE, "")
            elif number == _MODEL_GRAPH:
                found = True
                for part, stop in self._messages(end):
                    if part == _GRAPH_WEIGHT:
                        name, shape = self._tensor(stop)
                        weights[name] = shape
                    elif part in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                        name = self._texts(stop, (_VALUE_NAME,)).get(_VALUE_NAME, "")
                        (inputs if part == _GRAPH_INPUT else outputs).append(name)
        if not found or not outputs:
            raise ValueError("it holds no graph")
        return OnnxSummary(tuple(n for n in inputs if n not in weights), tuple(outputs), metadata, weights)

    def _tensor(self, end: int) -> tuple[str, tuple[int, ...]]:
        name, dims = "", []
        for number, kind, value in self._fields(end):
            if number == _TENSOR_DIMS and kind == 0:
                dims.append(value)
            elif number == _TENSOR_DIMS and kind == 2:
                stop = self._file.tell() + value
                while self._file.tell() < stop:
                    dims.append(self._varint(stop))
            elif number == _TENSOR_NAME and kind == 2:
                name = self._text(value)
            if len(dims) > 16:
                raise ValueError("a tensor of more than 16 dimensions")
        return name, tuple(dims)

    def _texts(self, end: int, wanted: tuple[int, ...]) -> dict[int, str]:
        return {n: self._text(value) for n, kind, value in self._fields(end) if kind == 2 and n in wanted}

    def _messages(self, end: int) -> Iterator[tuple[int, int]]:
        """Number and end of every field that may be a message."""
        for number, kind, value in self._fields(end):
            if kind == 2:
                yield number, self._file.tell() + value

    def _fields(self, end: int) -> Iterator[tuple[int, int, int]]:
        """Field number, wire type, and value or length; the reader then goes on behind the field."""
        while self._file.tell() < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {_MAX_FIELDS} fields")
            tag = self._varint(end)
            number, kind = tag >> 3, tag & 7
            if kind == 0:
                yield number, kind, self._varint(end)
                continue
            if kind not in (1, 2, 5):
                raise ValueError(f"a field of wire type {kind}")
            value = self._varint(end) if kind == 2 else {1: 8, 5: 4}[kind]
            after = self._file.tell() + value
            if after > end:
                raise ValueError("it ends in the middle of a field")
            yield number, kind, value
            self._file.seek(after)

    def _varint(self, end: int) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte or self._file.tell() > end:
                raise ValueError("it ends in the middle of a field")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise ValueError("a number of more than ten bytes")

    def _text(self, size: int) -> str:
        return self._file.read(min(size, _MAX_TEXT)).decode("utf-8", "replace")
