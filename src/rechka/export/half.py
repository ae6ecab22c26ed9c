"""Weights of a graph stored as float16, computed with as float32: half the file for the same speed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

LEAST = 1024
"""Elements of the smallest weight that is worth it. Vectors, such as offsets and scales, stay as they are."""


def halve(graph: Path, path: Path) -> int:
    """Write the graph with its larger float32 weights as float16, each behind a Cast that widens it again.

    ONNX Runtime does the Cast once, when it loads the file. A weight keeps its name, so whoever looks for weights by
    name finds it, narrower. Weights that are float16 already stay.

    Returns:
        How many weights are stored in half now.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    whole = onnx.load(str(graph))
    renamed: dict[str, str] = {}
    casts = []
    for tensor in whole.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST:
            continue
        narrow = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
        renamed[tensor.name] = f"{tensor.name}.wide"
        casts.append(helper.make_node("Cast", [tensor.name], [f"{tensor.name}.wide"], to=TensorProto.FLOAT))
    for node in whole.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    nodes = [*casts, *whole.graph.node]
    del whole.graph.node[:]
    whole.graph.node.extend(nodes)
    onnx.checker.check_model(whole)
    temporary = path.with_name(path.name + ".part")
    onnx.save(whole, str(temporary))
    os.replace(temporary, path)
    return len(casts)
