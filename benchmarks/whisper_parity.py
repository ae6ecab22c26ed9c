"""Whisper here, in faster-whisper and in transformers: is the text equal, and what does it cost?

    python benchmarks/whisper_parity.py --theirs PYTHON [--rounds 3] [--minutes 1] [--json FILE]

All run the same random weights in the shape of the tiny model (CTranslate2 for us and for faster-whisper, the
checkpoint it was made of for transformers), so the text is noise and a difference of one token is a difference. The
audio is the example recording over and over. Each program is a process with one thread; they take turns, and ratios of
CPU time are taken within a round, so that whatever else the machine does hits all. Part of ``benchmarks/suite.py``,
which writes docs/whisper_parity.md from it.

Needs ``rechka[whisper]``, torch and transformers here, and ``faster-whisper`` in the environment of PYTHON. Without one
of the two the other is compared.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import Record, Row, finish, missing, versions

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
NUM_TIMED = 3
"""Of these, as many take part in the comparison of CPU time without stamps."""
QUIET = RATE // 20
"""Samples of silence at both ends of a window, so that what lies before and behind it makes no difference."""
THEIRS = ("faster-whisper", "transformers")


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
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
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

    def __init__(self, work: Path, theirs: dict[str, str], minutes: float, rounds: int) -> None:
        checkpoint_, converted = checkpoint(work)
        self.rounds = rounds
        self.minutes = minutes
        self.suppress = {stamps: no_text(converted, stamps=stamps) for stamps in (False, True)}
        folders = {"faster-whisper": converted, "transformers": checkpoint_}
        self.programs = {"rechka": Program("rechka", sys.executable, converted)}
        self.programs |= {name: Program(name, python, folders[name]) for name, python in theirs.items()}
        self.peers = tuple(theirs)
        audio = recording(max(minutes, NUM_WINDOWS / 2))
        self.whole = work / "whole.npy"
        np.save(self.whole, audio[: round(minutes * 60 * RATE)])
        self.agreed: dict[tuple[str, str], set[Path]] = {}
        self.pieces: list[Path] = []
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
        found = dict.fromkeys(self.peers, (0, 0))
        for piece in self.pieces:
            job = self.job(piece, **what)
            answers = {name: program.run(job)[1] for name, program in self.programs.items()}
            ours = [_shown(segment, what) for segment in answers["rechka"]]
            for name in self.peers:
                others = [_shown(segment, what) for segment in answers[name] if segment[2]]
                first, whole = found[name]
                found[name] = (first + (ours[:1] == others[:1]), whole + (ours == others))
                if ours == others:
                    self.agreed.setdefault((name, json.dumps(what)), set()).add(piece)
        return found

    def same(self, names: tuple[str, ...], **what: Any) -> list[Path]:
        """Windows in which all of the others write our text, at most ``NUM_TIMED``."""
        found = set(self.pieces)
        for name in names:
            found &= self.agreed.get((name, json.dumps(what)), set())
        return sorted(found, key=self.pieces.index)[:NUM_TIMED]

    def speed(
        self, names: tuple[str, ...], audios: list[Path], ours: dict[str, Any], theirs: dict[str, Any]
    ) -> dict[str, list[float]]:
        """CPU seconds of every round, each program having done one window before."""
        jobs = {name: ours if name == "rechka" else theirs for name in ("rechka", *names)}
        for name, what in jobs.items():
            self.programs[name].run(self.job(self.pieces[0], **what))
        found: dict[str, list[float]] = {name: [] for name in jobs}
        for i in range(self.rounds):
            for name in found if i % 2 else reversed(list(found)):
                found[name].append(sum(self.programs[name].run(self.job(audio, **jobs[name]))[0] for audio in audios))
        return found


def _shown(segment: list[Any], what: dict[str, Any]) -> Any:
    """What is compared of a segment: its text, and with stamps its times too."""
    return (round(segment[0], 2), round(segment[1], 2), segment[2]) if what.get("stamps") else segment[2]


def equality(comparison: Comparison) -> list[list[Any]]:
    """What was done, what is compared, and for each of the others the windows in which it is equal."""
    rows: list[list[Any]] = []
    for name, what in (("greedy", {}), ("beam of 5", {"beam": 5})):
        found = comparison.equal(**what)
        rows.append([name, "text", {one: found[one][1] for one in comparison.peers}])
    found = comparison.equal(stamps=True)
    rows.append([
        "greedy with stamps", "first segment: start, end, text", {one: found[one][0] for one in comparison.peers}
    ])  # fmt: skip
    rows.append([
        "", "all segments of the 30 s, decoded in several windows", {one: found[one][1] for one in comparison.peers}
    ])  # fmt: skip
    return rows


SPEED: tuple[tuple[str, tuple[str, ...], dict[str, Any], dict[str, Any]], ...] = (
    ("greedy", THEIRS, {}, {}),
    ("beam of 5", THEIRS[:1], {"beam": 5}, {"beam": 5}),
    ("beam of 5", THEIRS[1:], {"beam": 5}, {"beam": 5}),
    ("greedy with word times", THEIRS[:1], {"words": True}, {"words": True}),
    ("greedy with stamps", THEIRS, {"stamps": True}, {"stamps": True}),
    ("packed by a VAD, batches of 8", THEIRS[:1], {"packed": True}, {"packed": True}),
    (
        "packed; ours with guards, second look, word times", THEIRS[:1],
        {"packed": True, "guards": True, "words": True}, {"packed": True},
    ),
)  # fmt: skip


def speeds(comparison: Comparison) -> list[Row]:
    """CPU time: of windows in which all write the same text where there are any, so that the work is the same."""
    rows = []
    for name, every, ours, theirs in SPEED:
        others = tuple(one for one in every if one in comparison.peers)
        if not others:
            continue
        windows = comparison.same(others, **ours) if ours == theirs else []
        found = comparison.speed(others, windows or [comparison.whole], ours, theirs)
        audio_s = 30.0 * len(windows) if windows else 60 * comparison.minutes
        told = "equal text" if windows else "texts differ, and so does the work"
        rows += [Row(f"Whisper, {name}", one, audio_s, found["rechka"], found[one], told) for one in others]
        print(name, told, found, file=sys.stderr, flush=True)
    return rows


PEAK = """
import sys, tracemalloc
import numpy as np
side, minutes = sys.argv[1], float(sys.argv[2])
samples = np.random.default_rng(0).standard_normal(round(minutes * 60 * 16000), dtype=np.float32)
if side == "rechka":
    from rechka.features.whisper import WINDOW, WhisperMel
    mel = WhisperMel()
    tracemalloc.start()
    for first in range(0, len(samples), WINDOW):
        mel(samples[first : first + WINDOW])
else:
    from faster_whisper.feature_extractor import FeatureExtractor
    extractor = FeatureExtractor()
    tracemalloc.start()
    extractor(samples)
print(tracemalloc.get_traced_memory()[1] >> 20)
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
    parser.add_argument("--minutes", type=float, default=1.0, help="of the recording timed where texts differ")
    parser.add_argument("--hours", type=float, default=1.0, help="of the memory comparison")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    record = Record("whisper", versions=versions(sys.executable, "ctranslate2", "transformers", "torch", "numpy"))
    pythons = {"faster-whisper": args.theirs, "transformers": sys.executable}
    for name, python in list(pythons.items()):
        why = missing(python, name.replace("-", "_"))
        if why:
            record.skipped[name] = why
            del pythons[name]
    if pythons:
        record.versions |= versions(args.theirs, "faster-whisper")
        with tempfile.TemporaryDirectory() as work:
            comparison = Comparison(Path(work), pythons, args.minutes, args.rounds)
            limit = comparison.programs["rechka"]
            record.more = {
                "windows": len(comparison.pieces),
                "equal": equality(comparison),
                "divided": sum(len(limit.run(comparison.job(piece))[1]) > 1 for piece in comparison.pieces),
            }
            record.rows = speeds(comparison)
            for program in comparison.programs.values():
                program.close()
    if "faster-whisper" in pythons:
        sides = (("rechka", sys.executable), ("faster-whisper", args.theirs))
        peaks = {side: peak_mb(side, python, args.hours * 60) for side, python in sides}
        record.more["memory_mb"] = {"hours": args.hours, **peaks}
    finish(record, args.json)


if __name__ == "__main__":
    main()
