"""A folder of recordings to subtitles, one speaker per channel; several recordings share the model's steps.

Usage: python examples/subtitles.py FOLDER
"""

import sys
from pathlib import Path

import rechka


def main(folder: str) -> None:
    """Write NAME.srt beside every NAME.wav; a recording that cannot be used is named and left out."""
    paths = sorted(Path(folder).glob("*.wav"))
    results = rechka.load().transcribe_many(paths, channels="split")
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, rechka.RechkaError):
            print(f"{path}: {result}", file=sys.stderr)
        else:
            print(result.save(path.with_suffix(".srt")))


if __name__ == "__main__":
    main(sys.argv[1])
