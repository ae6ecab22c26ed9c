"""``python -m rechka.train.punctuation RUN.toml --texts FOLDER --out FOLDER``: train the punctuator, or go on."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from rechka.train.punctuation.export import export, load
from rechka.train.punctuation.run import PunctuationConfig, sides, train


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m rechka.train.punctuation")
    parser.add_argument("config", type=Path, help="TOML file of the run")
    parser.add_argument("--texts", type=Path, required=True, help="folder of the text files that it names")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log; a run there goes on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", type=Path, help="write the network as ONNX to this file at the end")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    config = PunctuationConfig.load(given.config)
    checkpoint = train(config, sides(config, given.texts, given.out), given.out)
    print(checkpoint)
    if given.export is not None:
        notes = {"texts": ", ".join(config.texts), "steps": str(config.steps), "license": "Apache-2.0"}
        difference = export(load(checkpoint), given.export, notes)
        logging.info("wrote %s; a probability differs from torch by at most %.3f", given.export, difference)


if __name__ == "__main__":
    main()
