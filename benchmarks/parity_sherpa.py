"""The same models in rechka and in sherpa-onnx: is the text equal, and what does it cost?

    python benchmarks/parity_sherpa.py [--rounds 5] [--theirs PYTHON] [--json FILE]

Models have random weights in the exact layout that is published, so the text is noise, and a difference of one token is
a difference. Both programs get the same files, the same float32 audio and one thread; the clock is the CPU time of the
process, from samples to text, features included. Turns are taken in one run, one after the other, so that whatever else
the machine does hits both. Part of ``benchmarks/suite.py``, which writes docs/parity.md from it.

sherpa-onnx runs in a process of its own (``--theirs``: a Python that has it). Needs ``rechka[train]``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from record import Record, Row, finish, missing, versions

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table.

    Attributes:
        name: what is measured.
        kind: of ``turn_of`` and of the worker.
        folder: of the model, relative to the work folder.
        method: of the search, in sherpa-onnx's words.
        streams: decoded side by side.
        seconds: of audio per stream.
        rate: samples per second.
    """

    name: str
    kind: str
    folder: str
    method: str = "greedy_search"
    streams: int = 1
    seconds: float = 12.0
    rate: int = 16000


WHOLE = ("offline", "nemo_ctc")
"""Kinds that read whole phrases."""
BEAM = "modified_beam_search"
CASES = [
    Case("zipformer, streaming", "online", "online"),
    Case("zipformer, streaming, 8 streams", "online", "online", streams=8, seconds=6.0),
    Case("zipformer, streaming, modified beam search", "online", "online", BEAM),
    Case("zipformer, offline", "offline", "offline"),
    Case("zipformer, offline, modified beam search", "offline", "offline", BEAM),
    Case("GigaAM v2 CTC, 4 of its 16 layers", "nemo_ctc", "gigaam"),
    Case("T-one, greedy", "t_one", "tone", rate=8000, seconds=6.0),
    Case("T-one, greedy, 8 streams", "t_one", "tone", rate=8000, seconds=6.0, streams=8),
]


def audio(case: Case) -> list[Any]:
    """A tone that goes up and down in loudness and pitch, in noise, for every stream."""
    time_ = np.arange(round(case.seconds * case.rate)) / case.rate
    swept = 0.3 * np.abs(np.sin(2 * np.pi * 1.3 * time_)) * np.sin(2 * np.pi * (300 + 200 * np.sin(3 * time_)) * time_)
    return [
        (swept + 0.05 * np.random.default_rng(seed).standard_normal(len(time_))).astype(np.float32)
        for seed in range(case.streams)
    ]


def make_models(folder: Path) -> None:
    """Transducers of the size of Vosk's (20 and 65 million weights), T-one at full size, a quarter of GigaAM."""
    make_transducers(folder)
    make_gigaam(folder)
    make_tone(folder)


def make_transducers(folder: Path) -> None:
    """About six tokens a second. The card makes one phrase of all frames, as sherpa-onnx decodes here."""
    from dataclasses import replace

    from rechka.hub.layouts import recognise
    from rechka.testing.transducers import write_transducer

    write_transducer(folder / "online", "zipformer2", width=384, depth=17, layers=16, left=64, blank=28.0)
    write_transducer(folder / "offline", "offline", width=512, depth=31, blank=18.0)
    card = recognise(folder / "online")
    assert card is not None
    card = replace(card, segmenter={"min_silence_s": 100.0, "expand_s": 100.0, "max_phrase_s": 1000.0})
    (folder / "online" / "card.toml").write_text(card.to_toml(), encoding="utf-8")


def make_gigaam(folder: Path) -> None:
    """A checkpoint with random weights, through ``rechka models convert``."""
    import torch
    from safetensors.numpy import save_file

    from rechka.cli.main import main as rechka_main
    from rechka.features.gigaam import log_mel
    from rechka.nn.gigaam import GigaAm
    from rechka.nn.gigaam_config import GigaAmConfig
    from rechka.nn.weights import recipe_weights

    published = json.loads((ROOT / "tests/data/gigaam/v2_ctc/config.json").read_text(encoding="utf-8"))
    published["encoder"] |= {"n_layers": 4, "d_model": 768, "n_heads": 16}
    published["head"] |= {"feat_in": 768}
    source = folder / "checkpoint"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(published), encoding="utf-8")
    with torch.device("meta"):
        shapes = {
            name: tuple(value.shape)
            for name, value in GigaAm(GigaAmConfig.from_published(published)).state_dict().items()
        }
    front = log_mel(400, center=True)
    tables = {"spectrogram.window": front.window, "mel_scale.fb": front.fb}
    weights = recipe_weights({name: shape for name, shape in shapes.items() if "featurizer" not in name}, 777)
    weights |= {f"preprocessor.featurizer.0.{name}": np.ascontiguousarray(value) for name, value in tables.items()}
    save_file(weights, source / "model.safetensors")
    if rechka_main(["models", "convert", str(source), "--out", str(folder / "gigaam")]):
        raise SystemExit("GigaAM was not converted")


def make_tone(folder: Path) -> None:
    """The published form, so that sherpa-onnx can read it."""
    import torch

    from rechka.export import tone
    from rechka.nn.tone import Tone
    from rechka.nn.tone_config import ToneConfig
    from rechka.nn.weights import recipe_weights

    torch.set_num_threads(1)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Tone().state_dict().items()}
    model = tone.build(recipe_weights(shapes, 777), ToneConfig(), form="published", precision="fp16", state="float16")
    (folder / "tone").mkdir()
    (folder / "tone" / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "tone" / "tokens.txt").write_text(tone.tokens_text(), encoding="utf-8")


Turn = Callable[[], "tuple[float, list[str]]"]


def ours(case: Case, root: Path) -> Turn:
    """From samples to text, as a caller of rechka gets it."""
    import rechka
    from rechka.options import DecoderOptions

    greedy = case.method == "greedy_search"
    options = DecoderOptions(
        kind="greedy" if greedy else "beam", beam_width=4, beam_prune_logp=-1e9, token_min_logp=-1e9, length_norm=True
    )
    asr = rechka.load(root / case.folder, threads=1, decoder=options)
    samples = audio(case)

    def whole() -> tuple[float, list[str]]:
        start = time.process_time()
        segments = asr.recognizer.read(samples[:1])  # type: ignore[attr-defined]
        return time.process_time() - start, [segment.text for segment in segments]

    def streams() -> tuple[float, list[str]]:
        start = time.process_time()
        opened = [asr.recognizer.open(partials=False, limit_s=None) for _ in samples]
        for stream, values in zip(opened, samples, strict=True):
            stream.feed(values, case.rate)
            stream.finish()
        asr.recognizer.run(opened)
        events = [[e for e in stream.take() if isinstance(e, rechka.Final)] for stream in opened]
        return time.process_time() - start, [" ".join(event.segment.text for event in found) for found in events]

    return whole if case.kind in WHOLE else streams


def tail(case: Case, samples: int) -> int:
    """Silence that makes sherpa-onnx decode as many chunks as we do: it leaves out the last of a stream."""
    if case.kind in WHOLE:
        return 0
    if case.kind == "t_one":
        chunk, before = 2400, 2400
        chunks = -(-(samples + 2 * before + 240) // chunk)  # padding on both sides, or the lag where that is longer
        return (chunks + 1) * chunk - before - samples
    shift, length, behind = 32, 45, 5120
    chunks = -(-(samples + behind) // (shift * 160))
    return ((chunks - 1) * shift + length + 1) * 160 - samples


def worker(root: Path) -> None:
    """The other process: for every number of a case on stdin, CPU seconds and texts on stdout."""
    import sherpa_onnx

    print(json.dumps("ready"), flush=True)
    recognizers: dict[tuple[str, str], Any] = {}
    for line in sys.stdin:
        case = CASES[int(line)]
        key = case.folder, case.method
        if key not in recognizers:
            recognizers[key] = recognizer(sherpa_onnx, case, root / case.folder)
        model = recognizers[key]
        before = np.zeros(2400 if case.kind == "t_one" else 0, np.float32)
        samples = [np.concatenate([before, x, np.zeros(tail(case, len(x)), np.float32)]) for x in audio(case)]
        start = time.process_time()
        streams = [model.create_stream() for _ in samples]
        for stream, values in zip(streams, samples, strict=True):
            stream.accept_waveform(case.rate, values)
        if case.kind in WHOLE:
            model.decode_streams(streams)
            texts = [stream.result.text for stream in streams]
        else:
            for stream in streams:
                stream.input_finished()
            while ready := [stream for stream in streams if model.is_ready(stream)]:
                model.decode_streams(ready)
            texts = [model.get_result(stream) for stream in streams]
        print(json.dumps([time.process_time() - start, texts]), flush=True)


def recognizer(sherpa_onnx: Any, case: Case, folder: Path) -> Any:
    """sherpa-onnx's recogniser for a case."""
    common = {"tokens": str(folder / "tokens.txt"), "num_threads": 1}
    if case.kind == "nemo_ctc":
        return sherpa_onnx.OfflineRecognizer.from_nemo_ctc(model=str(folder / "model.onnx"), **common)
    if case.kind == "t_one":
        return sherpa_onnx.OnlineRecognizer.from_t_one_ctc(model=str(folder / "model.onnx"), **common)
    parts = {role: str(folder / f"{role}.onnx") for role in ("encoder", "decoder", "joiner")}
    search = {"decoding_method": case.method, "max_active_paths": 4}
    family = sherpa_onnx.OfflineRecognizer if case.kind == "offline" else sherpa_onnx.OnlineRecognizer
    return family.from_transducer(**parts, **common, **search)


class Sherpa:
    """The other process, seen from here."""

    def __init__(self, python: str, root: Path) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "--worker", str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def turn(self, index: int) -> tuple[float, list[str]]:
        """One turn of a case."""
        assert self.process.stdin is not None
        print(index, file=self.process.stdin, flush=True)
        seconds, texts = self._answer()
        return float(seconds), list(texts)

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("sherpa-onnx did not answer; is it installed for --theirs?")
        return json.loads(line)


def same(case: Case, root: Path, ours: list[str], theirs: list[str]) -> str:
    """How many of the texts are equal, spaces aside that sherpa-onnx leaves at the beginning."""
    letters = sum(len("".join(one.split())) for one in ours)
    equal = sum(a.split() == b.split() for a, b in zip(ours, theirs, strict=True))
    if equal == len(ours):
        return f"equal, {letters} letters"
    if case.kind == "nemo_ctc":
        again = heard_as_sherpa(root / case.folder, audio(case)[0])
        found = "equal" if again.split() == theirs[0].split() else "**other text**"
        return f"**other text** from other features; {found} from the same features, {len(again)} letters"
    return f"**{equal} of {len(ours)} equal**, {letters} letters"


def heard_as_sherpa(folder: Path, samples: Any) -> str:
    """GigaAM's text from the features that sherpa-onnx computes: pre-emphasis and 512 points, which GigaAM has not."""
    import kaldi_native_fbank as knf

    from rechka.decoding import CtcGreedy
    from rechka.hub.registry import find
    from rechka.models import gigaam
    from rechka.types import LogProbs

    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.remove_dc_offset = False
    options.frame_opts.window_type = "hann"
    options.mel_opts.num_bins = 64
    options.mel_opts.low_freq, options.mel_opts.high_freq = 0, 8000
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16000, samples.tolist())
    bank.input_finished()
    features = np.array([bank.get_frame(i) for i in range(bank.num_frames_ready)], np.float32)
    entry = find(folder)
    model: Any = gigaam.load(entry.on_disk(), entry.card.params, threads=1)
    (values,) = model.graph([features])
    decoder = CtcGreedy(model.spec.tokens)
    (beam,) = decoder.advance([decoder.begin()], [LogProbs(values[: len(features) // 4])])
    return str(model.spec.tokens.text(decoder.best(beam).tokens))


def measure(rounds: int, python: str) -> list[Row]:
    """All cases."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_models(root)
        other = Sherpa(python, root)
        for index, case in enumerate(CASES):
            turn = ours(case, root)
            (_, text), (_, theirs) = turn(), other.turn(index)
            pairs = [(turn()[0], other.turn(index)[0]) for _ in range(rounds)]
            detail = same(case, root, text, theirs)
            result = "equal text" if detail.startswith("equal") else "**other text**"
            length = case.seconds * case.streams
            own, others = zip(*pairs, strict=True)
            rows.append(Row(case.name, "sherpa-onnx", length, own, others, result, detail=detail))
            print(case.name, detail, rows[-1].ratios, file=sys.stderr, flush=True)
        other.process.terminate()
        other.process.wait()
    return rows


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--theirs", default=sys.executable, help="a Python that has sherpa-onnx")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return 0
    record = Record("sherpa", versions=versions(sys.executable, "onnxruntime", "numpy"))
    why = missing(arguments.theirs, "sherpa_onnx") or missing(sys.executable, "kaldi_native_fbank")
    if why:
        record.skipped["sherpa-onnx"] = why
    else:
        record.versions |= versions(arguments.theirs, "sherpa-onnx")
        record.rows = measure(arguments.rounds, arguments.theirs)
    finish(record, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
