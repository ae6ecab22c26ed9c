"""A telephone line: packets of 20 ms go in, partials and finals come out as soon as they are known.

Usage: python examples/packets.py RECORDING
"""

import sys

import rechka


def main(path: str) -> None:
    """Feed the recording packet by packet, as a line would, and show what becomes of it."""
    asr = rechka.load()
    stream = asr.open(hotwords={"оператор": 3.0})
    for (chunk,) in rechka.open_source(path, sample_rate=8000):
        for start in range(0, len(chunk.samples), 160):
            stream.feed(chunk.samples[start : start + 160])
            show(stream.take())
    stream.finish()
    show(stream.take())


def show(events: list[rechka.Event]) -> None:
    """Print what a person would want to see."""
    for event in events:
        if isinstance(event, rechka.Partial):
            print(f"... {event.stable}[{event.unstable}]")
        elif isinstance(event, rechka.Final):
            segment = event.segment
            print(f"{segment.start:7.2f} {segment.end:7.2f} {segment.text}")


if __name__ == "__main__":
    main(sys.argv[1])
