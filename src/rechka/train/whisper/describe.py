"""The page of a fine-tuned model, as the Hub shows it: what it is, what it scores, what it was trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from rechka.evaluate.wer import Score
from rechka.hub.card import Card
from rechka.train.whisper.config import WhisperConfig

if TYPE_CHECKING:
    from rechka.train.whisper.learner import WhisperLearner

MODEL_CARD = "MODEL_CARD.md"


def model_card(
    card: Card, config: WhisperConfig, learner: WhisperLearner, scores: Mapping[str, Any], heard: Score | None,
    quantization: str,
) -> str:  # fmt: skip
    """Markdown with a YAML head that the Hub reads. Names of sources are given without their folders."""
    own = config.whisper
    how = f"LoRA of rank {own.lora} on {', '.join(own.lora_layers)}, merged" if own.lora else "all weights"
    base = shown(config.model)
    lines = [
        "---", *_head(card, config, scores), "---", "",
        f"# {card.name}", "",
        f"Whisper ({learner.num_layers} encoder layers, {learner.num_mels} mel bands), fine-tuned from `{base}` for "
        f"`{own.language}`, task {own.task}: {how}. Converted to CTranslate2, {quantization}.", "",
        "## Use", "", "```console", "$ pip install \"rechka[whisper]\"", "$ rechka transcribe talk.wav --model FOLDER",
        "```", "",
        "## Results", "",
    ]  # fmt: skip
    if scores:
        lines += ["Greedy search, one window for each recording, raw texts compared after lower-casing and without "
                  "punctuation. Intervals are 95 % bootstrap.", "",
                  "| set | words | WER % before | WER % after | CER % before | CER % after |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {name} | {after['words']} | {rate(before, 'wer')} | {rate(after, 'wer')} | {rate(before, 'cer')} | "
            f"{rate(after, 'cer')} |"
            for name, (before, after) in scores.items()
        ]
    else:
        lines.append("None: the run had no dev set.")
    if heard is not None:
        lines += ["", f"Converted to {quantization}: {100 * heard.wer:.2f} % WER on {config.dev[0].name}."]
    lines += [
        "", "## Training", "", "| setting | value |", "|---|---|",
        *(f"| {key} | {value} |" for key, value in _settings(config).items()),
        "", f"Sources: {', '.join(f'`{shown(name)}`' for name in (*config.data.train, *config.data.replay))}.", "",
        "## Limits", "",
        "The weights that score best on the first dev set are taken, so its figures are a little too good; honest ones "
        "need recordings that had no part in the training: `rechka evaluate`. Whisper may write text where nobody "
        "speaks.",
        "", f"Licence: {card.license}, of the model that it was made from; the recordings may ask for more.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def rate(values: Mapping[str, Any], metric: str) -> str:
    """A rate with its interval, in percent."""
    value, low, high = (100 * values[key] for key in (metric, f"{metric}_low", f"{metric}_high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def shown(source: str) -> str:
    """A source without the folders of the machine; addresses of the Hub whole, queries and passwords left out."""
    plain = source.partition("?")[0].rstrip("/")
    if plain.startswith("hf://"):
        return plain
    name = PurePosixPath(plain.replace("\\", "/")).name
    return name or "model"


def _settings(config: WhisperConfig) -> dict[str, str]:
    own, optim = config.whisper, config.optim
    length = f"{optim.steps} steps" if optim.steps else f"{optim.epochs:g} passes"
    found = {
        "length": length, "rate": f"{optim.rate:g}", "windows in a step": str(config.batch * optim.accumulate),
        "windows with time stamps": f"{own.stamps:.0%}", "windows of several recordings": f"{own.join:.0%}",
        "windows with a prompt": f"{own.previous:.0%}", "averaged weights": f"{optim.ema:g}", "seed": str(config.seed),
    }  # fmt: skip
    if own.lora:
        found["LoRA rank, alpha, dropout"] = f"{own.lora}, {own.lora_alpha or 2 * own.lora:g}, {own.lora_dropout:g}"
    return found


def _head(card: Card, config: WhisperConfig, scores: Mapping[str, Any]) -> list[str]:
    """YAML by way of JSON, which it contains."""
    head: dict[str, Any] = {
        "language": [card.language], "library_name": "ctranslate2", "pipeline_tag": "automatic-speech-recognition",
        "tags": ["whisper", "rechka", *(["lora"] if config.whisper.lora else [])],
    }  # fmt: skip
    if card.license != "unknown":
        head["license"] = card.license.lower()
    if scores:
        results = [
            {
                "task": {"type": "automatic-speech-recognition"},
                "dataset": {"name": name, "type": shown(name)},
                "metrics": [{"type": kind, "value": round(100 * after[kind], 2)} for kind in ("wer", "cer")],
            }
            for name, (_, after) in scores.items()
        ]
        head["model-index"] = [{"name": card.name, "results": results}]
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
