"""CTC training of the streaming Conformer: several single-thread workers on one machine, gradients averaged.

Two workers with one thread each see nearly twice the audio of one worker with two threads. A run is a function of its
configuration: each step draws its randomness from (seed, step, rank), and a checkpoint holds everything else, so a run
that was killed goes on as if it had not been.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn import functional

from rechka.errors import BadModelFile, DataError, UsageError
from rechka.evaluate.wer import score
from rechka.features import bands
from rechka.nn.conformer import SUBSAMPLING, ConformerConfig, StreamingConformer
from rechka.train import augment
from rechka.train.batches import BLANK, LETTERS, TrainingBatch, ahead, batch_of, encode, sampler
from rechka.train.config import DataSet, Optimisation, Regularisation, TrainConfig
from rechka.train.grow import grow
from rechka.train.sampler import Position
from rechka.train.store import Store, build

__all__ = ["BLANK", "LETTERS", "encode", "evaluate", "greedy", "load_model", "load_weights", "train"]

CHECKPOINT = "last.pt"
LOG = "log.jsonl"


def loss_of(
    model: StreamingConformer, batch: TrainingBatch, optim: Optimisation, chunk: int | None = None,
    left: int | None = None,
) -> Tensor:  # fmt: skip
    """CTC of the last and of the middle head, per letter; chunk and left context as in the model's ``forward``."""

    def ctc(log_probs: Tensor) -> Tensor:
        total = functional.ctc_loss(
            log_probs.transpose(0, 1), batch.targets, batch.frames, batch.target_lengths,
            blank=BLANK, reduction="sum", zero_infinity=True,
        )  # fmt: skip
        return total / max(1, len(batch.targets))

    final, middle = model(batch.features, chunk, left)
    return (1 - optim.middle_ctc) * ctc(final) + optim.middle_ctc * ctc(middle)


def learning_rate(step: int, optim: Optimisation) -> float:
    """Warm-up, stable, linear decay to zero."""
    if step < optim.warmup:
        return optim.peak * (step + 1) / optim.warmup
    if step < optim.decay_from:
        return optim.peak
    return optim.peak * max(0.0, (optim.steps - step) / max(1, optim.steps - optim.decay_from))


def context(regular: Regularisation, left: int, seed: int, step: int) -> tuple[int | None, int | None]:
    """Chunk and left context that a step draws; None: the model's own."""
    rng = np.random.default_rng([seed, step, 1 << 20])  # apart from the generators of the batches, by rank
    chunk = int(rng.choice(regular.chunks)) if regular.chunks else None
    return chunk, 2 * int(rng.integers(regular.left // 2, left // 2 + 1)) if regular.left else None


def greedy(log_probs: Tensor, frames: int) -> str:
    """Best path of (T, V) as text."""
    path = log_probs[:frames].argmax(-1).tolist()
    return "".join(LETTERS[i] for k, i in enumerate(path) if i != BLANK and (k == 0 or path[k - 1] != i)).strip()


@torch.no_grad()
def evaluate(model: StreamingConformer, store: Store, items: int) -> dict[str, float]:
    """Greedy letter and word error rates on the first ``items`` recordings of a store, as they are."""
    refs, hyps = [], []
    unit = SUBSAMPLING * model.config.chunk
    device = model.head.weight.device
    for item in store.items[:items]:
        x = store.read(item)
        padded = np.full((1, -(-(len(x) + 64) // unit) * unit, bands.BANDS), np.log(bands.FLOOR), np.float32)
        padded[0, 32 : 32 + len(x)] = np.logaddexp(x, np.log(bands.FLOOR))
        final, _ = model(torch.from_numpy(augment.finish(padded)).to(device))
        hyps.append(greedy(final[0], final.shape[1]))
        refs.append(item.text)
    result = score(refs, hyps)
    return {"cer": round(100 * result.cer, 2), "wer": round(100 * result.wer, 2)}


def prepare(sets: tuple[DataSet, ...], folder: Path) -> dict[str, Store]:
    """Bring the feature stores of all sets up to date."""
    return {
        entry.name: build([Path(m) for m in entry.manifests], folder / entry.name, keep_held_out=entry.held_out)
        for entry in sets
    }


def train(config: TrainConfig, out: Path, *, features: Path | None = None) -> Path:
    """Run or resume a training.

    Args:
        config: the run.
        out: folder of checkpoint, log and features.
        features: folder of the feature stores if not ``out/features`` (several runs may share one).
    Returns:
        The checkpoint's path.
    Raises:
        DataError: no recording is left to train on.
        UsageError: another training is running in the folder; or a device that this machine lacks or that takes one
            worker only.
    """
    _check_device(config)
    out.mkdir(parents=True, exist_ok=True)
    features = features or out / "features"
    stores = prepare(config.data + config.dev, features)
    if not any(stores[entry.name].items for entry in config.data):
        raise DataError("no recording is left to train on", remedy="check the manifests: held-out texts are dropped")
    with _only_one(out):
        rendezvous = out / f"rendezvous-{os.getpid()}"
        try:
            mp.spawn(_worker, (config, out, features, rendezvous, os.getpid()), nprocs=config.workers)
        finally:
            rendezvous.unlink(missing_ok=True)
    return out / CHECKPOINT


def _check_device(config: TrainConfig) -> None:
    if config.device == "cpu":
        return
    if config.device != "cuda" or not torch.cuda.is_available():
        raise UsageError(
            f"cannot train on the device {config.device!r}",
            remedy='device must be "cpu", or "cuda" where torch sees one',
        )
    if config.workers != 1:
        raise UsageError(f"a GPU takes one worker, got {config.workers}", remedy="set workers = 1 and loaders")


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Keep the folder to one run at a time: two would overwrite each other's checkpoints."""
    with open(out / "lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another training is running in {out}", remedy="wait for it, stop it, or choose another folder"
            ) from error
        yield


def _leave_with(parent: int) -> None:
    """End this worker when the process that started it is gone: nobody would stop it, and it would go on writing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _worker(rank: int, config: TrainConfig, out: Path, features: Path, rendezvous: Path, parent: int) -> None:
    _leave_with(parent)
    torch.set_num_threads(1)
    if config.workers > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=config.workers)
    run = Run(rank, config, out, features)
    run.go()
    if config.workers > 1:
        dist.destroy_process_group()


class Run:
    """One worker's side of a training."""

    def __init__(self, rank: int, config: TrainConfig, out: Path, features: Path) -> None:
        self.rank, self.config, self.out = rank, config, out
        self.stores = {entry.name: Store(features / entry.name) for entry in config.data + config.dev}
        torch.manual_seed(config.seed)
        model = ConformerConfig.from_dict({"vocabulary": BLANK + 1, **config.model})
        self.device = torch.device(config.device)
        self.model = StreamingConformer(model).to(self.device)
        self.model.thin(config.regular.dropout, config.regular.depth)
        self.average = StreamingConformer(model).to(self.device)
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.optim.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.optim.peak, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self.step, self.seconds, position = 0, 0.0, Position()
        checkpoint = out / CHECKPOINT
        if checkpoint.exists():
            position = self._restore(torch.load(checkpoint, map_location="cpu", weights_only=True))
        else:
            if config.init:
                smaller, weights = load_weights(Path(config.init))
                self.model.load_state_dict(grow(weights, smaller, model, config.seed))
            self.average.load_state_dict(self.model.state_dict())
        self.sampler = sampler(config, self.stores, position)
        self._ahead: Iterator[TrainingBatch] | None = None
        if config.loaders:
            self._ahead = ahead(config, self.stores, position, self.step, model.chunk)

    def _next_batch(self) -> TrainingBatch:
        group = self.sampler.next_group()  # with loaders too: the checkpoint needs its position
        if self._ahead is not None:
            return next(self._ahead).on(self.device)
        made = batch_of(self.config, self.stores, group, self.step, self.rank, self.model.config.chunk)
        return made.on(self.device)

    def _loss(self, batch: TrainingBatch) -> Tensor:
        config, regular = self.config, self.config.regular
        if regular != Regularisation():  # what is dropped is a function of the step, as all else is
            torch.manual_seed((config.seed << 40) + (self.step << 8) + self.rank)
        chunk, left = context(regular, self.model.config.left, config.seed, self.step)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            return loss_of(self.model, batch, config.optim, chunk, left)

    def go(self) -> None:
        """Train until the last step."""
        config, optim = self.config, self.config.optim
        started, heard, shown = time.monotonic(), 0.0, 0.0
        self.model.train()
        while self.step < optim.steps:
            batch = self._next_batch()
            loss = self._loss(batch)
            self.optimizer.zero_grad(set_to_none=False)
            loss.backward()
            total = self._average_gradients(batch.seconds)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), optim.clip)
            for group_ in self.optimizer.param_groups:
                group_["lr"] = learning_rate(self.step, optim)
            if torch.isfinite(norm):
                self.optimizer.step()
            self._follow()
            self.step += 1
            self.seconds += total
            heard += total
            value = loss.item()
            shown = value if shown == 0.0 else 0.98 * shown + 0.02 * value
            if self.rank == 0 and self.step % 50 == 0:
                speed = heard / (time.monotonic() - started)
                self._log(
                    step=self.step, loss=round(shown, 4), hours=round(self.seconds / 3600, 2), speed=round(speed, 1)
                )
                started, heard = time.monotonic(), 0.0
            if self.step % config.save_every == 0 or self.step == optim.steps:
                self._save()
            if self.rank == 0 and (self.step % config.eval_every == 0 or self.step == optim.steps):
                self._evaluate()

    def _average_gradients(self, seconds: float) -> float:
        """Mean of the gradients over all workers, in place; returns the audio of all of them."""
        if self.config.workers == 1:
            return seconds
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([seconds])])
        dist.all_reduce(flat)
        position = 0
        for gradient in gradients:
            gradient.copy_(flat[position : position + gradient.numel()].view_as(gradient))
            gradient.div_(self.config.workers)
            position += gradient.numel()
        return float(flat[-1])

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights; their memory grows with the run so that early steps are forgotten."""
        keep = min(self.config.optim.ema, (self.step + 1) / (self.step + 10))
        mine = list(self.average.state_dict().values())
        torch._foreach_lerp_(mine, list(self.model.state_dict().values()), 1 - keep)

    def _save(self) -> None:
        if self.rank:
            return
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": self.sampler.position.to_dict(), "step": self.step, "seconds": self.seconds,
            "config": self.model.config.to_dict(),
        }  # fmt: skip
        temporary = self.out / (CHECKPOINT + ".part")
        torch.save(state, temporary)
        os.replace(temporary, self.out / CHECKPOINT)

    def _restore(self, state: dict[str, Any]) -> Position:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        return Position(**state["position"])

    def _evaluate(self) -> None:
        self.average.eval()
        results = {e.name: evaluate(self.average, self.stores[e.name], self.config.dev_items) for e in self.config.dev}
        self._log(step=self.step, hours=round(self.seconds / 3600, 2), dev=results)

    def _log(self, **values: Any) -> None:
        line = json.dumps({**values, "time": round(time.time())}, ensure_ascii=False)
        with open(self.out / LOG, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


def load_weights(path: Path) -> tuple[ConformerConfig, dict[str, Tensor]]:
    """Configuration and averaged weights of a checkpoint; nothing in the file is executed.

    Raises:
        BadModelFile: no checkpoint of this trainer.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return ConformerConfig.from_dict(state["config"]), state["average"]
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise BadModelFile(f"{path} is no checkpoint of rechka train: {error}") from error


def load_model(path: Path) -> StreamingConformer:
    """The network of a checkpoint with its averaged weights, ready for inference; errors as ``load_weights``."""
    config, weights = load_weights(path)
    model = StreamingConformer(config)
    model.load_state_dict(weights)
    return model.eval()
