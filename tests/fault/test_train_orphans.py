"""A training whose starting process is killed leaves no worker behind, and a folder holds one run at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch", reason="training needs torch")
from rechka.errors import UsageError
from rechka.train.config import TrainConfig
from rechka.train.loop import train

CONFIG = """
workers = 1
eval_every = 100000
[model]
dim = 16
heads = 2
slow_blocks = 1
[optim]
steps = 100000
[[data]]
name = "few"
manifests = ["{folder}/manifest.jsonl"]
"""

CHILD = """
import sys
from pathlib import Path
from rechka.train.config import TrainConfig
from rechka.train.loop import train
if __name__ == "__main__":
    train(TrainConfig.load(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def _alive(pid: int) -> bool:
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(stat.strip()) and not stat.startswith("Z")  # where nobody reaps orphans they stay as zombies


def _until(condition: object, seconds: float = 180.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_workers_leave_with_the_process_that_started_them(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    record = {"audio_filepath": "a.wav", "text": "один два", "speaker": "a"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(record) + "\n", "utf-8")
    config, out, script = tmp_path / "run.toml", tmp_path / "run", tmp_path / "child.py"
    config.write_text(CONFIG.format(folder=tmp_path.as_posix()), "utf-8")
    script.write_text(CHILD, "utf-8")
    parent = subprocess.Popen([sys.executable, str(script), str(config), str(out)])
    try:
        assert _until(lambda: (out / "log.jsonl").exists()), "the training did not start"
        with pytest.raises(UsageError, match="another training"):
            train(TrainConfig.load(config), out)
        listed = subprocess.run(["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=True).stdout
        children = [int(pid) for pid in listed.split()]
        assert children
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert _until(lambda: not any(_alive(pid) for pid in children), 20.0), "a worker went on alone"
