"""Full 8 bits with scales fixed beforehand: products and convolutions between QuantizeLinear and DequantizeLinear.

Weights are symmetric with a scale per output channel, activations have one scale per tensor, measured on recordings.
Standard operations only: OpenVINO computes such a graph in integers throughout, ONNX Runtime reads it too. As a scale
does not look at the data, a row's result depends on that row alone, whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rechka.backends.ort import OrtBackend
from rechka.errors import BadModelFile
from rechka.export.quantize import LEVELS, MIN_SIZE, TINY, ZERO_POINT
from rechka.types import F32

BINS = 2048
CHANNELS = 16
"""Convolutions whose input channels are no multiple of it stay: nothing is gained."""
MOVES = frozenset({"Concat", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operations that move values and do not change them: rounding before them is the same, and moves fewer bytes."""
CLIPS = np.linspace(0.2, 1.0, 81)
"""Ends of the range that are tried, as parts of the largest magnitude seen."""


@dataclass(frozen=True, slots=True)
class _Product:
    """A node that is computed in integers: its weight, the axis of its channels, where its activation is rounded."""

    node: Any
    weight: str
    axis: int
    origin: str
    readers: tuple[Any, ...]
    """Nodes that read ``origin`` on the way to ``node``: it alone, or operations that move values."""


def products(model: ModelProto, skip: frozenset[str] = frozenset()) -> list[_Product]:
    """Products and convolutions by constant weights; depthwise convolutions are not worth it.

    Args:
        skip: names of nodes' results, which are then computed as before.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    paths = _Paths(model)
    found = []
    for node in model.graph.node:
        tensor = constants.get(node.input[1]) if len(node.input) > 1 else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT or skip.intersection(node.output):
            continue
        axis = _channel_axis(node, tensor)
        if axis is not None and int(np.prod(tensor.dims)) >= MIN_SIZE:
            found.append(_Product(node, tensor.name, axis, *paths.origin(node)))
    return found


def _channel_axis(node: Any, weight: TensorProto) -> int | None:
    """Axis of the output channels of a weight, None if the node stays as it is."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "MatMul" and len(weight.dims) == 2:
        return 1
    if node.op_type == "Gemm" and not attributes.get("transA"):
        return 0 if attributes.get("transB") else 1
    if node.op_type == "Conv" and attributes.get("group", 1) == 1 and weight.dims[1] % CHANNELS == 0:
        return 0
    return None


class _Paths:
    """Who writes and who reads each value of a graph."""

    def __init__(self, model: ModelProto) -> None:
        self._writer = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._results = {value.name for value in model.graph.output}

    def origin(self, node: Any) -> tuple[str, tuple[Any, ...]]:
        """The value, as early as possible, that ``node``'s activation only rearranges, and who reads it for that."""
        moves: list[Any] = []
        origin = self._above(node.input[0], moves)
        ours = {id(one) for one in (*moves, node)}
        private = all(
            id(reader) in ours and name not in self._results
            for move in moves
            for name in move.output
            for reader in self._readers.get(name, ())
        )
        if not moves or not private:
            return node.input[0], (node,)
        return origin, tuple(move for move in moves if origin in move.input)

    def _above(self, name: str, moves: list[Any]) -> str:
        node = self._writer.get(name)
        if node is None or node.op_type not in MOVES:
            return name
        inner: list[Any] = []
        above = {self._above(source, inner) for source in (node.input if node.op_type == "Concat" else node.input[:1])}
        if len(above) > 1:  # several values meet here
            return name
        moves += [node, *inner]
        return above.pop()


@dataclass(slots=True)
class _Observed:
    """Histogram of the magnitudes of one tensor, whose last bin ends at ``top``."""

    top: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def add(self, values: NDArray[Any]) -> None:
        sizes = np.abs(values, dtype=np.float32).ravel()
        top = float(sizes.max(initial=0.0))
        if not np.isfinite(top):
            raise BadModelFile("a value in the network is not finite on the calibration audio")
        if top > self.top:
            grown = np.zeros(BINS)
            places = ((np.arange(BINS) + 0.5) * (self.top / top)).astype(int)
            np.add.at(grown, places, self.counts)
            self.top, self.counts = top, grown
        if self.top > 0:
            self.counts += np.histogram(sizes, BINS, (0, self.top))[0]

    def limit(self) -> float:
        """The end of the range with the least squared error of rounding and clipping."""
        if self.top <= 0:
            return TINY * LEVELS
        values = (np.arange(BINS) + 0.5) / BINS
        errors = []
        for clip in CLIPS:
            rounded = np.minimum(np.rint(values * (LEVELS / clip)), LEVELS) * (clip / LEVELS)
            # Within a bin values are spread evenly; without that term fine scales would look better than they are.
            errors.append(float((self.counts * ((values - rounded) ** 2 + (clip / LEVELS) ** 2 / 12)).sum()))
        return self.top * float(CLIPS[int(np.argmin(errors))])


def calibrate(
    model: ModelProto, feeds: Iterable[Mapping[str, NDArray[Any]]], *, skip: frozenset[str] = frozenset()
) -> dict[str, float]:
    """Largest magnitude to represent of every value that is rounded.

    Args:
        model: float32 graph.
        feeds: inputs, run by run, as varied as what the model will meet.
        skip: as for ``products``.
    Raises:
        BadModelFile: a value is not finite.
    """
    names = sorted({product.origin for product in products(model, skip)})
    watched = ModelProto()
    watched.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    fresh = [name for name in names if name not in inputs | {value.name for value in model.graph.output}]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in fresh)
    backend = OrtBackend(watched.SerializeToString(), threads=1)
    observed = {name: _Observed() for name in names}
    for feed in feeds:
        out = backend.run(feed)
        for name in names:
            observed[name].add(feed[name] if name in inputs else out[name])
    return {name: one.limit() for name, one in observed.items()}


def quantise_static(
    model: ModelProto, limits: Mapping[str, float], *, skip: frozenset[str] = frozenset()
) -> ModelProto:
    """A copy of a graph with products and convolutions in 8 bits.

    Args:
        model: float32 graph.
        limits: of ``calibrate``.
        skip: as for ``products``.
    """
    quantised = ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    chosen = products(quantised, skip)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    zero = numpy_helper.from_array(np.array(ZERO_POINT, np.uint8), "q8_zero")
    fresh = [zero]
    nodes: list[Any] = []
    behind: dict[str, list[Any]] = {}
    for origin in dict.fromkeys(product.origin for product in chosen):
        scale = numpy_helper.from_array(np.asarray(limits[origin] / LEVELS, np.float32), f"{origin}_q8_scale")
        fresh.append(scale)
        behind[origin] = [
            helper.make_node("QuantizeLinear", [origin, scale.name, zero.name], [f"{origin}_q8"]),
            helper.make_node("DequantizeLinear", [f"{origin}_q8", scale.name, zero.name], [f"{origin}_dq8"]),
        ]
    for weight, axis in dict.fromkeys((product.weight, product.axis) for product in chosen):
        values, scales = _quantised_weight(tensors[weight], axis)
        inputs = [f"{weight}_q8_{axis}", f"{weight}_q8_{axis}_scale"]
        fresh += [numpy_helper.from_array(values, inputs[0]), numpy_helper.from_array(scales, inputs[1])]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{weight}_dq8_{axis}"], axis=axis))
    for product in chosen:
        product.node.input[1] = f"{product.weight}_dq8_{product.axis}"
        for reader in product.readers:
            reader.input[:] = [f"{n}_dq8" if n == product.origin else n for n in reader.input]
    for value in graph.input:
        nodes += behind.get(value.name, [])
    for node in graph.node:
        made = NodeProto()
        made.CopyFrom(node)
        nodes.append(made)
        nodes += [one for name in node.output for one in behind.get(name, [])]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in tensors.values() if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *fresh])
    return quantised


def _quantised_weight(tensor: TensorProto, axis: int) -> tuple[NDArray[np.int8], F32]:
    weight = np.asarray(numpy_helper.to_array(tensor), np.float32)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), TINY) / LEVELS
    values = np.rint(weight / scale).clip(-LEVELS, LEVELS).astype(np.int8)
    return values, scale.reshape(-1).astype(np.float32)
