"""The zipformer family: icefall's transducers in the ONNX layout of sherpa-onnx and Vosk 5, on ONNX Runtime.

Three graphs: an encoder, a stateless decoder that looks at the last ``context_size`` tokens, a joiner; and a token
table. The encoder reads whole phrases (``x``, ``x_lens``) or, if it has more inputs, chunks: ``T`` feature frames of
which ``decode_chunk_len`` are new, and states as named inputs, each of which comes back as an output. Zipformers of
both generations, conformers and LSTMs are of this form; what is in a state is nobody's business but the graph's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.backends import open_backend
from rechka.errors import BadCard, BadModelFile, BadSamples
from rechka.features import kaldi
from rechka.models.stateless import StatelessTransducer
from rechka.models.streaming_graph import NetworkState, Stacked, StreamingGraph
from rechka.models.token_table import read_tokens
from rechka.protocols import Backend
from rechka.types import F32, Encoded, Frames, ModelSpec, State, Tokens

SUBSAMPLING = 4
"""Feature frames per encoder frame, in all of icefall's transducers."""
FRAME = SUBSAMPLING * kaldi.HOP
"""Samples per encoder frame: 40 ms."""
SHORTEST = 16
"""A phrase is given at least so many feature frames; encoders need nine for their first output."""
TAIL = 5120
"""Silence behind a stream, 0.32 s: a transducer may emit the last token a little after it was spoken."""
LARGEST = 8.0
"""Samples beyond this are taken for integers that were not scaled."""
_ROLES = ("encoder", "decoder", "joiner", "tokens")
_UNSPOKEN = ("<sos/eos>", "<sos>", "<eos>")


def load(
    files: Mapping[str, Path], params: Mapping[str, Any], *, device: str = "cpu", threads: int | None = None
) -> ZipformerModel | StreamingZipformer:
    """The model of a card, offline or streaming as its encoder is.

    Args:
        files: ``encoder``, ``decoder``, ``joiner``, ``tokens``.
        params: ``lag_ms``, by which tokens come late, if it was measured; word times are moved by it.
    Raises:
        BadCard: a role that is missing, a parameter that is unknown or no number.
        BadModelFile: files that are not what their roles say, or do not belong together.
    """
    if missing := [role for role in _ROLES if role not in files]:
        raise BadCard(
            f"a card of the family 'zipformer' needs the file role {' and '.join(map(repr, missing))}",
            remedy="name it in the card, and put the file there",
        )
    if unknown := sorted(set(params) - {"lag_ms"}):
        raise BadCard(f"the family 'zipformer' has no parameter {', '.join(unknown)}", remedy="it knows lag_ms")
    lag_ms = params.get("lag_ms", 0)
    if isinstance(lag_ms, bool) or not isinstance(lag_ms, (int, float)) or not 0 <= lag_ms <= 5000:
        raise BadCard(f"lag_ms must be a number from 0 to 5000, got {lag_ms!r}")
    lag = round(lag_ms * kaldi.SAMPLE_RATE / 1000)
    encoder = open_backend(files, "encoder", device=device, threads=threads)
    decoder = open_backend(files, "decoder", device=device, threads=1)  # too small to be worth a second thread
    joiner = open_backend(files, "joiner", device=device, threads=1)
    transducer = StatelessTransducer(decoder, joiner)
    tokens = _vocabulary(files["tokens"], transducer.vocabulary)
    transducer.skips = _skips(tokens)
    kind = ZipformerModel if len(encoder.inputs) == 2 else StreamingZipformer
    return kind(encoder, transducer, tokens, lag=lag)


def _vocabulary(path: Path, size: int) -> Tokens:
    """The token table, as long as the joiner's output: icefall appends ``#0``, ``#1`` for its graphs, which we drop."""
    tokens = read_tokens(path)
    symbols = tokens.symbols
    if len(symbols) > size and all(symbol.startswith("#") for symbol in symbols[size:]):
        symbols = symbols[:size]
    if len(symbols) != size or tokens.blank != 0:
        raise BadModelFile(
            f"{path} has {len(tokens)} tokens with the blank at {tokens.blank}; the joiner gives {size} with it at 0",
            remedy="the token file belongs to another model",
        )
    return Tokens(tuple("</s>" if symbol in _UNSPOKEN else symbol for symbol in symbols), 0, tokens.pieces)


def _skips(tokens: Tokens) -> tuple[int, ...]:
    """Blank and ``<unk>``: icefall's searches let neither into a hypothesis."""
    return (0, *(i for i, symbol in enumerate(tokens.symbols) if symbol == "<unk>"))


class ZipformerModel:
    """An offline transducer as an ``AcousticModel``: whole phrases in, ``Encoded`` frames of 40 ms out.

    Phrases of one length share a run; others get runs of their own, since padding changes what an encoder gives.

    Args:
        encoder: the graph, with inputs for features (N, T, 80) and their lengths (N,).
        transducer: predictor and joiner.
        tokens: vocabulary.
        lag: samples by which tokens come late.
    Raises:
        BadModelFile: another graph.
    """

    def __init__(self, encoder: Backend, transducer: StatelessTransducer, tokens: Tokens, *, lag: int = 0) -> None:
        names = list(encoder.inputs)
        shapes = [encoder.inputs[name][0] for name in names]
        if len(names) != 2 or [len(shape) for shape in shapes] != [3, 1] or len(encoder.outputs) != 2:
            raise BadModelFile(
                f"an offline encoder maps features and lengths to frames and lengths; this one maps "
                f"{', '.join(names)} to {', '.join(encoder.outputs)}",
                remedy="give the card the family that the file belongs to",
            )
        check_features(shapes[0], encoder.metadata)
        self._encoder = encoder
        self._features, self._lengths = names
        self.transducer = transducer
        self.spec = ModelSpec(kaldi.SAMPLE_RATE, FRAME, None, None, 0, lag, None, tokens, Encoded)

    def initial_state(self) -> State:
        """Nothing heard: frames so far."""
        return 0

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """Frames of whole phrases; see ``rechka.protocols.AcousticModel``.

        Raises:
            BadSamples: another shape, or values that are no audio in [-1, 1].
        """
        features = [_at_least(kaldi.fbank(checked(samples))) for samples in audio]
        groups: dict[int, list[int]] = {}
        for i, values in enumerate(features):
            groups.setdefault(len(values), []).append(i)
        found: dict[int, F32] = {}
        for length, members in groups.items():
            dtype = self._encoder.inputs[self._features][1]
            sizes = np.full(len(members), length, self._encoder.inputs[self._lengths][1])
            out = self._encoder.run(
                {
                    self._features: np.stack([features[i] for i in members]).astype(dtype, copy=False),
                    self._lengths: sizes,
                }
            )
            values, lengths = (out[name] for name in self._encoder.outputs)
            for row, i in enumerate(members):
                found[i] = self._checked(values[row, : int(lengths[row])])
        frames: list[Frames] = [Encoded(found[i], start) for i, start in enumerate(states)]
        return frames, [start + len(piece) for start, piece in zip(states, frames, strict=True)]

    def _checked(self, values: NDArray[Any]) -> F32:
        return self.transducer.checked(values.astype(np.float32, copy=False))


class StreamingZipformer:
    """A streaming transducer as an ``AcousticModel``: chunks in, ``Encoded`` frames of 40 ms out.

    Any mix of streams shares runs, one per chunk; what a stream gets does not depend on its company.

    Args:
        encoder: the graph.
        transducer: predictor and joiner.
        tokens: vocabulary.
        lag: samples by which tokens come late.
    Raises:
        BadModelFile: a graph that is no such encoder, or gives another number of frames than its chunks have.
    """

    def __init__(self, encoder: Backend, transducer: StatelessTransducer, tokens: Tokens, *, lag: int = 0) -> None:
        self._graph = StreamingGraph(encoder)
        graph = self._graph
        check_features(encoder.inputs[graph.features][0], encoder.metadata)
        if graph.shift % SUBSAMPLING:
            raise BadModelFile(f"decode_chunk_len is {graph.shift}, expected a multiple of {SUBSAMPLING}")
        self.transducer = transducer
        shift, chunk = graph.shift * kaldi.HOP, (graph.length - 1) * kaldi.HOP + kaldi.REACH
        self._overlap = chunk - shift
        self.spec = ModelSpec(kaldi.SAMPLE_RATE, FRAME, chunk, shift, 0, lag, None, tokens, Encoded, tail=TAIL)
        self._probe()

    def _probe(self) -> None:
        """One chunk of silence: what does not fit is told now, and not in the middle of the first stream."""
        assert self.spec.chunk is not None
        (frames,), _ = self.step([np.zeros(self.spec.chunk, np.float32)], [self.initial_state()])
        if len(frames) != self._graph.shift // SUBSAMPLING:
            raise BadModelFile(
                f"the encoder gives {len(frames)} frames for decode_chunk_len = {self._graph.shift}, "
                f"expected {self._graph.shift // SUBSAMPLING}"
            )

    def initial_state(self) -> State:
        """Nothing heard."""
        nothing = np.zeros((0, kaldi.NUM_BANDS), np.float32)
        return StreamState(kaldi.FbankState.initial(), nothing, self._graph.initial(), 0)

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """The next chunks of each stream; see ``rechka.protocols.AcousticModel``.

        Raises:
            BadSamples: a length that is no whole number of chunks, or values that are no audio in [-1, 1].
        """
        heard = [self._hear(samples, state) for samples, state in zip(audio, states, strict=True)]
        features = [values for values, _ in heard]
        chunks = [(len(values) - self._graph.length) // self._graph.shift + 1 for values in features]
        rows: list[list[F32]] = [[] for _ in features]
        networks = [state.network for state in states]
        together: list[int] = []
        batch = None
        for index in range(max(chunks, default=0)):
            active = [i for i, count in enumerate(chunks) if count > index]
            if batch is None or active != together:  # states are taken apart only when a stream has no more chunks
                self._settle(networks, together, batch)
                together, batch = active, self._graph.stack([networks[i] for i in active])
            first = index * self._graph.shift
            piece = np.stack([features[i][first : first + self._graph.length] for i in active])
            out, batch = self._graph.run(piece, batch)
            for row, i in enumerate(active):
                rows[i].append(self.transducer.checked(out[row]))
        self._settle(networks, together, batch)
        frames: list[Frames] = []
        new: list[State] = []
        for i, state in enumerate(states):
            values = np.concatenate(rows[i])
            frames.append(Encoded(values, state.frame))
            rest = features[i][chunks[i] * self._graph.shift :].copy()
            new.append(StreamState(heard[i][1], rest, networks[i], state.frame + len(values)))
        return frames, new

    def _settle(self, networks: list[NetworkState], members: Sequence[int], batch: Stacked | None) -> None:
        """Give the members of a batch their states."""
        if batch is not None:
            for i, network in zip(members, self._graph.unstack(batch), strict=True):
                networks[i] = network

    def _hear(self, samples: F32, state: StreamState) -> tuple[F32, kaldi.FbankState]:
        """Features of the chunks in ``samples``, and the front end's state after them."""
        assert self.spec.chunk is not None
        assert self.spec.shift is not None
        beyond = len(samples) - self.spec.chunk
        if samples.ndim != 1 or beyond < 0 or beyond % self.spec.shift:
            raise BadSamples(
                f"expected {self.spec.chunk} + k * {self.spec.shift} samples at {kaldi.SAMPLE_RATE} Hz, "
                f"got shape {samples.shape}",
                remedy="let Stream.feed() do the chunking",
            )
        new = checked(samples) if not state.frame else checked(samples[self._overlap :])
        values, front = kaldi.push(new, state.front)
        return np.concatenate([state.waiting, values]), front


@dataclass(frozen=True, slots=True, eq=False)
class StreamState:
    """A stream's state. A value.

    Attributes:
        front: of the filter bank.
        waiting: (k, 80) features that the next chunk begins with.
        network: of the encoder.
        frame: encoder frames so far.
    """

    front: kaldi.FbankState
    waiting: F32
    network: NetworkState
    frame: int


def check_features(shape: Sequence[int | None], metadata: Mapping[str, str]) -> None:
    """Refuse an encoder that wants other features than ours.

    Raises:
        BadModelFile: another number of bands, or Whisper's features.
    """
    if shape[-1] not in (None, kaldi.NUM_BANDS) or metadata.get("feature", "") not in ("", "fbank"):
        kind = metadata.get("feature", "fbank")
        raise BadModelFile(f"the encoder wants {shape[-1]} bands of {kind}, expected {kaldi.NUM_BANDS} of fbank")


def checked(samples: F32) -> F32:
    """The samples themselves.

    Raises:
        BadSamples: another shape, or values that are no audio in [-1, 1].
    """
    if samples.ndim != 1:
        raise BadSamples(f"samples must be mono, shape (n,), got shape {samples.shape}")
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    if not peak <= LARGEST:  # also true for NaN
        raise BadSamples(
            f"samples must lie in [-1, 1], got a value of magnitude {peak:g}", remedy="divide 16-bit samples by 32768"
        )
    return samples.astype(np.float32, copy=False)


def _at_least(features: F32) -> F32:
    """With enough frames of digital silence behind them that an encoder can work."""
    lacking = max(0, SHORTEST - len(features))
    return np.pad(features, ((0, lacking), (0, 0)), constant_values=np.log(np.float32(kaldi.FLOOR)))
