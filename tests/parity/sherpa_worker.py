"""Runs sherpa-onnx in a process of its own, since it brings another ONNX Runtime: jobs as JSON in, results as JSON out.

A job: ``kind`` (offline, online, t_one, nemo_ctc), ``folder``, ``method`` of the search, ``audio`` (paths of .npy
files), ``rate``. A result: one ``{"tokens", "timestamps", "text"}`` per audio.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sherpa_onnx


def main() -> None:
    """All jobs of standard input."""
    results = [run(**job) for job in json.load(sys.stdin)]
    print("RESULT" + json.dumps(results))


def run(kind: str, folder: str, audio: list[str], method: str = "greedy_search", rate: int = 16000) -> list[Any]:
    """One job."""
    root = Path(folder)
    samples = [np.load(path) for path in audio]
    parts = {role: str(root / f"{role}.onnx") for role in ("encoder", "decoder", "joiner")}
    common = {"tokens": str(root / "tokens.txt"), "num_threads": 1}
    if kind == "offline":
        search = {"decoding_method": method, "max_active_paths": 4}
        return offline(sherpa_onnx.OfflineRecognizer.from_transducer(**parts, **common, **search), samples, rate)
    if kind == "nemo_ctc":
        return offline(
            sherpa_onnx.OfflineRecognizer.from_nemo_ctc(model=str(root / "model.onnx"), **common), samples, rate
        )
    if kind == "t_one":
        return online(
            sherpa_onnx.OnlineRecognizer.from_t_one_ctc(model=str(root / "model.onnx"), **common), samples, rate
        )
    search = {"decoding_method": method, "max_active_paths": 4}
    return online(sherpa_onnx.OnlineRecognizer.from_transducer(**parts, **common, **search), samples, rate)


def offline(recognizer: Any, samples: list[Any], rate: int) -> list[Any]:
    """Phrase by phrase: together they would be padded, which changes them."""
    results = []
    for values in samples:
        stream = recognizer.create_stream()
        stream.accept_waveform(rate, values)
        recognizer.decode_stream(stream)
        results.append(told(stream.result))
    return results


def online(recognizer: Any, samples: list[Any], rate: int) -> list[Any]:
    """All streams side by side, as far as their audio reaches."""
    streams = []
    for values in samples:
        stream = recognizer.create_stream()
        stream.accept_waveform(rate, values)
        stream.input_finished()
        streams.append(stream)
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.decode_streams(ready)
    return [told(recognizer.get_result_all(stream)) for stream in streams]


def told(result: Any) -> dict[str, Any]:
    """A result as plain values."""
    return {"tokens": list(result.tokens), "timestamps": list(result.timestamps), "text": result.text}


if __name__ == "__main__":
    main()
