"""Five minutes of one person for adaptation, and other sentences of the same person to see what it brought.

VoxForge Russian is at hand as cepstra, without sound (recipes/embedded). The people that its recipe keeps for tests
were never heard by the embedded model; this script takes one of them and makes recordings that have the same energies
in the model's fifteen bands: pulses a hundredth of a second apart through filters that are corrected until the bands
fit. They sound like a robot, but a model that hears nothing but these bands hears the person.

    python recipes/tutorial/one_speaker.py REAL/voxforge vf_gav FOLDER

``REAL`` is what recipes/embedded/prepare.py writes. In FOLDER come ``train.jsonl`` (so many ``--minutes``),
``dev.jsonl``, ``test.jsonl`` (sentences that are in neither, nor in any training of the model) and ``test_known.jsonl``
(sentences that are in neither, but that the model's training has from other people).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from rechka.features import bands
from rechka.train.augment import level
from rechka.train.store import cepstra_to_bands
from rechka.types import F32

USUAL_LEVEL = 16.0
"""Mean log energy of loud speech, as recipes/embedded/evaluate.py has it."""
QUIET_S = 0.3
"""Of the person's own background, before and after."""
ROUNDS = 15
STEP = bands.STEP
TAPS = 2 * STEP
"""Of a frame's filter: what it adds to its neighbours is corrected, beyond them it must not reach."""


def resound(target: F32, rounds: int = ROUNDS) -> tuple[F32, float]:
    """Sound of given log band energies.

    Args:
        target: (T, BANDS) as ``bands.log_bands`` gives them.
        rounds: of correction.
    Returns:
        (80 T,) samples at 8 kHz, and the root mean square difference from ``target`` in natural log.
    """
    shape = bands.filter_bank()
    shape = shape / np.maximum(shape.sum(axis=1, keepdims=True), 1e-9) * (shape.sum(axis=1, keepdims=True) > 0)
    gains = 0.5 * (target - np.log(bands.INT16**2))
    window = np.hanning(TAPS + 1)[:-1]
    nothing = np.zeros(bands.CONTEXT + 1, np.float32)
    best, least = np.zeros(len(target) * STEP, np.float32), np.inf
    for _ in range(rounds):
        spectra = np.exp(gains @ shape.T) * (shape.sum(axis=1) > 0)
        pulses = np.fft.irfft(spectra, bands.FFT)
        pulses = np.roll(pulses, TAPS // 2, axis=1)[:, :TAPS] * window
        sound = np.zeros((len(target) + 3) * STEP)
        for t, pulse in enumerate(
            pulses
        ):  # its middle is the middle of frame t, whose window ends with its own samples
            begin = (t + 2) * STEP - bands.WINDOW // 2 - TAPS // 2 + STEP
            sound[begin : begin + TAPS] += pulse
        samples = sound[2 * STEP : (2 + len(target)) * STEP].astype(np.float32)
        off = np.clip(target, np.log(bands.FLOOR), None) - bands.log_bands(samples, nothing)
        error = float(np.sqrt(np.mean(np.square(off))))
        if error < least:
            best, least = samples, error
        gains += 0.5 * 0.6 * off
    return best, least


def sound_of(record: dict[str, Any]) -> tuple[F32, float]:
    """The recording of a record of cepstra at a usual level, and how far its bands are off."""
    with np.load(record["feat_file"]) as arrays:
        part = slice(record["offset"], record["offset"] + record["frames"])
        x = cepstra_to_bands(arrays["cep"][part].astype(np.float32) * arrays["step"] + arrays["mid"])
    x = x - level(x) + USUAL_LEVEL
    count = round(QUIET_S * bands.SAMPLE_RATE / STEP)
    quiet = np.repeat(np.percentile(x, 2, axis=0, keepdims=True), count, axis=0)
    return resound(np.concatenate([quiet, x, quiet]).astype(np.float32))


def chosen(folder: Path, speaker: str, minutes: float, dev_minutes: float) -> dict[str, list[dict[str, Any]]]:
    """The speaker's records by set; of a sentence that was read twice, tests have both takes, training has one."""

    def read(name: str) -> list[dict[str, Any]]:
        lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        return [record for record in map(json.loads, lines) if record["speaker"] == speaker]

    known = read("test_sentence_seen")
    np.random.default_rng(1).shuffle(known)  # type: ignore[arg-type]
    sets: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": read("test"), "test_known": []}
    place: dict[str, str] = {}
    for record in known:
        if record["text"] in place:
            if place[record["text"]] == "test_known":
                sets["test_known"].append(record)
            continue
        name = next(
            name for name, seconds in (("dev", 60 * dev_minutes), ("train", 60 * minutes), ("test_known", np.inf))
            if sum(other["duration"] for other in sets[name]) < seconds
        )  # fmt: skip
        place[record["text"]] = name
        sets[name].append(record)
    return sets


def main() -> None:
    """Write recordings and manifests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("speaker")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=4.4)
    parser.add_argument("--dev-minutes", type=float, default=0.6)
    args = parser.parse_args()
    for name, records in chosen(args.real, args.speaker, args.minutes, args.dev_minutes).items():
        (args.out / name).mkdir(parents=True, exist_ok=True)
        lines, errors = [], []
        for number, record in enumerate(records):
            samples, error = sound_of(record)
            errors.append(error)
            path = args.out / name / f"{number:03d}.flac"
            soundfile.write(path, np.clip(samples, -1.0, 1.0), bands.SAMPLE_RATE)
            line = {"audio_filepath": str(path.relative_to(args.out)), "duration": len(samples) / bands.SAMPLE_RATE,
                    "text": record["text"]}  # fmt: skip
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        (args.out / f"{name}.jsonl").write_text("".join(lines), "utf-8")
        minutes = sum(record["duration"] for record in records) / 60
        words = sum(len(record["text"].split()) for record in records)
        print(f"{name}: {len(records)} sentences, {words} words, {minutes:.1f} min; bands off by {np.mean(errors):.2f}")


if __name__ == "__main__":
    main()
