"""``rechka listen``: speech to text while it is spoken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.cli import common

if TYPE_CHECKING:
    from rechka.types import AudioChunk, Event, Segment

PACKET_S = 0.1
"""Length of the pieces in which a file is played."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(listen)


def listen(
    model: common.ModelOption = None,
    refine: common.RefineOption = None,
    input_: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="FILE", help="Play this recording in real time instead of a microphone."),
    ] = None,
    hotword: common.HotwordOption = None,
    device: common.DeviceOption = common.Device.CPU,
    threads: common.ThreadsOption = None,
    punctuate: Annotated[
        bool, typer.Option("--punctuate", help="Put marks and capitals into phrases when they are over.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as one line of JSON.")] = False,
) -> None:
    """Write down what the microphone hears, while it is spoken.

    On a terminal the open phrase is shown as it grows: bold what will not change any more, dim what may. Phrases that
    are over are printed with their times. Ctrl-C ends it; what was said until then is still finished.
    """
    words = common.hotwords(hotword)
    asr = common.load_asr(model, device, threads, refine=refine)
    source = _source(input_, asr.spec.sample_rate)
    show: Callable[[Event], None] = (
        _print_json if as_json else Screen(live=sys.stdout.isatty(), refined=refine is not None).show
    )
    if punctuate:
        from rechka.recognizers.finish import live_punctuator

        show = _after(live_punctuator(), show)
    if sys.stderr.isatty():
        common.say("Listening; Ctrl-C ends." if input_ is None else f"Playing {input_}; Ctrl-C ends.")
    with _stop_on_interrupt() as stop:
        for event in asr.stream(_until(stop, source), channels="mix", hotwords=words, partials=as_json or _live()):
            show(event)


def _after(first: Callable[[Event], Event], then: Callable[[Event], None]) -> Callable[[Event], None]:
    return lambda event: then(first(event))


def _live() -> bool:
    return sys.stdout.isatty()


def _source(path: Path | None, sample_rate: int) -> Iterable[tuple[AudioChunk, ...]]:
    """The microphone, or a file at the pace of its own time."""
    import rechka

    if path is None:
        microphone: Iterable[tuple[AudioChunk, ...]] = rechka.microphone(sample_rate=sample_rate)
        return microphone
    return paced(rechka.open_source(path, sample_rate=sample_rate, channels="mix"))


def paced(
    chunks: Iterable[tuple[AudioChunk, ...]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[tuple[AudioChunk, ...]]:
    """The chunks in packets of 100 ms, none of them given before its last sample would have been spoken."""
    from rechka.types import AudioChunk

    began = clock()
    for channels in chunks:
        rate = channels[0].sample_rate
        step = max(1, round(PACKET_S * rate))
        for start in range(0, len(channels[0].samples), step):
            packet = tuple(AudioChunk(c.samples[start : start + step], rate, c.start + start) for c in channels)
            wait = began + packet[0].end / rate - clock()
            if wait > 0:
                sleep(wait)
            yield packet


@contextmanager
def _stop_on_interrupt() -> Iterator[Flag]:
    """A flag that the first Ctrl-C raises; the second interrupts as always."""
    stop = Flag()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _until(stop: Flag, chunks: Iterable[tuple[AudioChunk, ...]]) -> Iterator[tuple[AudioChunk, ...]]:
    for chunk in chunks:
        if stop.is_set():
            return
        yield chunk


class Screen:
    """Shows events to a person.

    Args:
        live: stdout is a terminal: the open phrase is drawn on the last line, over itself.
        refined: a final waits for the event after it, which may be its refined text; that is printed instead.
    """

    def __init__(self, *, live: bool, refined: bool = False) -> None:
        self.refined = refined
        self.waiting: Segment | None = None
        self.live = live and os.environ.get("TERM") != "dumb"
        self.bold, self.dim, self.plain = (
            ("", "", "") if os.environ.get("NO_COLOR") else ("\x1b[1m", "\x1b[2m", "\x1b[0m")
        )

    def show(self, event: Event) -> None:
        """Draw a partial, or print a final with its times."""
        from rechka.formats.txt import timed_line
        from rechka.types import Final, Partial, Refined

        if self.waiting is not None:
            segment = event.segment if isinstance(event, Refined) else self.waiting
            self.waiting = None
            if segment.text:
                self._write(timed_line(segment) + "\n")
        if isinstance(event, Final) and self.refined:
            self.waiting = event.segment
        elif isinstance(event, Final):
            self._write(timed_line(event.segment) + "\n")
        elif isinstance(event, Partial) and self.live:
            stable, unstable = fit(event.stable, event.unstable, shutil.get_terminal_size().columns - 1)
            self._write(f"{self.bold}{stable}{self.plain}{self.dim}{unstable}{self.plain}")

    def _write(self, text: str) -> None:
        sys.stdout.write(("\r\x1b[K" if self.live else "") + text)
        sys.stdout.flush()


def fit(stable: str, unstable: str, width: int) -> tuple[str, str]:
    """The end of a text that is longer than the line, marked with an ellipsis where it was cut."""
    over = len(stable) + len(unstable) - width
    if over <= 0:
        return stable, unstable
    over += 1  # the ellipsis
    if over <= len(stable):
        return "…" + stable[over:], unstable
    return "", "…" + unstable[over - len(stable) :]


def _print_json(event: Event) -> None:
    print(json.dumps(event_dict(event), ensure_ascii=False), flush=True)


def event_dict(event: Event) -> dict[str, Any]:
    """An event as a JSON object: its kind under ``event``, then its fields; seconds with three decimals."""
    from rechka.types import Final, Partial, Refined, SpeechStart

    if isinstance(event, (Final, Refined)):
        return {"event": "final" if isinstance(event, Final) else "refined", **event.segment.to_dict()}
    if isinstance(event, Partial):
        fields: dict[str, Any] = {"stable": event.stable, "unstable": event.unstable}
        return {"event": "partial", **fields, "start": round(event.start, 3), "channel": event.channel}
    kind = "speech_start" if isinstance(event, SpeechStart) else "speech_end"
    return {"event": kind, "time": round(event.time, 3), "channel": event.channel}
