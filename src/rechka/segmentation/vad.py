"""Voice activity detection on audio: speech probability per window, incremental, for many streams at once.

Two detectors with one face (``Vad``): Silero VAD, a small network in ONNX, and an energy detector without weights. Both
are evidence for the ``Segmenter``, whose frames are then the detector's windows. Probabilities do not depend on how the
audio was cut into calls.

    probabilities, states = vad.step([samples], [vad.initial_state()])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from rechka.errors import BadModelFile, IncompatibleParts
from rechka.protocols import Backend
from rechka.types import F32, State

SILERO_FILE = Path(__file__).parent / "silero" / "silero_vad.onnx"
"""Silero VAD 6.2.3 for 8000 and 16000 Hz; origin and licence lie beside it."""


class Vad(Protocol):
    """Speech probability per window of audio. Holds weights, never a stream's state."""

    @property
    def sample_rate(self) -> int:
        """Of the audio it takes."""
        ...

    @property
    def window(self) -> int:
        """Samples per probability."""
        ...

    def initial_state(self) -> State:
        """The state of a stream that has heard nothing."""
        ...

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[F32], list[State]]:
        """The next samples of each stream.

        Args:
            audio: per stream (n,) in [-1, 1], any n; what does not fill a window waits in the state.
            states: per stream what the last step returned; not modified.
        Returns:
            Probabilities (k,) of the k windows that were completed, and new states, in the same order.
        """
        ...


def speech_probability(vad: Vad, samples: F32) -> F32:
    """Speech probability of each window of a whole recording, the last one filled up with zeros.

    Args:
        vad: the detector.
        samples: (n,) at its sample rate.
    Returns:
        (ceil(n / window),) in [0, 1].
    """
    padded = np.pad(np.asarray(samples, dtype=np.float32), (0, -len(samples) % vad.window))
    [probabilities], _ = vad.step([padded], [vad.initial_state()])
    return probabilities


class VadStream:
    """One stream's detector with its state inside, for callers that push audio piece by piece."""

    def __init__(self, vad: Vad) -> None:
        self.vad = vad
        self._state = vad.initial_state()
        self._left = 0

    def push(self, samples: F32) -> F32:
        """Probabilities of the windows that ``samples`` completed."""
        [probabilities], [self._state] = self.vad.step([np.asarray(samples, dtype=np.float32)], [self._state])
        self._left = (self._left + len(samples)) % self.vad.window
        return probabilities

    def flush(self) -> F32:
        """The probability of the last window, filled up with zeros; empty if none is open."""
        return self.push(np.zeros(-self._left % self.vad.window, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class EnergyState:
    """What the energy detector remembers of a stream.

    Attributes:
        rest: samples of the window that is not full.
        minima: lowest level of each of the last blocks, decibels; the oldest first.
        lowest: lowest level of the open block.
        count: windows in the open block.
    """

    rest: F32
    minima: tuple[float, ...]
    lowest: float = math.inf
    count: int = 0


class EnergyVad:
    """Speech is what rises above the noise floor, which is the lowest level of the last five seconds.

    Needs no weights and works at any sample rate: for telephone lines, for tests, and where nothing else is at hand.
    It takes music and shouting crowds for speech. Sound that is louder than -41 dBFS from the first sample on counts as
    speech until the floor is known, five seconds later.

    Args:
        sample_rate: of the audio.
        margin_db: a window this far above the floor is speech with probability one half.
        window_s: length of a window.

    Source: tracking the minimum of the level instead of its mean follows Martin, "Noise power spectral density
    estimation based on optimal smoothing and minimum statistics", 2001; the figures are our own.
    """

    QUIETEST_DB = -60.0  # the floor is not below this: dither and codec noise are not speech
    PRIOR_DB = -50.0  # floor before five seconds have been heard
    SLOPE_DB = 1.5
    BLOCK_S, NUM_BLOCKS = 0.5, 10

    def __init__(self, sample_rate: int, *, margin_db: float = 9.0, window_s: float = 0.02) -> None:
        self.sample_rate = sample_rate
        self.window = max(1, round(window_s * sample_rate))
        self.margin_db = margin_db
        self._block = max(1, round(self.BLOCK_S * sample_rate / self.window))

    def initial_state(self) -> EnergyState:
        """Nothing heard."""
        return EnergyState(np.zeros(0, dtype=np.float32), (self.PRIOR_DB,) * self.NUM_BLOCKS)

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[F32], list[State]]:
        """See ``Vad``."""
        results = [self._step(samples, state) for samples, state in zip(audio, states, strict=True)]
        return [probabilities for probabilities, _ in results], [state for _, state in results]

    def _step(self, samples: F32, state: EnergyState) -> tuple[F32, EnergyState]:
        windows, rest = _windows(state.rest, samples, self.window)
        levels = 10.0 * np.log10((windows.astype(np.float64) ** 2).mean(axis=1) + 1e-10)
        minima, lowest, count = list(state.minima), state.lowest, state.count
        floors = np.empty(len(levels))
        for i, level in enumerate(levels.tolist()):
            lowest = min(lowest, level)
            floors[i] = max(self.QUIETEST_DB, min(lowest, *minima))
            count += 1
            if count == self._block:
                minima, lowest, count = [*minima[1:], lowest], math.inf, 0
        above = (levels - floors - self.margin_db) / self.SLOPE_DB
        probabilities = (1.0 / (1.0 + np.exp(-np.clip(above, -60.0, 60.0)))).astype(np.float32)
        return probabilities, EnergyState(rest, tuple(minima), lowest, count)


@dataclass(frozen=True, slots=True)
class SileroState:
    """What Silero remembers of a stream: samples of the open window, the end of the one before, (2, 128)."""

    rest: F32
    context: F32
    network: F32


class SileroVad:
    """Silero VAD through a backend that holds its graph (``SILERO_FILE``).

    Streams share a call: window t of all streams that have one is computed together.

    Args:
        backend: of the graph, with inputs ``input``, ``state``, ``sr`` and outputs ``output``, ``stateN``.
        sample_rate: 8000 or 16000.

    Raises:
        IncompatibleParts: another sample rate.
        BadModelFile: a graph with other inputs or outputs.
    """

    CONTEXT: ClassVar = {8000: 32, 16000: 64}
    WINDOW: ClassVar = {8000: 256, 16000: 512}
    WIDTH = 128

    def __init__(self, backend: Backend, sample_rate: int = 16000) -> None:
        if sample_rate not in self.WINDOW:
            raise IncompatibleParts(
                f"Silero VAD hears 8000 or 16000 Hz, the model {sample_rate} Hz",
                remedy='choose the energy detector: vad = "energy" among the segmenter\'s options',
            )
        if set(backend.inputs) != {"input", "state", "sr"} or set(backend.outputs) != {"output", "stateN"}:
            raise BadModelFile(
                f"expected inputs input, state, sr and outputs output, stateN; got {sorted(backend.inputs)} and "
                f"{sorted(backend.outputs)}",
                remedy="this graph is not Silero VAD 5 or 6",
            )
        self._backend = backend
        self.sample_rate = sample_rate
        self.window = self.WINDOW[sample_rate]
        self._context = self.CONTEXT[sample_rate]
        self._rate = np.array(sample_rate, dtype=np.int64)

    def initial_state(self) -> SileroState:
        """Nothing heard."""
        return SileroState(
            np.zeros(0, np.float32), np.zeros(self._context, np.float32), np.zeros((2, self.WIDTH), np.float32)
        )

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[F32], list[State]]:
        """See ``Vad``."""
        cut = [_windows(state.rest, samples, self.window) for samples, state in zip(audio, states, strict=True)]
        found = [np.zeros(len(windows), np.float32) for windows, _ in cut]
        contexts = [state.context for state in states]
        networks = [state.network for state in states]
        for t in range(max((len(windows) for windows, _ in cut), default=0)):
            members = [i for i, (windows, _) in enumerate(cut) if t < len(windows)]
            out: dict[str, Any] = self._backend.run(
                {
                    "input": np.stack([np.concatenate([contexts[i], cut[i][0][t]]) for i in members]),
                    "state": np.stack([networks[i] for i in members], axis=1),
                    "sr": self._rate,
                }
            )
            for row, i in enumerate(members):
                found[i][t] = out["output"][row, 0]
                networks[i] = out["stateN"][:, row]
                contexts[i] = cut[i][0][t, -self._context :]
        after = [
            SileroState(rest, context.copy(), network)
            for (_, rest), context, network in zip(cut, contexts, networks, strict=True)
        ]
        return found, after


def _windows(rest: F32, samples: F32, window: int) -> tuple[F32, F32]:
    """Whole windows (k, window) of what waited and what came, and what waits now."""
    joined = np.concatenate([rest, np.asarray(samples, dtype=np.float32)])
    whole = len(joined) - len(joined) % window
    return joined[:whole].reshape(-1, window), joined[whole:].copy()
