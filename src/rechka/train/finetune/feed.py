"""Batches of a fine-tuning run: recordings of about equal length, changed and laid out, from any point on again.

A window is as much audio as ``data.window_s`` says, or what is left of the pass over the data; it is sorted by length,
cut into batches and these are shuffled. The position of a batch is that of its window and a number in it, and all
randomness of a batch comes from the seed and its position, so a resumed run sees exactly what it would have seen.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import DataError
from rechka.train.data import Decoded, Example, RowStream, find_shards
from rechka.train.finetune.config import DataOptions, FinetuneConfig, MaskOptions
from rechka.train.finetune.learners import Ids, Learner
from rechka.train.wave import distort, speed, tempo
from rechka.types import F32

log = logging.getLogger(__name__)

SOON = 50
"""The share of unusable recordings is judged from this many on, or at the end of a pass."""
FEATURE_S = 0.01
MEL_BANDS = 64


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with its labels; ``samples`` as they were recorded."""

    samples: F32
    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step sees.

    Attributes:
        audio: (B, n) laid-out samples, zeros behind each.
        lengths: (B,) samples of each.
        labels: of each.
        seconds: of the recordings, without what was put around them, and
        own_seconds: without replayed ones.
        seed: for the masks.
        position: of the batch that follows.
    """

    audio: F32
    lengths: NDArray[np.int64]
    labels: tuple[Ids, ...]
    seconds: float
    own_seconds: float
    seed: tuple[int, ...]
    position: dict[str, Any]


class Passes:
    """Usable recordings of sources, pass after pass, each in its own order.

    Args:
        sources: see ``find_shards``.
        learner: whose texts and lengths must fit.
        options: of the data.
        seed: of the orders.
        state: to go on from.
    """

    def __init__(
        self, sources: Sequence[str], learner: Learner, options: DataOptions, seed: int, state: dict[str, Any] | None
    ) -> None:
        self._shards = find_shards(sources)
        self._learner, self._options, self._seed = learner, options, seed
        self.epoch = int(state["epoch"]) if state else 0
        self._stream_state: dict[str, Any] | None = state["stream"] if state else None
        self.counts: Counter[str] = Counter(state["counts"] if state else {})
        """How many recordings were used, and left out for which reason, since the run began."""
        self._examples = self._open()

    def state(self) -> dict[str, Any]:
        """After the last recording that was taken; plain values."""
        return {"epoch": self.epoch, "stream": self._stream_state, "counts": dict(self.counts)}

    def take(self) -> Clip | None:
        """The next recording, or None once at the end of every pass.

        Raises:
            DataError: a pass without one usable recording, or too many unusable ones.
        """
        clip = next(self._examples, None)
        if clip is None:
            self._judge(last=True)
            self.epoch, self._stream_state = self.epoch + 1, None
            self._examples = self._open()
        return clip

    def _open(self) -> Iterator[Clip]:
        options = self._options
        seed = int(np.random.SeedSequence([self._seed, self.epoch]).generate_state(1)[0])
        rows = RowStream(self._shards, seed=seed, shuffle=options.shuffle)
        if self._stream_state is not None:
            rows.restore(self._stream_state)
        decoded = Decoded(
            rows, sample_rate=self._learner.sample_rate, threads=options.threads, max_bad=1.0, max_s=MAX_DECODED_S
        )
        return self._clips(rows, decoded)

    def _clips(self, rows: RowStream, decoded: Decoded) -> Iterator[Clip]:
        broken = 0
        for example in decoded:
            self._stream_state = decoded.state()
            self.counts["damaged"] += decoded.num_bad - broken
            broken = decoded.num_bad
            clip = self._usable(example)
            self._judge(last=False)
            if clip is not None:
                self.counts["used"] += 1
                yield clip
        self.counts["damaged"] += decoded.num_bad - broken + sum(rows.bad.values())

    def _usable(self, example: Example) -> Clip | None:
        """The recording with its labels, or None, counted."""
        learner, options = self._learner, self._options
        seconds = len(example.samples) / example.sample_rate
        if not options.min_s <= seconds <= options.max_s:
            self.counts["too short" if seconds < options.min_s else "too long"] += 1
            return None
        try:
            ids = tuple(learner.targets.encode(example.text))
        except DataError as error:
            self._left_out("text", example, error.message)
            return None
        if not ids:
            self.counts["empty text"] += 1
            return None
        if not learner.possible(learner.num_frames(len(learner.laid_out(example.samples, None))), ids):
            self._left_out("impossible", example, f"{len(ids)} labels in {seconds:.2f} s")
            return None
        return Clip(example.samples, ids, example.text)

    def _left_out(self, reason: str, example: Example, why: str) -> None:
        self.counts[reason] += 1
        self._last = f"{example.name}: {why}"
        log.warning("left out: %s", self._last)

    _last = ""

    def _judge(self, *, last: bool) -> None:
        used, bad = self.counts["used"], sum(self.counts[reason] for reason in ("damaged", "text", "impossible"))
        if used == 0 and last:
            raise DataError(f"no recording can be trained on: {told(self.counts)}; {self._last}", remedy=REMEDY)
        if used + bad >= SOON and bad > self._options.max_bad * (used + bad):
            raise DataError(
                f"{bad} of {used + bad} recordings cannot be trained on, more than {self._options.max_bad:.0%}: "
                f"{told(self.counts)}; last: {self._last}",
                remedy=REMEDY,
            )


MAX_DECODED_S = 600.0
"""A longer recording counts as damaged: it would fill the memory before it is found to be too long."""
REMEDY = "write texts in the model's letters, cut long recordings, or raise data.max_bad"


def told(counts: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()) if count) or "nothing"


class Feed:
    """The endless sequence of batches.

    Args:
        config: of the run.
        learner: see ``Passes``.
        noises: recordings of noise at its rate.
        position: to go on from.
    """

    def __init__(
        self, config: FinetuneConfig, learner: Learner, noises: Sequence[F32], position: dict[str, Any] | None
    ) -> None:
        self._config, self._learner, self._noises = config, learner, noises
        data, start = config.data, position or {"window": 0, "taken": 0, "owed": 0.0, "train": None, "replay": None}
        self._train = Passes(data.train, learner, data, config.seed, start["train"])
        self._replay = Passes(data.replay, learner, data, config.seed + 1, start["replay"]) if data.replay else None
        self._number, self._taken = start["window"], start["taken"]
        self._owed = float(start["owed"])
        """Seconds of replay that are due."""
        self._pool = ThreadPoolExecutor(data.threads)
        self._open_window()

    @property
    def position(self) -> dict[str, Any]:
        """Of the next batch; plain values."""
        return {**self._begin, "taken": self._taken}

    def next(self) -> Batch:
        """The next batch. Errors as ``Passes.take``."""
        while self._taken >= len(self._window):
            self._number, self._taken = self._number + 1, 0
            self._open_window()
        members = self._window[self._taken]
        seed = (self._config.seed, self._number, self._taken)
        self._taken += 1
        return self._built(members, seed)

    def counts(self) -> dict[str, Counter[str]]:
        """What was read so far, used or left out, by source."""
        parts = {"train": self._train, "replay": self._replay}
        return {name: Counter(part.counts) for name, part in parts.items() if part is not None}

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _open_window(self) -> None:
        """Read the clips of window ``_number`` and cut them into batches."""
        data, rate = self._config.data, self._learner.sample_rate
        replay = self._replay
        self._begin = {
            "window": self._number, "owed": self._owed, "train": copy.deepcopy(self._train.state()),
            "replay": copy.deepcopy(replay.state()) if replay else None,
        }  # fmt: skip
        own: list[Clip] = []
        other: list[Clip] = []
        heard = 0.0
        while heard < data.window_s:
            clip = self._train.take()
            if clip is None:
                break  # a window never holds a recording twice: equal lengths would put both into one batch
            own.append(clip)
            seconds = len(clip.samples) / rate
            heard += seconds
            self._owed += seconds * data.replay_share / (1.0 - data.replay_share)
            while replay and self._owed > 0.0:
                again = replay.take() or replay.take()
                assert again is not None  # a pass without recordings is an error
                other.append(again)
                heard += len(again.samples) / rate
                self._owed -= len(again.samples) / rate
        rng = np.random.default_rng([self._config.seed, self._number, 1])
        members = [(clip, True) for clip in own] + [(clip, False) for clip in other]
        batches = self._batches(members, rng)
        self._window = [batches[i] for i in rng.permutation(len(batches))]

    def _batches(self, members: list[tuple[Clip, bool]], rng: np.random.Generator) -> list[list[tuple[Clip, bool]]]:
        return cut(members, self._config.optim.batch_seconds * self._learner.sample_rate, rng)

    def _built(self, members: list[tuple[Clip, bool]], seed: tuple[int, ...]) -> Batch:
        """Change, lay out and pad the members."""
        jobs: list[Future[F32]] = [
            self._pool.submit(self._changed, clip, np.random.default_rng([*seed, place, 2]))
            for place, (clip, _) in enumerate(members)
        ]
        rows = [job.result() for job in jobs]
        audio = np.zeros((len(rows), max(map(len, rows))), np.float32)
        for target, row in zip(audio, rows, strict=True):
            target[: len(row)] = row
        rate = self._learner.sample_rate
        seconds = [len(clip.samples) / rate for clip, _ in members]
        return Batch(
            audio,
            np.array([len(row) for row in rows]),
            tuple(clip.ids for clip, _ in members),
            sum(seconds),
            sum(length for length, (_, mine) in zip(seconds, members, strict=True) if mine),
            seed,
            self.position,
        )

    def _changed(self, clip: Clip, rng: np.random.Generator) -> F32:
        learner, options = self._learner, self._config.wave
        samples = clip.samples
        factor = tempo(rng, options)
        if factor != 1.0:
            faster = speed(samples, factor)
            if learner.possible(learner.num_frames(len(faster)), clip.ids):
                samples = faster
        return distort(learner.laid_out(samples, rng), rng, learner.sample_rate, options, self._noises)


def cut(members: list[tuple[Clip, bool]], budget: float, rng: np.random.Generator) -> list[list[tuple[Clip, bool]]]:
    """Batches of members of about equal length; longest times number stays within ``budget`` samples."""
    order = sorted(members, key=lambda member: len(member[0].samples) * rng.uniform(0.95, 1.05))
    batches: list[list[tuple[Clip, bool]]] = []
    longest = 0
    for member in order:
        size = len(member[0].samples)
        if not batches or max(longest, size) * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = 0
        batches[-1].append(member)
        longest = max(longest, size)
    return batches


def masked(
    counts: Sequence[int], frames: int, seed: tuple[int, ...], options: MaskOptions, bands: int = MEL_BANDS
) -> NDArray[np.bool_]:
    """(B, F, bands) True where SpecAugment hides a cell of recordings with so many features each."""
    rng = np.random.default_rng([*seed, 3])
    hidden = np.zeros((len(counts), frames, bands), bool)
    widest = round(options.bands * bands / MEL_BANDS)
    for row, count in zip(hidden, counts, strict=True):
        most = int(min(options.time_ms / 1000.0 / FEATURE_S, options.time_share * count))
        for _ in range(options.time_masks):
            width = int(rng.integers(0, most + 1))
            start = int(rng.integers(0, max(1, count - width)))
            row[start : start + width] = True
        for _ in range(options.band_masks):
            width = int(rng.integers(0, widest + 1))
            start = int(rng.integers(0, bands - width + 1))
            row[:, start : start + width] = True
    return hidden
