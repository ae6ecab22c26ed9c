"""Parts done by worker processes of this machine. A worker that dies takes nothing with it."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from rechka.errors import RechkaError, WorkerLost
from rechka.scale.options import BatchOptions
from rechka.scale.work import Part, Worker

Load = Callable[[BatchOptions], Any]

CAREFUL_AFTER = 1
"""Deaths over a part after which it is done one recording at a time, to find the one that kills."""


def run(
    parts: Iterable[Part], options: BatchOptions, place: str, *, workers: int, load: Load | None = None
) -> Iterator[dict[str, Any]]:
    """What each part says of itself, as they become done.

    Args:
        parts: to do; taken as they are needed.
        options: of the archive.
        place: of the output.
        workers: processes, each with a model of its own.
        load: gives the model; must be importable by name.

    Raises:
        RechkaError: what stops every part: no such model, no room for the results.
    """
    todo = iter(parts)
    again: deque[_Task] = deque()
    crew: list[_Hand] = []
    try:
        while True:
            while len(crew) < workers:
                task = again.popleft() if again else next((_Task(part) for part in todo), None)
                if task is None:
                    break
                crew.append(_Hand(options, place, load, task))
            if not crew:
                return
            for connection in wait([hand.pipe for hand in crew]):
                hand = next(hand for hand in crew if hand.pipe is connection)
                try:
                    kind, value = hand.pipe.recv()
                except (EOFError, OSError):
                    crew.remove(hand)
                    hand.bury()
                    again.append(hand.task)
                    continue
                if kind == "at":
                    hand.task.current = value
                elif kind == "error":
                    raise value
                else:
                    yield value
                    following = again.popleft() if again else next((_Task(part) for part in todo), None)
                    if following is None:
                        crew.remove(hand)
                        hand.dismiss()
                    else:
                        hand.give(following)
    finally:
        for hand in crew:
            hand.kill()


@dataclass
class _Task:
    """A part, and what happened over it."""

    part: Part
    deaths: int = 0
    current: str | None = None
    crashed: dict[str, str] = field(default_factory=dict)


class _Hand:
    """A worker process and the pipe to it."""

    def __init__(self, options: BatchOptions, place: str, load: Load | None, task: _Task) -> None:
        context = multiprocessing.get_context("spawn")  # forked runtimes deadlock
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=_serve, args=(far, options, place, load), daemon=True)
        self.process.start()
        far.close()
        self.give(task)

    def give(self, task: _Task) -> None:
        self.task = task
        try:
            self.pipe.send((task.part, task.crashed, task.deaths >= CAREFUL_AFTER))
        except OSError:
            return  # it is dead, which the next read of the pipe tells

    def bury(self) -> None:
        """It died over its task; the next worker is told what is known."""
        self.pipe.close()
        self.process.join()
        self.task.deaths += 1
        if self.task.current is not None:
            why = f"the process that recognised it ended with exit code {self.process.exitcode}"
            self.task.crashed[self.task.current] = why
            self.task.current = None
        elif self.task.deaths > CAREFUL_AFTER + 1:
            raise WorkerLost(
                f"workers end before they recognise anything (exit code {self.process.exitcode})",
                remedy="fewer workers need less memory; `rechka transcribe` on one file may tell more",
            )

    def dismiss(self) -> None:
        self.pipe.close()
        self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.dismiss()


def _serve(pipe: Connection, options: BatchOptions, place: str, load: Load | None) -> None:
    """The life of a worker: it ends with the pipe, so also when its parent was killed."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    try:
        worker = Worker(options, place, load)
        while True:
            part, crashed, careful = pipe.recv()
            at = (lambda name: pipe.send(("at", name))) if careful else None
            pipe.send(("done", worker.do(part, crashed=crashed, at=at)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except RechkaError as error:
        pipe.send(("error", error))
