"""GigaAM's ONNX graphs, whoever exported them: the encoder with its heads, and the RNN-T's predictor and joiner.

Inputs and outputs are bound by the names that the known exporters use; a graph with others is refused. Streams share
a run only where the graph gives each of them what it would get alone, which is tried before it is believed: exports
older than the masked subsampling let padding leak into the last frames, and 8-bit graphs scale a whole batch together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile
from rechka.features.gigaam import NUM_MELS
from rechka.protocols import Backend, PredictorState
from rechka.types import F32, Tokens

_INPUTS = (("features", "feature_lengths"), ("audio_signal", "length"))
"""Features and lengths: CTC and emotion graphs; encoders and NeMo's exports."""
_VALUES = {"ctc": ("log_probs", "logprobs"), "rnnt": ("encoded",), "ssl": ("encoded",), "emo": ("probs",)}
_LENGTHS = ("encoded_lengths", "encoded_len")
_PREDICTOR = ((("x", "hi", "ci"), ("dec", "ho", "co")), (("x", "h.1", "c.1"), ("dec", "h", "c")))
"""The reference's names; those of istupakov's and sherpa-onnx's exports."""
_UNUSED = "unused_x_len.1"
MAX_FRAMES = 12000
"""Feature frames of one run, padding included: two minutes. A single longer item is run alone."""
_WASTE = 1.25
"""Padded frames of one run, over those that hold audio."""
_TOLERANCE = 1e-4


def encoded_frames(feature_frames: int) -> int:
    """Output frames for so many feature frames: two convolutions of stride two."""
    return (feature_frames - 1) // 4 + 1


class EncoderGraph:
    """Features of many items to encoder frames, log-probs or class probabilities.

    Args:
        backend: runs the graph.
        task: ``"ctc"``, ``"rnnt"``, ``"ssl"`` or ``"emo"``.
    Raises:
        BadModelFile: inputs or outputs of no known export.
    """

    def __init__(self, backend: Backend, task: str) -> None:
        self._backend = backend
        self.task = task
        names = next((pair for pair in _INPUTS if set(pair) == set(backend.inputs)), None)
        values = next((name for name in _VALUES[task] if name in backend.outputs), None)
        if names is None or values is None:
            raise _unknown(backend, f"{task} graph", _INPUTS, _VALUES[task])
        self._features, self._lengths = names
        self._values = values
        self._out_lengths = next((name for name in _LENGTHS if name in backend.outputs), None)
        self._mix: str | None = "alone" if backend.inputs[self._features][0][0] == 1 else None

    @property
    def mix(self) -> str:
        """Which items may share a run: ``"any"``, those of ``"equal"`` length, or each ``"alone"``."""
        if self._mix is None:
            rng = np.random.default_rng(0)
            long, short, other = (rng.normal(-7.0, 4.0, (n, NUM_MELS)).astype(np.float32) for n in (61, 37, 61))
            single = [self._run([item])[0] for item in (long, short, other)]
            if _close(self._run([long, short]), single[:2]):
                self._mix = "any"
            else:
                self._mix = "equal" if _close(self._run([long, other]), single[::2]) else "alone"
        return self._mix

    def __call__(self, items: Sequence[F32]) -> list[F32]:
        """For each item (T, 64), T at least 1: (T', V) log-probs, (T', D) encoder frames, or (C,) probabilities."""
        results: dict[int, F32] = {}
        for group in self._groups([len(item) for item in items]):
            results.update(zip(group, self._run([items[i] for i in group]), strict=True))
        return [results[i] for i in range(len(items))]

    def _groups(self, sizes: Sequence[int]) -> list[list[int]]:
        """Items that share a run, of about the same length."""
        order = sorted(range(len(sizes)), key=lambda i: sizes[i])
        if len(sizes) <= 1 or self.mix == "alone":
            return [[i] for i in order]
        groups: list[list[int]] = []
        for i in order:
            group = groups[-1] if groups else []
            padded = (len(group) + 1) * sizes[i]
            full = padded > MAX_FRAMES or padded > _WASTE * (sum(sizes[j] for j in group) + sizes[i])
            if not group or full or (self.mix == "equal" and sizes[group[0]] != sizes[i]):
                groups.append([i])
            else:
                group.append(i)
        return groups

    def _run(self, items: Sequence[F32]) -> list[F32]:
        sizes = [len(item) for item in items]
        features = np.zeros((len(items), NUM_MELS, max(sizes)), self._backend.inputs[self._features][1])
        for row, item in enumerate(items):
            features[row, :, : len(item)] = item.T
        lengths = np.array(sizes, self._backend.inputs[self._lengths][1])
        out = self._backend.run({self._features: features, self._lengths: lengths})
        values = out[self._values].astype(np.float32, copy=False)
        if self.task == "emo":
            return list(values)
        if self.task != "ctc":
            values = values.transpose(0, 2, 1)
        counts = [encoded_frames(size) for size in sizes]
        if self._out_lengths is not None:
            counts = [int(count) for count in np.ravel(out[self._out_lengths])]
        if values.ndim != 3 or len(values) != len(items) or max(counts) > values.shape[1]:
            raise BadModelFile(
                f"the graph gave {values.shape} for features of {sizes} frames", remedy="it belongs to another family"
            )
        return [np.ascontiguousarray(row[:count]) for row, count in zip(values, counts, strict=True)]


def _close(found: Sequence[F32], wanted: Sequence[F32]) -> bool:
    return all(
        one.shape == other.shape and np.allclose(one, other, _TOLERANCE, _TOLERANCE)
        for one, other in zip(found, wanted, strict=True)
    )


class LstmTransducer:
    """GigaAM's predictor (an LSTM) and joiner as a ``protocols.Transducer``.

    The first predictor output belongs to a zero vector; the graphs get it from the blank, whose embedding is zero.

    Args:
        predictor, joiner: run the two graphs.
        tokens: the vocabulary.
        max_symbols: tokens per frame; the reference's torch code allows 10, its ONNX helper and onnx-asr 3.
    Raises:
        BadModelFile: graphs of no known export, or of another vocabulary.
    """

    def __init__(self, predictor: Backend, joiner: Backend, tokens: Tokens, max_symbols: int = 10) -> None:
        self.blank = tokens.blank
        self.skips = (tokens.blank,)
        self.max_symbols = max_symbols
        self._predictor, self._joiner = predictor, joiner
        given = set(predictor.inputs) - {_UNUSED}
        known = next((pair for pair in _PREDICTOR if set(pair[0]) == given), None)
        if known is None or not set(known[1]) <= set(predictor.outputs):
            raise _unknown(predictor, "predictor", [pair[0] for pair in _PREDICTOR], [pair[1] for pair in _PREDICTOR])
        if set(joiner.inputs) != {"enc", "dec"} or "joint" not in joiner.outputs:
            raise _unknown(joiner, "joiner", [("enc", "dec")], ["joint"])
        (self._token, *self._states), (self._out, *self._after) = known
        layers, batch, hidden = predictor.inputs[self._states[0]][0]
        if layers is None or hidden is None:
            raise BadModelFile(f"the predictor's state {self._states[0]} has no fixed size; got {layers} x {hidden}")
        self._shape = (int(layers), int(hidden))
        self._one_token = batch == 1 or predictor.inputs[self._token][0][0] == 1
        self._one_pair = joiner.inputs["enc"][0][0] == 1
        width = joiner.inputs["enc"][0][1]
        self._normalised = True
        if width is None:
            raise BadModelFile("the joiner's input enc has no fixed width")
        rows = self.join(np.zeros((1, int(width)), np.float32), self.initial(1)[0])
        if rows.shape[1] != len(tokens):
            raise BadModelFile(
                f"the joiner gives {rows.shape[1]} classes, the vocabulary has {len(tokens)}",
                remedy="the token file belongs to another model",
            )
        self._normalised = abs(float(np.exp(rows.astype(np.float64)).sum()) - 1.0) < 1e-2

    def initial(self, n: int) -> tuple[F32, PredictorState]:
        """Predictor output (n, D) and states (n, layers, hidden) before the first token."""
        zero = np.zeros((1, *self._shape), np.float32)
        predicted, states = self.predict(np.array([self.blank], np.int64), (zero, zero))
        rows = np.zeros(n, np.int64)
        return predicted[rows], tuple(state[rows] for state in states)

    def predict(self, tokens: NDArray[np.int64], states: PredictorState) -> tuple[F32, PredictorState]:
        """Predictor output (N, D) and states after one more token each."""
        if self._one_token and len(tokens) > 1:
            parts = [self.predict(tokens[i : i + 1], tuple(s[i : i + 1] for s in states)) for i in range(len(tokens))]
            after = tuple(np.concatenate(arrays) for arrays in zip(*(part[1] for part in parts), strict=True))
            return np.concatenate([part[0] for part in parts]), after
        inputs = self._predictor.inputs
        feeds: dict[str, NDArray[Any]] = {self._token: tokens[:, None].astype(inputs[self._token][1])}
        for name, state in zip(self._states, states, strict=True):
            feeds[name] = np.ascontiguousarray(state.transpose(1, 0, 2), inputs[name][1])
        if _UNUSED in inputs:
            feeds[_UNUSED] = np.ones(len(tokens), inputs[_UNUSED][1])
        out = self._predictor.run(feeds)
        after = tuple(out[name].astype(np.float32, copy=False).transpose(1, 0, 2) for name in self._after)
        return out[self._out].astype(np.float32, copy=False).reshape(len(tokens), -1), after

    def join(self, encoded: F32, predicted: F32) -> F32:
        """Natural-log probabilities (N, V)."""
        if self._one_pair and len(encoded) > 1:
            return np.concatenate([self.join(encoded[i : i + 1], predicted[i : i + 1]) for i in range(len(encoded))])
        inputs = self._joiner.inputs
        feeds = {
            "enc": np.ascontiguousarray(encoded[:, :, None], inputs["enc"][1]),
            "dec": np.ascontiguousarray(predicted[:, :, None], inputs["dec"][1]),
        }
        rows = self._joiner.run(feeds)["joint"].astype(np.float32, copy=False).reshape(len(encoded), -1)
        if self._normalised:
            return rows
        peak = rows.max(axis=1, keepdims=True)
        logs: F32 = rows - peak - np.log(np.exp(rows - peak).sum(axis=1, keepdims=True))
        return logs


def _unknown(backend: Backend, what: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> BadModelFile:
    def names(values: Sequence[Any]) -> str:
        return " or ".join(value if isinstance(value, str) else ", ".join(value) for value in values)

    return BadModelFile(
        f"expected a GigaAM {what} with inputs {names(inputs)} and output {names(outputs)}; "
        f"got inputs {', '.join(backend.inputs)} and outputs {', '.join(backend.outputs)}",
        remedy="the file belongs to another family or role",
    )


def front_of(weights: Mapping[str, tuple[int, ...]]) -> bool | None:
    """Whether the features are centred, told from the shapes of a graph's weights; None if they do not tell.

    v1 and v2 begin with a two-dimensional convolution over one channel; v3 with a one-dimensional one over the bands.
    """
    shapes = set(weights.values())
    if any(len(shape) == 3 and shape[1] == NUM_MELS for shape in shapes):
        return False
    if any(len(shape) == 4 and shape[1:] == (1, 3, 3) for shape in shapes):
        return True
    return None
