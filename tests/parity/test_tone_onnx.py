"""The ONNX graphs and the model family on them, against vectors of the original implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from rechka.backends.ort import OrtBackend
from rechka.export.onnx import read_config
from rechka.export.tone import build
from rechka.models.tone import ToneModel
from rechka.nn.weights import read_weights

DATA = Path(__file__).parents[1] / "data" / "tone"


@pytest.mark.parametrize(
    ("form", "precision", "state", "tolerance"),
    [
        ("published", "fp32", "float32", 1e-4),
        ("published", "fp32", "float16", 5e-2),
        ("published", "fp16", "float16", 5e-2),
        ("block", "fp32", "float32", 1e-4),
        ("block", "int8", "float32", 1.0),
    ],
)
def test_streaming_logprobs_and_state(form: str, precision: str, state: str, tolerance: float) -> None:
    config = read_config(DATA / "mini_config.json")
    graph = build(read_weights(DATA / "mini.safetensors"), config, form=form, precision=precision, state=state)
    model = ToneModel(OrtBackend(graph.SerializeToString(), threads=1))
    golden = np.load(DATA / "mini_streaming.npz")
    states = [model.initial_state(), model.initial_state()]
    for i, (audio, logprobs, state_next) in enumerate(
        zip(golden["audio"], golden["logprobs"], golden["state_next"], strict=True)
    ):
        frames, states = model.step(list(audio.astype(np.float32) / 32767), states)
        assert [frame.start for frame in frames] == [10 * i, 10 * i]
        np.testing.assert_allclose([frame.values for frame in frames], logprobs, atol=tolerance)
        np.testing.assert_allclose([s.values for s in states], state_next, atol=tolerance)
