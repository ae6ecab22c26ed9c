"""The embedded model's graph: features and state in, log-probabilities and next state out; any batch, any chunks."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rechka.backends.ort import OrtBackend
from rechka.errors import BadModelFile
from rechka.nn.conformer import SUBSAMPLING, StreamingConformer

if TYPE_CHECKING:
    import onnx

OPSET = 18
PREFIX, TURNED = "model.", ".T"
"""Names of weights in the graph: the parameter's, and whether it was transposed."""
CONFIG = "rechka_config"
TOLERANCE = 2e-4
"""Largest difference of a log-probability between torch and the written graph that is let through."""


class _Step(nn.Module):
    def __init__(self, model: StreamingConformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.step(features, state)


def export(model: StreamingConformer, path: Path) -> float:
    """Write ``model`` as ONNX.

    Inputs: ``features`` (B, 4 chunk k, bands), ``state`` (B, S). Outputs: ``logprobs`` (B, chunk k, V), ``state_next``.

    The file gets its name only after ONNX Runtime has reproduced torch on random features, streamed and in one block.

    Returns:
        The largest difference seen.
    Raises:
        BadModelFile: the graph differs by more than TOLERANCE.
    """
    model = model.eval()
    unit = SUBSAMPLING * model.config.chunk
    features, state = torch.randn(2, 2 * unit, model.config.bands), torch.zeros(2, model.layout.size)
    batch, chunks = torch.export.Dim("batch", min=1, max=4096), torch.export.Dim("chunks", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            _Step(model).eval(), (features, state), dynamo=True, opset_version=OPSET,
            input_names=["features", "state"], output_names=["logprobs", "state_next"],
            dynamic_shapes=({0: batch, 1: unit * chunks}, {0: batch}),
            optimize=True, verbose=False,
        )  # fmt: skip
    temporary = path.with_name(path.name + ".part")
    program.save(str(temporary))
    name_weights(temporary, model)
    return _verified(model, temporary, path)


def refill(model: StreamingConformer, graph: Path, path: Path) -> float:
    """Write ``model`` as ONNX by putting its weights into a graph of the same configuration, which takes no time.

    Args:
        model: with weights.
        graph: that ``export`` wrote.
        path: of the new file.
    Returns:
        The largest difference seen.
    Raises:
        BadModelFile: another graph, or one that differs from torch by more than TOLERANCE.
    """
    import onnx
    from onnx import numpy_helper

    _, config = read_graph(graph)
    if config != json.loads(json.dumps(model.config.to_dict())):
        raise BadModelFile(f"{graph} is of another configuration: {config}")
    values = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    whole = onnx.load(str(graph))
    for tensor in whole.graph.initializer:
        if tensor.name.startswith(PREFIX):
            name = tensor.name.removeprefix(PREFIX)
            value = values[name.removesuffix(TURNED)]
            array = value.T if name.endswith(TURNED) else value
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    temporary = path.with_name(path.name + ".part")
    onnx.save(whole, str(temporary))
    return _verified(model.eval(), temporary, path)


def _verified(model: StreamingConformer, temporary: Path, path: Path) -> float:
    difference = _difference(model, temporary)
    if not difference <= TOLERANCE:  # so written that NaN fails
        temporary.unlink()
        raise BadModelFile(f"the exported graph differs from torch by {difference:.1e}, allowed is {TOLERANCE:.0e}")
    os.replace(temporary, path)
    return difference


def name_weights(path: Path, model: StreamingConformer) -> None:
    """Give every weight in the graph the name of its parameter, and the graph the configuration, for ``read_weights``.

    torch.onnx leaves matrices that it turned round without a name of their own; they are told by their values, and
    marked with ``.T``.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path))
    known = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    renamed: dict[str, str] = {}
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        for name, value in known.items():
            same = array.shape == value.shape and np.array_equal(array, value)
            if same or (array.shape == value.T.shape and np.array_equal(array, value.T)):
                renamed[tensor.name] = PREFIX + name + ("" if same else TURNED)
                del known[name]
                break
    if known:
        raise BadModelFile(f"the exported graph has lost {', '.join(sorted(known)[:3])}")
    for tensor in graph.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    _strip(graph)
    onnx.helper.set_model_props(graph, {"rechka_family": "conformer", CONFIG: json.dumps(model.config.to_dict())})
    onnx.save(graph, str(path))


def _strip(graph: onnx.ModelProto) -> None:
    """Remove what torch.onnx notes beside the graph: for every node the lines and folders of its program."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for part in (graph.graph.node, graph.graph.value_info, graph.graph.input, graph.graph.output, graph.functions):
        for item in part:
            del item.metadata_props[:]
            item.doc_string = ""


def read_graph(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Weights by the names of their parameters, and the configuration, of a graph that ``export`` wrote.

    Raises:
        BadModelFile: another graph.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(path))
        config = json.loads({prop.key: prop.value for prop in graph.metadata_props}[CONFIG])
        arrays = {}
        for tensor in graph.graph.initializer:
            if tensor.name.startswith(PREFIX):
                array, name = numpy_helper.to_array(tensor), tensor.name.removeprefix(PREFIX)
                arrays[name.removesuffix(TURNED)] = array.T if name.endswith(TURNED) else array
    except (OSError, ValueError, KeyError, RecursionError, DecodeError) as error:
        raise BadModelFile(
            f"{path} carries no weights that can be trained: {str(error)[:100]}",
            remedy="name a checkpoint (.ckpt, .safetensors), or a folder that holds one with its config.json",
        ) from None
    return arrays, config


def _difference(model: StreamingConformer, path: Path) -> float:
    backend = OrtBackend(path, threads=1)
    unit = SUBSAMPLING * model.config.chunk
    features = torch.randn(3, 6 * unit, model.config.bands, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(features)[0].numpy()
    worst = 0.0
    for step in (1, 3, 6):
        state = np.zeros((3, model.layout.size), np.float32)
        parts = []
        for start in range(0, 6, step):
            piece = features[:, start * unit : (start + step) * unit].numpy()
            out = backend.run({"features": piece, "state": state})
            state = out["state_next"]
            parts.append(out["logprobs"])
        worst = float(np.maximum(worst, np.abs(np.concatenate(parts, axis=1) - expected).max()))  # NaN stays
    return worst
