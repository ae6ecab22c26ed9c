"""``rechka stream``: a recording or the microphone through a server, words as they come."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rechka.cli import common

if TYPE_CHECKING:
    from rechka.types import AudioChunk, Event

RATE = 16000
"""Sent to the server, which converts to what its model wants."""
MICROPHONE = "mic"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(stream)


def stream(
    source: Annotated[str, typer.Argument(metavar="FILE|mic", help="A recording, or mic for the microphone.")],
    server: Annotated[
        str, typer.Option("--server", "-s", metavar="URL", help="Address of a rechka server.")
    ] = "http://localhost:8080",
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="API key. Default: the variable RECHKA_API_KEY.", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME", help="Model of the server.", show_default=False)
    ] = None,
    hotword: common.HotwordOption = None,
    fast: Annotated[bool, typer.Option("--fast", help="Send a file as fast as the server takes it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every message as one line of JSON.")] = False,
) -> None:
    """Send a recording or the microphone to a server and write down what it hears.

    A file is sent at the pace of its own time, as a call would come. A lost connection is opened again and goes on
    where it was.
    """
    from rechka.cli.listen import Screen, _stop_on_interrupt, _until
    from rechka.server.client import stream as messages
    from rechka.server.wire import dumps

    screen = Screen(live=sys.stdout.isatty())
    with _stop_on_interrupt() as stop:
        for message in messages(
            server,
            _packets(_until(stop, _chunks(source, fast))),
            sample_rate=RATE,
            key=key or os.environ.get("RECHKA_API_KEY"),
            model=model,
            hotwords=common.hotwords(hotword),
            on_retry=lambda why, wait: common.say(f"rechka: {why}; again in {wait:.1f} s"),
        ):
            if as_json:
                print(dumps(message), flush=True)
            elif (event := to_event(message)) is not None:
                screen.show(event)


def _chunks(source: str, fast: bool) -> Iterable[tuple[AudioChunk, ...]]:
    import rechka
    from rechka.cli.listen import paced

    if source == MICROPHONE:
        microphone: Iterable[tuple[AudioChunk, ...]] = rechka.microphone(sample_rate=RATE)
        return microphone
    file = rechka.open_source(Path(source), sample_rate=RATE, channels="mix")
    return file if fast else paced(file)


def _packets(chunks: Iterable[tuple[AudioChunk, ...]]) -> Iterator[bytes]:
    import numpy as np

    for chunk in chunks:
        yield (np.clip(chunk[0].samples, -1, 1) * 32767).astype("<i2").tobytes()


def to_event(message: dict[str, Any]) -> Event | None:
    """A message that a person wants to see, as the event that it tells of."""
    from rechka.types import Final, Partial, Segment

    if message["type"] == "partial":
        return Partial(message["stable"], message["unstable"], message["start"], message["channel"])
    if message["type"] == "final":
        return Final(Segment(message["text"], message["start"], message["end"], channel=message["channel"]))
    return None
