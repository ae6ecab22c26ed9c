"""GigaAM checkpoints to a folder that rechka, sherpa-onnx and the reference's own ONNX helper can run.

Graphs carry the published names of inputs and outputs, take any batch and any length, and get their names only after
ONNX Runtime has said what torch says. Window and mel filters of the checkpoint lie beside them, never recomputed.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rechka.backends.ort import OrtBackend
from rechka.errors import BadModelFile, UsageError
from rechka.export.onnx import write_verified
from rechka.export.quantize import quantise_products
from rechka.export.verify import LIMITS
from rechka.models.token_table import read_tokens
from rechka.nn.gigaam import NUM_MELS, GigaAm, GigaAmConfig
from rechka.nn.weights import Array, check_names

OPSET = 17
"""That of the published files."""
PRECISIONS = ("fp32", "int8")
WINDOW, FILTERS = "preprocessor.featurizer.0.spectrogram.window", "preprocessor.featurizer.0.mel_scale.fb"
TOLERANCE = 2e-4
"""Largest difference between torch and a float32 graph, in units of the encoder's outputs and of log-probabilities."""
SHARP = 1e-2
"""Padding in a batch may change an item by no more than this in 8 bits, and by ``TOLERANCE`` in float32."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that was read: published configuration, weights by published name, vocabulary.

    Attributes:
        config: the sections of the published configuration.
        weights: with the names of the published checkpoints.
        tokens: path of a SentencePiece model or a token table, where the configuration holds no characters.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Array]
    tokens: Path | None = None


def module(source: Source) -> GigaAm:
    """The network with the checkpoint's weights.

    Raises:
        BadModelFile: names or shapes that are not those of the configuration.
    """
    config = GigaAmConfig.from_published(source.config)
    weights = {name.removeprefix("model."): value for name, value in source.weights.items()}
    weights = {name: value for name, value in weights.items() if name.startswith(("encoder.", "head."))}
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in GigaAm(config).state_dict().items()}
    for name in shapes:  # counts training steps; files that were saved for inference may lack it
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, np.zeros((), np.int64))
    check_names(weights, shapes, what="the checkpoint")
    made = GigaAm(config)
    made.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
    if config.task == "rnnt":
        # Torch begins with a zero vector, ONNX with the blank's embedding: the same only if that row is zero.
        embed: Any = made.head.decoder.embed
        embed.weight.data[config.classes - 1] = 0.0
    return made.eval()


def front(source: Source) -> tuple[Array, Array, bool]:
    """Window (n_fft,), mel filters (n_fft // 2 + 1, 64) and whether frames are centred.

    Raises:
        BadModelFile: the checkpoint lacks them, or they do not fit each other.
    """
    weights = {name.removeprefix("model."): value for name, value in source.weights.items()}
    if WINDOW not in weights or FILTERS not in weights:
        raise BadModelFile("the checkpoint lacks the window and mel filters of its front end")
    window, filters = weights[WINDOW].astype(np.float32), weights[FILTERS].astype(np.float32)
    if window.ndim != 1 or filters.shape != (len(window) // 2 + 1, NUM_MELS):
        raise BadModelFile(f"a window of {window.shape} and mel filters of {filters.shape} do not fit")
    section = source.config.get("preprocessor") or {}
    return window, filters, bool(section.get("center", True))


def symbols(source: Source, classes: int) -> tuple[list[str], bool]:
    """The vocabulary with its blank last, and whether it consists of SentencePiece pieces.

    Raises:
        UsageError: a tokenizer is needed and none was given.
        BadModelFile: a vocabulary of another size.
    """
    decoding = source.config.get("decoding") or {}
    characters = decoding.get("vocabulary")
    pieces = source.tokens is not None and not characters
    if source.tokens is not None and not characters:
        tokens = read_tokens(source.tokens)
        found = [text.replace(" ", "\u2581") for i, text in enumerate(tokens.symbols) if i != tokens.blank]
    elif isinstance(characters, list) and all(isinstance(one, str) for one in characters):
        found = [one.replace(" ", "\u2581") for one in characters]
    else:
        raise UsageError(
            "this model writes SentencePiece pieces, and its tokenizer is not beside it",
            remedy="put tokenizer.model beside the checkpoint, or name it with --tokenizer",
        )
    if len(found) + 1 != classes:
        raise BadModelFile(f"the vocabulary has {len(found)} symbols, the head {classes} classes with the blank")
    return [*found, "<blk>"], pieces


class _Predict(nn.Module):
    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.decoder(x, hidden, cell)


class _Join(nn.Module):
    def __init__(self, joint: nn.Module) -> None:
        super().__init__()
        self.joint = joint

    def forward(self, enc: Tensor, dec: Tensor) -> Tensor:
        return self.joint(enc.transpose(1, 2), dec.transpose(1, 2))


def _graph(
    network: nn.Module, inputs: Sequence[Tensor], names: tuple[Sequence[str], Sequence[str]], axes: dict[str, Any]
) -> Any:
    """Trace a network. The older exporter: it needs no extra package, and loops over nothing here."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, tuple(inputs), buffer, input_names=list(names[0]), output_names=list(names[1]),
            dynamic_axes=axes, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


_ENCODER_NAMES = {
    "ctc": (("features", "feature_lengths"), ("log_probs", "encoded_lengths")),
    "rnnt": (("audio_signal", "length"), ("encoded", "encoded_len")),
    "ssl": (("audio_signal", "length"), ("encoded", "encoded_len")),
    "emo": (("features", "feature_lengths"), ("probs",)),
}


class _Encode(nn.Module):
    def __init__(self, network: GigaAm) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, lengths: Tensor) -> Any:
        values, out = self.network(features, lengths)
        return values if self.network.config.task == "emo" else (values, out.to(torch.int32))


def encoder_graph(network: GigaAm, vocabulary: int) -> Any:
    """Encoder with the head of a CTC or emotion model, as a ``ModelProto`` with the metadata sherpa-onnx reads."""
    task = network.config.task
    names = _ENCODER_NAMES[task]
    time_axis = {"ctc": 1, "rnnt": 2, "ssl": 2}
    axes: dict[str, Any] = {names[0][0]: {0: "batch", 2: "time"}, names[0][1]: {0: "batch"}, names[1][0]: {0: "batch"}}
    if task in time_axis:
        axes[names[1][0]][time_axis[task]] = "frames"
        axes[names[1][1]] = {0: "batch"}
    example = (torch.randn(2, NUM_MELS, 101), torch.tensor([101, 77]))
    model = _graph(_Encode(network), example, names, axes)
    metadata = {"is_giga_am": "1", "normalize_type": "", "subsampling_factor": "4", "language": "ru", "version": "1"}
    if task == "ctc":
        metadata |= {"model_type": "EncDecCTCModel", "vocab_size": str(vocabulary)}
    elif task == "rnnt":
        metadata |= {
            "model_type": "EncDecRNNTBPEModel", "vocab_size": str(vocabulary - 1), "pred_rnn_layers": "1",
            "pred_hidden": str(network.config.hidden),
        }  # fmt: skip
    onnx.helper.set_model_props(model, metadata)
    return model


def decoder_graph(network: GigaAm) -> Any:
    """The RNN-T's predictor: token and state in, output and state out."""
    hidden = network.config.hidden
    example = (torch.zeros(2, 1, dtype=torch.long), torch.zeros(1, 2, hidden), torch.zeros(1, 2, hidden))
    axes = {"x": {0: "batch"}, "dec": {0: "batch"}, **{name: {1: "batch"} for name in ("hi", "ci", "ho", "co")}}
    head: Any = network.head
    return _graph(_Predict(head.decoder), example, (("x", "hi", "ci"), ("dec", "ho", "co")), axes)


def joiner_graph(network: GigaAm) -> Any:
    """The RNN-T's joiner: (B, D, 1) and (B, H, 1) to log-probabilities (B, 1, 1, V)."""
    example = (torch.randn(2, network.config.dim, 1), torch.randn(2, network.config.hidden, 1))
    head: Any = network.head
    axes = {name: {0: "batch"} for name in ("enc", "dec", "joint")}
    return _graph(_Join(head.joint), example, (("enc", "dec"), ("joint",)), axes)


def write(network: GigaAm, folder: Path, vocabulary: int, precision: str = "fp32") -> dict[str, Path]:
    """Write all graphs of a model into a folder, each verified.

    Returns:
        File roles of the card to paths.
    Raises:
        UsageError: an unknown precision.
        BadModelFile: a graph that does not say what torch says.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    task = network.config.task
    suffix = ".int8.onnx" if precision == "int8" else ".onnx"
    role = "encoder" if task in ("rnnt", "ssl") else "model"
    graph = encoder_graph(network, vocabulary)
    if precision == "int8":
        graph = quantise_products(graph)
    paths = {role: folder / f"{role}{suffix}"}
    write_verified(graph, paths[role], lambda path: _verify_encoder(network, path, precision))
    if task == "rnnt":  # small, and run once a token: nothing is gained by 8 bits there
        paths |= {"decoder": folder / "decoder.onnx", "joiner": folder / "joiner.onnx"}
        write_verified(decoder_graph(network), paths["decoder"], lambda path: _verify_decoder(network, path))
        write_verified(joiner_graph(network), paths["joiner"], lambda path: _verify_joiner(network, path))
    return paths


@torch.no_grad()
def _verify_encoder(network: GigaAm, path: Path, precision: str) -> None:
    """Against torch on features of other lengths than the traced ones; padding must not change the shorter item."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, NUM_MELS, 163, generator=generator)
    lengths = torch.tensor([163, 90, 12])
    names = _ENCODER_NAMES[network.config.task]
    backend = OrtBackend(path, threads=1)

    def run(x: Tensor, count: Tensor) -> Array:
        return backend.run({names[0][0]: x.numpy(), names[0][1]: count.numpy()})[names[1][0]]

    expected, frames = network(features, lengths)
    found = run(features, lengths)
    task = network.config.task
    for item, count in enumerate(frames.tolist()):
        part = (
            (item,) if task == "emo" else (item, slice(count)) if task == "ctc" else (item, slice(None), slice(count))
        )
        _same(expected.numpy()[part], found[part], precision, path, probabilities=task == "ctc")
    alone = run(features[1:2, :, :90], lengths[1:2])[0]
    count = frames[1]
    within = (slice(None),) if task == "emo" else (slice(count),) if task == "ctc" else (slice(None), slice(count))
    drift = float(np.abs(alone[within] - found[1][within]).max())
    if not drift <= (SHARP * max(1.0, float(np.abs(alone).max())) if precision == "int8" else TOLERANCE):
        raise BadModelFile(f"{path.name} was not written: padding changes an item by {drift:.2g}")


def _same(expected: Array, found: Array, precision: str, path: Path, *, probabilities: bool = False) -> None:
    if precision == "int8":
        limit = LIMITS["int8"]
        if probabilities:
            expected, found = np.exp(expected), np.exp(found)
        else:
            limit *= max(1.0, float(np.abs(expected).max()))
    else:
        limit = TOLERANCE
    difference = float(np.abs(expected - found).max())
    if not difference <= limit:
        raise BadModelFile(
            f"{path.name} was not written: it differs from torch by {difference:.2g}, allowed {limit:.2g}"
        )


@torch.no_grad()
def _verify_decoder(network: GigaAm, path: Path) -> None:
    config = network.config
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, config.classes, (3, 1), generator=generator)
    hidden, cell = (torch.randn(1, 3, config.hidden, generator=generator) for _ in range(2))
    head: Any = network.head
    found = OrtBackend(path, threads=1).run({"x": tokens.numpy(), "hi": hidden.numpy(), "ci": cell.numpy()})
    for name, value in zip(("dec", "ho", "co"), head.decoder(tokens, hidden, cell), strict=True):
        _same(value.numpy(), found[name], "fp32", path)


@torch.no_grad()
def _verify_joiner(network: GigaAm, path: Path) -> None:
    config = network.config
    generator = torch.Generator().manual_seed(0)
    encoded = torch.randn(3, config.dim, 1, generator=generator)
    predicted = torch.randn(3, config.hidden, 1, generator=generator)
    head: Any = network.head
    found = OrtBackend(path, threads=1).run({"enc": encoded.numpy(), "dec": predicted.numpy()})
    _same(head.joint(encoded.transpose(1, 2), predicted.transpose(1, 2)).numpy(), found["joint"], "fp32", path)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Configuration (empty if there is none) and weights of a torch file; nothing in it is run.

    Raises:
        ModelNotFound: no such file.
        BadModelFile: damaged, hostile, or without weights.
    """
    from rechka.hub.checkpoints import TorchFile

    with TorchFile(path) as file:
        tensors = file.tensors("state_dict") or file.tensors()
        if not tensors:
            raise BadModelFile(f"{path} holds no weights")
        config = file.section("cfg")
        return config if isinstance(config, dict) else {}, file.read(tensors)


def read_folder(folder: Path) -> Source:
    """A folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``, as on the Hugging Face Hub.

    Raises:
        BadModelFile: no such folder, or a configuration that is not GigaAM's.
    """
    from rechka.nn.weights import read_weights

    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadModelFile(f"{folder} has no readable config.json: {error}") from error
    for keys in (("cfg", "model", "cfg"), ("cfg",)):
        inner = config
        for key in keys:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            config = inner
            break
    if (folder / "model.safetensors").is_file():
        weights = read_weights(folder / "model.safetensors", prefix="model.")
    else:
        weights = read_checkpoint(folder / "pytorch_model.bin")[1]
    return Source(config, weights, tokenizer_beside(folder / "config.json", config))


def tokenizer_beside(file: Path, config: Mapping[str, Any]) -> Path | None:
    """The tokenizer that lies beside a checkpoint, by the names under which it is published."""
    names = (f"{file.stem}_tokenizer.model", f"{config.get('model_name', '')}_tokenizer.model", "tokenizer.model")
    return next((file.parent / name for name in names if (file.parent / name).is_file()), None)
