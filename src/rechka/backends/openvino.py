"""OpenVINO behind the Backend face: the same ONNX files as for ONNX Runtime, faster on x86 CPUs.

OpenVINO joins neighbouring operations only where it knows sizes, which is a fifth of T-one's speed. So every shape of
inputs that comes is compiled once, and callers should bring few; ``rechka.models.tone`` does. The extra ``openvino``
brings it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rechka.backends.cores import cores
from rechka.backends.onnx_file import summarise
from rechka.errors import BadModelFile, MissingExtra, UsageError

Array = NDArray[Any]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]

MAX_SHAPES = 6
"""Compiled shapes that are kept, each of about three times the size of the file."""

MAX_CACHE_BYTES = 4 << 30
"""What compiled graphs may take on disk: all shapes of two models of T-one's size in float32, of eight in 8 bits."""

_log = logging.getLogger(__name__)


def is_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported for that."""
    return find_spec("openvino") is not None


def cache_folder() -> Path:
    """Where compiled graphs are kept, as the XDG base directory specification says; may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "rechka" / "openvino"


def trim_cache(folder: Path, most: int) -> None:
    """Delete the compiled graphs that were not used for longest until the rest takes ``most`` bytes; none is missed."""
    found = []
    try:
        for path in folder.glob("*.blob"):
            at = path.stat()
            found.append((max(at.st_atime, at.st_mtime), at.st_size, path))
        size = sum(item[1] for item in found)
        for _, bytes_, path in sorted(found, key=lambda item: item[0]):
            if size <= most:
                break
            path.unlink(missing_ok=True)
            size -= bytes_
    except OSError as error:  # another process deletes too, or may and this one may not
        _log.debug("the cache %s was not trimmed: %s", folder, error)


@dataclass(slots=True)
class _Place:
    """An inference request, and the memory that ``workspace`` lends for its inputs.

    Attributes:
        in_place: whether the request reads its inputs from there; ``run`` gives it its caller's arrays.
    """

    request: Any
    tensors: dict[str, Any] = field(default_factory=dict)
    in_place: bool = False


class OpenVinoBackend:
    """A graph loaded into OpenVINO, on the CPU, in float32 and, where the graph says so, 8 bits.

    Thread-safe: as many threads may call ``run`` at once as there are cores; each gets an inference request with
    ``threads`` threads of its own.

    Args:
        model: path of an ``.onnx`` file.
        threads: threads within one ``run``; None means all cores that this process may use.
        fixed_shapes: compile every shape of the inputs by itself; else one compiled graph takes them all.
        bf16: compute in bfloat16 what is not in 8 bits. CPUs without bfloat16 refuse it.
    Raises:
        ModelNotFound: the path does not exist.
        BadModelFile: not an ONNX graph, or one that OpenVINO cannot run.
        MissingExtra: OpenVINO is not installed.
        UsageError: fewer than one thread, or bfloat16 on a CPU that has none.
    """

    def __init__(
        self, model: str | Path, *, threads: int | None = None, fixed_shapes: bool = True, bf16: bool = False
    ) -> None:
        if not is_installed():
            raise MissingExtra("OpenVINO is not installed", remedy='pip install "rechka[openvino]"')
        import openvino

        available = cores()
        self.threads = available if threads is None else threads
        if self.threads < 1:
            raise UsageError(f"threads must be at least 1, got {self.threads}")
        self.device = "cpu"
        self._path = Path(model)
        self._metadata = MappingProxyType(dict(summarise(self._path).metadata))
        self._core = openvino.Core()
        if bf16 and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UsageError("this CPU has no bfloat16", remedy="leave it out")
        streams = max(1, available // self.threads)
        self._settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * self.threads,
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            # The machine may be shared; whoever wants cores for himself sets the process's affinity.
            "ENABLE_CPU_PINNING": False,
            # What was compiled is kept for the next process: a second instead of four for a model of T-one's size.
            "CACHE_DIR": str(cache_folder()),
        }
        self._streams = streams
        self.fixed_shapes = fixed_shapes
        graph = self._read()
        try:
            self._inputs = MappingProxyType(
                {
                    port.any_name: (
                        tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape),
                        np.dtype(port.element_type.to_dtype()),
                    )
                    for port in graph.inputs
                }
            )
            self._outputs = tuple(port.any_name for port in graph.outputs)
        except RuntimeError as error:
            raise self._bad(error) from error
        self._compiled: OrderedDict[Shapes, SimpleQueue[_Place]] = OrderedDict()
        self._compiling = threading.Lock()

    @property
    def inputs(self) -> Mapping[str, tuple[Any, np.dtype[Any]]]:
        """Shape (None where dynamic) and dtype of every input by name."""
        return self._inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self._outputs

    @property
    def metadata(self) -> Mapping[str, str]:
        """Key-value texts stored in the model file."""
        return self._metadata

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs from all inputs. The first run of a shape compiles it: seconds for a large model.

        Raises:
            UsageError: a name, shape or dtype that the graph does not take.
        """
        self._check(feeds)
        requests = self._requests(tuple(feeds[name].shape for name in self._inputs) if self.fixed_shapes else ())
        place = requests.get()
        place.in_place = False
        try:
            values = place.request.infer(
                {name: np.ascontiguousarray(feeds[name]) for name in self._inputs}, share_inputs=True
            )
            return {name: values[name] for name in self._outputs}
        finally:
            requests.put(place)

    @contextmanager
    def workspace(
        self, shapes: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[dict[str, Array], Callable[[], dict[str, Array]]]]:
        """A request for inputs of these shapes, for the caller alone: its input arrays, and what computes the outputs.

        The arrays are the request's own memory. The inputs are to be filled before each computation, and the outputs
        to be copied before the workspace is left: nothing else moves them, and nothing is allocated.
        """
        import openvino

        requests = self._requests(tuple(tuple(shapes[name]) for name in self._inputs) if self.fixed_shapes else ())
        place = requests.get()
        try:
            for name, (_, dtype) in self._inputs.items():
                fits = name in place.tensors and place.tensors[name].data.shape == tuple(shapes[name])
                if not fits:
                    place.tensors[name] = openvino.Tensor(np.zeros(shapes[name], dtype), shared_memory=True)
                if not (fits and place.in_place):
                    place.request.set_tensor(name, place.tensors[name])
            place.in_place = True

            def compute() -> dict[str, Array]:
                place.request.infer()
                return {name: place.request.get_tensor(name).data for name in self._outputs}

            yield {name: tensor.data for name, tensor in place.tensors.items()}, compute
        finally:
            requests.put(place)

    def _requests(self, shapes: Shapes) -> SimpleQueue[_Place]:
        """Idle requests for inputs of these shapes; the least recently used other shape may be forgotten for it."""
        with self._compiling:
            if shapes in self._compiled:
                self._compiled.move_to_end(shapes)
            else:
                self._compiled[shapes] = self._compile(shapes)
                if len(self._compiled) > MAX_SHAPES:
                    self._compiled.popitem(last=False)
            return self._compiled[shapes]

    def _compile(self, shapes: Shapes) -> SimpleQueue[_Place]:
        _log.debug("compiling %s for %s", self._path.name, shapes)
        graph = self._read()
        try:
            if shapes:
                graph.reshape(dict(zip(self._inputs, map(list, shapes), strict=True)))
            compiled = self._core.compile_model(graph, "CPU", self._settings)
        except RuntimeError as error:
            raise self._bad(error) from error
        trim_cache(cache_folder(), MAX_CACHE_BYTES)
        requests: SimpleQueue[_Place] = SimpleQueue()
        for _ in range(self._streams):
            requests.put(_Place(compiled.create_infer_request()))
        return requests

    def _read(self) -> Any:
        try:
            return self._core.read_model(str(self._path))
        except RuntimeError as error:
            raise self._bad(error) from error

    def _bad(self, error: Exception) -> BadModelFile:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return BadModelFile(
            f"OpenVINO cannot run {self._path}: {lines[-1] if lines else type(error).__name__}",
            remedy="let ONNX Runtime run it: set RECHKA_BACKEND=onnxruntime",
        )

    def _check(self, feeds: Mapping[str, Array]) -> None:
        """UsageError unless the feeds are what the graph takes: OpenVINO would convert or fail in its own words."""
        fits = feeds.keys() == self._inputs.keys() and all(
            feeds[name].dtype == dtype
            and feeds[name].ndim == len(shape)
            and all(wanted in (None, size) for wanted, size in zip(shape, feeds[name].shape, strict=True))
            for name, (shape, dtype) in self._inputs.items()
        )
        if not fits:
            wanted = ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in self._inputs.items())
            given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            raise UsageError(f"the graph takes {wanted}; got {given}", remedy="the model file does not fit its family")
