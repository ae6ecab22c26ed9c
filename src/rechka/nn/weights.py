"""Reading checkpoints safely, and weights made from a recipe instead of a file.

Two formats: safetensors, and torch checkpoints read with ``weights_only`` so that a file cannot run code.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile, MissingExtra, ModelNotFound

Array = NDArray[Any]

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs keep the weights inside a torch checkpoint."""


def read_weights(path: str | Path, *, prefix: str = "tone.") -> dict[str, Array]:
    """All arrays of a checkpoint by name.

    Args:
        path: ``.safetensors``, or anything that torch saved.
        prefix: taken off every name if all of them carry it (``tone.`` in the published checkpoint).
    Returns:
        float32 arrays (floating point ones, whatever width the file keeps) and integer arrays as they are.
    Raises:
        ModelNotFound: no such file.
        BadModelFile: neither format, or no weights inside.
        MissingExtra: the library for the format is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFound(f"no checkpoint at {path}", remedy="check the path")
    arrays = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    if not arrays:
        raise BadModelFile(f"{path} holds no weights")
    if prefix and all(name.startswith(prefix) for name in arrays):
        arrays = {name[len(prefix) :]: array for name, array in arrays.items()}
    return arrays


def check_names(found: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]], *, what: str) -> None:
    """Raise BadModelFile unless names and shapes are the expected ones; ``what`` names the source in the message."""
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    wrong = [
        f"{name} is {found[name].shape}, not {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    for problem, names in (("lacks", missing), ("has unknown", surplus), ("has wrong shapes:", wrong)):
        if names:
            raise BadModelFile(
                f"{what} {problem} {_few(names)}", remedy="the weights and the configuration must be of the same model"
            )


def recipe_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Random weights that depend on the names and the seed only, so that a test of a large model needs no file.

    Every entry draws from its own generator, seeded by the CRC-32 of its name; scales keep activations near one.
    """
    return {name: _recipe(name, tuple(shape), seed) for name, shape in shapes.items()}


def _recipe(name: str, shape: tuple[int, ...], seed: int) -> Array:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    # The legacy generator on purpose: its stream is frozen by numpy's compatibility policy.
    generator = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF)
    z = generator.standard_normal(math.prod(shape)).reshape(shape).astype(np.float32)
    if name.endswith("running_mean"):
        values = 0.1 * z
    elif name.endswith("running_var"):
        values = 1 + 0.2 * np.tanh(z)
    elif z.ndim == 1:
        values = 1 + 0.1 * z if name.endswith("weight") else 0.05 * z
    else:
        gain = 3.0 if name.startswith("decoder.") else 1.0
        values = np.float32(gain) * z / np.float32(math.sqrt(math.prod(shape[1:])))
    return np.asarray(values, np.float32)


def _safetensors(path: Path) -> dict[str, Array]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtra("reading .safetensors needs safetensors", remedy="pip install 'rechka[train]'") from error
    try:
        return _widen(load_file(path))
    except (SafetensorError, ValueError, TypeError) as error:
        raise BadModelFile(f"{path} is no safetensors file: {error}", remedy="download it again") from error


def _torch(path: Path) -> dict[str, Array]:
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("reading a torch checkpoint needs torch", remedy="pip install 'rechka[train]'") from error
    import pickle

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadModelFile(
            f"{path} is no torch checkpoint of plain weights: {first}",
            remedy="save only the state dict, or convert it to .safetensors; other objects are refused for safety",
        ) from error
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict):
        raise BadModelFile(f"{path} holds a {type(loaded).__name__}, expected a dictionary of tensors")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    return {
        name: (value.float() if value.is_floating_point() else value).detach().cpu().numpy()
        for name, value in tensors.items()
    }


def _widen(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name: array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in arrays.items()
    }


def _few(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
