"""The Whisper half of the tutorial: a tiny Whisper learns four words that are tones, and is converted and asked.

The model starts with random weights and knows nothing; each word is a tone of its own, so a minute of training on one
core is enough to see the word error rate of recordings that it never heard fall. ``docs/finetune_whisper.md`` explains
the same steps for real models and recordings.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import rechka
from rechka.evaluate.wer import score
from rechka.testing.whisper import write_checkpoint
from rechka.train.whisper import WhisperConfig, finetune_whisper

RATE = 16000
WORDS = {"раз": 300.0, "два": 600.0, "три": 1200.0, "четыре": 2400.0}
"""Word -> frequency of its tone."""
OPTIM = {
    "steps": 130, "rate": 0.02, "warmup": 0.1, "batch_seconds": 120.0, "accumulate": 1, "ema": 0.5, "evals": 2,
    "weight_decay": 0.0, "patience": 0, "freeze": ["model.encoder.*"],
}  # fmt: skip


def tone(word: str, rng: np.random.Generator) -> Any:
    """(n,) samples of a word: a tone of a second or two with a little noise."""
    n = int(RATE * rng.uniform(1.0, 2.0))
    rise = np.minimum(1.0, np.arange(n) / 800) * np.minimum(1.0, np.arange(n)[::-1] / 800)
    wave = 0.1 * rise * np.sin(2 * np.pi * WORDS[word] * np.arange(n) / RATE)
    return (wave + 1e-3 * rng.standard_normal(n)).astype(np.float32)


def recordings(folder: Path, name: str, count: int, seed: int) -> Path:
    """``count`` files with one word each, and a manifest of them."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True)
    lines = []
    for number in range(count):
        word = list(WORDS)[number % len(WORDS)]
        samples = tone(word, rng)
        path = folder / name / f"{number:03d}.wav"
        soundfile.write(path, samples, RATE)
        lines.append({"audio_filepath": str(path), "text": word, "duration": len(samples) / RATE})
    manifest = folder / f"{name}.jsonl"
    manifest.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return manifest


def checkpoint(folder: Path, *, width: int = 16) -> Path:
    """A tiny Whisper with random weights, but the published sinusoids for positions of the encoder."""
    from safetensors.numpy import load_file, save_file

    write_checkpoint(folder, width=width, layers=1, heads=1)
    weights = load_file(folder / "model.safetensors")
    scales = np.exp(-math.log(10000.0) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(1500)[:, None] * scales
    weights["model.encoder.embed_positions.weight"] = np.concatenate([np.sin(angles), np.cos(angles)], 1).astype("f4")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    generation = json.loads((folder / "generation_config.json").read_text("utf-8"))
    (folder / "generation_config.json").write_text(json.dumps({**generation, "max_length": 24}), "utf-8")
    return folder


def settings(folder: Path, **more: Any) -> WhisperConfig:
    """The run on what ``prepare`` made."""
    raw = {
        "model": str(folder / "tiny"), "int8": True,
        "data": {"train": [str(folder / "train.jsonl")], "window_s": 120.0},
        "dev": [{"name": "held out", "sources": [str(folder / "dev.jsonl")]}],
        "optim": OPTIM, "wave": {"clean": 1.0, "speed": 0.0, "gain_db": 0.0},
        "mask": {"time_masks": 0, "band_masks": 0}, "whisper": {"join": 0.0, "stamps": 0.1},
    }  # fmt: skip
    for key, value in more.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
    return WhisperConfig.from_dict(raw)


def prepare(folder: Path) -> None:
    """Recordings to train on, others to be scored on, and the model."""
    recordings(folder, "train", 64, seed=1)
    recordings(folder, "dev", 12, seed=2)
    checkpoint(folder / "tiny")


def run(folder: Path) -> dict[str, Any]:
    """Fine-tune, merge, convert, transcribe.

    Returns:
        ``before`` and ``after``, word error rates on held-out recordings by greedy search in torch; ``transcribed``,
        that of the converted model by ``rechka.load(...).transcribe``; ``model``, its folder; ``recording`` and
        ``text``, something to ask it, and what it should say.
    """
    prepare(folder)
    out = folder / "whisper-tones"
    card = finetune_whisper(settings(folder), out, tell=print)
    rates = [result.value / 100 for result in card.results if result.metric == "WER %"]
    asr = rechka.load(out, threads=1).with_options(vad="none", mode="chunked", word_times=False, temperatures=[0.0])
    lines = [json.loads(line) for line in (folder / "dev.jsonl").read_text("utf-8").splitlines()]
    texts = [asr.transcribe(line["audio_filepath"]).text for line in lines]
    found = score([line["text"] for line in lines], texts)
    asked = next((line for line, text in zip(lines, texts, strict=True) if line["text"] == text), lines[0])
    return {
        "before": rates[0], "after": rates[1], "transcribed": found.wer, "model": str(out),
        "recording": asked["audio_filepath"], "text": asked["text"],
    }  # fmt: skip


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        print(run(Path(place)))
