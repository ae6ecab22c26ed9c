"""Fit the curve that makes word confidences mean what they say, and report how well it does on other recordings.

    python recipes/embedded/calibrate.py MODEL --fit MANIFEST... --test MANIFEST...

Prints ``confidence`` for the card (slope and offset) and, for the test recordings, the expected calibration error
before and after. Fit and test must be different recordings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rechka.evaluate.wer import align
from rechka.hub.load import load
from rechka.text.confidence import calibrated, calibration, fit
from rechka.text.normalize import scoring


def judged(model: Path, manifests: list[Path]) -> tuple[list[float], list[bool]]:
    """Confidence of every recognised word, and whether it is right."""
    asr = load(model, threads=1)
    confidences: list[float] = []
    correct: list[bool] = []
    for manifest in manifests:
        for line in manifest.read_text("utf-8").splitlines():
            record = json.loads(line)
            words = asr.transcribe(manifest.parent / record["audio_filepath"]).words
            heard = [scoring(word.text) for word in words]
            for operation, _, index in align(scoring(record["text"]).split(), heard):
                if index is not None:
                    confidences.append(words[index].confidence or 0.0)
                    correct.append(operation == "equal")
    return confidences, correct


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fit", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    curve = fit(*judged(args.model, args.fit))
    confidences, correct = judged(args.model, args.test)
    print(f"confidence = [{curve[0]:.3f}, {curve[1]:.3f}]")
    for name, values in (("raw", confidences), ("calibrated", [calibrated(raw, curve) for raw in confidences])):
        report = calibration(values, correct)
        parts = [f"{key} {report[key]:.3f}" for key in ("accuracy", "mean_confidence", "ece", "brier", "auc")]
        print(f"{name:11} {report['num_words']} words, {', '.join(parts)}")


if __name__ == "__main__":
    main()
