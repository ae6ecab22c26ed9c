"""A small server of KServe's protocol, version 2, over gRPC: what rechka asks of Triton, for tests without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.protocols import Backend

_NAMES = {"float32": "FP32", "float16": "FP16", "int32": "INT32", "int64": "INT64"}


class FakeModel:
    """A graph that is served.

    Args:
        backend: runs it.
        max_batch: requests with more rows are refused; 0: the batch is an axis like others.
        sequences: keep the ``state`` of each sequence here, as Triton's implicit states do.
        parameters: of the model's configuration.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_batch: int = 0,
        sequences: bool = False,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self.backend, self.max_batch, self.sequences = backend, max_batch, sequences
        self.parameters = dict(parameters or {})
        self.states: dict[int, NDArray[Any]] = {}
        self.requests: list[dict[str, Any]] = []
        self.fail_at: set[int] = set()
        """Numbers of requests, from 0, that are refused."""

    @property
    def inputs(self) -> dict[str, tuple[Any, np.dtype[Any]]]:
        """What clients send."""
        return {name: one for name, one in self.backend.inputs.items() if not (self.sequences and name == "state")}

    @property
    def outputs(self) -> list[str]:
        """What clients get."""
        return [name for name in self.backend.outputs if not (self.sequences and name == "state_next")]

    def infer(self, feeds: dict[str, NDArray[Any]], parameters: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Answer a request, or raise ValueError."""
        number = len(self.requests)
        self.requests.append({**parameters, "shapes": {name: array.shape for name, array in feeds.items()}})
        if number in self.fail_at:
            raise ValueError("out of order today")
        if self.max_batch and len(next(iter(feeds.values()))) > self.max_batch:
            raise ValueError(f"batch above {self.max_batch}")
        sequence = int(parameters.get("sequence_id", 0))
        if self.sequences:
            if not sequence:
                raise ValueError("no sequence id")
            if parameters.get("sequence_start"):
                (_, size), dtype = self.backend.inputs["state"]
                self.states[sequence] = np.zeros((1, size), dtype)
            feeds = {**feeds, "state": self.states[sequence]}
        found = self.backend.run(feeds)
        if self.sequences:
            self.states[sequence] = found["state_next"]
        return {name: found[name] for name in self.outputs}


@contextmanager
def kserve(models: Mapping[str, FakeModel]) -> Iterator[str]:
    """A server of models by name; gives its address."""
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc import service_pb2_grpc as service

    def tensors(model: FakeModel) -> list[Any]:
        return [
            messages.ModelMetadataResponse.TensorMetadata(
                name=name, datatype=_NAMES[dtype.name], shape=[-1 if size is None else size for size in shape]
            )
            for name, (shape, dtype) in model.inputs.items()
        ]

    class Service(service.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def find(self, name: str, context: Any) -> FakeModel:
            if name not in models:
                context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name}")
            return models[name]

        def ModelMetadata(self, request: Any, context: Any) -> Any:
            model = self.find(request.name, context)
            outputs = [messages.ModelMetadataResponse.TensorMetadata(name=name) for name in model.outputs]
            return messages.ModelMetadataResponse(name=request.name, inputs=tensors(model), outputs=outputs)

        def ModelConfig(self, request: Any, context: Any) -> Any:
            model = self.find(request.name, context)
            answer = messages.ModelConfigResponse()
            answer.config.max_batch_size = model.max_batch
            for key, value in model.parameters.items():
                answer.config.parameters[key].string_value = value
            return answer

        def ModelInfer(self, request: Any, context: Any) -> Any:
            model = self.find(request.model_name, context)
            feeds = {}
            for one, raw in zip(request.inputs, request.raw_input_contents, strict=True):
                dtype = model.inputs[one.name][1]
                feeds[one.name] = np.frombuffer(raw, dtype).reshape(list(one.shape))
            parameters = {key: value.int64_param or value.bool_param for key, value in request.parameters.items()}
            try:
                found = model.infer(feeds, parameters)
            except Exception as error:  # noqa: BLE001 - told to the client, as Triton does
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            answer = messages.ModelInferResponse(model_name=request.model_name)
            for name, array in found.items():
                answer.outputs.add(name=name, datatype=_NAMES[array.dtype.name], shape=array.shape)
                answer.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
            return answer

    server = grpc.server(ThreadPoolExecutor(8))
    service.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
