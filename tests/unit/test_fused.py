"""Kernels in Triton against the same operations in plain torch: on a GPU, or on a CPU in Triton's interpreter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs rechka[train]")
ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
pytest.importorskip("triton", reason="needs triton, which torch brings where it is built for CUDA")

from rechka.backends.torch import TorchArena  # noqa: E402
from rechka.export.onnx import read_config  # noqa: E402
from rechka.features import tone as frontend  # noqa: E402
from rechka.nn.fused import Depthwise, HeadNorms, Linear, Past, Reference, Scaled  # noqa: E402
from rechka.nn.fused_triton import Fused, Tiled  # noqa: E402
from rechka.nn.tone import rotary_table  # noqa: E402
from rechka.nn.weights import read_weights  # noqa: E402

DATA = Path(__file__).parents[1] / "data/tone"

DEVICE = "cuda" if ON_GPU else "cpu"
TYPES = [torch.float32, torch.bfloat16] if ON_GPU else [torch.float32]
PLAIN, FUSED, TILED = Reference(), Fused(), Tiled()
GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(*shape, generator=GENERATOR).to(DEVICE, dtype)


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, Scaled):
        torch.testing.assert_close(found.scale, wanted.scale, rtol=1e-5, atol=1e-7)
        if ON_GPU:  # the interpreter of Triton 3.6 makes 16 of 31
            torch.testing.assert_close(
                found.values.float() * found.scale, wanted.values.float() * wanted.scale, rtol=0.13, atol=1e-3
            )
        return
    loose = {"rtol": 2e-2, "atol": 2e-2} if wanted.dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found, wanted, **loose)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("in_8_bits", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 32), (7, 48), (9, 384)])
def test_norms_and_gates(rows: int, width: int, in_8_bits: bool, dtype: Any) -> None:
    x, shift, weight = 3 * random(rows, width, dtype=dtype), random(width), random(width)
    same(FUSED.rms(x, None, None, in_8_bits), PLAIN.rms(x, None, None, in_8_bits))
    same(FUSED.rms(x, shift, weight, in_8_bits), PLAIN.rms(x, shift, weight, in_8_bits))
    for found, wanted in zip(
        FUSED.finish(x, shift, weight, in_8_bits), PLAIN.finish(x, shift, weight, in_8_bits), strict=True
    ):
        same(found, wanted)
    wide = random(rows, 2 * width, dtype=dtype)
    same(FUSED.gate(wide, in_8_bits), PLAIN.gate(wide, in_8_bits))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "inner", "width"), [(1, 32, 48), (150, 384, 160), (20, 100, 128)])
def test_products_with_their_gate(rows: int, inner: int, width: int, dtype: Any) -> None:
    x, bias = random(rows, inner, dtype=dtype), random(2 * width, dtype=dtype)
    linear = Linear(random(2 * width, inner, dtype=dtype) / inner**0.5, bias)
    same(TILED.gated(x, linear, dtype), PLAIN.gated(x, linear, dtype))


@pytest.mark.parametrize("dtype", TYPES)
def test_features_and_bands(dtype: Any) -> None:
    mel = torch.from_numpy(frontend.mel_table().copy()).to(DEVICE)
    spectrum, norm = 10 * random(37, 2 * mel.shape[0]), random(mel.shape[1])
    spectrum[5] = 0  # silence
    same(FUSED.features(spectrum, mel, norm, dtype), PLAIN.features(spectrum, mel, norm, dtype))
    bands, heard = random(3, 11, 700, dtype=dtype), torch.tensor([0, 1, 7], device=DEVICE)
    opened = FUSED.open_bands(bands.clone(), heard, 4)
    same(opened, PLAIN.open_bands(bands.clone(), heard, 4))
    assert not opened[0, :4].any()
    assert opened[1:, :4].any()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("frames", [5, 10])
@pytest.mark.parametrize("width", [40, 96])
def test_depthwise_with_its_ring(frames: int, width: int, dtype: Any) -> None:
    ring, wide = random(5, 30, width, dtype=dtype), random(3, frames, 2 * width, dtype=dtype)
    other, before = ring.clone(), ring.clone()
    places = (torch.tensor(row, device=DEVICE) for row in ([4, 0, 2], [0, 20, 25], [0, 20, 30]))
    past, conv = Past(*places), Depthwise(random(31, width), random(width))
    same(FUSED.depthwise(wide, other, past, conv), PLAIN.depthwise(wide, ring, past, conv))
    same(other, ring)
    assert torch.equal(other[[1, 3]], before[[1, 3]]), "a slot of nobody's was written"
    assert not torch.equal(other[4], before[4])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("frames", "keys", "missing"), [(10, 10, None), (5, 5, None), (5, 20, [0, 15, 5]), (10, 40, [30, 0, 10])]
)
@pytest.mark.parametrize(("heads", "size", "turned"), [(2, 24, 16), (8, 48, 32), (2, 16, 8)])
def test_attention(
    frames: int, keys: int, missing: list[int] | None, heads: int, size: int, turned: int, dtype: Any
) -> None:
    width = heads * size
    both = random(3, keys, 3 * width, dtype=dtype)
    query, key, value = both[:, -frames:, :width], both[..., width : 2 * width], both[..., 2 * width :]
    norms = HeadNorms((random(size), random(size)), (random(size), random(size)))
    table = tuple(part.to(DEVICE) for part in rotary_table(keys, turned))
    absent = None if missing is None else torch.tensor(missing, device=DEVICE)
    weights = PLAIN.attend(query, key, norms, table, absent)
    same(FUSED.attend(query, key, norms, table, absent), weights)
    same(FUSED.mix(weights, value), PLAIN.mix(weights, value))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["fused", "tiled"])
def test_the_whole_model_on_these_kernels(kernels: str) -> None:
    """Golden vectors of the original, a stream and a row of nobody's."""
    config, golden = read_config(DATA / "mini_config.json"), np.load(DATA / "mini_streaming.npz")
    tone = TorchArena(
        read_weights(DATA / "mini.safetensors"), config,
        device=DEVICE, precision="fp32", kernels=kernels, slots=4, runs={1: (2,)},
    )  # fmt: skip
    for i, (audio, logprobs) in enumerate(zip(golden["audio"][:2], golden["logprobs"], strict=False)):
        found = tone.run([3], [i], audio[:1].astype(np.int16))
        np.testing.assert_allclose(found, logprobs[:1], atol=1e-4)
