"""Checkpoints as they are published: files and folders, with configuration and tokenizer beside or inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rechka.errors import BadModelFile, ModelNotFound
from rechka.hub.checkpoints import TorchFile
from rechka.nn.weights import read_weights

Array = NDArray[Any]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.ckpt")
_GRAPH = "model.onnx"
"""The embedded model's graph carries its weights by name; others do not, which reading them tells."""
_MAX_CONFIG = 1 << 24


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that was read.

    Attributes:
        path: the file with the weights.
        name: what it calls itself, else the file's name.
        arrays: weights by name, without T-one's ``tone.``; float32 where they are floating point.
        config: the publisher's configuration, or None.
        tokenizer: SentencePiece model that lies beside it, or None.
        fine_tuned: somebody went on training it.
    """

    path: Path
    name: str
    arrays: Mapping[str, Array]
    config: Mapping[str, Any] | None = None
    tokenizer: Path | None = None
    fine_tuned: bool = False


def read_source(path: Path, *, tokenizer: Path | None = None) -> Source:
    """A checkpoint; nothing in it is run.

    Read are: GigaAM's ``.ckpt`` (``cfg`` and ``state_dict``); Lightning's, as its fine-tuning writes them
    (``hyper_parameters`` and ``state_dict``); Hugging Face's folders and files (``config.json`` beside
    ``pytorch_model.bin`` or ``model.safetensors``); any ``.safetensors`` or torch file of plain weights.

    Args:
        path: file, or folder with one of the usual names in it.
        tokenizer: SentencePiece model; None looks beside the file.
    Raises:
        ModelNotFound: no such file, or nothing in the folder.
        BadModelFile: damaged, hostile, or no checkpoint.
        MissingExtra: safetensors is needed and not installed.
    """
    path = _weights_file(path)
    if tokenizer is not None and not tokenizer.is_file():
        raise ModelNotFound(f"no tokenizer at {tokenizer}", remedy="check the path")
    config = _config_beside(path)
    name, fine_tuned = "", False
    if path.suffix == ".safetensors":
        arrays = read_weights(path, prefix="")
    elif path.suffix == ".onnx":
        from rechka.export.conformer import read_graph

        arrays, config = read_graph(path)
    else:
        with TorchFile(path) as file:
            tensors = file.tensors("state_dict") or file.tensors("model") or file.tensors()
            arrays = file.read(tensors)
            inner = file.section("cfg")
            if inner is None and isinstance(more := file.section("hyper_parameters"), dict):
                fine_tuned = True
                name, inner = str(more.get("model_name") or ""), more.get("model_cfg")
        config = inner if isinstance(inner, dict) else config
    if not arrays:
        raise BadModelFile(f"{path} holds no weights", remedy="give the file with the state dict")
    if all(key.startswith("tone.") for key in arrays):
        arrays = {key.removeprefix("tone."): array for key, array in arrays.items()}
    name = name or _model_name(config) or (path.parent.name if path.name in _WEIGHTS else path.stem)
    return Source(path, name, arrays, config, tokenizer or _tokenizer_beside(path, name), fine_tuned)


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise ModelNotFound(f"no checkpoint at {path}", remedy="check the path")
        return path.absolute()
    found = [path / name for name in _WEIGHTS if (path / name).is_file()] or sorted(path.glob("*.ckpt"))
    if not found and (path / _GRAPH).is_file():
        return (path / _GRAPH).absolute()
    if not found:
        raise ModelNotFound(f"no checkpoint in {path}", remedy=f"it should hold {' or '.join(_WEIGHTS)}")
    if len(found) > 1 and found[0].name not in _WEIGHTS:
        raise ModelNotFound(
            f"{path} holds several checkpoints: {', '.join(file.name for file in found[:5])}", remedy="name one of them"
        )
    return found[0].absolute()


def _config_beside(path: Path) -> dict[str, Any] | None:
    beside = path.with_name("config.json")
    if not beside.is_file():
        return None
    try:
        if beside.stat().st_size > _MAX_CONFIG:
            raise ValueError(f"it is larger than {_MAX_CONFIG} bytes")
        config = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{beside} is no configuration: {error}") from None
    if not isinstance(config, dict):
        raise BadModelFile(f"{beside} is no configuration: it holds a {type(config).__name__}")
    return config


def _model_name(config: Mapping[str, Any] | None) -> str:
    """``model_name`` of a published configuration, at its top or inside as on Hugging Face."""
    for key in ("", "cfg", "model", "cfg"):
        config = config.get(key) if key and isinstance(config, Mapping) else config
        if isinstance(config, Mapping) and isinstance(name := config.get("model_name"), str):
            return name
    return ""


def _tokenizer_beside(path: Path, name: str) -> Path | None:
    """By the names under which tokenizers are published."""
    names = (f"{path.stem}_tokenizer.model", f"{name}_tokenizer.model", "tokenizer.model")
    plain = [candidate for candidate in names if "/" not in candidate and "\\" not in candidate]
    return next((path.with_name(candidate) for candidate in plain if path.with_name(candidate).is_file()), None)
