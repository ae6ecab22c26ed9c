"""The fine-tuning run: steps, looks at the dev sets, checkpoints, early end; a killed run goes on as if undisturbed.

A run is a function of its configuration: order, changes and masks come from the position in the data, dropout from the
seed and the step, and a checkpoint holds everything else.
"""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rechka.errors import DataError, UsageError
from rechka.evaluate.wer import Score
from rechka.hub.card import Card
from rechka.train.finetune import params
from rechka.train.finetune.checkpoint import load, store
from rechka.train.finetune.config import FinetuneConfig
from rechka.train.finetune.feed import Batch, Feed, masked, told
from rechka.train.finetune.learners import Learner, open_learner
from rechka.train.finetune.looks import Looks, heard, scored
from rechka.train.finetune.place import WORK, only_one, settle
from rechka.train.finetune.publish import publish, starting_point
from rechka.train.finetune.report import Reporter, Tick
from rechka.train.finetune.survey import Spoken, read_dev, read_noises, survey
from rechka.types import F32

log = logging.getLogger(__name__)

LAST, BEST = "last.pt", "best.pt"
BLENDS = (0.25, 0.5, 0.75)
"""Shares of the way from the old weights to the new ones."""
WORST_SKIPPED = 20
"""So many steps in a row without a finite gradient end the run."""

Tell = Callable[[str], None]


def nothing(_: Any) -> None:
    """For those who want to hear nothing."""


def finetune(config: FinetuneConfig, out: Path, *, tell: Tell = nothing, tick: Tick = nothing) -> Card:
    """Run or resume a fine-tuning, and write the model's folder.

    Args:
        config: the run.
        out: the folder: the model with its card, ``finetune.toml``, and ``training`` with checkpoints and log. The same
            call again resumes a run that was stopped.
        tell: gets lines for the user.
        tick: gets the progress after every step.
    Returns:
        The card of the model.
    Raises:
        UsageError: a configuration that makes no sense, a folder with other things in it, or another run in it.
        DataError, ModelNotFound, BadModelFile, OutputError: data, checkpoint or folder that cannot be used.
    """
    config.check()
    config = config.placed(Path.cwd())
    with only_one(out):
        source, base = starting_point(config)
        learner = open_learner(source)
        config = config.settled(learner.usual, lm=base is not None and "lm" in base.files)
        config.check()
        settle(config, out)
        run = Run(config, learner, out / WORK, tell, tick)
        try:
            run.go()
        finally:
            run.close()
        return publish(run.result(), config, out, base, run.scores, tell)


class Run:
    """One training run.

    Args:
        config: of the run.
        learner: the model to train.
        folder: of checkpoints and log.
        tell, tick: see ``finetune``.
    """

    def __init__(self, config: FinetuneConfig, learner: Learner, folder: Path, tell: Tell, tick: Tick) -> None:
        self.config, self.folder, self.tell = config, folder, tell
        self.device, self.bf16 = choose(config)
        learner.module.to(self.device)
        self.learner = learner
        self.average = learner.with_module(copy.deepcopy(learner.module).eval())
        self.optimizer = params.make_optimizer(learner, config.optim)
        self.dev = {entry.name: read_dev(entry, learner, config.data.threads) for entry in config.dev}
        self.step, self.heard, self.goal, self.skipped, self.done = 0, 0.0, 0.0, 0, False
        self.in_a_row, self.blended = 0, False
        self.looks = Looks(config.optim.decide, config.optim.min_gain / 100)
        self.scores: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        """Of every dev set, before and at the best look; known when ``go`` returns."""
        self.position: dict[str, Any] | None = None
        checkpoint = folder / LAST
        begun = checkpoint.exists()
        if begun:
            self._restore(load(checkpoint))
            tell(f"going on after step {self.step}")
        else:
            self.goal = self._goal()
        self.reporter = Reporter(folder, self.step if begun else None, tick)
        self.saved = time.monotonic()
        self.feed: Feed | None = None
        self._ahead = ThreadPoolExecutor(1)

    # The run --------------------------------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """How much of the run is done."""
        steps = self.config.optim.steps
        return self.step / steps if steps else self.heard / self.goal

    def go(self) -> None:
        """Train until the end, unless that was reached before."""
        if not self.done:
            noises = read_noises(self.config.wave.noise_files, self.learner.sample_rate)
            self.feed = self._open_feed(noises)
            self.position = self.feed.position
            if not self.looks.made:
                self._look()
            waiting = self._ahead.submit(self.feed.next)
            while not self.done:
                waiting = self._step(waiting)
                look = self.share >= 1.0 or self._crossed()
                if look:
                    self._look()
                self.done = self.done or self.share >= 1.0
                if look or time.monotonic() - self.saved >= self.config.save_every_s:
                    self._save()
            waiting.cancel()
            self._tell_counts()
        if self.config.optim.blend and self.dev and self.step and not self.blended:
            self._blend()
        self._score_best()

    def _open_feed(self, noises: Sequence[F32]) -> Feed:
        return Feed(self.config, self.learner, noises, self.position)

    def _step(self, waiting: Future[Batch]) -> Future[Batch]:
        """One step of the optimiser; takes the batch that is being made, returns the next one."""
        optim, feed = self.config.optim, self.feed
        assert feed is not None
        params.training_mode(self.learner.module, freeze_norms=optim.freeze_norms)
        self.optimizer.zero_grad(set_to_none=True)
        self.share_before = self.share
        params.set_rates(self.optimizer, self.share, optim)
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.step]).generate_state(1)[0]))
        loss, seconds = 0.0, 0.0
        for _ in range(optim.accumulate):
            batch = waiting.result()
            waiting = self._ahead.submit(feed.next)
            part = self._loss(batch) / optim.accumulate
            part.backward()
            loss += part.item()
            seconds += batch.seconds
            self.heard += batch.own_seconds
            self.position = batch.position
        norm = float(nn.utils.clip_grad_norm_(self.learner.module.parameters(), optim.clip))
        self.step += 1
        rate = params.set_rates(self.optimizer, self.share, optim)
        if np.isfinite(norm):
            self.optimizer.step()
            params.follow(self.average.module, self.learner.module, self.step - 1, optim.ema)
            self.in_a_row = 0
        else:
            self._skip(norm)
        self.reporter.step(self.share, self.step, {"loss": loss, "norm": norm, "rate": rate}, seconds)
        return waiting

    def _loss(self, batch: Batch) -> Tensor:
        """Loss per label of a batch."""
        audio = torch.from_numpy(batch.audio).to(self.device)
        features, counts = self.learner.features(audio, torch.from_numpy(batch.lengths).to(self.device))
        hidden = masked(counts.tolist(), features.shape[1], batch.seed, self.config.mask, features.shape[2])
        real = torch.arange(features.shape[1], device=self.device)[None, :, None] < counts[:, None, None]
        mean = (features * real).sum(dim=(1, 2), keepdim=True) / (counts[:, None, None] * features.shape[2])
        features = torch.where(torch.from_numpy(hidden).to(self.device), mean, features)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses = self.learner.losses(features, counts, batch.labels)
        return losses.sum() / max(1, sum(map(len, batch.labels)))

    def _skip(self, norm: float) -> None:
        self.skipped += 1
        self.in_a_row += 1
        log.warning("step %d left out: its gradient is %s", self.step, norm)
        if self.in_a_row >= WORST_SKIPPED:
            raise DataError(
                f"the gradients of {WORST_SKIPPED} steps in a row were no numbers",
                remedy="lower optim.rate, or set precision = 'fp32'",
            )

    # Looks at the dev sets ------------------------------------------------------------------------------------------

    def _crossed(self) -> bool:
        evals = self.config.optim.evals
        return int(self.share_before * evals) != int(self.share * evals)

    def _look(self) -> None:
        """Score the averaged weights, keep them if they are the best, and end the run if it no longer gets better."""
        scores = {name: self._score(items) for name, items in self.dev.items()}
        best, optim = self.looks.add(self.step, scores), self.config.optim
        self.reporter.look(self.step, self.looks.made[-1]["scores"])
        for name, found in scores.items():
            self.tell(f"step {self.step}: {name}: {found}")
        if best:
            store({"model": self.average.module.state_dict(), "step": self.step}, self.folder / BEST)
        if self.dev and optim.patience and self.looks.stale >= optim.patience and self.share < 1.0:
            what = "letter" if optim.decide == "cer" else "word"
            self.tell(f"the {what} error rate has not fallen for {self.looks.stale} looks; ending here")
            self.done = True

    def _blend(self) -> None:
        """Score weights between the old ones and the last average, and keep those that are better than any look."""
        start = {
            name: value.to(self.device) for name, value in open_learner(self.learner.source).module.state_dict().items()
        }
        end = {name: value.clone() for name, value in self.average.module.state_dict().items()}
        for share in BLENDS:
            self.average.module.load_state_dict(
                {name: torch.lerp(start[name], value, share) if value.is_floating_point() else value
                 for name, value in end.items()}
            )  # fmt: skip
            scores = {name: self._score(items) for name, items in self.dev.items()}
            best = self.looks.add(self.step, scores, share=share)
            self.reporter.blend(self.step, share, self.looks.made[-1]["scores"])
            for name, found in scores.items():
                self.tell(f"step {self.step}, {share:.0%} of the way from the old weights: {name}: {found}")
            if best:
                kept = {"model": self.average.module.state_dict(), "step": self.step, "share": share}
                store(kept, self.folder / BEST)
        self.average.module.load_state_dict(end)
        self.blended = True
        self._save()

    @torch.no_grad()
    def _score(self, items: Sequence[Spoken]) -> Score:
        self.average.module.eval()
        budget = 2 * self.config.optim.batch_seconds * self.average.sample_rate
        return scored(items, heard(self.average, items, budget, self.device))

    def _score_best(self) -> None:
        """Before and after for the card, from the looks, without hearing anything again."""
        best = load(self.folder / BEST)
        self.average.module.load_state_dict(best["model"])
        before, after = self.looks.made[0]["scores"], self.looks.scores(best["step"], best.get("share", 1.0))
        self.best_step = best["step"]
        for name in self.dev:
            self.scores[name] = (before[name], after[name])
        if self.dev and self.best_step == 0 and self.step:
            self.tell("nothing was better than the model before; its weights are what is written")

    # State ----------------------------------------------------------------------------------------------------------

    def _goal(self) -> float:
        """Seconds of audio from ``train`` that the run hears; 0 where steps are counted. Looks at the data."""
        optim = self.config.optim
        seconds = survey(self.config.data, self.learner, whole=not optim.steps)
        if optim.steps:
            return 0.0
        self.tell(f"{seconds / 3600:.2f} hours to train on, {optim.epochs:g} passes")
        return seconds * optim.epochs

    def _save(self) -> None:
        state = {
            "model": self.learner.module.state_dict(), "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rest": json.dumps({
                "step": self.step, "heard": self.heard, "goal": self.goal, "skipped": self.skipped, "done": self.done,
                "stale": self.looks.stale, "looks": self.looks.made, "in_a_row": self.in_a_row,
                "position": self.position, "blended": self.blended,
            }),
        }  # fmt: skip
        store(state, self.folder / LAST)
        self.saved = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self.learner.module.load_state_dict(state["model"])
        self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        rest = json.loads(state["rest"])
        self.looks.restore(rest.pop("looks"), rest.pop("stale"))
        for key, value in rest.items():
            setattr(self, key, value)

    def _tell_counts(self) -> None:
        assert self.feed is not None
        for name, counts in self.feed.counts().items():
            used = counts.pop("used", 0)
            self.tell(f"{name}: {used} recordings read, passes included; left out: {told(counts)}")
        if self.skipped:
            self.tell(f"{self.skipped} steps left out because their gradients were no numbers")

    def result(self) -> Learner:
        """The best weights."""
        return self.average

    def close(self) -> None:
        """Let threads and files go."""
        self._ahead.shutdown(wait=True, cancel_futures=True)
        if self.feed is not None:
            self.feed.close()
        self.reporter.close()


def choose(config: FinetuneConfig) -> tuple[torch.device, bool]:
    """Device, and whether to compute in bf16.

    Raises:
        UsageError: CUDA or bf16 was asked for, and there is none.
    """
    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise UsageError("device is cuda, and torch sees no CUDA device", remedy="use --device cpu")
    device = torch.device("cuda" if there and config.device != "cpu" else "cpu")
    able = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if config.precision == "bf16" and not able:
        raise UsageError(f"this {device.type} does not compute in bf16", remedy="set precision = 'auto' or 'fp32'")
    wanted = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda" and able)
    return device, bool(wanted)
