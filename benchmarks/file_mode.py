"""How fast a recording goes through full-size T-one: our blocks against plain ONNX Runtime and against sherpa-onnx.

    python benchmarks/file_mode.py [--rounds 5] [--theirs PYTHON] [--json FILE]

All contestants run in one go on the same random weights, one thread each, in turns of a few seconds of audio, so that
whatever else the machine does hits all of them alike. CPU time of the process is measured, not wall time. Part of
``benchmarks/suite.py``.

sherpa-onnx runs in a process of its own (``--theirs``: a Python that has it). Needs ``rechka[train]``, 1.5 GB of
memory, 1 GB of disk for the time of the run.
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

import numpy as np
from record import Record, Row, finish, missing, versions

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


def sherpa(python: str, folder: Path) -> tuple[Turn, subprocess.Popen[str]]:
    """The contestant in its own process."""
    process = subprocess.Popen(
        [python, __file__, "--sherpa-worker", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise SystemExit("sherpa-onnx did not load the published form of T-one")
    stdin, stdout = process.stdin, process.stdout

    def turn(chunks: int) -> float:
        print(chunks, file=stdin, flush=True)
        seconds, decoded = json.loads(stdout.readline())
        return float(seconds) * chunks / decoded

    return turn, process


def drift(folder: Path, names: list[str], reference: object) -> dict[str, str]:
    """How far each file's log-probabilities are from torch's."""
    from rechka.export.verify import Drift, probe_signal, run_chunks

    signal = probe_signal(1, 20 * CHUNK)
    found = {}
    for name in names:
        out, _ = run_chunks(folder / f"{name}.onnx", signal, chunk=CHUNK)
        d = Drift.between(reference, out)  # type: ignore[arg-type]
        found[name] = f"drift {d.max_logprob:.1e} / {d.kl:.1e} / {100 * d.agreement:.0f} %"
    return found


PLAIN, SHERPA = "plain ONNX Runtime, batch 1", "sherpa-onnx"
FILES = {"same file": "published-fp16", "fp32 blocks": "block-fp32", "int8 blocks": "block-int8"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=20, help="chunks of 300 ms per turn")
    parser.add_argument("--theirs", default=sys.executable, help="a Python that has sherpa-onnx")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--sherpa-worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sherpa_worker:
        sherpa_worker(arguments.sherpa_worker)
        return 0
    record = Record("file", versions=versions(sys.executable, "onnxruntime", "numpy", "torch"))
    variants = [
        ("published-fp16", "published", "fp16"),
        ("block-fp32", "block", "fp32"),
        ("block-int8", "block", "int8"),
    ]
    why = missing(arguments.theirs, "sherpa_onnx")
    if why:
        record.skipped[SHERPA] = why
    else:
        record.versions |= versions(arguments.theirs, "sherpa-onnx")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = make_models(folder, variants)
        drifts = drift(folder, [name for name, *_ in variants], reference)
        turns = {PLAIN: plain(folder / "published-fp16.onnx")}
        turns |= {name: ours(folder / f"{file}.onnx") for name, file in FILES.items()}
        process = None
        if not why:
            turns[SHERPA], process = sherpa(arguments.theirs, folder)
        for turn in turns.values():
            turn(arguments.chunks)
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(arguments.rounds):
            for name, turn in turns.items():
                seconds[name].append(turn(arguments.chunks))
        if process is not None:
            process.communicate()
    length = arguments.chunks * CHUNK / SAMPLE_RATE
    for peer in (PLAIN, SHERPA)[: 1 if why else 2]:
        for name, file in FILES.items():
            record.rows.append(
                Row("T-one, a recording", peer, length, seconds[name], seconds[peer], drifts[file], f"rechka, {name}")
            )
    finish(record, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
