"""A checkpoint to a folder that runs without torch: ONNX, weights as safetensors, configuration, tokens, card.

The folder appears under its name only when everything in it is written and the model has been loaded from its card.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rechka.errors import BadModelFile, ModelNotFound, OutputError, UsageError
from rechka.export.source import Source
from rechka.hub.card import FAMILIES, Card, CardFile
from rechka.models.token_table import BLANKS, WORD_START, read_tokens
from rechka.nn.gigaam_config import GigaAmConfig, completed, unprefixed

Tell = Callable[[str], None]
_PUBLISHED = re.compile(r"(v[123]|multilingual(_large)?)_(e2e_)?(ctc|rnnt|ssl)|emo")


@dataclass(slots=True)
class _Plan:
    """What goes into the card.

    Attributes:
        name, family, license, language, title: see ``Card``.
        files: role -> file name in the folder.
        params, decoder: see ``Card``.
    """

    name: str
    family: str
    license: str
    language: str = "ru"
    title: str = ""
    source: str = ""
    files: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    decoder: dict[str, Any] = field(default_factory=dict)


def convert(
    source: Source,
    out: Path,
    *,
    int8: bool = False,
    name: str | None = None,
    tell: Tell = lambda text: None,
) -> Card:
    """Write a model's folder.

    Args:
        source: a GigaAM or T-one checkpoint that was read.
        out: the folder, which must not be there yet, or be empty.
        int8: also write the graph in 8 bits, and let the card take it.
        name: of the model; None makes one of what the checkpoint says of itself.
        tell: gets a line on each graph that was written.
    Returns:
        The card, as it was written.
    Raises:
        UsageError: the folder is there already, or a name that no card may have.
        BadModelFile: neither family, or weights and configuration that do not fit.
        ModelNotFound: the vocabulary lies in a SentencePiece model that is not there.
        OutputError: the folder cannot be written.
    """
    with staged(out) as folder:
        write = _writer(source)
        plan = write(source, folder, int8, tell)
        if name is not None:
            plan.name = name
        _save_weights(folder / "model.safetensors", source.arrays)
        plan.files |= {"weights": "model.safetensors", "config": "config.json"}
        card = _card(plan, folder)
        (folder / "card.toml").write_text(card.to_toml(), encoding="utf-8")
        files = {role: folder / file.path for role, file in card.files.items() if not file.optional}
        import_module(FAMILIES[card.family]).load(files, card.params, threads=1)
    return card


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that gets its name at the end, or goes away if anything fails.

    Raises:
        UsageError: there is something under the name.
        OutputError: the file system does not let us.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already", remedy="name a folder that does not exist yet")
    work: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", suffix=".part", dir=out.parent))
        yield work
        work.chmod(0o755)
        if out.exists():
            out.rmdir()
        work.rename(out)
    except OSError as error:
        if isinstance(error, (OutputError, ModelNotFound)):
            raise
        raise OutputError(
            f"cannot write {out}: {error.strerror or error}", remedy="check folder and free space"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _writer(source: Source) -> Callable[[Source, Path, bool, Tell], _Plan]:
    """What writes models of the source's family."""
    if "encoder.temportal_reduction.conv.weight" in source.arrays:
        return _tone
    return _conformer if "subsampling.one.weight" in source.arrays else _gigaam


def _conformer(source: Source, folder: Path, int8: bool, tell: Tell) -> _Plan:
    from rechka.export.conformer import export, refill
    from rechka.nn.conformer import load_conformer

    if int8:
        raise UsageError("the embedded model's family has no form in 8 bits", remedy="leave int8 out")
    module = load_conformer(source.arrays, source.config, what=str(source.path))
    beside = source.path.with_name("model.onnx")  # where its weights came from, or what was written of them
    if beside.is_file():
        difference = refill(module, beside, folder / "model.onnx")
    else:
        difference = export(module, folder / "model.onnx")
    tell(f"fp32: log-probabilities differ by at most {difference:.1g}")
    plan = _Plan(_name("conformer", source.name), "conformer", "unknown", title=f"Conformer {source.name}")
    plan.files["model"] = "model.onnx"
    plan.params = {"chunk_ms": module.config.chunk * 40}
    _write_config(folder / "config.json", module.config.to_dict())
    return plan


def _gigaam(source: Source, folder: Path, int8: bool, tell: Tell) -> _Plan:
    from rechka.export.gigaam import export_gigaam, write_frontend

    named = unprefixed(source.arrays)
    shapes = {name: array.shape for name, array in named.items()}
    if source.config is None:
        tell(f"{source.path.name} has no configuration; it is told from the weights")
        config = GigaAmConfig.from_weights(shapes, name=source.name)
    else:
        config = GigaAmConfig.from_published(source.config)
    weights = completed(named, config)
    plan = _Plan(_name("gigaam", config.name or source.name), "gigaam", "unknown")
    if _PUBLISHED.fullmatch(config.name) and not source.fine_tuned:
        plan.license, plan.source = "MIT", "https://github.com/salute-developers/GigaAM"
    plan.language = "mul" if config.name.startswith("multilingual") else "ru"
    plan.title = f"GigaAM {config.name or source.name}{', fine-tuned' if source.fine_tuned else ''}"
    plan.params = {"task": config.task, "n_fft": config.n_fft, "hop": 160, "center": config.center}
    if config.task in ("ctc", "rnnt"):
        plan.params["words"] = _write_tokens(folder / "tokens.txt", config, source.tokenizer)
        plan.files["tokens"] = "tokens.txt"
    if config.task == "rnnt":
        plan.params["max_symbols"] = config.max_symbols
        plan.decoder = {"beam_width": 4}  # beam search asks the network for every hypothesis
    if config.task == "emo":
        plan.params["labels"] = list(config.labels)
    write_frontend(folder / "frontend.npz", weights)
    plan.files["frontend"] = "frontend.npz"
    main: dict[str, str] = {}
    for precision in ("fp32", "int8") if int8 else ("fp32",):
        written = export_gigaam(weights, config, folder, precision=precision, what=str(source.path))
        tell(f"{precision}: {written.drift}")
        if main:  # the 8-bit graph takes the place; the other stays at hand
            plan.files |= {f"{role}_fp32": file for role, file in main.items() if file not in written.files.values()}
            for role in main:
                plan.files.pop(role, None)
        main = dict(written.files)
        plan.files |= main
    _write_config(folder / "config.json", config.to_dict() if source.config is None else source.config)
    return plan


def _tone(source: Source, folder: Path, int8: bool, tell: Tell) -> _Plan:
    from rechka.export.onnx import export_tone
    from rechka.nn.tone_config import ToneConfig

    config = ToneConfig() if source.config is None else ToneConfig.from_dict(source.config)
    plan = _Plan(_name("t-one", source.name), "tone", "unknown", title=f"T-one {source.name}")
    plan.files["model"] = "model.onnx"
    tell(f"fp32: {export_tone(source.arrays, folder / 'model.onnx', config=config)}")
    if int8:
        drift = export_tone(source.arrays, folder / "model.int8.onnx", config=config, precision="int8")
        tell(f"int8: {drift}")
        plan.files |= {"model": "model.int8.onnx", "model_fp32": "model.onnx"}
    _write_config(folder / "config.json", config.to_dict() if source.config is None else source.config)
    return plan


def _write_tokens(path: Path, config: GigaAmConfig, tokenizer: Path | None) -> str:
    """``tokens.txt`` as sherpa-onnx and onnx-asr write it; what the words are made of, ``"chars"`` or ``"pieces"``."""
    if config.vocabulary is not None:
        symbols = list(config.vocabulary)
    elif tokenizer is None:
        raise ModelNotFound(
            f"{config.name or 'this model'} writes pieces of words, whose list lies in a file of its own",
            remedy=f"put {config.name or 'NAME'}_tokenizer.model beside the checkpoint, or name it with --tokenizer",
        )
    else:
        tokens = read_tokens(tokenizer)
        symbols = [symbol for index, symbol in enumerate(tokens.symbols) if index != tokens.blank]
    if len(symbols) + 1 != config.num_classes:
        raise BadModelFile(
            f"the model has {config.num_classes} classes, and there are {len(symbols)} symbols and a blank",
            remedy="the tokenizer belongs to another model",
        )
    if bad := [symbol for symbol in symbols if not symbol or re.search(r"[^\S ]", symbol)]:
        raise BadModelFile(f"the vocabulary has a symbol that no token table can hold: {bad[0]!r}")
    lines = [symbol.replace(" ", WORD_START) for symbol in symbols] + [BLANKS[0]]
    path.write_text("".join(f"{symbol} {index}\n" for index, symbol in enumerate(lines)), encoding="utf-8")
    return "chars" if config.vocabulary is not None else "pieces"


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    try:
        text = json.dumps(config, ensure_ascii=False, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadModelFile(f"the configuration holds what JSON cannot: {error}") from None
    path.write_text(text + "\n", encoding="utf-8")


def _save_weights(path: Path, arrays: Mapping[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.require(array, requirements="C") for name, array in arrays.items()}, path)
    path.chmod(0o644)


def _card(plan: _Plan, folder: Path) -> Card:
    optional = {role for role in plan.files if role in ("weights", "config") or role.endswith("_fp32")}
    files = {
        role: CardFile(name, (folder / name).stat().st_size, sha256=_sha256(folder / name), optional=role in optional)
        for role, name in plan.files.items()
    }
    return Card(
        plan.name, plan.family, plan.language, plan.license, title={"en": plan.title}, source=plan.source,
        files=files, params=plan.params, decoder=plan.decoder,
    )  # fmt: skip


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _name(family: str, given: str) -> str:
    """A name that a card may have."""
    text = re.sub(r"[^a-z0-9.]+", "-", given.lower()).strip("-.")
    return (text if text.startswith(family) else f"{family}-{text}")[:64].rstrip("-.")
