"""Whisper checkpoints in the format of transformers, turned into folders for CTranslate2, without torch at work.

A fine-tuned model is a folder with ``config.json``, ``model.safetensors`` (one file or several with an index) or
``pytorch_model.bin``, and ``tokenizer.json``; what comes out is ``model.bin`` with its configuration, vocabulary and
tokenizer, and a card. Nothing in the checkpoint is run. The result equals that of CTranslate2's own converter, which
needs torch and transformers.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile, MissingExtra, ModelNotFound, OutputError, UsageError

Array = NDArray[Any]
QUANTIZATIONS = ("int8", "int8_float16", "int8_float32", "float16", "float32")
MAX_JSON = 64 << 20
"""A larger configuration or vocabulary is none."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as transformers stores it.

    Attributes:
        config: ``config.json``.
        generation: ``generation_config.json``, or empty.
        weights: arrays by their names there, ``model.encoder.conv1.weight`` and so on.
        tokenizer: content of ``tokenizer.json``.
    """

    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    weights: Mapping[str, Array]
    tokenizer: bytes


def convert(folder: str | Path, out: str | Path, quantization: str = "int8", *, name: str | None = None) -> Path:
    """A checkpoint of transformers as a folder that ``rechka.load`` takes.

    Args:
        folder: with ``config.json``, weights and ``tokenizer.json``.
        out: folder to make; it must not exist or be empty.
        quantization: of the weights in the file; the type to compute in can still be chosen when loading.
        name: of the model; None takes that of the folder.

    Raises:
        ModelNotFound: a file is missing.
        BadModelFile: no Whisper checkpoint, or a damaged one.
        UsageError: an unknown quantization.
        OutputError: ``out`` cannot be written.
        MissingExtra: CTranslate2 or safetensors is not installed.
    """
    out = Path(out)
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"quantization must be one of {', '.join(QUANTIZATIONS)}, got {quantization!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already and is not empty", remedy="choose another folder, or remove it")
    checkpoint = read(Path(folder))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write beside {out}: {error.strerror}") from error
    try:
        write(checkpoint, work, quantization)
        _card(work, name or Path(folder).absolute().name)
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.replace(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error}", remedy="check the space on the disk") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return out


def is_whisper(folder: Path) -> bool:
    """True if a folder has a configuration of transformers that says so."""
    path = folder / "config.json"
    return path.is_file() and _json(path).get("model_type") == "whisper"


def read(folder: Path) -> Checkpoint:
    """A checkpoint in a folder.

    Raises:
        ModelNotFound, BadModelFile, MissingExtra: see ``convert``.
    """
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{folder} has no config.json", remedy="give the folder of a transformers checkpoint")
    config = _json(folder / "config.json")
    if config.get("model_type") != "whisper":
        raise BadModelFile(f"{folder / 'config.json'} is of a model of type {config.get('model_type')!r}, not whisper")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelNotFound(
            f"{folder} has no tokenizer.json",
            remedy="take it from the model that this one was trained from; fine-tuning does not change it",
        )
    generation = folder / "generation_config.json"
    return Checkpoint(
        config, _json(generation) if generation.is_file() else {}, _weights(folder), tokenizer.read_bytes()
    )


def write(checkpoint: Checkpoint, out: Path, quantization: str = "float32") -> None:
    """The files of CTranslate2 in an existing folder.

    Raises:
        BadModelFile: weights that are missing or do not fit the configuration.
        MissingExtra: CTranslate2 is not installed.
    """
    try:
        from ctranslate2.specs import WhisperSpec
    except ImportError:
        raise MissingExtra("converting needs ctranslate2", remedy='pip install "rechka[whisper]"') from None
    config, weights = checkpoint.config, _Weights(checkpoint.weights)
    sizes = [
        _count(config, f"{part}_{what}") for part in ("encoder", "decoder") for what in ("layers", "attention_heads")
    ]
    spec = WhisperSpec(*sizes)
    _encoder(spec.encoder, weights)
    _decoder(spec.decoder, weights)
    tokens = vocabulary(checkpoint.tokenizer, len(weights["model.decoder.embed_tokens.weight"]))
    spec.register_vocabulary(tokens)
    generation, config = checkpoint.generation, checkpoint.config
    spec.config.suppress_ids = generation.get("suppress_tokens", config.get("suppress_tokens"))
    spec.config.suppress_ids_begin = generation.get("begin_suppress_tokens", config.get("begin_suppress_tokens"))
    spec.config.lang_ids = _languages(generation, tokens)
    heads = generation.get("alignment_heads")
    layers, width = sizes[2], sizes[3]
    # Without a list the upper half of the layers is taken, as OpenAI's code does.
    spec.config.alignment_heads = heads or [list(one) for one in product(range(layers // 2, layers), range(width))]
    try:
        spec.validate()
        spec.optimize(quantization=None if quantization == "float32" else quantization)
        spec.save(str(out))
    except (ValueError, TypeError) as error:
        raise BadModelFile(f"the checkpoint's weights do not fit a Whisper model: {error}") from None
    (out / "tokenizer.json").write_bytes(checkpoint.tokenizer)


def vocabulary(tokenizer: bytes, size: int) -> list[str]:
    """The tokens by their ids, time stamps behind those that the tokenizer knows.

    Raises:
        BadModelFile: no tokenizer, or one with more tokens than the model.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("converting needs tokenizers", remedy='pip install "rechka[whisper]"') from None
    try:
        known: dict[str, int] = Tokenizer.from_str(tokenizer.decode("utf-8")).get_vocab(with_added_tokens=True)
    except Exception as error:  # noqa: BLE001  the library raises bare Exception for a bad file
        raise BadModelFile(f"tokenizer.json cannot be read: {error}") from None
    if known and max(known.values()) >= size:
        raise BadModelFile(f"the tokenizer has {max(known.values()) + 1} tokens, the model {size}")
    texts: list[str | None] = [None] * size
    for text, number in known.items():
        texts[number] = text
    first = max((number for text, number in known.items() if text == "<|notimestamps|>"), default=len(known) - 1) + 1
    return [f"<|{(i - first) * 0.02:.2f}|>" if text is None else text for i, text in enumerate(texts)]


def _languages(generation: Mapping[str, Any], tokens: list[str]) -> list[int]:
    given = generation.get("lang_to_id")
    if isinstance(given, dict) and all(isinstance(value, int) for value in given.values()):
        return sorted(given.values())
    return [i for i, text in enumerate(tokens) if re.fullmatch(r"<\|[a-z]{2,3}\|>", text)]


class _Weights:
    """Arrays by name, float32; a missing one is an error that names it."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        # Some fine-tuning scripts save the inner model alone.
        inner = any(name.startswith("model.") for name in arrays)
        self.arrays = arrays if inner else {f"model.{name}": value for name, value in arrays.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def either(self, name: str, other: str) -> Array:
        """The first of two that is there."""
        return self[name if name in self.arrays else other]

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            raise BadModelFile(f"the checkpoint has no weights {name}", remedy="an adapter must be merged first")
        return np.ascontiguousarray(self.arrays[name], np.float32)


def _encoder(spec: Any, weights: _Weights) -> None:
    base = "model.encoder"
    for part in ("conv1", "conv2"):
        getattr(spec, part).weight = weights[f"{base}.{part}.weight"]
        getattr(spec, part).bias = weights[f"{base}.{part}.bias"]
    spec.position_encodings.encodings = weights[f"{base}.embed_positions.weight"]
    _norm(spec.layer_norm, weights, f"{base}.layer_norm")
    for i, layer in enumerate(spec.layer):
        _layer(layer, weights, f"{base}.layers.{i}")


def _decoder(spec: Any, weights: _Weights) -> None:
    base = "model.decoder"
    spec.embeddings.weight = weights[f"{base}.embed_tokens.weight"]
    spec.projection.weight = weights.either("proj_out.weight", f"{base}.embed_tokens.weight")
    spec.position_encodings.encodings = weights[f"{base}.embed_positions.weight"]
    _norm(spec.layer_norm, weights, f"{base}.layer_norm")
    for i, layer in enumerate(spec.layer):
        name = f"{base}.layers.{i}"
        _layer(layer, weights, name)
        cross = layer.attention
        _norm(cross.layer_norm, weights, f"{name}.encoder_attn_layer_norm")
        q, k, v = (_linear(weights, f"{name}.encoder_attn.{part}_proj") for part in "qkv")
        _set(cross.linear[0], q)
        _set(cross.linear[1], _joined(k, v))
        _set(cross.linear[2], _linear(weights, f"{name}.encoder_attn.out_proj"))


def _layer(spec: Any, weights: _Weights, name: str) -> None:
    """What layers of encoder and decoder share: self-attention and the feed-forward part."""
    own = spec.self_attention
    _norm(own.layer_norm, weights, f"{name}.self_attn_layer_norm")
    _set(own.linear[0], _joined(*(_linear(weights, f"{name}.self_attn.{part}_proj") for part in "qkv")))
    _set(own.linear[1], _linear(weights, f"{name}.self_attn.out_proj"))
    _norm(spec.ffn.layer_norm, weights, f"{name}.final_layer_norm")
    _set(spec.ffn.linear_0, _linear(weights, f"{name}.fc1"))
    _set(spec.ffn.linear_1, _linear(weights, f"{name}.fc2"))


def _linear(weights: _Weights, name: str) -> tuple[Array, Array]:
    weight = weights[f"{name}.weight"]
    # Whisper's keys have no bias.
    bias = weights[f"{name}.bias"] if f"{name}.bias" in weights else np.zeros(len(weight), np.float32)
    return weight, bias


def _joined(*layers: tuple[Array, Array]) -> tuple[Array, Array]:
    return np.concatenate([weight for weight, _ in layers]), np.concatenate([bias for _, bias in layers])


def _set(spec: Any, layer: tuple[Array, Array]) -> None:
    spec.weight, spec.bias = layer


def _norm(spec: Any, weights: _Weights, name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _weights(folder: Path) -> dict[str, Array]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        table = _json(index).get("weight_map")
        names = sorted({str(value) for value in table.values()}) if isinstance(table, dict) else []
        if any("/" in name or "\\" in name for name in names):
            raise BadModelFile(f"{index} names files outside of its folder")
        return dict(item for name in names for item in _safetensors(folder / name))
    if (folder / "model.safetensors").is_file():
        return dict(_safetensors(folder / "model.safetensors"))
    if (folder / "pytorch_model.bin").is_file():
        from rechka.hub.checkpoints import TorchFile

        with TorchFile(folder / "pytorch_model.bin") as file:
            return dict(file.read(file.tensors()))
    raise ModelNotFound(
        f"{folder} has no weights", remedy="expected model.safetensors or pytorch_model.bin; adapters must be merged"
    )


_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def _safetensors(path: Path) -> Iterator[tuple[str, Array]]:
    """The arrays of a file, float32. Read here, since the library's NumPy side does not know bfloat16.

    Source: the format's description: 8 bytes length, JSON header, data.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_JSON, size - 8):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        data = np.memmap(path, np.uint8, "r", offset=8 + length, shape=(size - 8 - length,))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            kind, (first, last) = entry["dtype"], entry["data_offsets"]
            if kind not in _DTYPES or not 0 <= first <= last <= len(data):
                raise ValueError(f"{name} is of type {kind} at {first} to {last} of {len(data)} bytes")
            array = np.frombuffer(data[first:last].tobytes(), _DTYPES[kind]).reshape(entry["shape"])
            if kind == "BF16":
                array = (array.astype("<u4") << 16).view("<f4")
            yield name, array.astype(np.float32)
    except FileNotFoundError:
        raise ModelNotFound(f"{path} does not exist", remedy="its index names it; get it too") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadModelFile(f"{path} cannot be read: {error}", remedy="get the file again") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError("it is too large")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BadModelFile(f"{path} should hold an object, got {type(found).__name__}")
    return found


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 256:
        raise BadModelFile(f"config.json: {key} should be a number from 1 to 256, got {value!r}")
    return value


def _card(folder: Path, name: str) -> None:
    from rechka.hub.card import Card, CardFile

    known = {"model": "model.bin", "config": "config.json", "tokenizer": "tokenizer.json"}
    listed = "vocabulary.json" if (folder / "vocabulary.json").is_file() else "vocabulary.txt"
    files = {}
    for role, path in {**known, "vocabulary": listed}.items():
        with (folder / path).open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        files[role] = CardFile(path, size=(folder / path).stat().st_size, sha256=digest.hexdigest())
    clean = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:64] or "whisper"
    card = Card(
        name=clean, family="whisper", language="mul", license="unknown", files=files,
        title={"en": f"Whisper {name}, converted", "ru": f"Whisper {name}, преобразована"},
    )  # fmt: skip
    (folder / "card.toml").write_text(card.to_toml(), "utf-8")
