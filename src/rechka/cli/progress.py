"""A progress bar with the speed of recognition; on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Meter:
    """Counts audio and files, and shows them while it is entered as a context.

    Args:
        num_files: in all; None if that is not known.
        visible: whether to show a bar.
    """

    def __init__(self, num_files: int | None, *, visible: bool) -> None:
        self.num_files = num_files
        self.finished = 0
        self.done_s: dict[int, float] = {}
        self._shares: dict[int, float] = {}
        self._began = time.monotonic()
        self._bar: Progress | None = _make_bar() if visible else None
        self._task: TaskID | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of audio recognised so far."""
        return sum(self.done_s.values())

    @property
    def wall_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.audio_s / max(self.wall_s, 1e-6)

    def update(self, index: int, done_s: float, total_s: float | None) -> None:
        """File ``index`` has been recognised up to ``done_s``."""
        self.done_s[index] = done_s
        self._shares[index] = min(1.0, done_s / total_s) if total_s else 0.0
        self._draw()

    def finish(self, index: int) -> None:
        """File ``index`` is done, or failed."""
        self.finished += 1
        self._shares[index] = 1.0
        self._draw()

    def print(self, text: str) -> None:
        """Write a result to stdout, out of the bar's way."""
        if self._bar is not None:
            self._bar.stop()
        sys.stdout.write(text)
        sys.stdout.flush()
        if self._bar is not None:
            self._bar.start()

    def say(self, text: str) -> None:
        """Write a message to stderr, out of the bar's way."""
        if self._bar is not None:
            self._bar.stop()
        print(text, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.start()

    def _files(self) -> str:
        return str(self.finished) if self.num_files is None else f"{self.finished} of {self.num_files}"

    def _draw(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=sum(self._shares.values()),
                files=self._files(),
                speed=f"{self.speed:.1f} x real time",
            )

    def __enter__(self) -> Meter:
        self._began = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(
                "",
                total=None if self.num_files is None else max(1, self.num_files),
                files=self._files(),
                speed="listening",
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (
        "{task.fields[files]}",
        BarColumn(),
        TaskProgressColumn(),
        "{task.fields[speed]}",
        TimeRemainingColumn(),
    )
    # rich would otherwise catch what goes to stdout and print it to the console's stderr
    return Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )
