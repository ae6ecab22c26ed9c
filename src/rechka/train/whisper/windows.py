"""Batches of windows: recordings joined until 30 seconds are full, their texts with or without times, prompts before.

Order, replay and position are those of every fine-tuning (``rechka.train.finetune.feed``); all that is drawn for a
window comes from the seed and its place, so a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from rechka.features.whisper import POSITION, SAMPLE_RATE, WINDOW
from rechka.models.whisper import CONTEXT
from rechka.train.finetune.feed import Batch, Clip, Feed
from rechka.train.wave import distort, speed, tempo
from rechka.train.whisper.config import TuneOptions, WhisperConfig
from rechka.train.whisper.learner import MOST_NEW, WhisperLearner
from rechka.types import F32

Member = tuple[Clip, bool]
MOST_BEFORE = CONTEXT // 2 - 1
"""Tokens of a prompt at most."""


@dataclass(frozen=True, slots=True)
class Window:
    """Recordings that share 30 seconds, and the text of the window before."""

    members: tuple[Member, ...]
    before: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of the text, times included."""
        return sum(len(clip.ids) + 2 for clip, _ in self.members)


def packed(members: Sequence[Member], options: TuneOptions, rng: np.random.Generator) -> list[Window]:
    """Windows of recordings in their order; a share ``join`` of them is filled up to a length between 15 and 30 s."""
    pause = round(options.pause_s[1] * SAMPLE_RATE)
    windows: list[Window] = []
    current: list[Member] = []
    before: tuple[int, ...] = ()
    size = tokens = goal = 0
    for member in members:
        clip = member[0]
        if current and (size + pause + len(clip.samples) > goal or tokens + len(clip.ids) + 2 > MOST_NEW):
            windows.append(Window(tuple(current), before))
            before = tuple(one for held, _ in current for one in held.ids)
            current, size, tokens = [], 0, 0
        if not current:
            goal = int(rng.uniform(0.5, 1.0) * WINDOW) if rng.random() < options.join else 0
        size += len(clip.samples) + (pause if current else 0)
        tokens += len(clip.ids) + 2
        current.append(member)
    if current:
        windows.append(Window(tuple(current), before))
    return windows


def batched(windows: Sequence[Window], size: int, rng: np.random.Generator) -> list[list[Window]]:
    """Batches of windows with texts of roughly equal length: audio always has 30 s, only decoding can be saved.

    Only roughly: equal lengths may be equal texts, and a batch of one text teaches little.
    """
    keys = [window.num_tokens * rng.uniform(0.5, 1.5) for window in windows]
    order = sorted(range(len(windows)), key=keys.__getitem__)
    return [[windows[i] for i in order[first : first + size]] for first in range(0, len(order), size)]


class WindowFeed(Feed):
    """The endless sequence of batches; see ``Feed``."""

    _config: WhisperConfig
    _learner: WhisperLearner

    def _batches(self, members: list[Member], rng: np.random.Generator) -> list[list[Window]]:  # type: ignore[override]
        # Replayed recordings come behind the others of a window of the feed: they are mixed before they are joined.
        mixed = [members[i] for i in rng.permutation(len(members))]
        return batched(packed(mixed, self._config.whisper, rng), self._config.batch, rng)

    def _built(self, members: list[Window], seed: tuple[int, ...]) -> Batch:  # type: ignore[override]
        jobs: list[Future[tuple[F32, list[int]]]] = [
            self._pool.submit(self._laid, window, np.random.default_rng([*seed, place, 2]))
            for place, window in enumerate(members)
        ]
        rows = [job.result() for job in jobs]
        audio = np.zeros((len(rows), WINDOW), np.float32)
        for target, (samples, _) in zip(audio, rows, strict=True):
            target[: len(samples)] = samples
        parts = [(len(clip.samples) / SAMPLE_RATE, mine) for window in members for clip, mine in window.members]
        return Batch(
            audio,
            np.array([len(samples) for samples, _ in rows]),
            tuple(ids for _, ids in rows),
            sum(seconds for seconds, _ in parts),
            sum(seconds for seconds, mine in parts if mine),
            seed,
            self.position,
        )

    def _laid(self, window: Window, rng: np.random.Generator) -> tuple[F32, list[int]]:
        """Samples of a window, and its tokens with prompt and end."""
        options, waves = self._config.whisper, self._config.wave
        clips = [clip for clip, _ in window.members]
        low, high = options.pause_s
        pauses = [round(rng.uniform(low, high) * SAMPLE_RATE) for _ in clips[1:]]
        factor = tempo(rng, waves)
        length = sum(len(clip.samples) for clip in clips)
        fits = length / factor + len(clips) + sum(pauses) <= WINDOW
        parts: list[F32] = []
        edges: list[tuple[int, int]] = []
        at = 0
        for place, clip in enumerate(clips):
            samples = speed(clip.samples, factor) if factor != 1.0 and fits else clip.samples
            if place:
                parts.append(np.zeros(pauses[place - 1], np.float32))
                at += pauses[place - 1]
            parts.append(samples)
            edges.append((at, at + len(samples)))
            at += len(samples)
        audio = distort(np.concatenate(parts), rng, SAMPLE_RATE, waves, self._noises)[:WINDOW]
        with_stamps, with_prompt = rng.random() < options.stamps, rng.random() < options.previous
        return audio, self._tokens(window, edges if with_stamps else None, with_prompt)

    def _tokens(self, window: Window, edges: Sequence[tuple[int, int]] | None, with_prompt: bool) -> list[int]:
        """What the decoder sees and learns: [previous text,] start, language, task, text with times or without, end."""
        special = self._learner.codec.special
        ids = self._learner.prompt(stamps=edges is not None)
        for place, (clip, _) in enumerate(window.members):
            if edges is None:
                ids += clip.ids
            else:
                first, last = (special.stamp(round(edge / POSITION)) for edge in edges[place])
                ids += [first, *clip.ids, last]
        ids.append(special.end)
        if with_prompt and window.before:
            room = min(MOST_BEFORE, CONTEXT - len(ids))  # the end is never given, so one more would fit
            before = window.before[-room:] if room > 0 else ()
            ids = [special.previous, *before, *ids]
        return ids
