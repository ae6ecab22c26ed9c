"""From a name or a path of the package ``gigaam`` to files that run: pulled, or converted from a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rechka.errors import BadCard, MissingExtra, UsageError
from rechka.hub.download import pull, sha256_of
from rechka.hub.originals import pull_originals
from rechka.hub.registry import Entry, find, home
from rechka.models import gigaam
from rechka.models.gigaam import GigaAm, GigaAmEmotion

NAMES = (
    "emo", "v1_ctc", "v1_rnnt", "v1_ssl", "v2_ctc", "v2_rnnt", "v2_ssl", "v3_ctc", "v3_rnnt", "v3_e2e_ctc",
    "v3_e2e_rnnt", "v3_ssl", "multilingual_ctc", "multilingual_ssl", "multilingual_large_ctc", "multilingual_large_ssl",
)  # fmt: skip
"""Published names; each has a card."""
SHORT = ("ctc", "rnnt", "e2e_ctc", "e2e_rnnt", "ssl")
"""Names that stand for the newest version, v3."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready.

    Attributes:
        model: runs it.
        name: published name, else that of its card.
        task: ``"ctc"``, ``"rnnt"``, ``"ssl"`` or ``"emo"``.
        files: role -> path.
    """

    model: GigaAm | GigaAmEmotion
    name: str
    task: str
    files: Mapping[str, Path]


def open_model(name: str | Path, *, device: Any = None, download_root: str | Path | None = None) -> Loaded:
    """See ``rechka.compat.gigaam.load_model``."""
    path = Path(name).expanduser()
    if str(name) in (*SHORT, *NAMES):  # also where a folder of that name is
        name = f"v3_{name}" if name in SHORT else str(name)
        entry = _published(name, None if download_root is None else Path(download_root).expanduser())
    elif path.is_file():
        entry, name = _converted(path), path.stem
    elif path.is_dir():
        entry = find(path.absolute())
        known = entry.card.name.removeprefix("gigaam-").replace("-", "_")
        name = known if known in NAMES else entry.card.name
    else:
        known = ", ".join((*SHORT, *NAMES))
        raise UsageError(f"Model {str(name)!r} not found", remedy=f"available are {known}, or a path")
    if entry.card.family != "gigaam":
        raise BadCard(f"{entry.card.name} is a model of the family {entry.card.family!r}, not GigaAM")
    if entry.missing():
        from rechka.hub.load import not_on_disk

        raise not_on_disk(entry)
    files = entry.on_disk()
    model = gigaam.load(files, entry.card.params, device=_device(device))
    return Loaded(model, str(name), str(entry.card.params["task"]), files)


def _published(name: str, root: Path | None) -> Entry:
    """The model of a published name, pulled or converted if it is not on disk."""
    entry = find(f"gigaam-{name.replace('_', '-')}")
    if not entry.missing():
        return entry
    if entry.card.repo and not (root is not None and (root / f"{name}.ckpt").is_file()):
        return pull(entry).entry
    if root is not None and (root / f"{name}.ckpt").is_file():
        checkpoint = root / f"{name}.ckpt"
    else:
        _need_torch(name)  # told before a gigabyte is fetched
        checkpoint = pull_originals(entry)["checkpoint"]
    _convert(checkpoint, entry.folder, entry.card.name)
    return find(entry.folder)


def _converted(checkpoint: Path) -> Entry:
    """The folder that a checkpoint was converted to; the same content is converted once."""
    folder = home() / "converted" / f"{checkpoint.stem}-{sha256_of(checkpoint)[:12]}"
    if not (folder / "card.toml").is_file():
        _convert(checkpoint, folder, None)
    return find(folder)


def _convert(checkpoint: Path, folder: Path, name: str | None) -> None:
    _need_torch(str(checkpoint))
    from rechka.export.convert import convert
    from rechka.export.source import read_source

    logger.info("converting %s to %s, once", checkpoint, folder)
    convert(read_source(checkpoint), folder, name=name, tell=logger.info)


def _need_torch(what: str) -> None:
    for module in ("torch", "onnx", "safetensors"):
        if find_spec(module) is None:
            raise MissingExtra(
                f"{what} is published as a checkpoint only, and converting it needs {module}",
                remedy='pip install "rechka[train]", once; the converted model runs without it',
            )


def _device(device: Any) -> str:
    """``"cpu"`` or ``"cuda"`` from a name, a torch device, or None."""
    if device is not None:
        return str(device).partition(":")[0]
    import onnxruntime

    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"
