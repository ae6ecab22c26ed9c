"""Record what the embedded model was trained on and tested on, as hashes, so that a test can prove them apart.

    python recipes/embedded/record.py --train STORE... --adapted STORE... --test MANIFEST...
                                         --out recipes/embedded/sets.npz

STORE is a feature store of ``rechka train``: what was really trained on, not what was meant to be. The file holds
64-bit hashes of sentences and of speakers' names, no texts. ``--adapted`` are stores whose speaker is in the tests on
purpose (half of the telephone prompts): their sentences count, their speaker does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rechka.text.normalize import scoring
from rechka.train.store import Store


def hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Sorted, different: the first eight bytes of each text's sha256."""
    found = {int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts}
    return np.array(sorted(found), np.uint64)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--adapted", type=Path, nargs="*", default=[])
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    strangers = [item for folder in args.train for item in Store(folder).items]
    items = strangers + [item for folder in args.adapted for item in Store(folder).items]
    records = [json.loads(line) for path in args.test for line in path.read_text("utf-8").splitlines()]
    np.savez_compressed(
        args.out,
        train_sentences=hashes(scoring(item.text) for item in items),
        train_speakers=hashes(item.speaker.split(":")[0] for item in strangers),
        test_sentences=hashes(scoring(record["text"]) for record in records),
        test_speakers=hashes(record["speaker"].split(":")[0] for record in records),
    )
    print(f"{len(items)} recordings in training, {len(records)} in tests")


if __name__ == "__main__":
    main()
