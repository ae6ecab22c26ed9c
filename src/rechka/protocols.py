"""The faces that parts show to one another. A new part needs to fit one of these and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rechka.types import F32, AudioChunk, Frames, Hypothesis, ModelSpec, State

Beam = TypeVar("Beam")
Stream = TypeVar("Stream")
Array = NDArray[Any]
PredictorState: TypeAlias = tuple[NDArray[Any], ...]
"""State of a transducer's predictor for N hypotheses: arrays whose first axis is the hypothesis, or no arrays at all.

Searches gather, stack and repeat rows themselves, so a model lays its own axes (layers, context) behind the first.
"""


class Backend(Protocol):
    """Named arrays in, named arrays out. Thread-safe: many threads may call ``run`` at once."""

    @property
    def inputs(self) -> Mapping[str, tuple[Any, np.dtype[Any]]]:
        """Shape (None where dynamic) and dtype of every input by name."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Key-value texts stored in the model file."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs."""
        ...


@runtime_checkable
class AcousticModel(Protocol):
    """Audio of many streams to frames of many streams. Holds weights, never a stream's state."""

    @property
    def spec(self) -> ModelSpec:
        """What the outside must know."""
        ...

    def initial_state(self) -> State:
        """The state of a stream that has heard nothing."""
        ...

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        """One step of each stream.

        Args:
            audio: per stream (k * shift + (chunk - shift),) samples for some whole k >= 1; streams may differ in k.
                Models that read whole phrases (``spec.chunk is None``) take any length.
            states: per stream what the last step returned; not modified.
        Returns:
            Frames (``start`` counted by the model from the state) and new states, in the same order.
        """
        ...


class Transducer(Protocol):
    """Predictor and joiner of a transducer (RNN-T, stateless or not): what a search over ``Encoded`` frames asks.

    A model that emits ``Encoded`` for such a search shows it as its attribute ``transducer``. Thread-safe.
    """

    @property
    def blank(self) -> int:
        """Id of the blank."""
        ...

    @property
    def skips(self) -> tuple[int, ...]:
        """Ids that emit nothing and move on to the next frame: the blank, and in icefall's models ``<unk>``."""
        ...

    @property
    def max_symbols(self) -> int:
        """Most tokens that one frame may emit, at least 1. The frame after is then entered without a blank."""
        ...

    def initial(self, n: int) -> tuple[F32, PredictorState]:
        """Predictor output (n, D) and states of ``n`` hypotheses without tokens."""
        ...

    def predict(self, tokens: NDArray[np.int64], states: PredictorState) -> tuple[F32, PredictorState]:
        """Predictor output (N, D) and states after one more token (N,) each. ``states`` are not modified."""
        ...

    def join(self, encoded: F32, predicted: F32) -> F32:
        """Natural-log probabilities (N, V) for pairs of a frame (N, E) and a predictor output (N, D)."""
        ...


class Labeller(Protocol):
    """A model that says something about a phrase instead of transcribing it: emotion, for one."""

    def labels(self, audio: Sequence[F32], /) -> list[dict[str, Any]]:
        """For each phrase (n,) of samples at ``spec.sample_rate`` what ``Segment.labels`` is to hold."""
        ...


class Embedder(Protocol):
    """A model whose encoder output is wanted for itself."""

    def embed(self, audio: F32, /) -> F32:
        """(T, D) embeddings, one per ``spec.hop`` samples, of audio (n,) at ``spec.sample_rate``, of any length."""
        ...


class Decoder(Protocol[Beam]):
    """A search over frames, in Kaldi's words: begin, advance, best. Beams are values: advancing returns new ones."""

    @property
    def consumes(self) -> type[Frames]:
        """Kind of frames it reads."""
        ...

    def begin(self) -> Beam:
        """An empty beam."""
        ...

    def advance(self, beams: Sequence[Beam], frames: Sequence[Frames], /) -> list[Beam]:
        """Each beam moved on over its own frames."""
        ...

    def best(self, beam: Beam, /) -> Hypothesis:
        """The best hypothesis if the phrase ended here."""
        ...

    def nbest(self, beam: Beam, n: int, /) -> list[Hypothesis]:
        """Up to ``n`` hypotheses, best first, if the phrase ended here."""
        ...

    def stable(self, beam: Beam, /) -> int:
        """How many leading tokens of ``best`` no future frame can change."""
        ...


class Evidence(Protocol):
    """Speech probability per frame from whatever it watches."""

    def __call__(self, frames: Frames, /) -> F32:
        """(T,) in [0, 1]."""
        ...


class Recognizer(Protocol[Stream]):
    """Streams in, events out."""

    def open(self) -> Stream:
        """A new stream."""
        ...

    def ready(self, stream: Stream) -> bool:
        """True if ``step`` would make progress on it."""
        ...

    def step(self, streams: Sequence[Stream]) -> None:
        """One model step for each of the ready streams."""
        ...


class AudioSource(Protocol):
    """Where audio comes from: iterate to get chunks of every channel, in order, without gaps.

    Each item holds one ``AudioChunk`` per channel, all of the same length, at ``sample_rate``.
    """

    @property
    def sample_rate(self) -> int:
        """Rate of the chunks that iteration gives."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels that iteration gives."""
        ...

    @property
    def duration(self) -> float | None:
        """Length in seconds if the container tells it, else None; a hint for progress, not a promise."""
        ...

    @property
    def truncated(self) -> bool:
        """After iteration: the input broke off before its end."""
        ...

    def __iter__(self) -> Iterator[tuple[AudioChunk, ...]]:
        """The chunks."""
        ...
