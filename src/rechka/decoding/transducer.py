"""Transducer searches over encoder frames: the rules, and greedy search, for many streams at once.

Graves 2012 (arXiv:1211.3711): at every frame a hypothesis either takes a token and stays, or takes the blank and goes
on. A frame gives at most ``max_symbols`` tokens; the one after is then entered without a blank. With a limit of one
the beam search is icefall's modified beam search. Predictor outputs travel with their hypotheses, so the predictor runs
once per token and never for a blank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rechka.decoding.transducer_rows import Pool, as_encoded, checked
from rechka.protocols import PredictorState, Transducer
from rechka.types import F32, Encoded, Frames, Hypothesis, Tokens

_LOOK = 2
_MAX_LOOK = 8
"""Frames that greedy search joins with one predictor output in one call: twice as many after each call of blanks only,
and two again after a token, whose frame is asked once more."""


@dataclass(frozen=True, slots=True, eq=False)
class GreedyPath:
    """What greedy search read so far, with the predictor's output (1, D) and state after it."""

    predicted: F32
    states: PredictorState
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    score: float = 0.0


class _Reader:
    """One stream's greedy search while ``advance`` runs."""

    def __init__(self, path: GreedyPath, piece: Encoded, search: TransducerGreedy) -> None:
        self.values = piece.values
        self.start = piece.start
        self.at = 0
        self.skips, self.limit = search.skips, search.limit
        self.tokens: list[int] = []
        self.frames: list[int] = []
        self.logprobs: list[float] = []
        self.score = path.score
        self.count = 0  # tokens of the frame ``at``
        self.look = _LOOK

    def window(self) -> F32:
        """The frames that are joined next."""
        return self.values[self.at : self.at + self.look]

    def read(self, winners: Iterable[int], logprobs: Iterable[float]) -> bool:
        """Take what won in the frames of the window up to the first token; True if there was one."""
        for token, logp in zip(winners, logprobs, strict=True):
            self.score += logp
            if token not in self.skips:
                self.tokens.append(token)
                self.frames.append(self.start + self.at)
                self.logprobs.append(min(logp, 0.0))
                self.count += 1
                if self.count >= self.limit:
                    self._next()
                self.look = _LOOK
                return True
            self._next()
        self.look = min(2 * self.look, _MAX_LOOK)
        return False

    def _next(self) -> None:
        self.at += 1
        self.count = 0


class TransducerGreedy:
    """A ``protocols.Decoder`` over ``Encoded`` that takes the best token at every step.

    Args:
        transducer: predictor and joiner of the model.
        tokens: its vocabulary.
    Raises:
        IncompatibleParts: the blanks of the two are not the same, or no token may be emitted.
    """

    consumes: type[Frames] = Encoded

    def __init__(self, transducer: Transducer, tokens: Tokens) -> None:
        self.transducer = transducer
        self.tokens = tokens
        self.limit, self.skips = checked(transducer, tokens)
        self._first = GreedyPath(*transducer.initial(1))

    def begin(self) -> GreedyPath:
        """Nothing read."""
        return self._first

    def advance(self, beams: Sequence[GreedyPath], frames: Sequence[Frames], /) -> list[GreedyPath]:
        """Each beam moved on over its own frames, all streams together.

        Raises:
            IncompatibleParts: frames that are not an encoder's.
        """
        readers = [_Reader(beam, as_encoded(piece), self) for beam, piece in zip(beams, frames, strict=True)]
        active = [i for i, reader in enumerate(readers) if len(reader.values)]
        if not active:
            return list(beams)
        pool = Pool.stacked([(beam.predicted, beam.states) for beam in beams])
        while active:
            windows = [readers[i].window() for i in active]
            sizes = [len(window) for window in windows]
            encoded = np.concatenate(windows) if len(windows) > 1 else windows[0]
            logprobs = self.transducer.join(encoded, pool.predicted[np.repeat(active, sizes)])
            winners = logprobs.argmax(axis=1)
            best = logprobs[np.arange(len(winners)), winners].tolist()
            spoke, first = [], 0
            for i, size in zip(active, sizes, strict=True):
                part = slice(first, first + size)
                if readers[i].read(winners[part].tolist(), best[part]):
                    spoke.append(i)
                first += size
            if spoke:
                said = np.array([readers[i].tokens[-1] for i in spoke], np.int64)
                predicted, states = self.transducer.predict(said, pool.rows(spoke)[1])
                pool.predicted[spoke] = predicted
                for old, new in zip(pool.states, states, strict=True):
                    old[spoke] = new
            active = [i for i in active if readers[i].at < len(readers[i].values)]
        return [
            GreedyPath(
                *pool.rows(slice(i, i + 1)),
                beam.tokens + tuple(reader.tokens),
                beam.frames + tuple(reader.frames),
                beam.logprobs + tuple(reader.logprobs),
                reader.score,
            )
            for i, (beam, reader) in enumerate(zip(beams, readers, strict=True))
        ]

    def best(self, beam: GreedyPath, /) -> Hypothesis:
        """The only hypothesis; its score is the sum of all choices, blanks too."""
        return Hypothesis(beam.tokens, beam.frames, beam.logprobs, beam.score)

    def nbest(self, beam: GreedyPath, n: int, /) -> list[Hypothesis]:
        """The only hypothesis, in a list."""
        return [self.best(beam)][:n]

    def stable(self, beam: GreedyPath, /) -> int:
        """All tokens: greedy search takes nothing back."""
        return len(beam.tokens)
