"""How long after a word was spoken it can be read, in seconds of audio: the part of latency that no machine can buy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rechka.types import Final, Partial, Word

if TYPE_CHECKING:
    from rechka.protocols import AudioSource
    from rechka.recognizers import Asr

PACKET_S = 0.1
"""Audio arrives in packets of this length."""


def run_live(asr: Asr, source: AudioSource) -> tuple[tuple[Word, ...], tuple[float, ...], float]:
    """Stream one channel in packets and watch when each word can be read.

    That is from the first partial on that has it, spelled as in the final, at its place in the phrase, and does not
    lose it again; else from the final on. Compute time is not counted: it is what RTF measures.

    Returns:
        The final words, per word the seconds from its end to when it can be read (never below zero), and the seconds
        of audio.
    """
    stream = asr.open(partials=True)
    words: list[Word] = []
    delays: list[float] = []
    shown: list[tuple[str, float]] = []  # of the open phrase: its n-th word, and since when it stands there
    fed = 0

    def watch(at: float) -> None:
        for event in stream.take():
            if isinstance(event, Partial):
                texts = event.text.split()
                del shown[len(texts) :]
                for index, text in enumerate(texts):
                    if index == len(shown):
                        shown.append((text, at))
                    elif shown[index][0] != text:
                        shown[index] = (text, at)
            elif isinstance(event, Final):
                for index, word in enumerate(event.segment.words):
                    seen = shown[index][1] if index < len(shown) and shown[index][0] == word.text else at
                    delays.append(max(0.0, seen - word.end))
                    words.append(word)
                shown.clear()

    rate = source.sample_rate
    for chunks in source:
        samples = chunks[0].samples
        size = max(1, int(PACKET_S * rate))
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            stream.feed(part, rate)
            fed += len(part)
            watch(fed / rate)
    stream.finish()
    watch(fed / rate)
    return tuple(words), tuple(delays), fed / rate
