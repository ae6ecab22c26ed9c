"""Which weight of a language model serves an acoustic model best: one pass of the model, many of the search."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rechka.errors import DataError, IncompatibleParts
from rechka.evaluate import manifest as manifests
from rechka.evaluate.wer import Score, score
from rechka.options import DecoderOptions
from rechka.types import F32, LogProbs

if TYPE_CHECKING:
    from rechka.hub.registry import Entry
    from rechka.protocols import AcousticModel
    from rechka.recognizers import Asr

STEP_CHUNKS = 32
"""Chunks of one model call: bounds memory, not the result."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Error rates with one pair of weights."""

    alpha: float
    beta: float
    score: Score


def grid(
    asr: Asr,
    entry: Entry,
    manifest: str | Path,
    *,
    lm: str | Path | None = None,
    alphas: Sequence[float],
    betas: Sequence[float],
    limit: int,
) -> list[Tried]:
    """Error rates for every pair of weights, alphas outermost.

    Each recording is decoded as one phrase, so figures differ a little from those of ``transcribe``.

    Args:
        asr: the loaded model; emits log-probs.
        entry: the model's card and files.
        manifest: recordings with texts.
        lm: a language model file instead of the model's own.
        alphas, betas: weights to try.
        limit: recordings to use.
    Raises:
        IncompatibleParts: the model emits no log-probs, or there is no language model.
        DataError: no recordings.
    """
    from rechka.decoding import build_decoder
    from rechka.decoding.lm import load_lm

    file = entry.on_disk().get("lm") if lm is None else Path(lm)
    if file is None:
        raise IncompatibleParts(f"{asr.name} has no language model on disk", remedy="name one with --lm")
    words = load_lm(file)
    model: AcousticModel | None = getattr(asr.recognizer, "model", None)
    if model is None:
        raise _no_log_probs(asr)
    tokens = model.spec.tokens
    if tokens is None or model.spec.emits is not LogProbs:
        raise _no_log_probs(asr)
    records = list(itertools.islice(manifests.read(manifest, require_text=True), limit))
    if not records:
        raise DataError(f"{manifest} holds no records", remedy="give a manifest with recordings and texts")
    frames = [_log_probs(model, record.audio) for record in records]
    references = [record.text or "" for record in records]
    tried = []
    for alpha, beta in itertools.product(alphas, betas):
        options = DecoderOptions(**{**entry.card.decoder, "kind": "beam", "alpha": alpha, "beta": beta})
        decoder = build_decoder(tokens, options, lm=words)
        heard = []
        for item in frames:
            (beam,) = decoder.advance([decoder.begin()], [item])
            heard.append(tokens.text(decoder.best(beam).tokens))
        tried.append(Tried(alpha, beta, score(references, heard, resamples=200)))
    return tried


def _no_log_probs(asr: Asr) -> IncompatibleParts:
    return IncompatibleParts(f"{asr.name} emits no log-probs, so a word language model has nothing to weigh")


def _log_probs(model: AcousticModel, path: Path) -> LogProbs:
    """All log-probs of a recording, padded as a stream pads it."""
    from rechka.audio import open_source

    source = open_source(path, sample_rate=model.spec.sample_rate)
    samples = np.concatenate([np.zeros(0, np.float32), *(chunks[0].samples for chunks in source)])
    spec, state, parts = model.spec, model.initial_state(), []
    if spec.chunk is None:
        ((frames,), _) = model.step([samples], [state])
        assert isinstance(frames, LogProbs)
        return frames
    padded = np.concatenate([np.zeros(spec.pad, np.float32), samples, np.zeros(spec.pad + spec.chunk, np.float32)])
    for part in _steps(padded, spec.chunk, spec.shift or spec.chunk):
        (frames,), (state,) = model.step([part], [state])
        assert isinstance(frames, LogProbs)
        parts.append(frames.values)
    return LogProbs(np.concatenate(parts))


def _steps(samples: F32, chunk: int, shift: int) -> Iterator[F32]:
    """Whole steps of up to ``STEP_CHUNKS`` chunks; a rest shorter than a chunk is padding and falls away."""
    at = 0
    while at + chunk <= len(samples):
        number = min(STEP_CHUNKS, (len(samples) - at - chunk) // shift + 1)
        yield samples[at : at + chunk + (number - 1) * shift]
        at += number * shift
