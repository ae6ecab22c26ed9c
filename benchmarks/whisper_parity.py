"""Whisper here, in faster-whisper and in transformers: is the text equal, and what does it cost?

    python benchmarks/whisper_parity.py --theirs PYTHON [--rounds 3] [--minutes 1.5] [--write PAGE]

All run the same random weights in the shape of the tiny model (CTranslate2 for us and for faster-whisper, the
checkpoint it was made of for transformers), so the text is noise and a difference of one token is a difference. The
audio is the example recording over and over. Each program is a process with one thread; they take turns, and ratios of
CPU time are taken within a round, so that whatever else the machine does hits all.

Needs ``rechka[whisper]``, torch and transformers here, and ``faster-whisper`` in the environment of PYTHON.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rechka.audio import open_source
from rechka.features.whisper import WINDOW
from rechka.models.whisper import BpeCodec
from rechka.testing.whisper import toy_checkpoint
from rechka.types import F32

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("whisper_worker.py")
RATE = 16000
NUM_WINDOWS = 6
"""Whose texts are compared."""
QUIET = RATE // 20
"""Samples of silence at both ends of a window, so that what lies before and behind it makes no difference."""
THEIRS = ("faster-whisper", "transformers")
HEAD = """# Whisper side by side with faster-whisper and transformers

Made by `make bench` (`benchmarks/whisper_parity.py`); not edited by hand.

Random weights in the shape of tiny, {minutes:g} minutes of audio for the times, language given, one temperature, no
text before as a prompt, one thread. rechka and faster-whisper {fw} run CTranslate2 {ct2} on the same folder in float32;
transformers {hf} runs the checkpoint that it was made of on torch {torch}. {machine}.

The weights know no speech: equal text means that features, prompts, rules and search are the same, and says nothing of
error rates.
"""
DIFFERENCES = """
Where texts differ, and why:

- **Rounding.** The three compute spectrograms and layers in different orders of additions; random weights are
  sure of nothing, so that a difference in the sixth digit can change a token, and all that follow it.
- **The limit of 224 tokens.** rechka divides a window whose text does not end ({truncated} of {windows} here), the others
  go on behind it.
- **What windows hear.** rechka computes the spectrogram of every window from its own samples and fills a rest with
  silence, as transformers does for a recording of less than 30 s. The others cut windows out of the spectrogram of the
  whole recording, so that they hear their neighbours, and fill a rest with zeros, which is the level of noise. So what
  comes after the first cut between two stamps is decoded from other numbers, in another number of windows, and the
  CPU time with stamps is that of different work. faster-whisper also takes the floor from the loudest moment of the
  whole recording. (Here windows of 30 s begin and end with silence, so that without stamps all hear the same.)
- **Stamps behind the end of the audio** are moved to the end here, and left there.
- **Beams of 5.** CTranslate2 and transformers end a beam search by different rules.
- **Word times** come from the same path through the attention; beside pauses words are cut by other rules.
- **Not compared, since it is meant to differ**: when a window is tried again (rechka measures repetition in characters,
  not in bytes, and looks for loops, echoes and other alphabets), guards in batches (faster-whisper's batched pipeline has
  none), what is dropped as made up, prompts (text here; text and stamps there; an initial prompt stays behind a reset
  here), phrases and packing (Silero's detector in both, other limits). `docs/whisper.md` tells what rechka does.
"""  # noqa: E501  lines of the page, some with room for figures


def checkpoint(work: Path) -> tuple[Path, Path]:
    """Random weights for transformers, and the same for CTranslate2."""
    from safetensors.numpy import save_file

    from rechka.export.whisper import convert

    config, generation, weights, tokenizer = toy_checkpoint(width=384, layers=4, heads=6, scale=0.3)
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    # An output of its own, or every token would be followed by itself; stamps less likely than text, but not rare; a
    # leaning towards the end, so that windows have some dozens of tokens, as speech has.
    out = (0.3 * np.random.default_rng(1).standard_normal(weights["model.decoder.embed_tokens.weight"].shape)).astype(
        np.float32
    )
    out[vocab["<|0.00|>"] :] *= 0.7
    end = out[vocab["<|endoftext|>"]]
    weights["model.decoder.layer_norm.weight"][:] = 1.0
    weights["model.decoder.layer_norm.bias"][:] = 1.5 * end / np.linalg.norm(end)
    weights["proj_out.weight"] = out
    folder = work / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, convert(folder, work / "ctranslate2", "float32")


def no_text(folder: Path, *, stamps: bool) -> list[int]:
    """Ids that no program may write: all but the end, pieces of words, and stamps if they are wanted."""
    codec = BpeCodec(folder / "tokenizer.json")
    special = codec.special
    size = special.first_stamp + special.num_stamps
    return [
        i for i in range(size)
        if i != special.end and not codec.decode([i]).strip().isalpha() and not (stamps and special.is_stamp(i))
    ]  # fmt: skip


def recording(minutes: float) -> F32:
    """The example over and over, with pauses, in faint noise."""
    source = open_source(ROOT / "examples" / "prompt.wav", sample_rate=RATE, channels="mix")
    unit = np.concatenate([*(chunk[0].samples for chunk in source), np.zeros(RATE, np.float32)])
    audio = np.resize(unit, round(minutes * 60 * RATE))
    noise = np.random.default_rng(0).standard_normal(len(audio))
    audio = (audio + 1e-3 * noise).astype(np.float32)
    for first in range(0, len(audio), WINDOW):
        audio[first : first + QUIET] = 0.0
        audio[first + WINDOW - QUIET : first + WINDOW] = 0.0
    return audio


class Program:
    """One of the three, in a process of its own."""

    def __init__(self, name: str, python: str, folder: Path) -> None:
        command = [python, str(WORKER), name, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, job: dict[str, Any]) -> tuple[float, list[Any]]:
        """CPU seconds and segments."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended with {self._process.wait()}")
        found = json.loads(line)
        return found["cpu"], found["segments"]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Comparison:
    """Jobs given to all programs in turn."""

    def __init__(self, work: Path, theirs: str, minutes: float, rounds: int) -> None:
        checkpoint_, converted = checkpoint(work)
        self.rounds = rounds
        self.suppress = {stamps: no_text(converted, stamps=stamps) for stamps in (False, True)}
        self.programs = {
            "rechka": Program("rechka", sys.executable, converted),
            "faster-whisper": Program("faster-whisper", theirs, converted),
            "transformers": Program("transformers", sys.executable, checkpoint_),
        }
        audio = recording(max(minutes, NUM_WINDOWS / 2))
        self.whole = work / "whole.npy"
        np.save(self.whole, audio[: round(minutes * 60 * RATE)])
        self.pieces = []
        for first in range(0, NUM_WINDOWS * WINDOW, WINDOW):
            self.pieces.append(work / f"{first}.npy")
            np.save(self.pieces[-1], audio[first : first + WINDOW])

    def job(self, audio: Path, **what: Any) -> dict[str, Any]:
        """A job for all of them."""
        plain = {"packed": False, "stamps": False, "beam": 1, "words": False, "guards": False, "previous": False}
        job = {**plain, **what}
        return {"audio": str(audio), "suppress": self.suppress[job["stamps"]], **job}

    def equal(self, **what: Any) -> dict[str, tuple[int, int]]:
        """For each of the others the windows whose first segment, and whose all segments, are ours."""
        found = dict.fromkeys(THEIRS, (0, 0))
        for piece in self.pieces:
            answers = {name: program.run(self.job(piece, **what))[1] for name, program in self.programs.items()}
            ours = [_shown(segment, what) for segment in answers["rechka"]]
            for name in THEIRS:
                others = [_shown(segment, what) for segment in answers[name] if segment[2]]
                first, whole = found[name]
                found[name] = (first + (ours[:1] == others[:1]), whole + (ours == others))
        return found

    def words(self) -> tuple[float, float, int]:
        """Differences of word times between faster-whisper and us: median, 90th percentile, number of words."""
        apart = []
        for piece in self.pieces:
            job = self.job(piece, words=True)
            times = []
            for name in ("rechka", "faster-whisper"):
                segments = self.programs[name].run(job)[1]
                times.append([(" ".join(s[2] for s in segments)), [t for s in segments for w in s[3] for t in w]])
            if times[0][0] == times[1][0] and len(times[0][1]) == len(times[1][1]):
                apart += [abs(a - b) for a, b in zip(times[0][1], times[1][1], strict=True)]
        return float(np.median(apart or [0.0])), float(np.percentile(apart or [0.0], 90)), len(apart) // 2

    def speed(self, names: tuple[str, ...], ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, list[float]]:
        """CPU seconds of every round, each program having had one before."""
        found: dict[str, list[float]] = {name: [] for name in ("rechka", *names)}
        for i in range(self.rounds + 1):
            for name in found if i % 2 else reversed(list(found)):
                cpu, _ = self.programs[name].run(self.job(self.whole, **(ours if name == "rechka" else theirs)))
                if i:
                    found[name].append(cpu)
        return found


def _shown(segment: list[Any], what: dict[str, Any]) -> Any:
    """What is compared of a segment: its text, and with stamps its times too."""
    return (round(segment[0], 2), round(segment[1], 2), segment[2]) if what.get("stamps") else segment[2]


def _ratio(theirs: list[float], ours: list[float]) -> str:
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def parity_table(comparison: Comparison) -> list[str]:
    """Equal texts."""
    size = len(comparison.pieces)
    lines = [
        f"## Equal text, {size} windows of 30 s", "",
        "| what | compared | faster-whisper | transformers |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, what in (("greedy", {}), ("beam of 5", {"beam": 5})):
        found = comparison.equal(**what)
        lines.append(f"| {name} | text | " + " | ".join(f"{found[one][1]} of {size}" for one in THEIRS) + " |")
    found = comparison.equal(stamps=True)
    lines.append(
        "| greedy with stamps | first segment: start, end, text | "
        + " | ".join(f"{found[one][0]} of {size}" for one in THEIRS) + " |"
    )  # fmt: skip
    lines.append(
        "| | all segments of the 30 s, decoded in several windows | "
        + " | ".join(f"{found[one][1]} of {size}" for one in THEIRS) + " |"
    )  # fmt: skip
    middle, most, count = comparison.words()
    lines += [
        "",
        f"Word times of the {count} words of equal texts, beside faster-whisper: median difference {middle:.2f} s, "
        f"90 % at most {most:.2f} s.",
    ]
    return lines


SPEED: tuple[tuple[str, tuple[str, ...], dict[str, Any], dict[str, Any]], ...] = (
    ("windows one after another, greedy", THEIRS, {}, {}),
    ("the same, beam of 5", THEIRS, {"beam": 5}, {"beam": 5}),
    ("with stamps, greedy", THEIRS, {"stamps": True}, {"stamps": True}),
    ("greedy with word times", THEIRS[:1], {"words": True}, {"words": True}),
    ("packed by a VAD, batches of 8", THEIRS[:1], {"packed": True}, {"packed": True}),
    (
        "packed; ours with guards, second look, word times", THEIRS[:1],
        {"packed": True, "guards": True, "words": True}, {"packed": True},
    ),
)  # fmt: skip


def speed_table(comparison: Comparison) -> list[str]:
    """CPU time."""
    lines = [
        "", "## CPU time", "",
        f"Seconds of rechka, and the CPU time of the others divided by it: above 1 rechka is faster. Median of "
        f"{comparison.rounds} rounds, and the range.", "",
        "| what | rechka, s | faster-whisper | transformers |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, others, ours, theirs in SPEED:
        found = comparison.speed(others, ours, theirs)
        cells = [_ratio(found[one], found["rechka"]) if one in found else "" for one in THEIRS]
        lines.append(f"| {name} | {median(found['rechka']):.2f} | " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


PEAK = """
import resource, sys
import numpy as np
side, minutes = sys.argv[1], float(sys.argv[2])
samples = np.random.default_rng(0).standard_normal(round(minutes * 60 * 16000), dtype=np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if side == "rechka":
    from rechka.features.whisper import WINDOW, WhisperMel
    mel = WhisperMel()
    for first in range(0, len(samples), WINDOW):
        mel(samples[first : first + WINDOW])
else:
    from faster_whisper.feature_extractor import FeatureExtractor
    FeatureExtractor()(samples)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def peak_mb(side: str, python: str, minutes: float) -> int:
    """Memory that the features of a recording take on top of its samples."""
    done = subprocess.run([python, "-c", PEAK, side, str(minutes)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--theirs", default=sys.executable, help="Python that has faster-whisper")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.5, help="of the recording whose CPU time is taken")
    parser.add_argument("--hours", type=float, default=1.0, help="of the memory comparison")
    parser.add_argument("--write", type=Path, help="Markdown file to make")
    args = parser.parse_args()
    told = [args.theirs, "-c", "from importlib.metadata import version; print(version('faster-whisper'))"]
    head = HEAD.format(
        minutes=args.minutes, fw=subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip(),
        ct2=version("ctranslate2"), hf=version("transformers"), torch=version("torch"),
        machine=f"Python {platform.python_version()}, {platform.machine()}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        comparison = Comparison(Path(work), args.theirs, args.minutes, args.rounds)
        lines = [head, *parity_table(comparison)]
        limit = comparison.programs["rechka"]
        truncated = sum(len(limit.run(comparison.job(piece))[1]) > 1 for piece in comparison.pieces)
        lines.append(DIFFERENCES.format(truncated=truncated, windows=len(comparison.pieces)))
        lines += speed_table(comparison)[1:]
        for program in comparison.programs.values():
            program.close()
    ours, theirs = (
        peak_mb(side, python, args.hours * 60) for side, python in (("rechka", sys.executable), ("", args.theirs))
    )
    lines += [
        "", "## Memory", "",
        f"The features of {args.hours:g} h, on top of the samples: rechka {ours} MB, faster-whisper {theirs} MB.", "",
    ]  # fmt: skip
    text = "\n".join(lines)
    print(text)
    if args.write is not None:
        args.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
