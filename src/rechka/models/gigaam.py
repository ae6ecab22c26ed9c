"""The GigaAM family on ONNX Runtime: CTC, RNN-T, embeddings and emotion, of v1, v2, v3 and multilingual.

Whole phrases at 16 kHz in, one frame per 40 ms out. Features in NumPy (``rechka.features.gigaam``); the graphs may be
our own export or those that the community uses (``gigaam_graphs``). What a phrase gets does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rechka.backends import open_backend
from rechka.backends.onnx_file import summarise
from rechka.errors import AudioTooLong, BadCard, BadModelFile, BadSamples, IncompatibleParts
from rechka.features.gigaam import HOP, SAMPLE_RATE, LogMel, log_mel, read_log_mel
from rechka.models.gigaam_graphs import EncoderGraph, LstmTransducer, encoded_frames, front_of
from rechka.models.token_table import read_tokens
from rechka.protocols import Backend
from rechka.types import F32, Encoded, Frames, LogProbs, ModelSpec, State, Tokens

LETTERS = Tokens((*" абвгдежзийклмнопрстуфхцчшщъыьэюя", ""), blank=33)
"""Vocabulary of the character models of v1, v2 and v3: space, letters without ё, blank."""
FRAME = 4 * HOP
"""Samples per output frame: 40 ms."""
MAX_SAMPLES = 5000 * FRAME - HOP
"""The position tables of the graphs end at 5000 frames: 200 s."""
LARGEST = 8.0
"""Samples beyond this are taken for integers that were not scaled: the features are not normalised, so gain matters."""
EMOTIONS = ("angry", "sad", "neutral", "positive")
_PIECE, _CONTEXT = 600, 32
"""Frames of one piece of a long recording, 24 s, and frames around it that are computed for context only."""

_ROLES = {"ctc": ("model",), "rnnt": ("encoder", "decoder", "joiner"), "ssl": ("encoder",), "emo": ("model",)}
_PARAMS = frozenset({"task", "n_fft", "hop", "center", "max_symbols", "words", "labels"})


class _Ear:
    """Samples to features: what all tasks begin with."""

    def __init__(self, graph: EncoderGraph, front: LogMel) -> None:
        self.graph = graph
        self.front = front

    def features(self, audio: Sequence[F32]) -> list[F32]:
        """(T, 64) log-mel features of each phrase (n,) in [-1, 1]; one that is too short is followed by silence.

        Raises:
            BadSamples: another shape, or values that are no audio in [-1, 1].
            AudioTooLong: more than 200 s in one phrase.
        """
        return [self.front(self._checked(samples)) for samples in audio]

    def _checked(self, samples: F32) -> F32:
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1:
            raise BadSamples(f"a phrase must be mono, shape (n,), got shape {samples.shape}")
        if len(samples) > MAX_SAMPLES:
            raise AudioTooLong(
                f"GigaAM reads at most {MAX_SAMPLES / SAMPLE_RATE:.0f} s at once, "
                f"got {len(samples) / SAMPLE_RATE:.1f} s",
                remedy="let transcribe() cut it into phrases",
            )
        peak = float(np.abs(samples).max()) if len(samples) else 0.0
        if not peak <= LARGEST:  # also true for NaN
            raise BadSamples(
                f"samples must lie in [-1, 1], got a value of magnitude {peak:g}",
                remedy="divide 16-bit samples by 32768",
            )
        return np.pad(samples, (0, max(0, self.front.shortest - len(samples))))


class GigaAm(_Ear):
    """GigaAM as an ``AcousticModel``: CTC (``LogProbs``), RNN-T and the bare encoder (``Encoded``).

    Args:
        graph: the encoder, with the head of a CTC model.
        front: features.
        tokens: vocabulary; None for the bare encoder.
        transducer: predictor and joiner of an RNN-T.
    """

    def __init__(
        self, graph: EncoderGraph, front: LogMel, tokens: Tokens | None, transducer: LstmTransducer | None = None
    ) -> None:
        super().__init__(graph, front)
        self.transducer = transducer
        emits = LogProbs if graph.task == "ctc" else Encoded
        self.spec = ModelSpec(SAMPLE_RATE, FRAME, None, None, 0, 0, MAX_SAMPLES, tokens, emits)

    def initial_state(self) -> State:
        """Nothing heard: frames so far."""
        return 0

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """Frames of whole phrases; see ``rechka.protocols.AcousticModel``.

        Raises:
            BadSamples, AudioTooLong: see ``features``.
            BadModelFile: a graph whose outputs do not fit the vocabulary.
        """
        frames: list[Frames] = []
        for values, start in zip(self.graph(self.features(audio)), states, strict=True):
            if self.spec.emits is LogProbs and values.shape[1] != len(self.spec.tokens or ()):
                raise BadModelFile(
                    f"the graph gives {values.shape[1]} classes, the vocabulary has {len(self.spec.tokens or ())}",
                    remedy="the token file belongs to another model",
                )
            frames.append(self.spec.emits(values, start))
        return frames, [start + len(piece) for start, piece in zip(states, frames, strict=True)]

    def embed(self, audio: F32, /) -> F32:
        """(T, D) frames of the last encoder layer, one per 40 ms, for audio (n,) of any length.

        More than 30 s is computed in pieces of 24 s, each with 1.3 s of context on both sides.

        Raises:
            IncompatibleParts: a CTC graph, which gives log-probs only.
            BadSamples: see ``features``.
        """
        if self.spec.emits is not Encoded:
            raise IncompatibleParts("a CTC graph gives log-probs only", remedy="take the ssl or an rnnt model")
        samples = np.asarray(audio, np.float32)
        total = encoded_frames(self.front.num_frames(max(len(samples), self.front.shortest)))
        if total <= _PIECE + 4 * _CONTEXT:
            return self.graph(self.features([samples]))[0]
        parts = []
        for first in range(0, total, _PIECE):
            begin, end = max(0, first - _CONTEXT), min(total, first + _PIECE + _CONTEXT)
            stop = len(samples) if end == total else end * FRAME + self.front.n_fft
            values = self.graph(self.features([samples[begin * FRAME : stop]]))[0]
            parts.append(values[first - begin : min(first + _PIECE, total) - begin])
        return np.concatenate(parts)


class GigaAmEmotion(_Ear):
    """GigaAM's emotion classifier: no text, but the probability of each emotion.

    Args:
        graph: features to class probabilities.
        front: features.
        names: of the classes, in the graph's order.
    """

    def __init__(self, graph: EncoderGraph, front: LogMel, names: Sequence[str] = EMOTIONS) -> None:
        super().__init__(graph, front)
        self.names = tuple(names)
        self.spec = ModelSpec(SAMPLE_RATE, FRAME, None, None, 0, 0, MAX_SAMPLES, None, Encoded)

    def labels(self, audio: Sequence[F32], /) -> list[dict[str, Any]]:
        """``{"emotion": {name: probability}}`` for each phrase; see ``rechka.protocols.Labeller``.

        More than 30 s is taken in pieces of 24 s, whose probabilities are averaged by their length.

        Raises:
            BadSamples: see ``features``.
            BadModelFile: another number of classes than names.
        """
        pieces = [_pieces(samples) for samples in audio]
        found = iter(self.graph(self.features([piece for group in pieces for piece in group])))
        results = []
        for group in pieces:
            values = np.average([next(found) for _ in group], axis=0, weights=[max(1, len(piece)) for piece in group])
            if values.shape != (len(self.names),):
                raise BadModelFile(f"the graph gives {values.shape} probabilities for {len(self.names)} labels")
            results.append({"emotion": {name: float(p) for name, p in zip(self.names, values, strict=True)}})
        return results


def _pieces(samples: F32) -> list[F32]:
    """The samples, or pieces of them if they are long."""
    if len(samples) <= (_PIECE + 4 * _CONTEXT) * FRAME:
        return [samples]
    return np.array_split(samples, -(-len(samples) // (_PIECE * FRAME)))


def load(
    files: Mapping[str, Path], params: Mapping[str, Any], *, device: str = "cpu", threads: int | None = None
) -> GigaAm | GigaAmEmotion:
    """The model of a card.

    Args:
        files: ``model`` (ctc, emo), ``encoder`` (ssl), or ``encoder``, ``decoder`` and ``joiner`` (rnnt); ``tokens``
            unless the vocabulary is that of the character models; ``frontend`` with the checkpoint's tables.
        params: ``task``; ``n_fft``, ``hop`` and ``center`` of the features, told from the weights if absent;
            ``max_symbols``; ``words`` (``"chars"`` or ``"pieces"``), told from the tokens if absent; ``labels`` (emo).
    Raises:
        BadCard: a role that is missing, a parameter that is unknown or wrong.
        BadModelFile: files that are not what their roles say.
    """
    task = _one_of(params, "task", tuple(_ROLES))
    missing = [role for role in _ROLES[task] if role not in files]
    if missing:
        raise BadCard(
            f"a {task} model of the family 'gigaam' needs the file role {' and '.join(map(repr, missing))}",
            remedy="name it in the card, and put the file there",
        )
    if unknown := sorted(set(params) - _PARAMS):
        raise BadCard(
            f"the family 'gigaam' has no parameter {', '.join(unknown)}",
            remedy=f"it knows {', '.join(sorted(_PARAMS))}",
        )

    def backend(role: str) -> Backend:
        return open_backend(files, role, device=device, threads=threads)

    front = _front(files, params, files[_ROLES[task][0]])
    graph = EncoderGraph(backend(_ROLES[task][0]), task)
    if task == "emo":
        return GigaAmEmotion(graph, front, _labels(params))
    if task == "ssl":
        return GigaAm(graph, front, None)
    pieces = {"chars": False, "pieces": True}.get(_one_of(params, "words", ("chars", "pieces"), ""))
    tokens = read_tokens(files["tokens"], pieces=pieces) if "tokens" in files else LETTERS
    if task == "ctc":
        return GigaAm(graph, front, tokens)
    limit = params.get("max_symbols", 10)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 100:
        raise BadCard(f"max_symbols must be a whole number from 1 to 100, got {limit!r}")
    return GigaAm(graph, front, tokens, LstmTransducer(backend("decoder"), backend("joiner"), tokens, limit))


def _front(files: Mapping[str, Path], params: Mapping[str, Any], graph: Path) -> LogMel:
    center = params.get("center")
    if center is None and "n_fft" not in params:
        center = front_of(summarise(graph).weights)
        if center is None:
            raise BadCard(
                f"neither the card nor {graph.name} tells which features the model reads",
                remedy="set n_fft = 400 and center = true (v1, v2), or n_fft = 320 and center = false (v3) in [params]",
            )
    n_fft, hop = params.get("n_fft", 400 if center else 320), params.get("hop", HOP)
    center = n_fft == 400 if center is None else center
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (n_fft, hop))
    if not numbers or not isinstance(center, bool) or not 64 <= n_fft <= 4096 or hop != HOP:
        raise BadCard(f"features need n_fft from 64 to 4096, hop 160 and center true or false, got {dict(params)}")
    if "frontend" not in files:
        return log_mel(n_fft, center=center, rounded=not center)
    front = read_log_mel(files["frontend"], center=center)
    if front.n_fft != n_fft:
        raise BadModelFile(f"{files['frontend']} has a window of {front.n_fft} samples, the card says {n_fft}")
    return front


def _labels(params: Mapping[str, Any]) -> Sequence[str]:
    names = params.get("labels", EMOTIONS)
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise BadCard(f"labels must be a list of names, got {names!r}")
    return names


def _one_of(params: Mapping[str, Any], key: str, allowed: Sequence[str], default: str | None = None) -> str:
    if default is not None and key not in params:
        return default
    value = params.get(key)
    if not isinstance(value, str) or value not in allowed:
        raise BadCard(f"{key} must be one of {', '.join(allowed)}, got {value!r}", remedy="set it in [params]")
    return value
