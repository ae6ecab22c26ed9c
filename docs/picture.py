"""Draws docs/images/terminal.svg from what the command line really prints for the bundled recording.

Usage: python docs/picture.py [RECORDING]
"""

from __future__ import annotations

import subprocess
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
RECORDING = "examples/prompt.wav"
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
LINE, CHAR, MARGIN, BAR = 24, 9.03, 24, 36


def lines(recording: str) -> list[tuple[str, str]]:
    """(colour, text) of each line: the commands and what they print."""
    shown: list[tuple[str, str]] = []
    for words in (["transcribe", recording], ["transcribe", recording, "--format", "srt"]):
        shown.append(("#7ee787", "$ rechka " + " ".join(words)))
        done = subprocess.run(
            [sys.executable, "-c", "from rechka.cli.main import run; run()", *words],
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        shown += [("#e6edf3", line) for line in done.stdout.splitlines()]
        shown.append(("", ""))
    return shown[:-1]


def draw(rows: list[tuple[str, str]]) -> str:
    """The lines as a picture of a terminal."""
    width = round(max(len(text) for _, text in rows) * CHAR + 2 * MARGIN)
    height = BAR + len(rows) * LINE + MARGIN
    dots = "".join(
        f'<circle cx="{MARGIN + 20 * i}" cy="20" r="6" fill="{colour}"/>'
        for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    texts = "\n".join(
        f'<text x="{MARGIN}" y="{BAR + LINE * (i + 0.8):g}" fill="{colour}" xml:space="preserve">{escape(text)}</text>'
        for i, (colour, text) in enumerate(rows)
        if text
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{FONT}" font-size="15">\n'
        f'<rect width="{width}" height="{height}" rx="10" fill="#0d1117"/>\n{dots}\n{texts}\n</svg>\n'
    )


if __name__ == "__main__":
    recording = sys.argv[1] if len(sys.argv) > 1 else RECORDING
    (HERE / "images").mkdir(exist_ok=True)
    (HERE / "images/terminal.svg").write_text(draw(lines(recording)), encoding="utf-8")
