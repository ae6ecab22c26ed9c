"""All comparisons with other programs: one command, one table, one picture (docs/benchmarks.md).

    python benchmarks/suite.py [PART ...] [--theirs [PART=]PYTHON] [--rounds N] [--write docs/benchmarks.md]
    python benchmarks/suite.py --pages --write docs/benchmarks.md

Parts, each a script that runs alone too: file (T-one; ONNX Runtime, sherpa-onnx), sherpa (zipformers, GigaAM, T-one),
whisper (faster-whisper, transformers), beam (pyctcdecode). ``--theirs`` names a Python that has the other programs, for
all parts or, repeated, for one. With ``--write`` every part leaves its figures as JSON in the folder named like the
page; the page, its picture and the parts' own pages are made of them. ``--pages`` measures nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pages
from record import Record

HERE = Path(__file__).parent
SCRIPTS = {
    "file": "file_mode.py",
    "sherpa": "parity_sherpa.py",
    "whisper": "whisper_parity.py",
    "beam": "beam_search.py",
}
OWN_PAGES = {"sherpa": ("parity.md", pages.parity), "whisper": ("whisper_parity.md", pages.whisper)}


def measure(part: str, theirs: str, rounds: int | None, folder: Path) -> int:
    """Run a part in a process of its own; its exit status."""
    # pyctcdecode wants an older numpy, so that part runs in the other environment, with rechka from this checkout.
    inside = part == "beam"
    command = [theirs if inside else sys.executable, str(HERE / SCRIPTS[part]), "--json", str(folder / f"{part}.json")]
    command += [] if inside else ["--theirs", theirs]
    command += [] if rounds is None else ["--rounds", str(rounds)]
    paths = [str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    print(f"part {part}: {' '.join(command)}", file=sys.stderr, flush=True)
    return subprocess.run(command, env={**os.environ, **threads}, check=False).returncode


def read(folder: Path) -> dict[str, Record]:
    """The figures that are there, by part."""
    return {part: Record.read(folder / f"{part}.json") for part in SCRIPTS if (folder / f"{part}.json").exists()}


def written(records: dict[str, Record], page: Path) -> dict[Path, str]:
    """Every page and picture with its text; a part's own page only where nothing was left out."""
    found = {page: pages.benchmarks(records), page.with_suffix("") / "ratios.svg": pages.picture(records)}
    for part, (name, make) in OWN_PAGES.items():
        if part in records and not records[part].skipped:
            found[page.parent / name] = make(records[part])
    return found


def python_of(part: str, told: list[str]) -> str:
    """The last ``PART=PYTHON`` for this part, else the last ``PYTHON``, else this one."""
    own = [value.split("=", 1)[1] for value in told if value.startswith(f"{part}=")]
    every = [value for value in told if value.split("=", 1)[0] not in SCRIPTS]
    return [sys.executable, *every, *own][-1]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(SCRIPTS)}; default: all")
    parser.add_argument("--theirs", action="append", default=[], metavar="[PART=]PYTHON")
    parser.add_argument("--rounds", type=int, help="instead of each part's own number")
    parser.add_argument("--pages", action="store_true", help="measure nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="Markdown file; figures go to a folder of its name")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(SCRIPTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    parts = [] if arguments.pages else arguments.parts or list(SCRIPTS)
    with tempfile.TemporaryDirectory() as temporary:
        page = arguments.write or Path(temporary) / "benchmarks.md"
        folder = page.with_suffix("")
        folder.mkdir(exist_ok=True)
        failed = [
            part
            for part in parts
            if measure(part, python_of(part, arguments.theirs), arguments.rounds, folder.resolve())
        ]
        for path, text in written(read(folder), page).items():
            path.write_text(text, encoding="utf-8")
        print(page.read_text(encoding="utf-8"), end="")
    if failed:
        print(f"failed: {', '.join(failed)}; what stands there of them is older", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
