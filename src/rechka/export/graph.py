"""A small writer of ONNX graphs: operations in, names of their results out.

Graphs are written operation by operation instead of being traced from torch, because then the exporter decides what is
fused, folded and quantised, and the result does not change with the version of torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

OPSET = 17
"""Has LayerNormalization, and every ONNX Runtime of the last years reads it."""
IR_VERSION = 8
MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operations."""

ELEMENT = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
}


class Graph:
    """A graph under construction. Values are referred to by name; equal constants are stored once.

    Args:
        prefix: of all names that it makes up, for parts that go into a foreign graph.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._by_value: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._domains: set[str] = set()
        self._count = 0

    def const(self, value: Any, dtype: str = "float32") -> str:
        """Name of a constant."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        if array.ndim == 0 or np.ndim(value) == 0:
            array = array.reshape(())
        key = (dtype, array.shape, array.tobytes())
        if key not in self._by_value:
            name = f"{self._prefix}c{len(self._by_value)}"
            self._by_value[key] = name
            self._constants[name] = numpy_helper.from_array(array, name)
        return self._by_value[key]

    def op(self, kind: str, *inputs: str, domain: str = "", name: str | None = None, **attributes: Any) -> str:
        """Add an operation with one output and return the output's name."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, names=None if name is None else [name], **attributes)[
            0
        ]

    def ops(
        self,
        kind: str,
        *inputs: str,
        outputs: int,
        domain: str = "",
        names: Sequence[str] | None = None,
        **attributes: Any,
    ) -> list[str]:
        """Add an operation and return the names of its outputs; an empty given name is an output nobody wants."""
        self._count += 1
        made = list(names) if names is not None else [f"{self._prefix}v{self._count}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), made, domain=domain, **attributes))
        self._domains.add(domain)
        return made

    def ints(self, *values: int) -> str:
        """A 1-d int64 constant: shapes, axes, positions."""
        return self.const(values, "int64")

    def reshape(self, x: str, *shape: int | str) -> str:
        """Reshape; numbers as in ONNX (0 copies, -1 infers), a name stands for a computed (1,) int64 value."""
        if all(isinstance(size, int) for size in shape):
            return self.op("Reshape", x, self.ints(*(int(size) for size in shape)))
        parts = [self.ints(size) if isinstance(size, int) else size for size in shape]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    def transpose(self, x: str, *order: int) -> str:
        """Permute axes."""
        return self.op("Transpose", x, perm=list(order))

    def slice(self, x: str, axis: int, start: int, end: int | None, step: int = 1) -> str:
        """``x[start:end:step]`` along an axis; an end of None means to the last."""
        stop = np.iinfo(np.int64).max if end is None else end
        return self.op("Slice", x, self.ints(start), self.ints(stop), self.ints(axis), self.ints(step))

    def concat(self, axis: int, *parts: str) -> str:
        """Join along an axis."""
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=axis)

    def cast(self, x: str, dtype: str) -> str:
        """Convert to another element type."""
        return self.op("Cast", x, to=ELEMENT[dtype])

    def split(self, x: str, axis: int, *sizes: int) -> list[str]:
        """Cut into pieces of the given sizes along an axis."""
        return self.ops("Split", x, self.ints(*sizes), outputs=len(sizes), axis=axis)

    def take_nodes(self) -> list[Any]:
        """The operations added since the last call; the constants stay."""
        nodes, self._nodes = self._nodes, []
        return nodes

    @property
    def constants(self) -> list[Any]:
        """All constants so far."""
        return list(self._constants.values())

    def model(
        self,
        name: str,
        inputs: Mapping[str, tuple[str, Sequence[int | str]]],
        outputs: Mapping[str, tuple[str, Sequence[int | str]]],
        metadata: Mapping[str, str],
    ) -> Any:
        """The finished model; inputs and outputs as name -> (dtype, shape), a string in a shape naming a free axis."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(key, ELEMENT[dtype], shape) for key, (dtype, shape) in inputs.items()],
            [helper.make_tensor_value_info(key, ELEMENT[dtype], shape) for key, (dtype, shape) in outputs.items()],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(self._domains - {""})]
        model = helper.make_model(graph, producer_name="rechka", opset_imports=opsets, ir_version=IR_VERSION)
        helper.set_model_props(model, dict(metadata))
        return model


def check_model(model: onnx.ModelProto) -> None:
    """Let ONNX's own checker look at a model of standard operations; ONNX Runtime checks the others when it loads."""
    if all(entry.domain == "" for entry in model.opset_import):
        onnx.checker.check_model(model)
