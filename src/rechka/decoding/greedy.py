"""Greedy CTC search: the best token of every frame, repeats collapsed, blanks dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rechka.decoding.frames import checked
from rechka.types import Frames, Hypothesis, LogProbs, Tokens


@dataclass(frozen=True, slots=True)
class GreedyBeam:
    """What was read so far; ``last`` is the winner of the last frame."""

    last: int
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    score: float = 0.0


class CtcGreedy:
    """A ``protocols.Decoder`` without search.

    Spaces at the ends are dropped; inside they stay as the model wrote them.

    Args:
        tokens: the model's vocabulary.
    """

    consumes: type[Frames] = LogProbs

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self._space = -1 if tokens.space is None else tokens.space

    def begin(self) -> GreedyBeam:
        """Nothing read."""
        return GreedyBeam(self.tokens.blank)

    def advance(self, beams: Sequence[GreedyBeam], frames: Sequence[Frames], /) -> list[GreedyBeam]:
        """Each beam moved on over its own frames.

        Raises:
            IncompatibleParts: frames that are not log-probs over the vocabulary.
        """
        return [self._read(beam, piece) for beam, piece in zip(beams, frames, strict=True)]

    def _read(self, beam: GreedyBeam, piece: Frames) -> GreedyBeam:
        values = checked(piece, self.tokens)
        if not len(values):
            return beam
        winners = values.argmax(axis=1)
        tokens, frames, logps = list(beam.tokens), list(beam.frames), list(beam.logprobs)
        last, score = beam.last, beam.score
        best = values[range(len(values)), winners].tolist()
        for frame, (token, logp) in enumerate(zip(winners.tolist(), best, strict=True), piece.start):
            score += logp
            if token != self.tokens.blank:
                if token != last:
                    tokens.append(token)
                    frames.append(frame)
                    logps.append(logp)
                elif logp > logps[-1]:
                    frames[-1], logps[-1] = frame, logp
            last = token
        return GreedyBeam(last, tuple(tokens), tuple(frames), tuple(logps), score)

    def best(self, beam: GreedyBeam, /) -> Hypothesis:
        """The only hypothesis."""
        begin, end = self._ends(beam.tokens)
        inside = slice(begin, end)
        return Hypothesis(beam.tokens[inside], beam.frames[inside], beam.logprobs[inside], beam.score)

    def nbest(self, beam: GreedyBeam, n: int, /) -> list[Hypothesis]:
        """The only hypothesis, in a list."""
        return [self.best(beam)][:n]

    def stable(self, beam: GreedyBeam, /) -> int:
        """All tokens: greedy search takes nothing back."""
        begin, end = self._ends(beam.tokens)
        return end - begin

    def _ends(self, tokens: tuple[int, ...]) -> tuple[int, int]:
        """Where the tokens begin and end without spaces around them."""
        begin, end = 0, len(tokens)
        while begin < end and tokens[begin] == self._space:
            begin += 1
        while end > begin and tokens[end - 1] == self._space:
            end -= 1
        return begin, end
