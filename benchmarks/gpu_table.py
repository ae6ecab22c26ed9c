"""The JSON files of ``benchmarks/gpu.sh`` as one table: ``python benchmarks/gpu_table.py FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rechka.cli.bench_gpu import table


def main(folder: Path) -> None:
    """Print it; files that hold nothing are named."""
    whole = None
    for path in sorted(folder.glob("bench-*.json")):
        try:
            report = json.loads(path.read_text("utf-8"))
        except ValueError:
            print(f"{path.name}: nothing was measured, see {path.stem}.log", file=sys.stderr)
            continue
        if whole is None:
            whole = report
        else:
            whole["results"] += report["results"]
    if whole is None:
        sys.exit("nothing was measured")
    print(table(whole))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
