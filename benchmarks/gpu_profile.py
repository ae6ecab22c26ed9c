"""Where a run of T-one on a GPU spends its time: kernels by total time, for 1024 live streams.

python benchmarks/gpu_profile.py [KERNELS] [STREAMS]
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from rechka.backends.torch import TorchArena, find_device
from rechka.benchmark.gpu import random_weights
from rechka.nn.tone_config import ToneConfig

STEPS = 5


def main(kernels: str, streams: int) -> None:
    """Print the table of torch's profiler and the time of a step."""
    find_device("cuda")
    config = ToneConfig()
    tone = TorchArena(
        random_weights(config), config, device="cuda", kernels=kernels, slots=streams, runs={1: (streams,)}
    )
    noise = np.random.default_rng(0).standard_normal((streams, tone.chunk), np.float32)
    signal, slots = (3000 * noise).clip(-32767, 32767).astype(np.int16), list(range(streams))
    tone.run(slots, [0] * streams, signal)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for turn in range(STEPS):
            tone.run(slots, [turn + 1] * streams, signal)
    events = profile.key_averages()
    print(f"{kernels}, {streams} streams, {STEPS} steps")
    print(events.table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=90))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "fused", int(sys.argv[2]) if len(sys.argv) > 2 else 1024)
