"""Looks at the dev sets: recordings to error rates, which look was the best, and whether it still gets better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rechka.evaluate.wer import Score, score
from rechka.train.finetune.learners import Learner
from rechka.train.finetune.survey import Spoken

Rates = tuple[float, float]
"""Error rates of the set that decides, first the one that does."""


class Looks:
    """What the dev sets said of a run's weights so far. The first dev set decides.

    Args:
        decide: ``"wer"`` or ``"cer"``.
        min_gain: by how much that rate has to fall for a gain.

    Attributes:
        made: a plain value a look: ``step``, ``share`` of the way from the old weights (1 but for blends), ``first``
            (``Rates``), ``gained``, ``scores`` by dev set.
        stale: looks since the last gain, blends left out.
    """

    def __init__(self, decide: str, min_gain: float) -> None:
        self._decide, self._min_gain = decide, min_gain
        self.made: list[dict[str, Any]] = []
        self.stale = 0

    def restore(self, made: Sequence[dict[str, Any]], stale: int) -> None:
        """Go on from what ``made`` and ``stale`` were, read back from JSON."""
        self.made = [{"share": 1.0, **look, "first": tuple(look["first"])} for look in made]
        self.stale = stale

    def add(self, step: int, scores: Mapping[str, Score], *, share: float = 1.0) -> bool:
        """Note a look; whether its weights are to be kept: none before were as good, or nothing is scored."""
        first = self._first(scores)
        best = min((look["first"] for look in self.made), default=None)
        gained = share == 1.0 and (best is None or self._gains(first, best))
        if share == 1.0:
            self.stale = 0 if gained else self.stale + 1
        self.made.append(
            {"step": step, "share": share, "first": first, "gained": gained, "scores":
             {name: found.to_dict() for name, found in scores.items()}}
        )  # fmt: skip
        return not scores or best is None or first < best

    def scores(self, step: int, share: float) -> Mapping[str, Any]:
        """Of the look at the weights of a step."""
        found: Mapping[str, Any] = next(
            look["scores"] for look in self.made if (look["step"], look["share"]) == (step, share)
        )
        return found

    def _first(self, scores: Mapping[str, Score]) -> Rates:
        """Zeros where nothing is scored, so that the last weights count."""
        found = next(iter(scores.values()), None)
        if found is None:
            return (0.0, 0.0)
        return (found.cer, found.wer) if self._decide == "cer" else (found.wer, found.cer)

    def _gains(self, first: Rates, best: Rates) -> bool:
        """Fewer errors by ``min_gain`` than at the last gain; the other rate counts while this one is 100 %."""
        least = min(look["first"][0] for look in self.made if look["gained"])
        return first[0] <= least - self._min_gain or (first[0] >= best[0] >= 1.0 and first < best)


def heard(learner: Learner, items: Sequence[Spoken], budget: float, device: torch.device) -> list[str]:
    """The texts of recordings.

    Args:
        learner: its module in evaluation mode.
        items: the recordings, the shortest first.
        budget: samples of one batch, padding included.
        device: of the module.
    """
    texts: list[str] = []
    rows = [learner.laid_out(item.samples, None) for item in items]
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and len(rows[stop]) * (stop + 1 - start) <= budget:
            stop += 1
        group = rows[start:stop]
        audio = np.zeros((len(group), max(map(len, group))), np.float32)
        for target, row in zip(audio, group, strict=True):
            target[: len(row)] = row
        lengths = torch.tensor([len(row) for row in group], device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=False):
            texts += learner.read(*learner.features(torch.from_numpy(audio).to(device), lengths))
        start = stop
    return texts


def scored(items: Sequence[Spoken], texts: Sequence[str]) -> Score:
    """Error rates of texts, with intervals over speakers where they are told apart."""
    speakers = [item.speaker for item in items]
    clusters = speakers if all(speakers) and len(set(speakers)) > 1 else None
    return score([item.text for item in items], texts, clusters=clusters)
