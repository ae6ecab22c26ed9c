"""What two passes gain, what the witness prevents, and how late partials are, in seconds of audio.

    python benchmarks/two_pass.py [--manifest test.jsonl] [--limit 200]

Four tables, as they stand in docs/long.md:

1. Toy: a streaming model that garbles letters, an offline model that reads right but invents and forgets. Exact texts,
   no weights; says what the witness rules do with known faults.
2. The embedded model on a manifest (the one of its model card: the test half of the telephone prompts), ten recordings
   joined to a talk: streaming with greedy search as the first pass; the same network over whole phrases, with beam
   search and language model, as the second.
3. The same on sound without speech: words that were heard in it.
4. Delay of words: from the end of a word, as its final tells it, to the moment when it was first shown, and when it was
   shown as stable, for streaming and for LocalAgreement on the embedded model read as whole phrases.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import rechka
from rechka.evaluate import manifest as manifests
from rechka.evaluate.wer import score
from rechka.models import toy
from rechka.options import DecoderOptions
from rechka.recognizers import Asr, PhraseRecognizer, TwoPassRecognizer, assemble, make_vad
from rechka.recognizers.blocks import PHRASED
from rechka.recognizers.two_pass import as_reader
from rechka.recognizers.whole import WholePhrases
from rechka.testing import say
from rechka.types import F32, Final, Frames, LogProbs, Partial, Refined, Segment, State, Word

ROOT = Path(__file__).parents[1]
GREEDY = DecoderOptions(kind="greedy")
WORDS = [
    "да",
    "нет",
    "потом",
    "договор",
    "адрес",
    "завтра",
    "позвоните",
    "оператор",
    "номер",
    "карта",
    "деньги",
    "счёт",
    "спасибо",
    "утром",
    "вечером",
    "город",
]
CREDITS = "субтитры сделал кто-то"


class GarbledToy(toy.ToyModel):
    """The toy, mishearing one letter in ten."""

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """One step of each stream."""
        frames, after = super().step(audio, states)
        out: list[Frames] = []
        for piece in frames:
            values = piece.values.copy()
            for row in np.flatnonzero(values.argmax(axis=1) < 33):
                rng = np.random.default_rng([7, (piece.start + int(row) - 1) // 4])  # both frames of a letter alike
                if rng.random() < 0.1:
                    values[row, :33] = np.roll(values[row, :33], int(rng.integers(1, 33)))
            out.append(LogProbs(values, piece.start))
        return out, after


class FaultyReader:
    """The toy over whole phrases: credits, loops and gaps in some phrases."""

    def __init__(self) -> None:
        self.ears = as_reader(assemble(toy.ToyModel(), decoder=GREEDY))
        self.spec = self.ears.spec
        self.rng = np.random.default_rng(1)

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        """See ``PhraseReader``."""
        return [self._faulty(segment) for segment in self.ears.read(phrases)]

    def _faulty(self, segment: Segment) -> Segment:
        texts = segment.text.split()
        fault = self.rng.random()
        if fault < 0.15:
            texts += CREDITS.split()
        elif fault < 0.30:
            texts += texts[-2:] * 4
        elif fault < 0.40 and len(texts) > 4:
            del texts[1:4]
        elif fault < 0.45:
            texts = CREDITS.split()
        step = segment.end / max(1, len(texts))
        words = tuple(Word(text, i * step, (i + 1) * step) for i, text in enumerate(texts))
        return replace(segment, text=" ".join(texts), words=words)


class Trusting(TwoPassRecognizer):
    """Two passes without a witness: the second text as it is."""

    def _settle(self, stream: Any, second: Segment, begin: float) -> None:
        event = stream.progress.queue.popleft()
        words = tuple(replace(w, start=event.segment.start, end=event.segment.end) for w in second.words)
        stream.outbox.append(Refined(replace(event.segment, text=second.text, words=words)))
        stream.progress.told = False
        stream.progress.open_s, stream.progress.after_cut = event.segment.end, True
        self._tell(stream)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |", flush=True)


def toy_table() -> None:
    """Known faults against the witness."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, int(rng.integers(3, 9)))) for _ in range(200)]
    first = assemble(GarbledToy(), decoder=GREEDY)
    systems: list[tuple[str, Any]] = [
        ("first pass: one letter in ten misheard", lambda: first),
        ("second text without a witness", lambda: Trusting(first, FaultyReader())),
        ("two passes", lambda: TwoPassRecognizer(first, FaultyReader())),
    ]
    rows = []
    for name, make in systems:
        asr = Asr(make(), name="toy", language="ru")
        heard = [asr.transcribe((say(text, before_s=0.48, after_s=1.0), 8000)).text for text in texts]
        rows.append((name, *rates(texts, heard)))
    table("Toy, 200 phrases", ("system", "WER %", "of it invented", "of it lost"), rows)


def rates(references: Sequence[str], heard: Sequence[str]) -> tuple[str, str, str]:
    """WER with its interval, insertions and deletions, in per cent of the reference words."""
    found = score(references, heard)
    low, high = found.wer_interval
    words = found.words
    return (
        f"{100 * words.errors / words.length:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        f"{100 * words.insertions / words.length:.1f}",
        f"{100 * words.deletions / words.length:.1f}",
    )


def embedded() -> dict[str, Callable[[], Asr]]:
    """The embedded model in four ways."""
    greedy = rechka.load("rechka-mini", threads=1, decoder=GREEDY)
    beam = rechka.load("rechka-mini", threads=1)
    reader = as_reader(beam.recognizer)

    def named(recognizer: Any) -> Asr:
        return Asr(recognizer, name="rechka-mini", language="ru")

    phrases = PhraseRecognizer(
        WholePhrases(beam.recognizer.model), beam.recognizer.decoder_factory, make_vad("silero", beam.spec.sample_rate)
    )
    return {
        "streaming, greedy (first pass)": lambda: greedy,
        "streaming, beam with language model": lambda: beam,
        "whole phrases by Silero VAD, beam": lambda: named(phrases),
        "second text without a witness": lambda: named(Trusting(greedy.recognizer, reader)),
        "two passes": lambda: named(TwoPassRecognizer(greedy.recognizer, reader)),
    }


def joined(records: Sequence[manifests.Record], size: int = 10) -> tuple[list[Any], list[str]]:
    """Talks of ten recordings each, with pauses of 0.2 to 1.5 seconds and a little noise, at 8000 Hz."""
    rng = np.random.default_rng(0)
    talks: list[Any] = []
    texts = []
    for first in range(0, len(records), size):
        parts = []
        for record in records[first : first + size]:
            parts += [chunk[0].samples for chunk in rechka.open_source(record.audio, sample_rate=8000, channels="mix")]
            parts.append(np.zeros(int(rng.uniform(0.2, 1.5) * 8000), np.float32))
        talk = np.concatenate(parts)
        talks.append(((talk + rng.normal(size=len(talk)) * 0.001).astype(np.float32), 8000))
        texts.append(" ".join(record.text or "" for record in records[first : first + size]))
    return talks, texts


def embedded_tables(manifest: Path | None, limit: int) -> None:
    """The embedded model on speech, and on none."""
    systems = embedded()
    if manifest is not None:
        talks, texts = joined(list(manifests.read(manifest, require_text=True))[:limit])
        rows, base = [], 0.0
        for name, make in systems.items():
            asr = make()
            began = time.process_time()
            heard = [str(result) for result in asr.transcribe_many(talks)]
            spent = time.process_time() - began
            base = base or spent
            rows.append((name, *rates(texts, heard), f"{spent / base:.2f}"))
        head = ("system", "WER %", "of it invented", "of it lost", "CPU time")
        table(f"rechka-mini, {len(talks)} talks of ten recordings", head, rows)
    rng = np.random.default_rng(0)
    hum = 0.05 * np.sin(2 * np.pi * 50 * np.arange(8000 * 60) / 8000)
    sounds = {
        "silence": np.zeros(8000 * 60),
        "white noise, -40 dB": rng.normal(size=8000 * 60) * 0.01,
        "bursts of noise": rng.normal(size=8000 * 60) * 0.1 * (np.arange(8000 * 60) // 4000 % 3 == 0),
        "hum": hum,
    }
    rows = [
        (name, *(len(make().transcribe((sound.astype(np.float32), 8000)).words) for sound in sounds.values()))
        for name, make in systems.items()
    ]
    table("Words heard in a minute without speech", ("system", *sounds), rows)


def delays(recognizer: Any, audio: F32) -> Iterator[tuple[float, float]]:
    """For each word of each final: seconds from its end until it was shown, and until it was stable."""
    stream = recognizer.open(drive=lambda s: recognizer.run([s]))
    rate = recognizer.spec.sample_rate
    shown: list[tuple[float, Partial]] = []
    for start in range(0, len(audio), rate // 50):
        stream.feed(audio[start : start + rate // 50])
        clock = min(start + rate // 50, len(audio)) / rate
        for event in stream.take():
            if isinstance(event, Partial):
                shown.append((clock, event))
            elif isinstance(event, Final):
                texts = event.segment.text.split()
                for i, word in enumerate(event.segment.words):
                    first = (t for t, p in shown if p.text.split()[i : i + 1] == [texts[i]] and t >= word.start)
                    stable = (t for t, p in shown if len(p.stable.split()) > i)
                    yield next(first, clock) - word.end, next(stable, clock) - word.end
                shown = []


def delay_table() -> None:
    """Streaming against re-decoding."""
    import soundfile

    prompt, rate = soundfile.read(ROOT / "examples" / "prompt.wav", dtype="float32")
    assert rate == 8000
    silent = np.zeros(8000, np.float32)
    audio = np.concatenate([np.concatenate([silent, prompt, silent * 0]) for _ in range(4)] + [silent])
    beam = rechka.load("rechka-mini", threads=1)
    greedy = rechka.load("rechka-mini", threads=1, decoder=GREEDY)
    rows = []
    cases: list[tuple[str, Any]] = [("streaming, greedy", greedy.recognizer), ("streaming, beam", beam.recognizer)]
    for every in (0.4, 0.8, 1.6):
        recognizer = PhraseRecognizer(
            WholePhrases(beam.recognizer.model), beam.recognizer.decoder_factory, make_vad("silero", 8000),
            PHRASED, partial_s=every,
        )  # fmt: skip
        cases.append((f"whole phrases, decoded every {every} s", recognizer))
    for name, recognizer in cases:
        found = np.array(list(delays(recognizer, audio)))
        cells = [f"{value:.2f}" for column in found.T for value in (np.median(column), column.max())]
        rows.append((name, *cells))
    head = ("rechka-mini", "shown, median s", "shown, worst s", "stable, median s", "stable, worst s")
    table("Delay of words in seconds of audio, computing time not counted", head, rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, help="recordings with texts for the embedded model")
    parser.add_argument("--limit", type=int, default=200, help="recordings of it")
    args = parser.parse_args()
    toy_table()
    embedded_tables(args.manifest, args.limit)
    delay_table()


if __name__ == "__main__":
    main()
