"""ONNX Runtime inside Triton's Python backend: ``model.py`` of what ``rechka export --engine python`` writes.

It runs on the server, where numpy and onnxruntime have to be; rechka does not. Where they lie elsewhere than the
server's Python looks, RECHKA_SITE_PACKAGES names their folder.
"""

import json
import os
import sys
from typing import Any

sys.path[:0] = [path for path in os.environ.get("RECHKA_SITE_PACKAGES", "").split(os.pathsep) if path]

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
import triton_python_backend_utils as utils  # noqa: E402


class TritonPythonModel:
    """A graph, and the states of its streams if the server keeps them."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph."""
        folder = os.path.join(args["model_repository"], args["model_version"])
        config = json.loads(args["model_config"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.path.join(folder, "model.onnx"), options)
        self.computed = [node.name for node in self.session.get_outputs()]
        self.given = [node["name"] for node in config["input"]]
        self.told = [node["name"] for node in config["output"]]
        self.together = config["max_batch_size"] > 0
        self.keeps = "sequence_batching" in config
        self.states: dict[int, Any] = {}
        if self.keeps:
            state = next(node for node in self.session.get_inputs() if node.name == "state")
            self.silence = np.zeros((1, state.shape[1]), np.float16 if "16" in state.type else np.float32)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers to the requests, those of equal shapes computed together."""
        groups: dict[Any, list[Any]] = {}
        for place, request in enumerate(requests):
            feeds = {name: _array(request, name) for name in self.given}
            if self.keeps:
                feeds["state"] = self.recall(request)
            shapes = tuple(array.shape[1:] for array in feeds.values())
            groups.setdefault(shapes if self.together else place, []).append((place, feeds))
        answers: list[Any] = [None] * len(requests)
        for members in groups.values():
            feeds = {name: np.concatenate([feeds[name] for _, feeds in members]) for name in members[0][1]}
            found = dict(zip(self.computed, self.session.run(self.computed, feeds), strict=True))
            begin = 0
            for place, own in members:
                end = begin + len(next(iter(own.values())))
                part = {n: array[begin:end] if self.together else array for n, array in found.items()}
                begin = end
                if self.keeps:
                    self.remember(requests[place], part["state_next"])
                answers[place] = utils.InferenceResponse([utils.Tensor(name, part[name]) for name in self.told])
        return answers

    def recall(self, request: Any) -> Any:
        """The state of the stream that asks."""
        start = bool(_array(request, "START").reshape(-1)[0])
        return self.silence if start else self.states.get(_stream(request), self.silence)

    def remember(self, request: Any, state: Any) -> None:
        """Keep the state until the stream ends."""
        if _array(request, "END").reshape(-1)[0]:
            self.states.pop(_stream(request), None)
        else:
            self.states[_stream(request)] = state.copy()


def _array(request: Any, name: str) -> Any:
    return utils.get_input_tensor_by_name(request, name).as_numpy()


def _stream(request: Any) -> int:
    return int(_array(request, "STREAM").reshape(-1)[0])
