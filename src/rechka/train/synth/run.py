"""A synthesis run: worker processes, one writer, and a folder that can be taken up again after a kill.

    DIR/plan.json       the options that made the plan
    DIR/plan.jsonl      the plan: every utterance, as decided at the start
    DIR/manifest.jsonl  finished utterances, in order of completion; grows during the run
    DIR/failed.jsonl    utterances that could not be made, with the reason
    DIR/audio/NNN/ID.flac      a thousand to a folder

Only the parent writes manifests; workers write audio and are replaced if the synthesiser brings one down.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from rechka.errors import DataError, OutputError, RechkaError, UsageError
from rechka.train.synth.engines import check_engines
from rechka.train.synth.manifest import Record, append_json, drop_half_line, read_json_lines, read_manifest
from rechka.train.synth.plan import PlanOptions, Utterance, make_plan
from rechka.train.synth.render import Renderer
from rechka.train.synth.voices import Voice

_CRASHES = 5
"""Crashes in a row, with nothing made in between, after which the fault is not in the texts."""
_AHEAD = 2
"""Utterances given to a worker at once, so that it never waits for the parent."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did: utterances and hours in the folder now, made by this call, failed, and the speed of this call.

    ``speed`` is seconds of audio a second of wall clock; ``planned`` is the size of the plan.
    """

    planned: int
    utterances: int
    hours: float
    made: int
    failed: int
    seconds: float
    speed: float


def excluded_sentences(paths: Iterable[Path]) -> Iterable[str]:
    """The sentences of earlier runs (folders) and of text files.

    Raises:
        UsageError: a folder that holds no plan.
        DataError: a file cannot be read.
    """
    from rechka.train.text import read_sentences

    for path in paths:
        if path.is_dir():
            if not (path / "plan.jsonl").exists():
                raise UsageError(f"{path} holds no plan of rechka synth", remedy="name a folder made by rechka synth")
            for entry in read_json_lines(path / "plan.jsonl"):
                yield from entry["sentences"]
        else:
            yield from read_sentences(path)


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)


def _plan(
    folder: Path,
    sources: Sequence[tuple[Path, float]],
    voices: Sequence[Voice],
    options: PlanOptions,
    sample_rate: int,
    exclude: Sequence[Path],
) -> list[Utterance]:
    """The plan of the folder: read if there is one of the same options, else made and written."""
    asked = {
        "options": asdict(options),
        "voices": [voice.name for voice in voices],
        "texts": [[path.name, weight] for path, weight in sources],
        "exclude": [path.name for path in exclude],
        "sample_rate": sample_rate,
    }
    head = json.dumps(asked, ensure_ascii=False, indent=1)
    try:
        if (folder / "plan.json").exists():
            if json.loads((folder / "plan.json").read_text("utf-8")) != json.loads(head):
                raise UsageError(
                    f"{folder} holds a run with other options", remedy="give the same ones, or another --out"
                )
            entries = read_json_lines(folder / "plan.jsonl")
            return [Utterance(**{**entry, "sentences": tuple(entry["sentences"])}) for entry in entries]
        plan = make_plan(sources, voices, options, exclude=excluded_sentences(exclude))
        folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps(asdict(utterance), ensure_ascii=False) + "\n" for utterance in plan)
        _write_whole(folder / "plan.jsonl", "".join(lines))
        _write_whole(folder / "plan.json", head)  # last: its presence says that the plan is whole
    except OSError as error:
        raise OutputError(f"cannot write the plan in {folder}: {error}") from error
    return plan


def _answer(renderer: Renderer, utterance: Utterance, folder: Path) -> Record | str | RechkaError:
    """The finished record; why this utterance cannot be made; or an error that no other utterance would escape."""
    try:
        return renderer.write(utterance, folder)
    except DataError as error:
        return error.message
    except RechkaError as error:  # no engine, no room on the disk
        return error


def _work(pipe: Connection, folder: Path, sample_rate: int) -> None:
    """A worker: takes utterances until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    renderer = Renderer(sample_rate)
    try:
        while True:
            pipe.send(_answer(renderer, pipe.recv(), folder))
    except (EOFError, BrokenPipeError):  # the parent is gone
        return


class _Worker:
    """A worker process and the utterances it has been given and not answered, oldest first."""

    def __init__(self, folder: Path, sample_rate: int) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, folder, sample_rate), daemon=True)
        self.process.start()
        theirs.close()
        self.given: deque[Utterance] = deque()

    def give(self, utterance: Utterance) -> None:
        self.given.append(utterance)
        with suppress(BrokenPipeError, ConnectionResetError):  # it has just died: the next recv says so
            self.pipe.send(utterance)

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _drive(
    todo: deque[Utterance], jobs: int, folder: Path, sample_rate: int
) -> Generator[tuple[Utterance, Record | str], None, None]:
    """Hand out ``todo`` and yield each utterance with its record, or with the reason why there is none.

    Raises:
        RechkaError: an error that every utterance would meet, or a synthesiser that only crashes.
    """
    workers = [_Worker(folder, sample_rate) for _ in range(min(jobs, len(todo)))]
    crashes = 0
    try:
        while todo or any(worker.given for worker in workers):
            for worker in workers:
                while todo and len(worker.given) < _AHEAD:
                    worker.give(todo.popleft())
            for ready in wait([worker.pipe for worker in workers if worker.given]):
                index = next(i for i, worker in enumerate(workers) if worker.pipe is ready)
                worker = workers[index]
                try:
                    answer: Any = worker.pipe.recv()
                    crashes = 0
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    answer = f"the synthesiser crashed (exit code {worker.process.exitcode})"
                    crashes += 1
                    if crashes == _CRASHES:
                        raise DataError(f"{answer} {crashes} times in a row") from None
                    todo.extendleft(list(worker.given)[:0:-1])  # all but the one that it was making
                    worker.stop()
                    workers[index] = _Worker(folder, sample_rate)
                if isinstance(answer, RechkaError):
                    raise answer
                yield worker.given.popleft(), answer
    finally:
        for worker in workers:
            worker.stop()


def synthesise(
    sources: Sequence[tuple[Path, float]],
    folder: Path,
    voices: Sequence[Voice],
    options: PlanOptions,
    *,
    jobs: int = 1,
    sample_rate: int = 8000,
    exclude: Sequence[Path] = (),
    progress: Callable[[int, int, float], None] | None = None,
) -> Summary:
    """Make the plan and everything in it that is not there yet.

    Args:
        folder: of the run; one that holds an unfinished run of the same options is completed.
        jobs: worker processes.
        exclude: folders of other runs and text files whose sentences must not be said again.
        progress: called with utterances done, utterances planned, and seconds of audio made by this call.
    Raises:
        UsageError: options that make no sense, or a folder of another run.
        MissingExtra: an engine or a voice is not installed.
        DataError, OutputError: texts cannot be read, results cannot be written.
    """
    if jobs < 1 or sample_rate < 8000:
        raise UsageError(f"expected at least 1 job and 8000 Hz, got {jobs} and {sample_rate}")
    check_engines(tuple(voices))
    plan = _plan(folder, sources, voices, options, sample_rate, exclude)
    drop_half_line(folder / "manifest.jsonl")
    drop_half_line(folder / "failed.jsonl")
    before = read_manifest(folder)
    finished = {record.id for record in before} | {entry["id"] for entry in read_json_lines(folder / "failed.jsonl")}
    todo = deque(utterance for utterance in plan if utterance.id not in finished)
    count, audio, failures = len(before), 0.0, 0
    start = time.monotonic()
    try:
        with (
            (folder / "manifest.jsonl").open("a", encoding="utf-8") as manifest,
            (folder / "failed.jsonl").open("a", encoding="utf-8") as failed,
        ):
            for utterance, answer in _drive(todo, jobs, folder, sample_rate):
                if isinstance(answer, Record):
                    append_json(manifest, answer)
                    count, audio = count + 1, audio + answer.duration
                else:
                    append_json(failed, {"id": utterance.id, "text": utterance.text, "error": answer})
                    failures += 1
                if progress is not None:
                    progress(count, len(plan), audio)
    except OSError as error:
        if isinstance(error, RechkaError):
            raise
        raise OutputError(f"cannot write the manifest in {folder}: {error}") from error
    seconds = time.monotonic() - start
    return Summary(
        planned=len(plan),
        utterances=count,
        hours=round((sum(record.duration for record in before) + audio) / 3600, 4),
        made=count - len(before),
        failed=failures,
        seconds=round(seconds, 2),
        speed=round(audio / max(seconds, 1e-3), 1),
    )
