"""What a run tells: a log of every step, progress with time left, scalars for TensorBoard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        share: done, in [0, 1].
        step: of the optimiser.
        loss: per label, smoothed.
        wer: of the first dev set at the last look, a fraction; None before it or without one.
        speed: seconds of audio per second.
        left_s: seconds until the end at this speed, looks at the dev sets included; None at first.
    """

    share: float
    step: int
    loss: float
    wer: float | None
    speed: float
    left_s: float | None


Tick = Callable[[Progress], None]


class Reporter:
    """Writes the log, tells progress.

    Args:
        folder: of the log and of ``tensorboard``.
        step: to go on from, None from the beginning; lines of what came after it, and was lost, are dropped.
        tick: gets the progress after every step.
    """

    def __init__(self, folder: Path, step: int | None, tick: Tick) -> None:
        self._path, self._tick = folder / LOG, tick
        step = -1 if step is None else step
        self._drop_after(step)
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._began = time.monotonic()
        self._first_share: float | None = None
        self._heard, self._loss = 0.0, 0.0
        self._wer: float | None = None

    def step(self, share: float, step: int, values: dict[str, float], seconds: float) -> None:
        """A step was made: its figures, and the audio it saw."""
        self._write({"step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"train/{name}", value, step)
        loss = values["loss"]
        self._loss = loss if self._heard == 0.0 else 0.95 * self._loss + 0.05 * loss
        self._heard += seconds
        took = max(1e-6, time.monotonic() - self._began)
        if self._first_share is None:
            self._first_share = share  # what the first step did is not counted: it warms up
            self._began, left = time.monotonic(), None
        else:
            left = took / max(1e-9, share - self._first_share) * max(0.0, 1.0 - share)
        self._tick(Progress(share, step, self._loss, self._wer, self._heard / took, left))

    def look(self, step: int, scores: dict[str, dict[str, float]]) -> None:
        """The dev sets were scored."""
        self._write({"step": step, "dev": scores})
        for place, (name, values) in enumerate(scores.items()):
            if place == 0:
                self._wer = values["wer"]
            if self._board is not None:
                for metric in ("wer", "cer"):
                    self._board.add_scalar(f"{name}/{metric}", values[metric], step)

    def blend(self, step: int, share: float, scores: dict[str, dict[str, float]]) -> None:
        """Weights between the old and the new ones were scored."""
        self._write({"step": step, "share": share, "blend": scores})

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()

    def _write(self, record: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "time": round(time.time())}, ensure_ascii=False) + "\n")

    def _drop_after(self, step: int) -> None:
        if not self._path.exists():
            return
        whole = self._path.read_bytes().rpartition(b"\n")[0].decode("utf-8").splitlines()
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        temporary = self._path.with_suffix(".part")
        temporary.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        temporary.replace(self._path)
