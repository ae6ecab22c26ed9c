"""One of three programs that run Whisper, as a process that ``whisper_parity.py`` gives recordings to.

    python benchmarks/whisper_worker.py rechka|faster-whisper|transformers FOLDER

Reads one JSON object a line from its standard input: ``audio`` (a .npy of float32 at 16 kHz), ``suppress`` (token
ids) and what to do: ``packed``, ``stamps``, ``beam``, ``words``, ``guards``, ``previous``. Writes one a line: ``cpu``
seconds and ``segments`` as (start, end, text, words as (start, end)). All three are asked for the same search.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 16000
WINDOW = 30 * RATE
NGRAM = 3
"""No run of so many tokens may come twice, so that random weights come to an end of their text."""

Engine = Callable[[Any, dict[str, Any]], list[Any]]


def rechka(folder: str) -> Engine:
    """Ours; without ``guards`` it does what the others do."""
    from rechka.hub.load import load

    asr: Any = load(folder, threads=1)
    plain = {
        "temperatures": (0.0,), "max_compression": 1e9, "min_logprob": -1e9, "max_no_speech": 1.0, "max_words_s": 1e9,
        "look_again": False,
    }  # fmt: skip

    def run(audio: Any, job: dict[str, Any]) -> list[Any]:
        options = {
            "language": "ru", "mode": "packed" if job["packed"] else "sequential", "stamps": job["stamps"],
            "vad": "silero" if job["packed"] else "none", "beam_size": job["beam"], "word_times": job["words"],
            "use_previous": job["previous"], "no_repeat_ngram": NGRAM, "suppress": tuple(job["suppress"]),
            **({"temperatures": (0.0,)} if job["guards"] else plain),
        }  # fmt: skip
        found = asr.with_options(**options).transcribe((audio, RATE))
        return [(s.start, s.end, s.text, [(w.start, w.end) for w in s.words]) for s in found.segments]

    return run


def faster_whisper(folder: str) -> Engine:
    """faster-whisper; its batched pipeline for ``packed``."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="default", cpu_threads=1, num_workers=1)
    batched = BatchedInferencePipeline(model)

    def run(audio: Any, job: dict[str, Any]) -> list[Any]:
        options = {
            "language": "ru", "beam_size": job["beam"], "temperature": 0.0, "compression_ratio_threshold": None,
            "log_prob_threshold": None, "no_speech_threshold": None, "no_repeat_ngram_size": NGRAM,
            "suppress_tokens": job["suppress"], "without_timestamps": not job["stamps"],
            "word_timestamps": job["words"],
        }  # fmt: skip
        if job["packed"]:
            found, _ = batched.transcribe(audio, batch_size=8, **options)
        else:
            found, _ = model.transcribe(audio, condition_on_previous_text=job["previous"], **options)
        return [(s.start, s.end, " ".join(s.text.split()), [(w.start, w.end) for w in s.words or []]) for s in found]

    return run


def transformers(folder: str) -> Engine:
    """transformers; without stamps it has no way beyond 30 seconds, so it gets window after window."""
    import torch
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.set_num_threads(1)
    model: Any = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
    extractor = WhisperFeatureExtractor()
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    end = model.config.eos_token_id

    def generate(audio: Any, job: dict[str, Any]) -> Any:
        long = len(audio) > WINDOW
        more = {"truncation": False, "padding": "longest"} if long else {}
        inputs = extractor(audio, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **more)
        with torch.no_grad():
            return model.generate(
                inputs.input_features, attention_mask=inputs.attention_mask, language="ru", task="transcribe",
                num_beams=job["beam"], do_sample=False, return_timestamps=job["stamps"], return_segments=job["stamps"],
                no_repeat_ngram_size=NGRAM, suppress_tokens=job["suppress"],
                condition_on_prev_tokens=job["previous"], max_new_tokens=224,
            )  # fmt: skip

    def text(tokens: Any) -> str:
        return " ".join(tokenizer.decode([int(t) for t in tokens if t < end], skip_special_tokens=False).split())

    def run(audio: Any, job: dict[str, Any]) -> list[Any]:
        if job["stamps"]:
            found = generate(audio, job)["segments"][0]
            return [(float(s["start"]), float(s["end"]), text(s["tokens"]), []) for s in found]
        pieces = [audio[first : first + WINDOW] for first in range(0, len(audio), WINDOW)]
        return [
            (30.0 * i, 30.0 * (i + 1), text(generate(piece, job)[0].tolist()), []) for i, piece in enumerate(pieces)
        ]

    return run


def main() -> None:
    """Answers until the input ends."""
    name, folder = sys.argv[1:]
    engine = {"rechka": rechka, "faster-whisper": faster_whisper, "transformers": transformers}[name](folder)
    for line in sys.stdin:
        job = json.loads(line)
        audio = np.load(job["audio"])
        begin = time.process_time()
        segments = engine(audio, job)
        print(json.dumps({"cpu": time.process_time() - begin, "segments": segments}), flush=True)


if __name__ == "__main__":
    main()
