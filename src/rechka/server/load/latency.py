"""How late words were, from the messages of a call: seconds from when something was spoken to when it could be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rechka.server.load.call import Heard

QUANTILES = (50, 95, 99)


@dataclass(slots=True)
class Latencies:
    """Seconds.

    Attributes:
        first_partial: from the beginning of a phrase's first word to the first text of the phrase.
        word: from the end of a word to the message from which on it stands there, at its place and spelled as in the
            final.
        final: from the end of a phrase's last word to its final. The pause by which the server knows that the phrase
            is over is a part of it.
    """

    first_partial: list[float] = field(default_factory=list)
    word: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)

    def add(self, heard: Heard, begin: float, end: float) -> None:
        """Count what was spoken between two times of the monotonic clock.

        Where in the audio a word is, the server itself says in its final; where in time the audio is, the plan says.
        """
        shown: list[tuple[str, float]] = []  # of the open phrase: its n-th word, and since when it stands there
        first: float | None = None
        for at, message in heard.messages:
            if message["type"] == "partial":
                texts = (message["stable"] + message["unstable"]).split()
                if texts and first is None:
                    first = at
                _update(shown, texts, at)
            elif message["type"] == "final":
                words = _words(message)
                if words:
                    spoken = heard.began + words[0][1]
                    if begin <= spoken < end:
                        self.first_partial.append((at if first is None else first) - spoken)
                    for index, (text, _, stop) in enumerate(words):
                        since = shown[index][1] if index < len(shown) and shown[index][0] == text else at
                        if begin <= heard.began + stop < end:
                            self.word.append(max(0.0, since - heard.began - stop))
                    if begin <= heard.began + words[-1][2] < end:
                        self.final.append(at - heard.began - words[-1][2])
                shown, first = [], None


def summary(values: Sequence[float]) -> dict[str, float | int | None]:
    """How many, and the value that so many per cent of them do not exceed."""
    found: dict[str, float | int | None] = {"count": len(values)}
    for q in QUANTILES:
        found[f"p{q}"] = round(float(np.percentile(values, q, method="higher")), 4) if values else None
    found["max"] = round(max(values), 4) if values else None
    return found


def text_of(heard: Heard) -> str:
    """All finals of a call."""
    return "\n".join(message["text"] for _, message in heard.messages if message["type"] == "final")


def _update(shown: list[tuple[str, float]], texts: list[str], at: float) -> None:
    del shown[len(texts) :]
    for index, text in enumerate(texts):
        if index == len(shown):
            shown.append((text, at))
        elif shown[index][0] != text:
            shown[index] = (text, at)


def _words(message: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Text, begin and end of each word; the whole phrase as one if the model does not tell."""
    words = [(word["word"], float(word["start"]), float(word["end"])) for word in message.get("words") or ()]
    if not words and message["text"]:
        words = [(message["text"], float(message["start"]), float(message["end"]))]
    return words
