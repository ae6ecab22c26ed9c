"""Windows decoded in batches, each tried again at higher temperatures until its text is good enough.

Retries stay in the batch: every round takes the windows that still need one, whatever temperature each has reached,
and shares calls among those of the same temperature and prompt shape. A window's result is that of decoding it alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rechka.decoding.whisper import quality
from rechka.decoding.whisper.kernel import Codec, Generated, Kernel, Search
from rechka.decoding.whisper.options import WhisperOptions
from rechka.decoding.whisper.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Task:
    """A window to decode.

    Attributes:
        encoded: by the kernel.
        prompt: what it is told.
        given: text of ``prompt.before``, to notice its echo.
        language: that the text should have.
        once: a single greedy try, for texts that are replaced soon.
    """

    encoded: Any
    prompt: Prompt
    given: str = ""
    language: str = ""
    once: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One text of a window, and how good it looks.

    Attributes:
        tokens: as generated, stamps included; a prefix that was given stands before them.
        text: its text tokens.
        temperature: that it was decoded at.
        logprob: mean natural-log probability per token, the end counted as one.
        no_speech: probability that the window has no speech.
        compression: see ``quality.compression``.
        truncated: the limit of tokens came before the end.
        reasons: why it should be tried again; none for a good text.
        silent: no speech and a doubtful text: there is nothing here.
        failed: the best of attempts none of which was good.
        bare: decoded without the text before, which it had repeated.
    """

    tokens: tuple[int, ...]
    text: str
    temperature: float
    logprob: float
    no_speech: float
    compression: float
    truncated: bool = False
    reasons: tuple[str, ...] = ()
    silent: bool = False
    failed: bool = False
    bare: bool = False

    def figures(self) -> dict[str, Any]:
        """What users need to tune the limits, for ``Segment.labels``."""
        found: dict[str, Any] = {
            "temperature": self.temperature,
            "avg_logprob": round(self.logprob, 3),
            "no_speech_prob": round(self.no_speech, 3),
            "compression_ratio": round(self.compression, 3),
        }
        if self.truncated:
            found["truncated"] = True
        if self.failed:
            found["doubts"] = list(self.reasons)
        return found


def assess(
    found: Generated, task: Task, codec: Codec, options: WhisperOptions, *, temperature: float, bare: bool = False
) -> Attempt:
    """A text with its figures, and the reasons why it should be tried again."""
    tokens = (*task.prompt.prefix, *found.tokens)
    text = codec.decode([token for token in tokens if codec.special.is_text(token)])
    mean = found.logprob / (len(found.tokens) + 1)
    if not math.isfinite(mean):
        mean = -math.inf
    ratio = quality.compression(text)
    reasons = []
    if ratio > options.max_compression:
        reasons.append("compression")
    if quality.loops(text):
        reasons.append("loop")
    if mean < options.min_logprob:
        reasons.append("logprob")
    if not bare and task.given and quality.echoes(text, task.given):
        reasons.append("echo")
    if options.task == "transcribe" and quality.foreign(text, task.language):
        reasons.append("language")
    silent = found.no_speech > options.max_no_speech and mean < options.min_logprob
    return Attempt(
        tokens, text, temperature, mean, found.no_speech, ratio, found.truncated, tuple(reasons), silent, bare=bare
    )


def choose(attempts: Sequence[Attempt]) -> Attempt:
    """The last attempt if it is good or silent; else the likeliest of those that do not repeat themselves, if any."""
    last = attempts[-1]
    if not last.reasons or last.silent:
        return last
    without = [one for one in attempts if "echo" not in one.reasons] or list(attempts)
    calm = [one for one in without if not {"compression", "loop"} & set(one.reasons)]
    return replace(max(calm or without, key=lambda one: one.logprob), failed=True)


@dataclass
class _Job:
    """A window on its way down the list of temperatures."""

    task: Task
    options: WhisperOptions
    attempts: list[Attempt] = field(default_factory=list)
    step: int = 0
    bare: bool = False
    over: bool = False

    @property
    def temperature(self) -> float:
        return 0.0 if self.task.once else self.options.temperatures[self.step]

    @property
    def prompt(self) -> Prompt:
        return replace(self.task.prompt, before=()) if self.bare else self.task.prompt

    def add(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)
        if not attempt.reasons or attempt.silent or self.task.once:
            self.over = True
        elif "echo" in attempt.reasons:
            self.bare, self.step = True, 0  # asked again without what it repeated; if it says the same, it was said
        else:
            self.step += 1
            self.over = self.step == len(self.options.temperatures)


def decode(kernel: Kernel, codec: Codec, tasks: Sequence[Task], options: WhisperOptions) -> list[Attempt]:
    """The text of each window.

    Args:
        kernel: the model.
        codec: its tokens.
        tasks: windows, in any number.
        options: limits, temperatures, batch size.
    """
    jobs = [_Job(task, options) for task in tasks]
    while waiting := [job for job in jobs if not job.over]:
        for members in _calls(waiting, options.batch_size):
            search = _search(options, members[0], codec.special.unwritten)
            prompts = [job.prompt.tokens(codec.special) for job in members]
            found = kernel.generate([job.task.encoded for job in members], prompts, search)
            for job, one in zip(members, found, strict=True):
                job.add(assess(one, job.task, codec, options, temperature=job.temperature, bare=job.bare))
    return [choose(job.attempts) for job in jobs]


def _calls(jobs: Sequence[_Job], size: int) -> Iterator[list[_Job]]:
    """Jobs that may share a call, at most ``size`` together."""
    groups: dict[Any, list[_Job]] = {}
    for job in jobs:
        groups.setdefault((job.temperature, job.task.once, job.prompt.shape), []).append(job)
    for group in groups.values():
        for first in range(0, len(group), size):
            yield group[first : first + size]


def _search(options: WhisperOptions, job: _Job, unwritten: tuple[int, ...]) -> Search:
    return Search(
        temperature=job.temperature,
        beam_size=1 if job.task.once else options.beam_size,
        best_of=options.best_of,
        patience=options.patience,
        length_penalty=options.length_penalty,
        repetition_penalty=options.repetition_penalty,
        no_repeat_ngram=options.no_repeat_ngram,
        max_new=options.max_new,
        suppress=(*options.suppress, *unwritten),
    )
