"""The Whisper run: that of every fine-tuning, on windows, with looks at the dev sets by generation."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from rechka.errors import DataError, MissingExtra, ModelNotFound
from rechka.evaluate.wer import Score
from rechka.features.whisper import WINDOW, WINDOW_S
from rechka.hub.card import Card
from rechka.train.finetune.feed import Feed
from rechka.train.finetune.looks import scored
from rechka.train.finetune.place import WORK, only_one, settle
from rechka.train.finetune.report import Tick
from rechka.train.finetune.run import Run, Tell, nothing
from rechka.train.finetune.survey import Spoken
from rechka.train.whisper.checkpoint import find_checkpoint
from rechka.train.whisper.config import WhisperConfig
from rechka.train.whisper.learner import WhisperLearner, open_whisper
from rechka.train.whisper.output import write_out
from rechka.train.whisper.windows import WindowFeed


def finetune_whisper(config: WhisperConfig, out: Path, *, tell: Tell = nothing, tick: Tick = nothing) -> Card:
    """Run or resume a fine-tuning of Whisper, and write the model's folder.

    Args:
        config: the run.
        out: the folder: the converted model with its card and ``MODEL_CARD.md``, ``transformers`` with the merged
            weights, ``adapter`` after LoRA, ``finetune.toml``, and ``training`` with checkpoints and log. The same call
            again resumes a run that was stopped.
        tell: gets lines for the user.
        tick: gets the progress after every step.
    Returns:
        The card of the model.
    Raises:
        MissingExtra: transformers, peft, or CTranslate2 is not installed.
        BadModelFile: the checkpoint is none, or its conversion costs more words than ``whisper.max_loss`` allows.
        UsageError, DataError, ModelNotFound, OutputError: see ``rechka.train.finetune.finetune``.
    """
    for module in ("transformers", "ctranslate2", "tokenizers", *(["peft"] if config.whisper.lora else [])):
        if find_spec(module) is None:
            raise MissingExtra(f"fine-tuning Whisper needs {module}", remedy='pip install "rechka[whisper-train]"')
    config.check()
    config = cast(WhisperConfig, config.placed(Path.cwd()))
    folder = find_checkpoint(config.model)
    if folder is None:
        raise ModelNotFound(
            f"{config.model} is no Whisper checkpoint of transformers", remedy="name the folder with its config.json"
        )
    with only_one(out), _quiet():
        settle(config, out)
        torch.manual_seed(config.seed)  # adapters begin with random numbers
        run = WhisperRun(config, open_whisper(folder, config), out / WORK, tell, tick)
        try:
            run.go()
            first = config.dev[0].name if config.dev else None
            return write_out(run.result(), config, out, run.scores, run.dev[first] if first else [], tell)
        finally:
            run.close()


class _quiet:
    """Keep progress bars and hints of transformers out of the way; put things back afterwards."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._level, self._bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()


class WhisperRun(Run):
    """One run; see ``Run``."""

    config: WhisperConfig

    def __init__(self, config: WhisperConfig, learner: WhisperLearner, folder: Path, tell: Tell, tick: Tick) -> None:
        super().__init__(config, learner, folder, tell, tick)
        for name, items in self.dev.items():
            short = [item for item in items if len(item.samples) <= WINDOW]
            if len(short) < len(items):
                tell(f"{name}: {len(items) - len(short)} recordings are longer than {WINDOW_S} s and left out")
            if not short:
                raise DataError(f"the dev set {name!r} has no recording of {WINDOW_S} s or less", remedy="cut them")
            self.dev[name] = short

    def result(self) -> WhisperLearner:
        """The best weights."""
        assert isinstance(self.average, WhisperLearner)
        return self.average

    def _open_feed(self, noises: Sequence[Any]) -> Feed:
        return WindowFeed(self.config, self.learner, noises, self.position)

    @torch.no_grad()
    def _score(self, items: Sequence[Spoken]) -> Score:
        learner = self.result()
        learner.module.eval()
        texts = [text for group in groups(items, 2 * self.config.batch) for text in heard(learner, group)]
        return scored(items, texts)


def groups(items: Sequence[Spoken], size: int) -> list[Sequence[Spoken]]:
    """Neighbours together."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def heard(learner: WhisperLearner, items: Sequence[Spoken]) -> list[str]:
    """The text of each recording, in one batch."""
    audio = torch.zeros(len(items), WINDOW)
    for row, item in zip(audio, items, strict=True):
        row[: len(item.samples)] = torch.from_numpy(item.samples)
    lengths = torch.tensor([len(item.samples) for item in items])
    device = learner.device
    return learner.read(*learner.features(audio.to(device), lengths.to(device)))
