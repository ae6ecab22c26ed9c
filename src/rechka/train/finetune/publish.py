"""From a name or checkpoint to what a run starts from, and from its weights to a folder with a card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rechka.errors import BadCard, ModelNotFound, OutputError
from rechka.export.convert import convert
from rechka.export.source import Source, read_source
from rechka.hub.card import Card, CardFile, Result
from rechka.hub.load import with_weights
from rechka.hub.registry import CARD_FILE, find
from rechka.train.finetune.config import FinetuneConfig
from rechka.train.finetune.learners import Learner

TOKENIZER = "tokenizer.model"


def starting_point(config: FinetuneConfig) -> tuple[Source, Card | None]:
    """The checkpoint that a configuration names, and the card beside it if there is one.

    Raises:
        ModelNotFound: no such path or name, or a model whose weights are not on disk.
        BadModelFile: no checkpoint.
    """
    tokenizer = Path(config.tokenizer) if config.tokenizer else None
    path = Path(config.model)
    if path.exists():
        source = read_source(path, tokenizer=tokenizer)
        return source, _card_beside(source.path)
    entry = find(config.model)
    try:
        return read_source(entry.folder, tokenizer=tokenizer), entry.card
    except ModelNotFound as error:
        command = with_weights(entry)
        other = "name a checkpoint (.ckpt, .safetensors) or a folder that holds one with its config.json"
        raise ModelNotFound(
            f"{config.model} is not on disk with weights that can be trained: {error.message}",
            remedy=f"get them with: {command}" if command else other,
        ) from None


def _card_beside(path: Path) -> Card | None:
    card = path.with_name(CARD_FILE)
    return Card.read(card) if card.is_file() else None


def publish(
    learner: Learner,
    config: FinetuneConfig,
    out: Path,
    base: Card | None,
    scores: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]],
    tell: Callable[[str], None],
) -> Card:
    """Write the model's folder.

    Args:
        learner: with the weights to write.
        config: of the run.
        out: the folder; it gets the model's files, the card last.
        base: card of the model that was started from; licence, language and settings come from it.
        scores: of every dev set, before and after, as ``Score.to_dict`` gives them.
        tell: gets lines for the user.
    Raises:
        BadCard: a name that no card may have; OutputError: the folder cannot be written.
    """
    name = config.name or _name(out)
    made = out / "training" / "model"
    shutil.rmtree(made, ignore_errors=True)
    (out / CARD_FILE).unlink(missing_ok=True)
    card = convert(learner.trained(), made, int8=config.int8, name=name, tell=tell)
    files = dict(card.files)
    if learner.source.tokenizer is not None:
        shutil.copyfile(learner.source.tokenizer, made / TOKENIZER)
        files["tokenizer"] = CardFile(TOKENIZER, (made / TOKENIZER).stat().st_size, optional=True)
    kept: dict[str, Any] = {}
    if base is not None and "lm" in base.files:
        lm = learner.source.path.parent / base.files["lm"].path
        if lm.is_file():
            shutil.copyfile(lm, made / lm.name)
            files["lm"] = replace(base.files["lm"], path=lm.name)
    if base is not None and base.family == card.family:
        kept |= {"params": {**base.params, **card.params}, "confidence": base.confidence}
    if base is not None:
        kept |= {"license": base.license, "language": base.language, "decoder": base.decoder}
        kept["segmenter"] = base.segmenter
        kept["title"] = {"en": f"{base.title.get('en', base.name)}, fine-tuned"}
        if "ru" in base.title:
            kept["title"]["ru"] = f"{base.title['ru']}, дообучена"
    card = replace(card, files=files, results=_results(scores), **kept)
    text = card.to_toml()
    try:
        for file in sorted(made.iterdir()):
            if file.name != CARD_FILE:
                file.replace(out / file.name)
        (made / CARD_FILE).write_text(text, encoding="utf-8")
        (made / CARD_FILE).replace(out / CARD_FILE)
        made.rmdir()
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}", remedy="check the free space") from None
    return card


def _results(scores: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> tuple[Result, ...]:
    found = []
    for name, pair in scores.items():
        for when, values in zip((", before fine-tuning", ""), pair, strict=True):
            for metric in ("wer", "cer"):
                low, high = (round(100 * values[f"{metric}_{side}"], 2) for side in ("low", "high"))
                value = round(100 * values[metric], 2)
                test = f"dev set {name}{when}"
                command = "rechka finetune --config finetune.toml"
                found.append(Result(test, f"{metric.upper()} %", value, (low, high), command))
    return tuple(found)


def _name(out: Path) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", out.absolute().name.lower()).strip("-._")[:64]
    if not name:
        raise BadCard(f"the folder's name {out.name!r} makes no name for a model", remedy="give one with --name")
    return name
