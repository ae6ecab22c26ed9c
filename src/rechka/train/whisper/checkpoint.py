"""Checkpoints of transformers on disk: found, read without being run, and written after a training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rechka.errors import BadModelFile, ModelNotFound, OutputError, RechkaError, UsageError
from rechka.export.whisper import is_whisper
from rechka.hub.registry import find
from rechka.models.whisper import BpeCodec

if TYPE_CHECKING:
    from torch import Tensor

MERGED = "transformers"
"""Folder beside the converted model with its weights for further training."""
KEPT = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "normalizer.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
"""What fine-tuning does not change."""
_REMEDY = "get the folder that transformers reads, with config.json and model.safetensors, and name that"


def find_checkpoint(model: str) -> Path | None:
    """The folder of a Whisper checkpoint that a user means: the named one, or ``transformers`` in that of an old run.

    Returns:
        None if it is none, or another family's.
    Raises:
        ModelNotFound: a name of a converted Whisper model, which cannot be trained.
    """
    if not model:
        return None
    path = Path(model)
    try:
        for folder in (path, path / MERGED):
            if is_whisper(folder):
                return folder
    except BadModelFile:
        return None  # the family that reads it tells what is wrong
    try:
        family = find(model).card.family
    except RechkaError:
        return None
    if family == "whisper":
        raise ModelNotFound(f"{model} is a converted Whisper model, which cannot be trained", remedy=_REMEDY)
    return None


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint."""
    return _json(folder / "config.json")


def open_codec(folder: Path, tokenizer: str) -> BpeCodec:
    """The tokenizer beside a checkpoint, or the one that is named.

    Raises:
        ModelNotFound, BadModelFile: none, or not Whisper's.
    """
    path = Path(tokenizer) if tokenizer else folder / "tokenizer.json"
    if not path.is_file():
        raise ModelNotFound(
            f"{path} does not exist",
            remedy="give the tokenizer.json of the model that this one is made from: --tokenizer",
        )
    return BpeCodec(path)


def check_task(codec: BpeCodec, language: str, generation: Mapping[str, Any]) -> None:
    """Refuse a language that the model does not know.

    Raises:
        UsageError: unknown language, or a model for English only.
    """
    if generation.get("is_multilingual") is False:
        raise UsageError(
            "this Whisper knows English only", remedy="take the multilingual model, without .en in its name"
        )
    if language not in codec.special.languages:
        raise UsageError(
            f"this Whisper has no language {language!r}", remedy="such as ru, uk, kk, en: two or three letters"
        )


def read_generation(folder: Path) -> dict[str, Any]:
    """``generation_config.json``, or nothing."""
    path = folder / "generation_config.json"
    return _json(path) if path.is_file() else {}


def generation_for(
    base: Mapping[str, Any], config: Mapping[str, Any], codec: BpeCodec, language: str, task: str
) -> dict[str, Any]:
    """Settings of generation as transformers of today reads them: language and task by name, no forced tokens.

    Checkpoints of older scripts have ``forced_decoder_ids``, which newer ones refuse, and lists of suppressed tokens in
    ``config.json``; their place is here.
    """
    special = codec.special
    found = {key: value for key, value in base.items() if key != "forced_decoder_ids"}
    for key in ("suppress_tokens", "begin_suppress_tokens"):
        if key not in found and config.get(key):
            found[key] = config[key]
    found |= {
        "language": language, "task": task, "is_multilingual": True, "no_timestamps_token_id": special.no_stamps,
        "lang_to_id": {f"<|{code}|>": one for code, one in special.languages.items()},
        "task_to_id": {"transcribe": special.transcribe, "translate": special.translate},
        "prev_sot_token_id": special.previous, "decoder_start_token_id": special.start,
        "bos_token_id": special.end, "eos_token_id": special.end, "pad_token_id": special.end,
    }  # fmt: skip
    found.setdefault("max_length", 448)
    found.setdefault("max_initial_timestamp_index", 50)
    return found


def write_checkpoint(
    weights: Mapping[str, Tensor], source: Path, out: Path, generation: Mapping[str, Any], tokenizer: str = ""
) -> None:
    """Write a folder that transformers reads, whole or not at all; an earlier one is replaced.

    Args:
        weights: by their names there, without the projection if it is tied.
        source: checkpoint that configuration and tokenizer come from.
        out: the folder.
        generation: see ``generation_for``.
        tokenizer: ``tokenizer.json``, where it does not lie in ``source``.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    config = read_config(source)
    for key in ("forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens", "torch_dtype", "_name_or_path"):
        config.pop(key, None)
    config |= {"dtype": "float32", "architectures": ["WhisperForConditionalGeneration"]}
    part = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in KEPT:
            if (source / name).is_file():
                shutil.copyfile(source / name, part / name)
        if tokenizer:
            shutil.copyfile(tokenizer, part / "tokenizer.json")
        (part / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2), "utf-8")
        (part / "generation_config.json").write_text(json.dumps(generation, ensure_ascii=False, indent=2), "utf-8")
        save_file(
            {name: value.detach().float().cpu().contiguous() for name, value in weights.items()},
            part / "model.safetensors",
            metadata={"format": "pt"},
        )
        shutil.rmtree(out, ignore_errors=True)
        part.replace(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}", remedy="check the free space") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BadModelFile(f"{path} should hold an object, got {type(found).__name__}")
    return found
