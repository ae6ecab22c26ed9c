"""The T-one half of the tutorial: a tiny T-one that knows the tone language learns a speaker whose voice is higher.

Each letter is a tone (``rechka.testing.say``), and ``base`` holds a model of T-one's shape that reads them: it is to
the published model what a sketch is to a painting, and runs in seconds. The speaker here talks five parts in a hundred
higher, which makes many letters sound like their neighbours; some minutes of transcribed recordings mend that.
``docs/finetune.md`` explains the same steps for real models and recordings.

    python recipes/tutorial/tone.py FOLDER      makes the model in ``base`` anew
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from rechka.cli.main import main
from rechka.testing import say
from rechka.train.finetune import FinetuneConfig, finetune
from rechka.train.wave import speed

BASE = Path(__file__).parent / "base"
RATE = 8000
HIGHER = 1.05
WORDS = ("да", "нет", "дом", "алло", "мама", "тело", "лето", "мост", "лом")
PLAIN = {"wave": {"clean": 1.0, "speed": 0.0}, "mask": {"time_masks": 0, "band_masks": 0}}
RUN = """
model = "base"

[data]
train = ["train.jsonl"]

[[dev]]
name = "dev"
sources = ["dev.jsonl"]

[optim]
steps = 60
rate = 4e-3
batch_seconds = 20.0
ema = 0.9
evals = 3

[wave]                # tones leave nothing to learn from changes to recordings
clean = 1.0
speed = 0.0

[mask]
time_masks = 0
band_masks = 0
"""


def recordings(folder: Path, name: str, count: int, seed: int, *, higher: float = HIGHER) -> Path:
    """``count`` phrases of one to three words in a little noise, and a manifest of them."""
    rng = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True)
    lines = []
    for number in range(count):
        text = " ".join(rng.choice(WORDS, int(rng.integers(1, 4))))
        sound = speed(say(text, before_s=rng.uniform(0.05, 0.3), after_s=rng.uniform(0.1, 0.3)), higher)
        sound = (rng.uniform(0.2, 1.0) * sound + rng.normal(0, 1e-3, len(sound))).astype(np.float32)
        soundfile.write(folder / name / f"{number:03d}.wav", sound, RATE)
        line = {"audio_filepath": f"{name}/{number:03d}.wav", "text": text, "duration": len(sound) / RATE}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    manifest = folder / f"{name}.jsonl"
    manifest.write_text("".join(lines), "utf-8")
    return manifest


def prepare(folder: Path, *, phrases: int = 100) -> None:
    """Phrases to train on, others to choose the weights by, others to be scored on, and the model."""
    recordings(folder, "train", phrases, seed=1)
    recordings(folder, "dev", 12, seed=2)
    recordings(folder, "test", 24, seed=3)
    shutil.copytree(BASE, folder / "base", ignore=shutil.ignore_patterns("*.md"))
    (folder / "run.toml").write_text(RUN, "utf-8")


def run(folder: Path) -> dict[str, Any]:
    """Fine-tune, compare with the model before, by the commands that a user gives.

    Returns:
        ``before`` and ``after``, word error rates on held-out recordings as ``rechka evaluate`` has them; ``verdict``,
        its own; ``model``, the new model's folder; ``recording`` and ``text``, something to ask it.
    """
    prepare(folder)
    out, test = folder / "higher", folder / "test.jsonl"
    command("finetune", "--config", folder / "run.toml", "--out", out, "--threads", 1)
    found = json.loads(command("evaluate", folder / "base", out, test, "--threads", 1, "--json"))
    (before, after), (pair,) = found["runs"], found["comparisons"]
    last = json.loads(test.read_text("utf-8").splitlines()[-1])
    return {
        "before": before["score"]["wer"], "after": after["score"]["wer"], "verdict": pair["verdict"], "model": str(out),
        "recording": str(folder / last["audio_filepath"]), "text": last["text"],
    }  # fmt: skip


def command(*words: object) -> str:
    """Show and give a command; its output."""
    texts = [str(word) for word in words]
    print("$ rechka", *texts, flush=True)
    output = io.StringIO()
    with redirect_stdout(output):
        code = main(texts)
    if code:
        raise SystemExit(code)
    return output.getvalue()


def make_base(folder: Path, **optim: Any) -> None:
    """A tiny T-one with random weights, trained on the tone language; some minutes."""
    import torch
    from safetensors.torch import save_file

    from rechka.nn.tone import Tone
    from rechka.nn.tone_config import ToneConfig

    torch.manual_seed(1)
    torch.set_num_threads(1)
    config = ToneConfig(
        n_layers=3, d_model=32, n_heads=2, ff_expansion_factor=2, rope_dim=8, conv_kernel_size=5, conv_channels=(4, 8),
        conv_kernels=((3, 33), (5, 17)), mhsa_stateless_layers=2, recompute_scores=(True, True, True),
        reduction_position=0, upsample_position=1, dropout=0.0, dropout_att=0.0,
    )  # fmt: skip
    (folder / "random").mkdir(parents=True)
    save_file(Tone(config).state_dict(), folder / "random" / "model.safetensors")
    (folder / "random" / "config.json").write_text(json.dumps(config.to_dict()), "utf-8")
    run = {
        "model": str(folder / "random"), "data": {"train": [str(recordings(folder, "all", 600, 4, higher=1.0))]},
        "dev": [{"name": "dev", "sources": [str(recordings(folder, "few", 16, 5, higher=1.0))]}],
        "optim": {"steps": 400, "rate": 4e-3, "batch_seconds": 20.0, "layer_decay": 1.0, "weight_decay": 0.0,
                  "ema": 0.99, "evals": 4, "patience": 0, "freeze_norms": False, **optim}, **PLAIN,
    }  # fmt: skip
    finetune(FinetuneConfig.from_dict(run), folder / "trained", tell=print)


if __name__ == "__main__":
    make_base(Path(sys.argv[1]))
