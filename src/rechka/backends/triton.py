"""A graph on a Triton server, or any other that speaks version 2 of KServe's protocol over gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile, MissingExtra, RemoteFailed, UsageError

Array = NDArray[Any]

TIMEOUT_S = 30.0
"""Of one run. Models answer within a second; a server that is loading may take longer."""
MAX_MESSAGE_BYTES = 1 << 30

_DTYPES: Mapping[str, type[np.generic]] = MappingProxyType(
    {
        "FP32": np.float32, "FP16": np.float16, "FP64": np.float64, "INT8": np.int8, "UINT8": np.uint8,
        "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_,
    }
)  # fmt: skip
"""KServe's names of types (Open Inference Protocol, «Tensor data types»)."""


class TritonBackend:
    """A graph that a server has loaded. Thread-safe: gRPC channels are, and nothing is kept between calls.

    Args:
        address: ``host:port`` of the gRPC service, usually port 8001.
        model: its name there.
        version: of the model; the server's choice if empty.
        timeout_s: of one call.

    Raises:
        MissingExtra: tritonclient is not installed.
        RemoteFailed: no answer, or no such model.
        BadModelFile: a type of array that rechka does not know.
    """

    def __init__(self, address: str, model: str, *, version: str = "", timeout_s: float = TIMEOUT_S) -> None:
        try:
            import tritonclient.grpc as grpc
            from tritonclient.utils import InferenceServerException
        except ModuleNotFoundError:
            raise MissingExtra("triton:// needs tritonclient", remedy='pip install "rechka[triton]"') from None
        if not address or not model:
            raise UsageError(
                f"a server's model is named as triton://HOST:PORT/NAME, got {address!r} and {model!r}",
                remedy="example: --device triton://localhost:8001/t-one",
            )
        self.address, self.model, self._version, self._timeout_s = address, model, version, timeout_s
        self._grpc, self._error = grpc, InferenceServerException
        self._client = grpc.InferenceServerClient(address)
        told = self._ask(lambda: self._client.get_model_metadata(model, version, client_timeout=timeout_s))
        config = self._ask(lambda: self._client.get_model_config(model, version, client_timeout=timeout_s)).config
        self._max_batch = int(config.max_batch_size)
        self._inputs = MappingProxyType({node.name: (_shape(node), _dtype(node)) for node in told.inputs})
        self._types = {node.name: node.datatype for node in told.inputs}
        self._outputs = tuple(node.name for node in told.outputs)
        self._metadata = MappingProxyType({key: value.string_value for key, value in config.parameters.items()})
        self._wanted = [grpc.InferRequestedOutput(name) for name in self._outputs]

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
        """The parameters in the model's configuration on the server."""
        return self._metadata

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs from all inputs; a batch beyond the server's limit goes in several requests.

        Raises:
            UsageError: a name, shape or dtype that the model does not take.
            RemoteFailed: the server does not answer or refuses.
        """
        rows = len(next(iter(feeds.values())))
        if not self._max_batch or rows <= self._max_batch:
            return self._infer(feeds)
        parts = [
            self._infer({name: array[i : i + self._max_batch] for name, array in feeds.items()})
            for i in range(0, rows, self._max_batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def infer_in_sequence(
        self, feeds: Mapping[str, Array], sequence: int, *, start: bool, end: bool
    ) -> dict[str, Array]:
        """One step of a stream whose state the server keeps.

        Args:
            feeds: without the state; batch of one.
            sequence: number of the stream, above 0.
            start, end: whether it is the stream's first, last step.
        """
        return self._infer(feeds, sequence_id=sequence, sequence_start=start, sequence_end=end)

    def _infer(self, feeds: Mapping[str, Array], **options: Any) -> dict[str, Array]:
        inputs = []
        for name, array in feeds.items():
            if name not in self._types or array.dtype != self._inputs[name][1]:
                wanted = ", ".join(f"{key} {dtype}{list(shape)}" for key, (shape, dtype) in self._inputs.items())
                raise UsageError(
                    f"{self.model} on {self.address} takes {wanted}; got {name} {array.dtype}{list(array.shape)}",
                    remedy="the server holds another model than the card says",
                )
            one = self._grpc.InferInput(name, list(array.shape), self._types[name])
            one.set_data_from_numpy(np.ascontiguousarray(array))
            inputs.append(one)
        answer = self._ask(
            lambda: self._client.infer(
                self.model, inputs, self._version, outputs=self._wanted, client_timeout=self._timeout_s, **options
            )
        )
        found: dict[str, Array] = {}
        for name in self._outputs:
            value = answer.as_numpy(name)
            if value is None:
                raise RemoteFailed(f"{self.model} on {self.address} answers without {name}")
            found[name] = value
        return found

    def _ask(self, call: Any) -> Any:
        try:
            return call()
        except self._error as error:
            raise RemoteFailed(
                f"{self.model} on {self.address}: {error.message() or error}",
                remedy="check that the server runs there and has loaded the model",
            ) from error


def _shape(node: Any) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else int(size) for size in node.shape)


def _dtype(node: Any) -> np.dtype[Any]:
    if node.datatype not in _DTYPES:
        raise BadModelFile(f"the model has an input {node.name} of type {node.datatype}, which is not numeric")
    return np.dtype(_DTYPES[node.datatype])
