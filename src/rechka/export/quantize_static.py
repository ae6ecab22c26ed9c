"""Full 8 bits with scales fixed beforehand: products and convolutions between QuantizeLinear and DequantizeLinear.

Weights are symmetric with a scale per output channel, activations have one scale per tensor, measured on recordings.
Standard operations only: OpenVINO computes such a graph in integers throughout, ONNX Runtime reads it too. As a scale
does not look at the data, a row's result depends on that row alone, whatever else is in the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
"""Convolutions whose input channels are no multiple of it stay, unless there are ``MANY``: nothing is gained."""
MANY = 128
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
    origins: Mapping[str, tuple[Any, ...]]
    """Values that are rounded, alike if there are several; of each the nodes that read it on the way to ``node``: it
    alone, or operations that move values."""


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
            found.append(_Product(node, tensor.name, axis, paths.origins(node)))
    return found


def _alike(found: Iterable[_Product]) -> list[tuple[str, ...]]:
    """Groups of values that have one scale, because a product reads them together."""
    groups: dict[str, set[str]] = {}
    for product in found:
        group = set().union(product.origins, *(groups.get(name, ()) for name in product.origins))
        groups |= dict.fromkeys(group, group)
    return [tuple(sorted(group)) for group in {id(group): group for group in groups.values()}.values()]


def _channel_axis(node: Any, weight: TensorProto) -> int | None:
    """Axis of the output channels of a weight, None if the node stays as it is."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "MatMul" and len(weight.dims) == 2:
        return 1
    if node.op_type == "Gemm" and not attributes.get("transA"):
        return 0 if attributes.get("transB") else 1
    if node.op_type == "Conv" and attributes.get("group", 1) == 1:
        return 0 if weight.dims[1] % CHANNELS == 0 or weight.dims[1] >= MANY else None
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
        self._given = {value.name for value in model.graph.input}

    def origins(self, node: Any) -> dict[str, tuple[Any, ...]]:
        """The values, as early as possible, that ``node``'s activation only rearranges, and who reads them for that."""
        moves: dict[int, Any] = {}
        found = dict.fromkeys(self._above(node.input[0], moves))
        ours = {*moves, id(node)}
        private = all(
            id(reader) in ours and name not in self._results
            for move in moves.values()
            for name in move.output
            for reader in self._readers.get(name, ())
        )
        if not moves or not private:
            return {node.input[0]: (node,)}
        return {name: tuple(move for move in moves.values() if name in move.input) for name in found}

    def _above(self, name: str, moves: dict[int, Any]) -> list[str]:
        node = self._writer.get(name)
        if node is None or node.op_type not in MOVES:
            return [name]
        inner: dict[int, Any] = {}
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        above = list(dict.fromkeys(one for source in sources for one in self._above(source, inner)))
        if len(above) > 1 and self._given.intersection(above):
            return [name]  # OpenVINO would round what comes from outside only where it meets the rest
        moves |= {id(node): node, **inner}
        return above


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
    groups = _alike(products(model, skip))
    names = sorted(name for group in groups for name in group)
    watched = ModelProto()
    watched.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    fresh = [name for name in names if name not in inputs | {value.name for value in model.graph.output}]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in fresh)
    backend = OrtBackend(watched.SerializeToString(), threads=1)
    observed = {group: _Observed() for group in groups}
    for feed in feeds:
        out = backend.run(feed)
        for group in groups:
            for name in group:
                observed[group].add(feed[name] if name in inputs else out[name])
    return {name: one.limit() for group, one in observed.items() for name in group}


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
    centred = _centred(chosen)
    for origin in dict.fromkeys(name for product in chosen for name in product.origins):
        scale = numpy_helper.from_array(np.asarray(limits[origin] / LEVELS, np.float32), f"{origin}_q8_scale")
        fresh.append(scale)
        read = [f"{origin}_q8", scale.name, *([zero.name] if origin in centred else [])]
        behind[origin] = [
            helper.make_node("QuantizeLinear", [origin, scale.name, zero.name], read[:1]),
            helper.make_node("DequantizeLinear", read, [f"{origin}_dq8"]),
        ]
    for weight, axis in dict.fromkeys((product.weight, product.axis) for product in chosen):
        values, scales = _quantised_weight(tensors[weight], axis)
        inputs = [f"{weight}_q8_{axis}", f"{weight}_q8_{axis}_scale"]
        fresh += [numpy_helper.from_array(values, inputs[0]), numpy_helper.from_array(scales, inputs[1])]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{weight}_dq8_{axis}"], axis=axis))
    for product in chosen:
        if not centred.intersection(product.origins):
            bias = _shifted_bias(product, tensors, limits[next(iter(product.origins))] / LEVELS)
            fresh.append(bias)
            product.node.input[2:] = [bias.name]
        product.node.input[1] = f"{product.weight}_dq8_{product.axis}"
        for origin, readers in product.origins.items():
            for reader in readers:
                reader.input[:] = [f"{n}_dq8" if n == origin else n for n in reader.input]
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


def _centred(chosen: Sequence[_Product]) -> set[str]:
    """Rounded values that are read as what they are; all others are read from 0 upwards, as bytes are.

    What they are then too large by is the same for all of them and goes into the bias of the convolution that reads
    them, so that no engine need reckon with it. Products, and convolutions that pad with zeros, cannot do that.
    """
    centred: set[str] = set()
    for product in chosen:
        padded = any(a.name in ("pads", "auto_pad") and any((*a.ints, a.s)) for a in product.node.attribute)
        if product.node.op_type != "Conv" or padded:
            centred.update(product.origins)
    return {name for group in _alike(chosen) if centred.intersection(group) for name in group}


def _shifted_bias(product: _Product, tensors: Mapping[str, TensorProto], scale: float) -> TensorProto:
    """The bias of a convolution whose activation is read from 0 upwards instead of around ``ZERO_POINT``."""
    values, scales = _quantised_weight(tensors[product.weight], product.axis)
    sums = values.reshape(len(values), -1).sum(axis=1, dtype=np.int64)
    bias = -ZERO_POINT * float(np.float32(scale)) * scales.astype(np.float64) * sums
    if len(product.node.input) > 2:
        bias = bias + numpy_helper.to_array(tensors[product.node.input[2]])
    return numpy_helper.from_array(bias.astype(np.float32), f"{product.node.output[0]}_q8_bias")


def _quantised_weight(tensor: TensorProto, axis: int) -> tuple[NDArray[np.int8], F32]:
    weight = np.asarray(numpy_helper.to_array(tensor), np.float32)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True), TINY) / LEVELS
    values = np.rint(weight / scale).clip(-LEVELS, LEVELS).astype(np.int8)
    return values, scale.reshape(-1).astype(np.float32)
