"""How fast a recording goes through full-size T-one: our blocks against plain ONNX Runtime and against sherpa-onnx.

    python benchmarks/file_mode.py [--rounds 5] [--sherpa-python PATH]

All contestants run in one go on the same random weights, one thread each, in turns of a few seconds of audio, so that
whatever else the machine does hits all of them alike. CPU time of the process is measured, not wall time. Ratios are
taken within a round, against plain ONNX Runtime in the same round; the table shows their median and range, and says so
where we lose.

sherpa-onnx runs in a process of its own (``pip install sherpa-onnx`` into this environment or another one); without it,
its row says that it was not measured. Needs ``rechka[train]``, 1.5 GB of memory, 1 GB of disk for the time of the run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

CHUNK = 2400
SAMPLE_RATE = 8000
SEED = 777
Turn = Callable[[int], float]
"""Processes so many chunks and returns the CPU seconds that took."""


def make_models(folder: Path, variants: list[tuple[str, str, str]]) -> object:
    """Write the graphs; (name, form, precision) each. Returns the log-probabilities of torch on the probe signal."""
    import torch

    from rechka.export import tone
    from rechka.export.verify import probe_signal
    from rechka.nn.tone import Tone
    from rechka.nn.tone_config import ToneConfig
    from rechka.nn.weights import recipe_weights

    torch.set_num_threads(1)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Tone().state_dict().items()}
    weights = recipe_weights(shapes, SEED)
    for name, form, precision in variants:
        state = "float16" if form == "published" else "float32"
        model = tone.build(weights, ToneConfig(), form=form, precision=precision, state=state)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    (folder / "tokens.txt").write_text(tone.tokens_text(), encoding="utf-8")
    module = Tone().eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, assign=True)
    with torch.no_grad():
        signal = torch.from_numpy(probe_signal(1, 20 * CHUNK)).float() / 32767
        return module.step(signal, module.initial_state())[0].numpy()


def audio(chunks: int) -> np.ndarray:
    """The same float32 noise for everybody."""
    return (0.1 * np.random.default_rng(0).standard_normal(chunks * CHUNK)).clip(-1, 1).astype(np.float32)


def plain(path: Path) -> Turn:
    """ONNX Runtime as its documentation shows it, but with one thread: a chunk per run, the state handed back."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[1].shape[1]

    def turn(chunks: int) -> float:
        signal = np.rint(audio(chunks) * 32767).astype(np.int32)
        state = np.zeros((1, size), np.float16)
        start = time.process_time()
        for i in range(chunks):
            feeds = {"signal": signal[None, i * CHUNK : (i + 1) * CHUNK, None], "state": state}
            _, state = session.run(["logprobs", "state_next"], feeds)
        return time.process_time() - start

    return turn


def ours(path: Path) -> Turn:
    """``rechka.models.tone`` as recognisers call it: float audio in, log-probabilities and a state out."""
    from rechka.models.tone import load

    model = load({"model": path}, {}, threads=1)

    def turn(chunks: int) -> float:
        samples = audio(chunks)
        start = time.process_time()
        model.step([samples], [model.initial_state()])
        return time.process_time() - start

    return turn


def sherpa_worker(folder: Path) -> None:
    """The other process: for every number of chunks on stdin, the CPU seconds on stdout."""
    import sherpa_onnx

    recognizer = sherpa_onnx.OnlineRecognizer.from_t_one_ctc(
        tokens=str(folder / "tokens.txt"), model=str(folder / "published-fp16.onnx"), num_threads=1
    )
    print("ready", flush=True)
    for line in sys.stdin:
        # It decodes one chunk less than it was given, so it is given one more.
        samples = audio(int(line) + 1)
        stream = recognizer.create_stream()
        start = time.process_time()
        stream.accept_waveform(SAMPLE_RATE, samples)
        decoded = 0
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
            decoded += 1
        print(json.dumps([time.process_time() - start, decoded]), flush=True)


def sherpa(python: str, folder: Path) -> tuple[Turn | None, str]:
    """The contestant in its own process, or why there is none."""
    process = subprocess.Popen(
        [python, __file__, "--sherpa-worker", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline().strip() != "ready":
        errors = process.communicate()[1].strip().splitlines()
        return None, errors[-1] if errors else "it ended without a word"
    stdin, stdout = process.stdin, process.stdout

    def turn(chunks: int) -> float:
        print(chunks, file=stdin, flush=True)
        seconds, decoded = json.loads(stdout.readline())
        return float(seconds) * chunks / decoded

    return turn, ""


def drift(folder: Path, names: list[str], reference: object) -> dict[str, str]:
    """How far each file's log-probabilities are from torch's."""
    from rechka.export.verify import Drift, probe_signal, run_chunks

    signal = probe_signal(1, 20 * CHUNK)
    found = {}
    for name in names:
        out, _ = run_chunks(folder / f"{name}.onnx", signal, chunk=CHUNK)
        d = Drift.between(reference, out)  # type: ignore[arg-type]
        found[name] = f"{d.max_logprob:.1e} / {d.kl:.1e} / {100 * d.agreement:.0f} %"
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=20, help="chunks of 300 ms per turn")
    parser.add_argument("--sherpa-python", default=sys.executable, help="a Python that has sherpa-onnx")
    parser.add_argument("--no-drift", action="store_true", help="skip the comparison with torch")
    parser.add_argument("--sherpa-worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sherpa_worker:
        sherpa_worker(arguments.sherpa_worker)
        return 0
    variants = [
        ("published-fp16", "published", "fp16"),
        ("block-fp32", "block", "fp32"),
        ("block-int8", "block", "int8"),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = make_models(folder, variants)
        drifts = {} if arguments.no_drift else drift(folder, [name for name, *_ in variants], reference)
        turns: dict[str, Turn] = {
            "plain ONNX Runtime, chunk by chunk": plain(folder / "published-fp16.onnx"),
            "rechka, same file": ours(folder / "published-fp16.onnx"),
            "rechka, fp32 blocks": ours(folder / "block-fp32.onnx"),
            "rechka, int8 blocks": ours(folder / "block-int8.onnx"),
        }
        files = dict(zip(turns, ["published-fp16", "published-fp16", "block-fp32", "block-int8"], strict=True))
        other, why_not = sherpa(arguments.sherpa_python, folder)
        if other is not None:
            turns["sherpa-onnx, same file"] = other
            files["sherpa-onnx, same file"] = "published-fp16"
        for turn in turns.values():
            turn(arguments.chunks)
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(arguments.rounds):
            for name, turn in turns.items():
                seconds[name].append(turn(arguments.chunks))
    length = arguments.chunks * CHUNK / SAMPLE_RATE
    base = seconds["plain ONNX Runtime, chunk by chunk"]
    print(
        f"T-one, {length:g} s of audio per turn, {arguments.rounds} rounds, one thread, CPU time, random weights\n\n"
        "| contestant | audio s per CPU s | ratio to plain, median (range) | drift: max log-prob / KL / same best |\n"
        "|---|---|---|---|"
    )
    for name, values in seconds.items():
        ratios = [b / v for b, v in zip(base, values, strict=True)]
        mark = " **slower**" if median(ratios) < 1 and name.startswith("rechka") else ""
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}){mark}"
        print(f"| {name} | {length / median(values):.1f} | {spread} | {drifts.get(files[name], '')} |")
    if other is None:
        print(f"| sherpa-onnx | not measured: {why_not} | | |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
