"""Beam search over a transducer's encoder frames, with hotwords and n-best; ``transducer`` tells the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rechka.decoding.hotwords import compile_hotwords
from rechka.decoding.transducer_rows import Pool, as_encoded, checked
from rechka.errors import UsageError
from rechka.options import DecoderOptions
from rechka.protocols import PredictorState, Transducer
from rechka.types import F32, Encoded, Frames, Hypothesis, Tokens

_CONTEXT = 2
"""Added to the number of tokens by which a score is divided: icefall counts the two blanks before the first token."""


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """A token sequence as a chain from its end; ``key`` tells sequences apart, alignments aside."""

    parent: _Node | None
    key: int
    token: int
    frame: int
    logp: float

    def chain(self) -> list[_Node]:
        """All tokens, first to last."""
        found: list[_Node] = []
        node = self
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]


_ROOT = _Node(None, 0, -1, -1, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """One hypothesis: its tokens, log-probability, hotwords' part and state, and its row in the pool (-1: none yet)."""

    node: _Node
    score: float
    hot: float
    state: int
    row: int
    parent_row: int = -1

    @property
    def rank(self) -> float:
        return self.score + self.hot

    def at(self, row: int) -> _Path:
        """The same path with another row; ``dataclasses.replace`` would take four times as long."""
        return _Path(self.node, self.score, self.hot, self.state, row, self.parent_row)


@dataclass(frozen=True, slots=True, eq=False)
class PathBeam:
    """The live hypotheses of a stream, best first, with their predictor outputs (H, D) and states."""

    paths: tuple[_Path, ...]
    predicted: F32
    states: PredictorState


class TransducerBeam:
    """A ``protocols.Decoder`` over ``Encoded``: modified beam search with hotwords and n-best.

    Of the options it uses ``beam_width`` (4 is usual), ``beam_prune_logp``, ``token_min_logp``, ``length_norm`` and
    ``hotwords``. Hypotheses with equal tokens are added up; the likelier one gives the frames. With a width of one it
    is greedy search.

    Args:
        transducer: predictor and joiner of the model.
        tokens: its vocabulary.
        options: widths and hotwords.
    Raises:
        UsageError: an option out of range, or a hotword that cannot be spelled.
        IncompatibleParts: as in ``TransducerGreedy``.
    """

    consumes: type[Frames] = Encoded

    def __init__(self, transducer: Transducer, tokens: Tokens, options: DecoderOptions | None = None) -> None:
        self.transducer = transducer
        self.tokens = tokens
        self.options = options or DecoderOptions()
        self.limit, self.skips = checked(transducer, tokens)
        if self.options.beam_width < 1:
            raise UsageError(f"beam_width must be at least 1, got {self.options.beam_width}")
        if not self.options.beam_prune_logp < 0:
            raise UsageError(f"beam_prune_logp must be below 0, got {self.options.beam_prune_logp}")
        # One more token, which no frame emits: the space that ends a hotword at the end of a phrase.
        ended = replace(tokens, symbols=(*tokens.symbols, " "))
        self.hotwords = compile_hotwords(self.options.hotwords, ended)
        start = 0 if self.hotwords is None else self.hotwords.start
        credit = 0.0 if self.hotwords is None else float(self.hotwords.credit[start])
        self._first = PathBeam((_Path(_ROOT, 0.0, credit, start, 0),), *transducer.initial(1))

    def begin(self) -> PathBeam:
        """The empty hypothesis."""
        return self._first

    def advance(self, beams: Sequence[PathBeam], frames: Sequence[Frames], /) -> list[PathBeam]:
        """Each beam moved on over its own frames, all streams and hypotheses together.

        Raises:
            IncompatibleParts: frames that are not an encoder's.
        """
        pieces = [as_encoded(piece) for piece in frames]
        longest = max((len(piece) for piece in pieces), default=0)
        if not longest:
            return list(beams)
        pool = Pool.stacked([(beam.predicted, beam.states) for beam in beams])
        live: list[list[_Path]] = []
        offset = 0
        for beam, _ in zip(beams, pieces, strict=True):
            live.append([path.at(path.row + offset) for path in beam.paths])
            offset += len(beam.paths)
        for t in range(longest):
            active = [i for i, piece in enumerate(pieces) if t < len(piece)]
            pool = self._frame([(i, pieces[i].values[t], pieces[i].start + t) for i in active], live, pool)
        return [PathBeam(*self._packed(paths, pool)) for paths in live]

    @staticmethod
    def _packed(paths: Sequence[_Path], pool: Pool) -> tuple[tuple[_Path, ...], F32, PredictorState]:
        """The paths with their own rows only."""
        packed = tuple(path.at(row) for row, path in enumerate(paths))
        return packed, *pool.rows([path.row for path in paths])

    def _frame(self, work: Sequence[tuple[int, F32, int]], live: list[list[_Path]], pool: Pool) -> Pool:
        """One frame of each stream in ``work`` (stream, encoded, frame index); ``live`` gets the survivors."""
        going = {i: live[i] for i, _, _ in work}
        done: dict[int, list[_Path]] = {i: [] for i in going}
        known = {i: {path.node.key: path.row for path in paths} for i, paths in going.items()}
        for count in range(1, self.limit + 1):
            asked = [(i, values, frame) for i, values, frame in work if going[i]]
            if not asked:
                break
            encoded = np.repeat([values for _, values, _ in asked], [len(going[i]) for i, _, _ in asked], axis=0)
            rows = [path.row for i, _, _ in asked for path in going[i]]
            logprobs = self.transducer.join(encoded, pool.predicted[rows]).astype(np.float64)
            first = 0
            for i, _, frame in asked:
                part = logprobs[first : first + len(going[i])]
                first += len(going[i])
                done[i], going[i] = self._choose(going[i], part, done[i], frame, last=count == self.limit)
            pool = self._predict(done, going, known, pool)
        for i in done:
            live[i] = sorted(done[i], key=lambda path: -path.rank)
        return self._compact(live, pool)

    def _choose(
        self, paths: list[_Path], logprobs: NDArray[np.float64], done: list[_Path], frame: int, *, last: bool
    ) -> tuple[list[_Path], list[_Path]]:
        """The best of what is done with the frame and of all steps of ``paths``: those done now, those still going.

        Args:
            paths: hypotheses that look at this frame.
            logprobs: (len(paths), V).
            done: hypotheses that have left this frame.
            frame: absolute index.
            last: the frame may emit no token after this one.
        """
        width = self.options.beam_width
        gains = logprobs.copy()
        best = gains.argmax(axis=1)
        top = gains[np.arange(len(paths)), best].copy()
        gains[gains < self.options.token_min_logp] = -np.inf
        gains[np.arange(len(paths)), best] = top
        if self.hotwords is not None:
            states = [path.state for path in paths]
            bonus = self.hotwords.ahead[states, :-1] - self.hotwords.credit[states][:, None]
            bonus[:, list(self.skips)] = 0.0
            gains += bonus
        total = gains + np.array([[path.rank] for path in paths])
        flat = total.ravel()
        size = min(width, flat.size)
        places = np.argpartition(-flat, size - 1)[:size] if size < flat.size else np.arange(flat.size)
        steps = [(float(flat[place]), int(place)) for place in places if flat[place] > -np.inf]
        ranked = [(path.rank, -1 - k) for k, path in enumerate(done)] + steps
        ranked.sort(key=lambda item: (-item[0], item[1]))
        floor = ranked[0][0] + self.options.beam_prune_logp
        merged: dict[int, _Path] = {}
        going: list[_Path] = []
        for rank, place in ranked[:width]:
            if rank < floor:
                break
            if place < 0:
                _merge(merged, done[-1 - place])
                continue
            source, token = divmod(place, logprobs.shape[1])
            path = self._step(paths[source], token, float(logprobs[source, token]), frame)
            if last or token in self.skips:
                _merge(merged, path)
            else:
                going.append(path)
        return list(merged.values()), going

    def _step(self, path: _Path, token: int, logp: float, frame: int) -> _Path:
        """The path after one token or blank more."""
        if token in self.skips:
            return _Path(path.node, path.score + logp, path.hot, path.state, path.row, path.parent_row)
        node = _Node(path.node, hash((path.node.key, token)), token, frame, min(logp, 0.0))
        hot, state = path.hot, path.state
        if self.hotwords is not None:
            hot += float(self.hotwords.ahead[state, token] - self.hotwords.credit[state])
            state = int(self.hotwords.next[state, token])
        return _Path(node, path.score + logp, hot, state, -1, path.row)

    def _predict(
        self,
        done: dict[int, list[_Path]],
        going: dict[int, list[_Path]],
        known: dict[int, dict[int, int]],
        pool: Pool,
    ) -> Pool:
        """Give every path without a row one: that of the same tokens if there is one, else the predictor's."""
        sources: list[int] = []
        tokens: list[int] = []
        size = len(pool.predicted)
        for group in (done, going):
            for i, paths in group.items():
                for k, path in enumerate(paths):
                    if path.row >= 0:
                        continue
                    row = known[i].get(path.node.key)
                    if row is None:
                        row = known[i][path.node.key] = size + len(sources)
                        sources.append(path.parent_row)
                        tokens.append(path.node.token)
                    paths[k] = path.at(row)
        if not sources:
            return pool
        new = self.transducer.predict(np.array(tokens, np.int64), pool.rows(sources)[1])
        return Pool.stacked([(pool.predicted, pool.states), new])

    @staticmethod
    def _compact(live: list[list[_Path]], pool: Pool) -> Pool:
        """The pool without the rows of hypotheses that are gone."""
        used = sorted({path.row for paths in live for path in paths})
        if len(used) == len(pool.predicted):
            return pool
        place = {row: k for k, row in enumerate(used)}
        for i, paths in enumerate(live):
            live[i] = [path.at(place[path.row]) for path in paths]
        return Pool(*pool.rows(used))

    def best(self, beam: PathBeam, /) -> Hypothesis:
        """The best hypothesis if the phrase ended here."""
        return self.nbest(beam, 1)[0]

    def nbest(self, beam: PathBeam, n: int, /) -> list[Hypothesis]:
        """Up to ``n`` hypotheses, best first, if the phrase ended here; scores count hotwords."""
        found = []
        for path in beam.paths:
            chain = path.node.chain()
            score = path.rank + self._ending(path.state)
            rank = score / (len(chain) + _CONTEXT) if self.options.length_norm else score
            found.append((rank, chain, score))
        found.sort(key=lambda item: -item[0])
        return [
            Hypothesis(
                tuple(node.token for node in chain),
                tuple(node.frame for node in chain),
                tuple(node.logp for node in chain),
                score,
            )
            for _, chain, score in found[:n]
        ]

    def _ending(self, state: int) -> float:
        """What a hotword completed by the phrase's end earns, less the credit of one that is not."""
        hotwords = self.hotwords
        return 0.0 if hotwords is None else float(hotwords.earned[state, -1] - hotwords.credit[state])

    def stable(self, beam: PathBeam, /) -> int:
        """How many leading tokens all live hypotheses share; every later one begins with them."""
        chains = [path.node.chain() for path in beam.paths]
        shortest = min(len(chain) for chain in chains)
        for place in range(shortest):
            if any(chain[place].token != chains[0][place].token for chain in chains[1:]):
                return place
        return shortest


def _merge(merged: dict[int, _Path], path: _Path) -> None:
    """Add a path; with equal tokens the probabilities add up and the likelier one gives frames and row."""
    other = merged.get(path.node.key)
    if other is None:
        merged[path.node.key] = path
        return
    likelier = other if other.score >= path.score else path
    row = max(other.row, path.row)  # whichever has one: the same tokens have the same predictor output
    score = float(np.logaddexp(other.score, path.score))
    merged[path.node.key] = replace(likelier, score=score, row=row)
