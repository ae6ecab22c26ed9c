"""Whisper here and in faster-whisper: is the text equal, and what does it cost?

    python benchmarks/whisper_parity.py [--rounds 5] [--minutes 3] [--write docs/whisper_parity.md]

Both run CTranslate2 on the same folder, whose weights are random in the shape of the tiny model, so the text is noise
and a difference of one token is a difference. No token may come twice in a window, so that windows end after some
dozens of tokens, as speech does. The audio is the example recording over and over. Turns are taken in one process with
one thread, and a ratio is taken within a round, so that whatever else the machine does hits both.

Needs ``rechka[whisper]`` and ``faster-whisper``.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rechka.audio import open_source
from rechka.features.whisper import WINDOW, WhisperMel
from rechka.hub.load import load
from rechka.models.whisper import BpeCodec
from rechka.testing.whisper import toy_checkpoint
from rechka.types import F32

ROOT = Path(__file__).parents[1]
RATE = 16000
HEAD = """# Whisper side by side with faster-whisper

Made by `python benchmarks/whisper_parity.py --write docs/whisper_parity.md`; not edited by hand.

The same folder with random weights in the shape of tiny, the same {minutes:g} minutes of audio, CTranslate2 {ct2} under
both, one thread, in turns within one process. Speed is the CPU time of faster-whisper {theirs} divided by ours: above 1
rechka is faster. Median of {rounds} rounds, and the range. {machine}.
"""


def folder_of(path: Path) -> Path:
    """The random model for CTranslate2, float32."""
    from rechka.export.whisper import Checkpoint, write

    config, generation, weights, tokenizer = toy_checkpoint(width=384, layers=4, heads=6, scale=0.3)
    # Of its own, or every token would be followed by itself.
    shape = weights["model.decoder.embed_tokens.weight"].shape
    weights["proj_out.weight"] = (0.3 * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)
    weights["model.decoder.layer_norm.weight"][:] = 1.0
    weights["model.decoder.layer_norm.bias"][:] = 0.0
    path.mkdir()
    write(Checkpoint(config, generation, weights, tokenizer.to_str().encode()), path)
    return path


def no_text(folder: Path) -> list[int]:
    """Ids that neither program may write: all but the end and pieces of words."""
    codec = BpeCodec(folder / "tokenizer.json")
    end = codec.special.end
    return [i for i in range(end + 1608) if i != end and not codec.decode([i]).strip().isalpha()]


def recording(minutes: float) -> F32:
    """The example over and over, with pauses."""
    source = open_source(ROOT / "examples" / "prompt.wav", sample_rate=RATE, channels="mix")
    unit = np.concatenate([*(chunk[0].samples for chunk in source), np.zeros(RATE, np.float32)])
    size = round(minutes * 60 * RATE)
    return np.resize(unit, size).astype(np.float32)


def alike(ours: Any, **more: Any) -> Any:
    """Our recogniser without what faster-whisper does not do in this comparison: retries and guards."""
    plain = {
        "language": "ru", "beam_size": 1, "temperatures": (0.0,), "max_compression": 1e9, "min_logprob": -1e9,
        "max_no_speech": 1.0, "max_words_s": 1e9, "use_previous": False, "word_times": False, "look_again": False,
        "no_repeat_ngram": 1,
    }  # fmt: skip
    return ours.with_options(**{**plain, **more})


PLAIN = {
    "language": "ru", "beam_size": 1, "temperature": 0.0, "compression_ratio_threshold": None,
    "log_prob_threshold": None, "no_speech_threshold": None, "condition_on_previous_text": False,
    "no_repeat_ngram_size": 1,
}  # fmt: skip


Run = Callable[[F32], str]
PIECE = 28 * RATE
"""What is compared by its text. faster-whisper takes the features of a whole file at once, so that its windows see
their neighbours and its floor is that of the file; in a piece that is shorter than a window there is no difference."""


def turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float, list[float]]:
    """Median CPU seconds of either, and the ratio of every round."""
    ours(), theirs()
    first, second = [], []
    for i in range(rounds):
        order = (ours, theirs) if i % 2 else (theirs, ours)
        for run in order:
            begin = time.process_time()
            run()
            (first if run is ours else second).append(time.process_time() - begin)
    return median(first), median(second), [b / a for a, b in zip(first, second, strict=True)]


PEAK = """
import resource, sys
import numpy as np
side, minutes = sys.argv[1], float(sys.argv[2])
samples = np.random.default_rng(0).standard_normal(round(minutes * 60 * 16000), dtype=np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if side == "ours":
    from rechka.features.whisper import WINDOW, WhisperMel
    mel = WhisperMel()
    for first in range(0, len(samples), WINDOW):
        mel(samples[first : first + WINDOW])
else:
    from faster_whisper.feature_extractor import FeatureExtractor
    FeatureExtractor()(samples)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def peak_mb(side: str, minutes: float) -> int:
    """Memory that the features of a recording take on top of its samples."""
    done = subprocess.run([sys.executable, "-c", PEAK, side, str(minutes)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def rows(folder: Path, minutes: float, rounds: int) -> list[str]:
    """The table."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel
    from faster_whisper.feature_extractor import FeatureExtractor

    samples = recording(minutes)
    forbidden = no_text(folder)
    asr: Any = load(folder, threads=1).with_options(suppress=forbidden)  # type: ignore[attr-defined]
    other = WhisperModel(str(folder), device="cpu", compute_type="default", cpu_threads=1, num_workers=1)
    batched = BatchedInferencePipeline(other)
    found = []

    def add(name: str, ours: Run, theirs: Run, *, compare: bool = False) -> None:
        pieces = [samples[first : first + PIECE] for first in range(0, len(samples) - PIECE + 1, PIECE)]
        equal = f"{sum(ours(piece) == theirs(piece) for piece in pieces)} of {len(pieces)}" if compare else ""
        a, b, ratios = turns(lambda: ours(samples), lambda: theirs(samples), rounds)
        spread = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        found.append(f"| {name} | {equal} | {a:.2f} | {b:.2f} | {spread} |")
        print(found[-1], file=sys.stderr, flush=True)

    def text_of(segments: Any) -> str:
        return " ".join("".join(segment.text for segment in segments).split())

    def ours_text(recognizer: Any) -> Run:
        return lambda audio: " ".join(recognizer.transcribe((audio, RATE)).text.split())

    def theirs_text(model: Any, **more: Any) -> Run:
        plain = {**PLAIN, "suppress_tokens": forbidden, **more}
        return lambda audio: text_of(model.transcribe(audio, **plain)[0])

    mel, extractor = WhisperMel(), FeatureExtractor()

    def windows(audio: F32) -> str:
        return str([mel(audio[first : first + WINDOW]).shape for first in range(0, len(audio), WINDOW)])

    add("log-mel spectrogram", windows, lambda audio: str(extractor(audio).shape))
    plain = {"mode": "sequential", "vad": "none", "stamps": False}
    for beam in (1, 5):
        add(
            f"windows one after another, beam {beam}",
            ours_text(alike(asr, **plain, beam_size=beam)),
            theirs_text(other, beam_size=beam, without_timestamps=True),
            compare=True,
        )
    add(
        "the same, greedy, with word times",
        ours_text(alike(asr, **plain, word_times=True)),
        theirs_text(other, without_timestamps=True, word_timestamps=True),
        compare=False,
    )
    packed = theirs_text(batched, batch_size=8)
    add("packed by a VAD, batches of 8", ours_text(alike(asr)), packed)
    guarded = {"look_again": True, "max_words_s": 7.0, "max_no_speech": 0.6, "word_times": True}
    add("packed, ours with guards, second look, word times", ours_text(alike(asr, **guarded)), packed)
    return found


def difference() -> float:
    """Largest difference between the two log-mel spectrograms of one window that ends in silence."""
    from faster_whisper.feature_extractor import FeatureExtractor

    samples = recording(0.4)
    ours = WhisperMel()(samples)
    theirs = FeatureExtractor()(np.pad(samples, (0, WINDOW - len(samples))))[:, : ours.shape[1]]
    return float(np.abs(ours - theirs).max())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--hours", type=float, default=1.0, help="of the memory comparison")
    parser.add_argument("--write", type=Path, help="Markdown file to make")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        table = rows(folder_of(Path(work) / "model"), args.minutes, args.rounds)
    machine = f"Python {platform.python_version()}, {platform.machine()}"
    lines = [
        HEAD.format(
            minutes=args.minutes, rounds=args.rounds, ct2=version("ctranslate2"), theirs=version("faster-whisper"),
            machine=machine,
        ),
        "| what | pieces of 28 s with equal text | rechka, CPU s | faster-whisper, CPU s | ratio |",
        "|---|---|---|---|---|",
        *table,
        "",
        f"Memory for the features of {args.hours:g} h, on top of the samples: rechka "
        f"{peak_mb('ours', args.hours * 60)} MB, faster-whisper {peak_mb('theirs', args.hours * 60)} MB. "
        f"Largest difference of a log-mel value between the two, in one window: {difference():.1e}.",
        "",
    ]  # fmt: skip
    text = "\n".join(lines)
    print(text)
    if args.write is not None:
        args.write.write_text(text, encoding="utf-8")
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
