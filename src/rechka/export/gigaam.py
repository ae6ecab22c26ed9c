"""GigaAM to a folder of ONNX files, each compared with the torch module before it counts as written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rechka.backends.ort import OrtBackend
from rechka.errors import BadModelFile, OutputError, UsageError
from rechka.export.gigaam_graph import PRECISIONS, build_main
from rechka.export.gigaam_search import build_decoder, build_joiner
from rechka.export.verify import LIMITS, Drift
from rechka.features.gigaam import NUM_MELS
from rechka.nn.gigaam_config import BANK, WINDOW, GigaAmConfig

LARGEST_FILE = 1_900_000_000
"""Bytes of weights that go into one file: a protocol buffer may have two gigabytes. More lie beside it."""
FRAMES = (261, 64, 1, 130)
"""Feature frames of the items that the comparison is made on: a batch of unequal ones, the shortest one among them."""
STEPS = 6
EXACT = 1e-3
"""Largest difference of predictor outputs and encoder frames in float32; frames are of magnitude one."""
ROUGH = 0.25
"""Largest root mean square error of encoder frames in 8 bits, over their own."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        files: role -> file name, as a card names them.
        drift: one line on how far the graphs are from torch.
    """

    files: Mapping[str, str]
    drift: str


def export_gigaam(
    weights: Mapping[str, Any], config: GigaAmConfig, folder: Path, *, precision: str = "fp32", what: str = "the model"
) -> Export:
    """Write the ONNX files of a model.

    CTC and emotion: ``model.onnx``. RNN-T: ``encoder.onnx``, ``decoder.onnx``, ``joiner.onnx``. Bare encoder:
    ``encoder.onnx``. In 8 bits ``model.int8.onnx`` and ``encoder.int8.onnx``; predictor and joint network stay
    float32: they are small, and errors in them add up from token to token. Weights of more than 1.9 GB lie in
    ``<file>.data``.

    Args:
        weights: arrays by published names, as ``gigaam_config.completed`` gives them.
        config: the architecture.
        folder: where to; files of these names are replaced. Should anything fail they are removed.
        precision: ``"fp32"`` or ``"int8"``.
        what: named in messages.
    Raises:
        UsageError: an unknown precision.
        BadModelFile: weights that do not fit the configuration, or a graph that does not say what torch says.
        OutputError: the folder cannot be written to.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    from rechka.nn.gigaam import load_gigaam

    module = load_gigaam(weights, config, what=what)
    role = "model" if config.task in ("ctc", "emo") else "encoder"
    files = {role: f"{role}.int8.onnx" if precision == "int8" else f"{role}.onnx"}
    try:
        files |= _write_main(weights, config, folder / files[role], role, precision)
        drift = _verify_main(module, folder / files[role], precision)
        if config.task == "rnnt":
            files |= {"decoder": "decoder.onnx", "joiner": "joiner.onnx"}
            for part, build in (("decoder", build_decoder), ("joiner", build_joiner)):
                (folder / files[part]).write_bytes(build(weights, config).SerializeToString())
            _verify_search(module, folder / files["decoder"], folder / files["joiner"])
    except BaseException as error:
        for name in files.values():
            (folder / name).unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, OutputError):
            raise OutputError(f"cannot write into {folder}: {error}", remedy="check folder and space") from error
        raise
    return Export(files, drift)


def _write_main(
    weights: Mapping[str, Any], config: GigaAmConfig, path: Path, role: str, precision: str
) -> dict[str, str]:
    """The encoder's graph, and if it is too large for one file, its weights beside it: their role and name."""
    size = sum(np.size(array) for array in weights.values()) * (1 if precision == "int8" else 4)
    if size <= LARGEST_FILE:
        path.write_bytes(build_main(weights, config, precision=precision).SerializeToString())
        return {}
    beside = f"{path.name}.data"
    with path.with_name(beside).open("wb") as outside:
        model = build_main(weights, config, precision=precision, outside=outside, name=beside)
    path.write_bytes(model.SerializeToString())
    return {f"{role}_data": beside}


def _verify_main(module: Any, path: Path, precision: str) -> str:
    """Compare the graph with torch on features of several items; a line about the difference.

    Raises:
        BadModelFile: it is too large.
    """
    import torch

    generator = np.random.default_rng(0)
    features = np.zeros((len(FRAMES), NUM_MELS, max(FRAMES)), np.float32)
    for row, count in zip(features, FRAMES, strict=True):  # speech-like range: ln of band powers
        row[:, :count] = generator.normal(-8.0, 4.0, (NUM_MELS, count)).cumsum(axis=1) / np.sqrt(1 + np.arange(count))
    with torch.no_grad():
        reference, counts = module.hear(torch.from_numpy(features), torch.tensor(FRAMES))
    backend = OrtBackend(path, threads=1)
    out = backend.run(dict(zip(backend.inputs, (features, np.array(FRAMES, np.int64)), strict=True)))
    task = module.config.task
    if task == "emo":
        return _probabilities(np.exp(reference.numpy()), out["probs"], precision, path)
    values = out["log_probs"] if task == "ctc" else out["encoded"].transpose(0, 2, 1)
    if out[backend.outputs[1]].tolist() != counts.tolist() or values.shape != reference.shape:
        raise _differs(path, f"it gives {values.shape} where torch gives {tuple(reference.shape)}")
    real = [(reference[i, :n].numpy(), values[i, :n]) for i, n in enumerate(counts.tolist())]
    wanted, found = (np.concatenate(parts) for parts in zip(*real, strict=True))
    if task != "ctc":
        return _frames(wanted, found, precision, path)
    drift = Drift.between(wanted, found)
    if not drift.max_prob <= LIMITS[precision]:  # so written that NaN fails
        raise _differs(path, f"{drift}; at most {LIMITS[precision]} in probability is allowed for {precision}")
    return str(drift)


def _probabilities(wanted: Any, found: Any, precision: str, path: Path) -> str:
    worst = float(np.abs(wanted - found).max())
    if not worst <= LIMITS[precision]:
        raise _differs(path, f"probabilities differ by {worst:.2g}, at most {LIMITS[precision]} is allowed")
    return f"probabilities differ by at most {worst:.2g}"


def _frames(wanted: Any, found: Any, precision: str, path: Path) -> str:
    error = np.abs(wanted - found)
    share = float(np.sqrt(np.mean(error**2) / np.mean(wanted**2)))
    good = error.max() <= EXACT * max(1.0, np.abs(wanted).max()) if precision == "fp32" else share <= ROUGH
    if not good:
        raise _differs(path, f"frames differ by up to {error.max():.2g}, {100 * share:.2g} % of their size")
    return f"frames differ by at most {error.max():.2g}, {100 * share:.2g} % of their size"


def _verify_search(module: Any, decoder: Path, joiner: Path) -> None:
    """Compare predictor and joint network with torch over some tokens, the blank at the beginning."""
    import torch

    config = module.config
    predictor, joint = OrtBackend(decoder, threads=1), OrtBackend(joiner, threads=1)
    generator = np.random.default_rng(1)
    tokens = generator.integers(0, config.num_classes - 1, (3, STEPS))
    tokens[:, 0] = config.num_classes - 1
    frames = generator.standard_normal((3, STEPS, config.d_model)).astype(np.float32)
    with torch.no_grad():
        wanted, _ = module.head.decoder(torch.from_numpy(tokens))
        rows = [module.head.joint(torch.from_numpy(frames[:, i : i + 1]), wanted[:, i : i + 1]) for i in range(STEPS)]
    hidden = cell = np.zeros((config.pred_layers, 3, config.pred_hidden), np.float32)
    for step in range(STEPS):
        out = predictor.run({"x": tokens[:, step : step + 1], "hi": hidden, "ci": cell})
        hidden, cell = out["ho"], out["co"]
        worst = float(np.abs(out["dec"] - wanted[:, step : step + 1].numpy()).max())
        if not worst <= EXACT:
            raise _differs(decoder, f"outputs differ by {worst:.2g} after {step} tokens")
        pair = {"enc": frames[:, step, :, None], "dec": out["dec"].transpose(0, 2, 1)}
        drift = Drift.between(rows[step].numpy(), joint.run(pair)["joint"])
        if not drift.max_prob <= LIMITS["fp32"]:
            raise _differs(joiner, str(drift))


def _differs(path: Path, how: str) -> BadModelFile:
    return BadModelFile(
        f"{path.name} was not written, for it does not say what torch says: {how}",
        remedy="report this with the configuration of the model",
    )


def write_frontend(path: Path, weights: Mapping[str, Any]) -> None:
    """``frontend.npz``: the checkpoint's own window and filter bank, which inference must not compute anew."""
    np.savez(path, window=np.asarray(weights[WINDOW], np.float32), fb=np.asarray(weights[BANK], np.float32))
