"""What an ONNX file says of itself, read without loading its weights: names, metadata, shapes of the weights.

A few fields of the protocol buffers (onnx.proto3) are read with seeks, so a file of a gigabyte costs some kilobytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rechka.backends.protobuf import FieldReader
from rechka.errors import BadModelFile, ModelNotFound

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
            return _model(FieldReader(file), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise ModelNotFound(f"no model file at {path}", remedy="check the path, or pull the model again") from None
    except (OSError, ValueError) as error:
        raise BadModelFile(f"{path} is no ONNX file: {error}", remedy="it may be damaged; get it again") from None


def _model(reader: FieldReader, size: int) -> OnnxSummary:
    inputs: list[str] = []
    outputs: list[str] = []
    metadata: dict[str, str] = {}
    weights: dict[str, tuple[int, ...]] = {}
    found = False
    for number, end in reader.messages(size):
        if number == _MODEL_METADATA:
            texts = reader.texts(end, (_ENTRY_KEY, _ENTRY_VALUE))
            metadata[texts.get(_ENTRY_KEY, "")] = texts.get(_ENTRY_VALUE, "")
        elif number == _MODEL_GRAPH:
            found = True
            for part, stop in reader.messages(end):
                if part == _GRAPH_WEIGHT:
                    name, shape = _tensor(reader, stop)
                    weights[name] = shape
                elif part in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                    name = reader.texts(stop, (_VALUE_NAME,)).get(_VALUE_NAME, "")
                    (inputs if part == _GRAPH_INPUT else outputs).append(name)
    if not found or not outputs:
        raise ValueError("it holds no graph")
    return OnnxSummary(tuple(n for n in inputs if n not in weights), tuple(outputs), metadata, weights)


def _tensor(reader: FieldReader, end: int) -> tuple[str, tuple[int, ...]]:
    """Name and shape."""
    name, dims = "", list[int]()
    for number, kind, value in reader.fields(end):
        if number == _TENSOR_DIMS:
            dims.extend([value] if kind == 0 else reader.varints(value))
        elif number == _TENSOR_NAME and kind == 2:
            name = reader.text(value)
        if len(dims) > 16:
            raise ValueError("a tensor of more than 16 dimensions")
    return name, tuple(dims)
