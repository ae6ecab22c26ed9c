"""From trained weights to what is used and passed on: merged, converted, held against the dev set, described."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rechka.decoding.whisper import Search
from rechka.errors import BadModelFile, OutputError
from rechka.evaluate.wer import Score, score
from rechka.export.whisper import convert
from rechka.hub.card import Card, Result
from rechka.hub.registry import CARD_FILE
from rechka.models import whisper
from rechka.train.finetune.publish import _card_beside, _name, _results
from rechka.train.finetune.survey import Spoken
from rechka.train.whisper.checkpoint import MERGED, write_checkpoint
from rechka.train.whisper.config import WhisperConfig
from rechka.train.whisper.describe import MODEL_CARD, model_card

if TYPE_CHECKING:
    from rechka.train.whisper.learner import WhisperLearner

ADAPTER = "adapter"
GROUP = 8
"""Windows that the converted model reads at once."""
Scores = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]


def write_out(
    learner: WhisperLearner, config: WhisperConfig, out: Path, scores: Scores, dev: Sequence[Spoken],
    tell: Callable[[str], None],
) -> Card:  # fmt: skip
    """Write the model's folder.

    Args:
        learner: with the weights to write.
        config: of the run.
        out: the folder; ``card.toml`` comes last.
        scores: of every dev set, before and after, as ``Score.to_dict`` gives them.
        dev: the first dev set, which the converted model must read as well; empty leaves that out.
        tell: gets lines for the user.
    Raises:
        BadModelFile: conversion costs more words than ``whisper.max_loss`` allows, even without 8 bits.
        BadCard: a name that no card may have; OutputError: the folder cannot be written.
    """
    name = config.name or _name(out)
    (out / CARD_FILE).unlink(missing_ok=True)
    write_checkpoint(learner.merged(), learner.folder, out / MERGED, learner.generation, config.tokenizer)
    if config.whisper.lora:
        _write_adapter(learner, out / ADAPTER)
    made = out / "training" / "model"
    quantization, heard = _converted(learner, config, out, made, name, scores, dev, tell)
    base = _card_beside(learner.folder / CARD_FILE)
    card = Card.read(made / CARD_FILE)
    title = base.title if base is not None and base.title else {"en": "Whisper", "ru": "Whisper"}
    card = replace(
        card,
        language=config.whisper.language if config.whisper.task == "transcribe" else "en",
        license=base.license if base is not None else "unknown",
        params={"language": config.whisper.language, "task": config.whisper.task},
        title={"en": f"{title['en']}, fine-tuned", **({"ru": f"{title['ru']}, дообучена"} if "ru" in title else {})},
        results=(*_results(scores), *_converted_result(config, heard, quantization)),
    )
    try:
        (out / MODEL_CARD).write_text(model_card(card, config, learner, scores, heard, quantization), "utf-8")
        for file in sorted(made.iterdir()):
            if file.name != CARD_FILE:
                file.replace(out / file.name)
        (made / CARD_FILE).write_text(card.to_toml(), "utf-8")
        (made / CARD_FILE).replace(out / CARD_FILE)
        made.rmdir()
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}", remedy="check the free space") from None
    return card


def _converted(
    learner: WhisperLearner, config: WhisperConfig, out: Path, made: Path, name: str, scores: Scores,
    dev: Sequence[Spoken], tell: Callable[[str], None],
) -> tuple[str, Score | None]:  # fmt: skip
    """Convert into ``made``, in 8 bits if these are wanted and good enough; the type, and what the result scores."""
    before = scores[config.dev[0].name][1] if dev else None
    for quantization in ("int8", "float16") if config.int8 else ("float16",):
        shutil.rmtree(made, ignore_errors=True)
        convert(out / MERGED, made, quantization, name=name)
        if before is None:
            return quantization, None
        found = read_converted(made, learner, dev)
        lost = 100.0 * (found.wer - before["wer"])
        extra = found.words.errors - round(before["wer"] * before["words"])
        tell(f"{quantization}: {found} on {config.dev[0].name}, {lost:+.2f} points by conversion")
        if lost <= config.whisper.max_loss or extra <= 1:
            return quantization, found
        tell(f"{quantization} costs more than whisper.max_loss = {config.whisper.max_loss:g} points of WER")
    raise BadModelFile(
        f"the converted model has {lost:.2f} points more word errors than the trained one, allowed are "
        f"{config.whisper.max_loss:g}",
        remedy=f"the trained weights are in {out / MERGED}; raise whisper.max_loss to take the converted ones",
    )


def read_converted(folder: Path, learner: WhisperLearner, items: Sequence[Spoken]) -> Score:
    """What a converted model scores, read just as ``WhisperLearner.read`` does: greedily, one window each."""
    files = {role: folder / file.path for role, file in Card.read(folder / CARD_FILE).files.items()}
    model = whisper.load(files, {}, device="cpu")
    prompt = learner.prompt(stamps=False)
    texts: list[str] = []
    for first in range(0, len(items), GROUP):
        group = items[first : first + GROUP]
        encoded = model.kernel.encode([item.samples for item in group])
        found = model.kernel.generate(encoded, [prompt] * len(group), Search(beam_size=1))
        texts += [model.codec.decode(one.tokens).strip() for one in found]
    return score([item.text for item in items], texts)


def _converted_result(config: WhisperConfig, found: Score | None, quantization: str) -> tuple[Result, ...]:
    if found is None:
        return ()
    low, high = (round(100 * edge, 2) for edge in found.wer_interval)
    test = f"dev set {config.dev[0].name}, converted to {quantization}, greedy"
    return (Result(test, "WER %", round(100 * found.wer, 2), (low, high), "rechka finetune --config finetune.toml"),)


def _write_adapter(learner: WhisperLearner, folder: Path) -> None:
    """The adapter alone, as peft reads it; without its page, which would name a folder of this machine."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model: Any = learner.module.model
    try:
        model.save_pretrained(part, safe_serialization=True)
        (part / "README.md").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}", remedy="check the free space") from None
