"""Peak memory of ``rechka transcribe`` on recordings of growing length: it should not grow.

    python benchmarks/memory.py [--hours 0.1 0.5 2] [--recording examples/prompt.wav] [--model rechka-mini]

The recording is repeated with pauses until it is long enough; each length is one fresh process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

CHILD = """
import resource, sys
from rechka.cli.main import main
recording, model, folder = sys.argv[1:]
code = main(["transcribe", recording, "--model", model, "--format", "txt", "--threads", "1", "--output", folder])
peak = resource.getrusage(resource.RUSAGE_SELF)
print(code, peak.ru_maxrss // 1024, round(peak.ru_utime + peak.ru_stime, 1))
"""


def write_long(recording: Path, hours: float, path: Path) -> None:
    """The recording over and over, 0.7 s of quiet between."""
    samples, rate = soundfile.read(recording, dtype="int16")
    unit = np.concatenate([samples, np.zeros(int(0.7 * rate), np.int16)])
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        for _ in range(int(hours * 3600 * rate / len(unit)) + 1):
            file.write(unit)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[0.1, 0.5, 2.0])
    parser.add_argument("--recording", type=Path, default=Path(__file__).parents[1] / "examples" / "prompt.wav")
    parser.add_argument("--model", default="rechka-mini")
    args = parser.parse_args()
    print("| audio, hours | peak memory, MB | CPU seconds | audio seconds per CPU second |")
    print("|---|---|---|---|")
    for hours in args.hours:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "long.wav"
            write_long(args.recording, hours, path)
            child = [sys.executable, "-c", CHILD, str(path), args.model, folder]
            done = subprocess.run(child, capture_output=True, text=True, check=True)
            code, peak, seconds = done.stdout.split()[-3:]
            if code != "0":
                sys.exit(done.stderr)
            print(f"| {hours:g} | {peak} | {seconds} | {hours * 3600 / float(seconds):.0f} |", flush=True)


if __name__ == "__main__":
    main()
