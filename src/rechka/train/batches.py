"""Batches of the trainer: read, changed and padded, in this process or by others that run ahead of a GPU.

A batch is a function of the run's configuration and of (step, rank), whoever makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rechka.features import bands
from rechka.nn.conformer import SUBSAMPLING
from rechka.train import augment
from rechka.train.config import TrainConfig
from rechka.train.sampler import Batch, Position, Sampler, Source
from rechka.train.store import Store

LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюя "
BLANK = len(LETTERS)
AHEAD = 4
"""Batches that each loader keeps ready."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Padded features (B, T, 15), their lengths in 40 ms frames, and the targets one after another."""

    features: Tensor
    frames: Tensor
    targets: Tensor
    target_lengths: Tensor
    seconds: float

    def on(self, device: torch.device) -> TrainingBatch:
        """Features and targets on a device; lengths stay, where the loss wants them."""
        if device.type == "cpu":
            return self
        features = self.features.pin_memory().to(device, non_blocking=True)
        return replace(self, features=features, targets=self.targets.pin_memory().to(device, non_blocking=True))


def encode(text: str) -> list[int]:
    """Letter ids of a training target."""
    return [LETTERS.index(letter) for letter in text]


def make_batch(
    members: Batch, stores: dict[str, Store], rng: np.random.Generator, config: TrainConfig, chunk: int
) -> TrainingBatch:
    """Read, change and pad the members of a batch; now and then a stretch of silence joins them."""
    options = config.augment
    rows, texts, may_mask = [], [], []
    clips = [stores[name].read(stores[name].items[index]) for name, index in members]
    for position, (name, index) in enumerate(members):
        other = clips[position - 1] if len(clips) > 1 else None
        row, mask = augment.utterance(clips[position], rng, options, other)
        rows.append(row)
        texts.append(encode(stores[name].items[index].text))
        may_mask.append(mask)
    if rng.random() < config.optim.silence * 10:
        rows.append(augment.silence(rng, max(len(row) for row in rows)))
        texts.append([])
        may_mask.append(False)
    unit = SUBSAMPLING * chunk
    length = -(-max(len(row) for row in rows) // unit) * unit
    batch = np.full((len(rows), length, bands.BANDS), np.log(bands.FLOOR), np.float32)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    features = augment.finish(batch)
    lengths = np.array([len(row) for row in rows])
    chosen = np.array(may_mask)
    part = features[chosen]
    augment.masks(part, lengths[chosen], rng, options)
    features[chosen] = part
    return TrainingBatch(
        torch.from_numpy(features),
        torch.tensor([-(-count // SUBSAMPLING) for count in lengths]),
        torch.tensor([letter for text in texts for letter in text], dtype=torch.long),
        torch.tensor([len(text) for text in texts]),
        float(lengths.sum() * bands.STEP / bands.SAMPLE_RATE),
    )


def sampler(config: TrainConfig, stores: dict[str, Store], position: Position) -> Sampler:
    """The run's sequence of batches, from a position on."""
    sources = [
        Source(entry.name, [item.frames for item in stores[entry.name].items], entry.weight) for entry in config.data
    ]
    frames = int(config.optim.batch_seconds * bands.SAMPLE_RATE / bands.STEP)
    return Sampler(sources, frames, config.workers, config.seed, position)


def batch_of(
    config: TrainConfig, stores: dict[str, Store], group: list[Batch], step: int, rank: int, chunk: int
) -> TrainingBatch:
    """A rank's batch of a step."""
    if step < config.optim.short_first_steps:  # clean speech only during the first steps: letters are found sooner
        config = replace(config, augment=replace(config.augment, clean=1.0))
    return make_batch(group[rank], stores, np.random.default_rng([config.seed, step, rank]), config, chunk)


class _Steps(Dataset[TrainingBatch]):
    """Batches by step, each loader with a sampler of its own that walks on to the step asked for."""

    def __init__(self, config: TrainConfig, stores: dict[str, Store], position: dict[str, Any], step: int, chunk: int):
        self._config, self._stores, self._chunk = config, stores, chunk
        self._sampler, self._next = sampler(config, stores, Position(**position)), step

    def __getitem__(self, step: int) -> TrainingBatch:
        while True:
            group = self._sampler.next_group()
            self._next += 1
            if self._next > step:
                return batch_of(self._config, self._stores, group, step, 0, self._chunk)


def ahead(
    config: TrainConfig, stores: dict[str, Store], position: Position, step: int, chunk: int
) -> Iterator[TrainingBatch]:
    """The batches from ``step`` on, made by ``config.loaders`` other processes."""
    steps = _Steps(config, stores, position.to_dict(), step, chunk)
    return iter(
        DataLoader(
            steps, batch_size=None, sampler=range(step, config.optim.steps), num_workers=config.loaders,
            prefetch_factor=AHEAD,
        )
    )  # fmt: skip
