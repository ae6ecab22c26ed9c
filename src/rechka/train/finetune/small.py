"""The embedded model's family in fine-tuning: a small streaming Conformer on telephone-band features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rechka.export.source import Source
from rechka.features import bands
from rechka.models.conformer import FRAME, LETTERS
from rechka.nn.conformer import SUBSAMPLING, StreamingConformer, load_conformer
from rechka.train.finetune.config import Usual
from rechka.train.finetune.learners import Ids, Learner, best_path, ctc_losses
from rechka.train.finetune.targets import Targets
from rechka.types import F32

MIDDLE = 0.3
"""Share of the middle block's CTC in the loss, as in the model's own training (recipes/embedded/run.toml)."""


class ConformerLearner(Learner):
    """Attention sees the chunks and the left context that it sees in a stream, wherever the speech begins."""

    family = "conformer"
    sample_rate = bands.SAMPLE_RATE
    frame = FRAME
    usual = Usual(epochs=10.0, rate=1e-3, batch_seconds=20.0)
    """Chosen on dev sets of five-minute speakers (docs/finetune.md)."""
    module: StreamingConformer

    @property
    def _chunk(self) -> int:
        """Samples."""
        return self.module.config.chunk * FRAME

    def laid_out(self, samples: F32, rng: np.random.Generator | None) -> F32:
        """A chunk of silence on both sides, as the recogniser has it, and whole chunks; in training anywhere in one."""
        before = self._chunk + (0 if rng is None else int(rng.integers(self._chunk)))
        whole = -(-(before + len(samples) + self._chunk) // self._chunk) * self._chunk
        return np.pad(samples, (before, whole - before - len(samples)))

    def num_frames(self, samples: int) -> int:
        """Frames of ``FRAME`` samples; laid-out samples are whole frames."""
        return samples // FRAME

    def features(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) samples to (B, F, bands) log energies over their running mean, without gradients."""
        # The running mean is taken frame by frame, in NumPy as in use.
        rows = [bands.push(row, bands.BandState.initial())[0] for row in audio.cpu().numpy()]
        return torch.from_numpy(np.stack(rows)).to(audio.device), lengths // bands.STEP

    def losses(self, features: Tensor, counts: Tensor, labels: Sequence[Ids]) -> Tensor:
        """(B,) CTC losses of the last head and, by ``MIDDLE``, of the one half-way up."""
        final, middle = self.module(self._whole(features))
        last, first = (
            ctc_losses(heard.float(), counts // SUBSAMPLING, labels, self.targets.blank) for heard in (final, middle)
        )
        return (1 - MIDDLE) * last + MIDDLE * first

    def read(self, features: Tensor, counts: Tensor) -> list[str]:
        """The text of each item, by the best path of the last head."""
        final, _ = self.module(self._whole(features))
        return best_path(final, counts // SUBSAMPLING, self.targets)

    def _whole(self, features: Tensor) -> Tensor:
        """Features of whole chunks."""
        unit = SUBSAMPLING * self.module.config.chunk
        return torch.nn.functional.pad(features, (0, 0, 0, -features.shape[1] % unit))

    def depth(self, name: str) -> int:
        """As everywhere; the head half-way up and what it feeds back belong to the layer below them."""
        if name.startswith("blocks."):
            return 1 + int(name.split(".")[1])
        if name.startswith("subsampling."):
            return 0
        middle = name.startswith(("middle_head.", "feedback."))
        return self.num_layers // 2 if middle else self.num_layers + 1


def open_conformer(source: Source) -> ConformerLearner:
    """The model of a source, ready to be trained.

    Raises:
        BadModelFile: weights or a configuration that do not fit.
    """
    module = load_conformer(source.arrays, source.config, what=str(source.path))
    return ConformerLearner(module, source, Targets(LETTERS, len(LETTERS)), len(module.blocks))
