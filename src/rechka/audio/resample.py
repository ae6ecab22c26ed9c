"""Sample-rate conversion with carried state: a windowed-sinc polyphase filter in NumPy.

One filter serves files and live audio, so that both give the same samples. It holds back 6 ms at 8 kHz, where soxr's
stream holds back up to 115 ms.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, gcd, pi
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadSamples, StreamClosed
from rechka.types import F32

MIN_RATE = 1_000
MAX_RATE = 768_000
"""Sample rates outside of these are taken for damaged headers."""

ZEROS = 48
"""Half-width of the filter in samples of the lower rate: 6 ms at 8 kHz."""
STOP_DB = 70.0
"""Attenuation of the stop band, which begins at the lower rate's Nyquist frequency."""
BETA = 0.1102 * (STOP_DB - 8.7)
"""Kaiser's window for that attenuation (Oppenheim and Schafer, Discrete-Time Signal Processing, 7.75)."""
TRANSITION = (STOP_DB - 7.95) / (14.36 * 2 * ZEROS)
"""Width of the transition in units of the lower rate (the same, 7.76): the pass band ends at 91 % of Nyquist."""

LARGEST_TABLE = 1 << 21
"""Coefficients of a whole period that are still computed exactly; beyond, phases are rounded."""
PHASES = 8192
"""Rounded phases per sample of the lower rate: an error of at most 2 pi / 2 / (2 x 8192), -74 dB."""
BLAS_SIZE = 1 << 18
"""Multiplications of one call that OpenBLAS still does in the calling thread."""
PIECE = 1 << 18
"""Samples that are filtered in one go, so that a long push needs little more memory than its result."""


class Resampler:
    """Converts one channel from ``in_rate`` to ``out_rate``, packet by packet.

    Output sample k belongs to the time k / out_rate; the filter's delay is compensated, which costs ``lag_s`` of
    waiting. n samples give ceil(n x out_rate / in_rate). Any packets of the same audio give the same bits.

    Args:
        in_rate: samples per second of what is pushed.
        out_rate: samples per second of what is given.

    Raises:
        BadSamples: a rate that is no whole number from 1000 to 768000.
    """

    def __init__(self, in_rate: int, out_rate: int) -> None:
        self.in_rate = checked_rate(in_rate)
        self.out_rate = checked_rate(out_rate)
        self._kernel = None if self.in_rate == self.out_rate else _kernel(self.in_rate, self.out_rate)
        self._received = 0
        self._given = 0
        self._base = 0 if self._kernel is None else self._kernel.origin(0)
        self._buffer: F32 = np.zeros(-self._base, dtype=np.float32)  # silence before the first sample
        self._flushed = False

    @property
    def lag_s(self) -> float:
        """Seconds of audio held back until more comes or ``flush``."""
        return 0.0 if self._kernel is None else (self._kernel.reach + 1) / self.in_rate

    def push(self, samples: F32) -> F32:
        """The output samples that these inputs complete.

        Args:
            samples: (n,) float32, finite.

        Raises:
            StreamClosed: after ``flush``.
        """
        if self._flushed:
            raise StreamClosed("samples came after flush()", remedy="make a Resampler for each audio")
        if self._kernel is None:
            return np.array(samples, dtype=np.float32)
        if len(samples) <= PIECE:
            return self._push(samples)
        return np.concatenate([self._push(samples[at : at + PIECE]) for at in range(0, len(samples), PIECE)])

    def flush(self) -> F32:
        """The rest of the output, as if silence followed. Nothing can be pushed afterwards."""
        self._flushed = True
        if self._kernel is None:
            return np.zeros(0, dtype=np.float32)
        total = -(-self._received * self._kernel.up // self._kernel.down)
        return self._take(total)

    def _push(self, samples: F32) -> F32:
        assert self._kernel is not None
        self._buffer = np.concatenate([self._buffer, np.asarray(samples, dtype=np.float32)])
        self._received += len(samples)
        last = self._received - 1 - self._kernel.reach  # position of the last output whose inputs are all here
        return self._take(max(self._given, last * self._kernel.up // self._kernel.down + 1))

    def _take(self, until: int) -> F32:
        """Outputs from the last one given up to, not including, ``until``."""
        kernel = self._kernel
        if kernel is None or until <= self._given:
            return np.zeros(0, dtype=np.float32)
        out = kernel.run(self._buffer, self._base, self._given, until)
        self._given = until
        base = min(kernel.origin(until), self._base + len(self._buffer))
        self._buffer = self._buffer[base - self._base :].copy()
        self._base = base
        return out


def checked_rate(rate: Any) -> int:
    """A sample rate as an int.

    Raises:
        BadSamples: not a whole number from 1000 to 768000.
    """
    number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not number or not MIN_RATE <= rate <= MAX_RATE or int(rate) != rate:
        raise BadSamples(
            f"a sample rate is a whole number from {MIN_RATE} to {MAX_RATE} Hz, got {rate!r}",
            remedy="8000, 16000, 44100 and 48000 are usual",
        )
    return int(rate)


class _Kernel(Protocol):
    """The arithmetic of one pair of rates, ``up`` / ``down`` being their reduced ratio; shared by all streams."""

    up: int
    down: int
    reach: int
    """Inputs needed after an output's position."""

    def origin(self, k: int) -> int:
        """Index of the first input that must be kept for output ``k``; negative ones are silence."""
        ...

    def run(self, buffer: F32, base: int, first: int, until: int) -> F32:
        """Outputs ``first`` to ``until``; ``buffer`` begins at input ``base``; inputs beyond its end are silence."""
        ...


@lru_cache(maxsize=16)
def _kernel(in_rate: int, out_rate: int) -> _Kernel:
    common = gcd(in_rate, out_rate)
    up, down = out_rate // common, in_rate // common
    periods, _, size = _Exact.shape(up, down)
    return _Exact(up, down) if size * periods * up <= LARGEST_TABLE else _Rounded(up, down)


def _half_width(up: int, down: int) -> float:
    """Half of the filter's length in input samples."""
    return ZEROS * max(1.0, down / up)


@lru_cache(maxsize=1)
def _window() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Half of Kaiser's window on a grid so fine that a straight line between its points errs by less than 1e-7."""
    x = np.linspace(0.0, 1.0, 1 << 13)
    return x, np.i0(BETA * np.sqrt(1.0 - x * x)) / np.i0(BETA)


def _impulse(distance: NDArray[np.floating[Any]], up: int, down: int) -> NDArray[np.float64]:
    """The filter at ``distance`` input samples from its centre, not yet normalised."""
    scale = min(1.0, up / down)
    cutoff = (1.0 - TRANSITION) * scale
    x = distance / _half_width(up, down)
    window = np.interp(np.abs(x), *_window(), right=0.0)
    values: NDArray[np.float64] = np.sinc(cutoff * distance) * window
    return values


class _Exact:
    """A whole period of outputs as one matrix; frames of input times matrix gives frames of output.

    A matrix product may round differently for another number of rows, or for another row of the same product. So frames
    are always computed in groups of ``rows`` on a fixed grid, with silence where samples are still missing: those meet
    coefficients of zero in every output that is given.
    """

    @staticmethod
    def shape(up: int, down: int) -> tuple[int, int, int]:
        """Periods per frame, inputs that a frame advances, inputs that it reads."""
        reach = ceil(_half_width(up, down))
        periods = max(1, round(2 * reach / down))
        return periods, periods * down, periods * down + 2 * reach

    def __init__(self, up: int, down: int) -> None:
        self.up, self.down = up, down
        self.reach = ceil(_half_width(up, down))
        periods, self._hop, self._size = self.shape(up, down)
        self._width = periods * up
        centre = np.arange(self._width)[None, :] * (down / up)
        table = _impulse(centre - (np.arange(self._size)[:, None] - self.reach), up, down)
        self._table: F32 = (table / table.sum(axis=0)).astype(np.float32)
        self._rows: int = min(16, max(2, BLAS_SIZE // self._table.size))

    def origin(self, k: int) -> int:
        """See ``_Kernel``."""
        group = k // (self._width * self._rows)
        return group * self._rows * self._hop - self.reach

    def run(self, buffer: F32, base: int, first: int, until: int) -> F32:
        """See ``_Kernel``."""
        group = self._width * self._rows
        begin, end = first // group, -(-until // group)
        num_frames = (end - begin) * self._rows
        audio = np.zeros(num_frames * self._hop + 2 * self.reach, dtype=np.float32)
        part = buffer[self.origin(first) - base :][: len(audio)]
        audio[: len(part)] = part
        frames = np.lib.stride_tricks.sliding_window_view(audio, self._size)[:: self._hop]
        stacked = np.ascontiguousarray(frames).reshape(end - begin, self._rows, self._size)
        out: F32 = np.matmul(stacked, self._table).reshape(-1)[first - begin * group : until - begin * group]
        return out


class _Rounded:
    """For ratios of large numbers: positions are rounded to a fine grid of phases, without drift."""

    def __init__(self, up: int, down: int) -> None:
        self.up, self.down = up, down
        self.reach = ceil(_half_width(up, down)) + 1
        self._phases = max(1, round(PHASES * min(1.0, up / down)))
        offsets = np.arange(-self.reach + 1, self.reach + 1)
        table = _impulse(np.arange(self._phases + 1)[:, None] / self._phases - offsets[None, :], up, down)
        self._table: F32 = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)

    def origin(self, k: int) -> int:
        """See ``_Kernel``."""
        return k * self.down // self.up - self.reach + 1

    def run(self, buffer: F32, base: int, first: int, until: int) -> F32:
        """See ``_Kernel``."""
        taps = self._table.shape[1]
        out = np.empty(until - first, dtype=np.float32)
        step = max(1, PIECE // taps)
        for at in range(first, until, step):
            k = np.arange(at, min(at + step, until), dtype=np.int64) * self.down
            phase = ((k % self.up) * self._phases * 2 + self.up) // (2 * self.up)
            starts = k // self.up - self.reach + 1 - base
            audio = np.pad(buffer, (0, max(0, int(starts[-1]) + taps - len(buffer))))
            windows = np.lib.stride_tricks.sliding_window_view(audio, taps)[starts]
            out[at - first : at - first + len(k)] = (windows * self._table[phase]).sum(axis=1)
        return out


assert pi / (2 * PHASES) < 10 ** (-STOP_DB / 20)  # rounded phases are no worse than the filter itself
