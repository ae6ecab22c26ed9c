"""The training run: one TOML file, a log, a checkpoint that a killed run goes on from as if nothing had happened."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from rechka.errors import DataError
from rechka.text.punctuation import MARKS
from rechka.train.punctuation.batches import Batch, Noise, Vocabulary, batches
from rechka.train.punctuation.net import NetOptions, PunctuationNet
from rechka.train.punctuation.sentences import ASK_MASKED, Texts, prepare

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef,import-not-found,unused-ignore]

log = logging.getLogger(__name__)

SIDES = ("train", "dev", "test")


@dataclass(frozen=True)
class PunctuationConfig:
    """Everything that decides a run. The learning rate rises over ``warmup`` steps and falls to zero as a cosine."""

    texts: tuple[str, ...]
    steps: int = 4000
    warmup: int = 200
    peak: float = 3e-3
    weight_decay: float = 0.01
    batch_words: int = 4096
    seed: int = 1
    save_every: int = 100
    eval_every: int = 500
    net: NetOptions = field(default_factory=NetOptions)
    noise: Noise = field(default_factory=Noise)

    @classmethod
    def load(cls, path: Path) -> PunctuationConfig:
        """Read a TOML file; names of texts are relative to the folder given to ``train``.

        Raises:
            DataError: missing, no TOML, or with a key that means nothing.
        """
        try:
            raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
            raw["texts"] = tuple(raw["texts"])
            raw["net"], raw["noise"] = NetOptions(**raw.get("net", {})), Noise(**raw.get("noise", {}))
            return cls(**raw)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
        except (TypeError, KeyError) as error:
            known = ", ".join(item.name for item in fields(cls))
            raise DataError(f"{path}: {error}", remedy=f"keys are {known}") from error


def sides(config: PunctuationConfig, folder: Path, out: Path) -> dict[str, Texts]:
    """Train, dev and test, made once and kept in ``out``."""
    paths = {name: out / f"{name}.npz" for name in SIDES}
    if not all(path.is_file() for path in paths.values()):
        for name, texts in prepare([folder / name for name in config.texts]).items():
            texts.save(paths[name])
    return {name: Texts.load(path) for name, path in paths.items()}


def train(config: PunctuationConfig, texts: dict[str, Texts], out: Path) -> Path:
    """Train, or go on; the checkpoint, whose last step is ``config.steps``.

    ``log.jsonl`` beside it gets a line with the loss every 50 steps and one with the scores on dev at every evaluation.
    """
    torch.manual_seed(config.seed)
    net = PunctuationNet(config.net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=config.peak, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    checkpoint = out / "last.pt"
    step, epoch, taken = 0, 0, 0
    if checkpoint.is_file():
        found = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(found["net"])
        optimiser.load_state_dict(found["optimiser"])
        step, epoch, taken = found["step"], found["epoch"], found["taken"]
        torch.set_rng_state(found["rng"])
        log.info("going on from step %d", step)
    vocabulary = Vocabulary(texts["train"].vocabulary)
    feed = _feed(config, texts["train"], vocabulary, epoch, taken)
    began, losses = time.monotonic(), []
    net.train()
    while step < config.steps:
        epoch, taken, batch = next(feed)
        for group in optimiser.param_groups:
            group["lr"] = rate(config, step)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(net, batch, vocabulary)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            _note(out, {"step": step, "epoch": epoch, "loss": round(float(np.mean(losses)), 4),
                        "s": round(time.monotonic() - began)})  # fmt: skip
            losses.clear()
        if step % config.save_every == 0 or step == config.steps:
            state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "epoch": epoch,
                     "taken": taken, "rng": torch.get_rng_state(), "options": asdict(config.net)}  # fmt: skip
            torch.save(state, out / "last.tmp")
            os.replace(out / "last.tmp", checkpoint)
        if step % config.eval_every == 0 or step == config.steps:
            _note(out, {"step": step, "dev": dev_scores(net, texts["dev"])})
    return checkpoint


def _feed(
    config: PunctuationConfig, texts: Texts, vocabulary: Vocabulary, epoch: int, taken: int
) -> Iterator[tuple[int, int, Batch]]:
    """Batches from a place on, each with the place behind it."""
    while True:
        made = batches(texts, vocabulary, config.noise, num_words=config.batch_words, seed=[config.seed, epoch])
        for number, batch in enumerate(made):
            if number >= taken:
                yield epoch, number + 1, batch
        epoch, taken = epoch + 1, 0


def rate(config: PunctuationConfig, step: int) -> float:
    """Learning rate of a step."""
    if step < config.warmup:
        return config.peak * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.peak * 0.5 * (1 + float(np.cos(np.pi * min(1.0, done))))


def scores_of(net: PunctuationNet, batch: Batch, vocabulary: Vocabulary) -> torch.Tensor:
    """Scores (B, T, 9) for a batch."""
    there = batch.words >= 0
    return net(
        torch.from_numpy(np.where(there, vocabulary.rows[batch.words], 0)),
        torch.from_numpy(np.where(there[..., None], vocabulary.pieces[batch.words], 0)),
        torch.from_numpy(batch.pauses),
        torch.from_numpy(there.astype(np.float32)),
    )


def loss_of(net: PunctuationNet, batch: Batch, vocabulary: Vocabulary) -> torch.Tensor:
    """Cross entropy of marks plus half of that of cases, each averaged over what is asked for."""
    scores = scores_of(net, batch, vocabulary).flatten(0, 1)
    marks, cases = torch.from_numpy(batch.marks.ravel()), torch.from_numpy(batch.cases.ravel())
    of_marks = F.cross_entropy(scores[:, : len(MARKS)], marks, ignore_index=ASK_MASKED)
    of_cases = F.cross_entropy(scores[:, len(MARKS) :], cases, ignore_index=ASK_MASKED)
    return of_marks + 0.5 * of_cases


@torch.no_grad()
def dev_scores(net: PunctuationNet, texts: Texts) -> dict[str, float]:
    """F1 of every mark on the dev side, without pauses."""
    net.eval()
    vocabulary = Vocabulary(texts.vocabulary)
    noise = Noise(timed=0.0)
    right, told, there = (np.zeros(len(MARKS)) for _ in range(3))
    for batch in batches(texts, vocabulary, noise, num_words=4096, seed=[0], augment=False):
        found = scores_of(net, batch, vocabulary)[..., : len(MARKS)].argmax(-1).numpy()
        asked = batch.marks != ASK_MASKED
        for mark in range(len(MARKS)):
            right[mark] += np.sum(asked & (found == mark) & (batch.marks == mark))
            told[mark] += np.sum(asked & (found == mark))
            there[mark] += np.sum(asked & (batch.marks == mark))
    net.train()
    f1 = 2 * right / np.maximum(1, told + there)
    return {mark: round(float(f1[number]), 4) for number, mark in enumerate(MARKS) if mark}


def _note(out: Path, line: dict[str, Any]) -> None:
    log.info("%s", line)
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
